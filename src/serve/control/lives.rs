//! The operator's word that backends have begun another life: their sessions are lost.

use super::Control;
use crate::model::change::Refused;
use crate::model::event::Owner;
use crate::model::incarnation::Proof;
use crate::model::target::Target;

impl Control {
    /// Every session that a target has is lost; returns how many confirmed ones. It walks over whole ledgers: not on a worker of the
    /// runtime.
    ///
    /// # Errors
    /// [`Refused`] when the target does not exist.
    pub fn lost(&self, target: &Target) -> Result<usize, Refused> {
        self.thawed()?;
        let (view, now) = (self.view(), self.now());
        let apps = target.slots(&view);
        if apps.is_empty() {
            return Err(Refused::no_target(target, &view));
        }
        let mut lost = 0;
        for (app, slots) in &apps {
            for backend in slots.iter().filter_map(|slot| app.backend(*slot)) {
                lost += backend.live.reborn(Proof::Operator, &app.ledger, backend.slot, now, now);
            }
        }
        self.note(Owner::Operator, &target.to_string(), format!("restarted, by the operator's word; {lost} sessions lost"));
        Ok(lost)
    }
}
