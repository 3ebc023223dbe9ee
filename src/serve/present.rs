//! The configuration as it is now: the file's, with what commands changed since. What `tidegate export` writes.

use crate::config::Config;
use crate::model::settings::{Current, ReleaseSpec};
use crate::model::view::View;

/// `config` with the present releases and the present current release of every app. Releases that are drained or stopped are
/// left out: written back, they would start again.
pub fn present(config: &Config, view: &View) -> Config {
    let mut config = config.clone();
    for spec in &mut config.apps {
        let Some(app) = view.app(&spec.name) else { continue };
        spec.current = app.current.as_ref().map_or(Current::ByHealth, |current| Current::Release(current.to_string()));
        let stays = |release: &&std::sync::Arc<crate::model::view::Release>| !release.state.gone();
        let releases = app.releases.iter().filter(stays).map(|release| ReleaseSpec {
            name: release.name.to_string(),
            path: release.path.as_deref().map(str::to_owned),
            // One that only drains has no name that a file could have.
            backends: release.backends.iter().filter(|backend| backend.left.is_none()).map(|backend| (*backend.spec).clone()).collect(),
        });
        spec.releases = releases.collect();
    }
    config
}
