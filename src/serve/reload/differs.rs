//! Where the file that was applied last and the running process differ, since commands change one and not the other.
//!
//! A restart would begin with the file: what is listed here is what it would undo.

use super::AppliedFile;
use crate::config;
use crate::model::settings::{AppSpec, Current};
use crate::model::view::{App, View};

/// A sentence for each difference.
pub fn differs(file: &AppliedFile, view: &View) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(path) = &file.path {
        match config::read_regular(path) {
            Ok(text) if text == file.text.as_bytes() => {}
            Ok(_) => told.push(format!("{} has changed since it was applied: tidegate reload --dry-run says how", path.display())),
            Err(error) => told.push(format!("{} cannot be read any more: {error}", path.display())),
        }
    }
    for spec in &file.config.apps {
        if let Some(app) = view.app(&spec.name) {
            of_app(spec, app, &mut told);
        }
    }
    told
}

fn of_app(spec: &AppSpec, app: &App, told: &mut Vec<String>) {
    let name = &app.name;
    let running = app.current.as_deref().unwrap_or("by_health");
    let written = match &spec.current {
        Current::Release(release) => release.as_str(),
        Current::ByHealth => "by_health",
    };
    if running != written {
        told.push(format!("{name}: current is {running}, the file says {written}"));
    }
    for release in &spec.releases {
        match app.release(&release.name) {
            None => told.push(format!("{name}/{}: in the file, and removed while running", release.name)),
            Some(found) if found.state.gone() => {
                told.push(format!("{name}/{}: {}, and still in the file", release.name, found.state.as_str()));
            }
            Some(_) => {}
        }
    }
    for release in &app.releases {
        if !spec.releases.iter().any(|written| written.name == *release.name) {
            told.push(format!("{name}/{}: {}, staged while running and not in the file", release.name, release.state.as_str()));
        }
        for backend in release.backends.iter().filter(|backend| backend.left.is_some()) {
            told.push(format!("{name}/{}/{}: drains, its address is no longer in the file", release.name, backend.spec.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::model::settings::Settings;
    use crate::model::sketch::{self, World};

    use super::*;

    fn check(commands: &[&str], expected: &[&str]) {
        let spec = sketch::app("shop", "v1:a1 >v2:b1", Settings::default());
        let mut world = World::of(vec![spec.clone()]);
        for command in commands {
            world.command(command).unwrap_or_else(|refused| panic!("{command}: {}", refused.what));
        }
        let file = AppliedFile { config: Config { apps: vec![spec], ..Config::default() }, ..AppliedFile::default() };
        assert_eq!(differs(&file, &world.view), expected);
    }

    #[test]
    fn commands_are_differences() {
        check(&[], &[]);
        check(&["drain shop/v2/b1 --force"], &[]);
        check(&["promote v1"], &["shop: current is v1, the file says v2"]);
        check(&["stage v3:c1"], &["shop/v3: staged, staged while running and not in the file"]);
        check(&["stop v1"], &["shop/v1: stopped, and still in the file"]);
    }
}
