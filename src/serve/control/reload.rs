//! The file's way into the snapshot: planned and published under the same lock as every command.

use std::sync::atomic::Ordering;

use super::{Control, DrainOrder, Inner};
use crate::model::change::reload::{Line, Plan, Reload, plan};
use crate::model::change::{Change, Refused};
use crate::model::event::Owner;
use crate::model::target::Target;

impl Control {
    /// What a reload would do at this moment.
    pub fn plan(&self, reload: &Reload) -> Plan {
        plan(&self.view(), reload, Owner::Config, self.now())
    }

    /// Applies it, whole or not at all; what changed, and the drains that begin.
    ///
    /// # Errors
    /// Everything that speaks against it; nothing was changed.
    pub fn reload(&self, reload: &Reload) -> Result<(Vec<Line>, Vec<u64>), Vec<Refused>> {
        let mut inner = self.lock();
        self.thawed().map_err(|refused| vec![refused])?;
        let (now, before) = (self.now(), self.view());
        let planned = plan(&before, reload, Owner::Config, now);
        if !planned.refusals.is_empty() {
            return Err(planned.refusals);
        }
        if planned.lines.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let change = Change::Reload(reload.clone());
        let drains = self.publish(&mut inner, &before, &planned.applied, &change, Owner::Config, DrainOrder::default(), now);
        Ok((planned.lines, drains))
    }

    /// What was edited while nobody was there to reload: applied also while the process before is still being learnt from.
    ///
    /// # Errors
    /// Everything that speaks against it.
    pub fn reload_at_start(&self, reload: &Reload) -> Result<(), Vec<Refused>> {
        let frozen = self.frozen.swap(false, Ordering::AcqRel);
        let done = self.reload(reload);
        self.frozen.store(frozen, Ordering::Release);
        done.map(drop)
    }

    /// A backend whose address left the file is empty: nobody needs it any more.
    pub(super) fn retire(&self, inner: &mut Inner, target: &Target) {
        let Target::Backend(app, release, backend) = target else { return };
        let leaves = target.backends(&self.view()).iter().any(|(_, backend)| backend.left.is_some());
        if leaves {
            let change = Change::Retire { app: app.clone(), release: release.clone(), backend: backend.clone() };
            if let Err(refused) = self.apply_locked(inner, &change, Owner::Controller, DrainOrder::default()) {
                log::warn!("{target}: {}", refused.what);
            }
        }
    }
}
