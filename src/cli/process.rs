//! The commands that talk to no running process: run, check, demo.

use std::path::Path;

use super::Failure;

/// Runs the proxy in the foreground until it is told to stop.
pub fn run(config: &Path) -> Result<u8, Failure> {
    crate::config::load(config).map_err(|problems| Failure::error(problems.to_string()))?;
    Err(Failure::error("the request path is not linked yet"))
}

/// Reports every problem of a configuration file.
pub fn check(config: &Path, json: bool) -> Result<u8, Failure> {
    let checked = crate::config::load(config);
    if json {
        let problems = checked.as_ref().err().cloned().unwrap_or_default();
        println!("{}", serde_json::json!({ "problems": problems }));
        return Ok(u8::from(checked.is_err()));
    }
    let found = checked.map_err(|problems| Failure::error(problems.to_string()))?;
    let releases: usize = found.apps.iter().map(|app| app.releases.len()).sum();
    println!("{}: fine ({} apps, {releases} releases)", config.display(), found.apps.len());
    Ok(0)
}

/// Shows a deploy.
pub fn demo(_keep: bool) -> Result<u8, Failure> {
    Err(Failure::error("the demo is not linked yet"))
}
