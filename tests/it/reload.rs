//! The file is edited while people work: what is applied, what is refused and in which words, and that nobody notices.

mod bad_files;
mod load;
mod mutations;
mod restart;
mod rules;
mod together;
mod watch;

use serde_json::{Value, json};

use crate::origin::Origin;
use crate::shop::Shop;
use crate::tidegate::Tidegate;

/// A file with these releases, the first of them current.
fn shop(releases: &[(&str, &[&Origin])]) -> Shop {
    releases.iter().fold(Shop::new("cookie"), |shop, (name, origins)| shop.release(name, origins))
}

/// The same with another current release.
fn with_current(current: &str, releases: &[(&str, &[&Origin])]) -> Shop {
    shop(releases).app(&format!("current: {current}"))
}

/// Writes the file and reloads; status and document.
#[track_caller]
fn reload(tidegate: &Tidegate, yaml: &str) -> (u16, Value) {
    tidegate.write_config(yaml);
    tidegate.admin_post("/api/v1/reload", &json!({}))
}

/// The same, and it must be applied.
#[track_caller]
fn applied(tidegate: &Tidegate, yaml: &str) -> Value {
    let (status, done) = reload(tidegate, yaml);
    assert_eq!((status, done["result"].as_str()), (200, Some("applied")), "{done}");
    done
}

/// The same, and it must be refused; all its problems in one text.
#[track_caller]
fn refused(tidegate: &Tidegate, yaml: &str, expected: u16) -> String {
    let before = export(tidegate);
    let (status, done) = reload(tidegate, yaml);
    assert_eq!(status, expected, "{done}");
    assert_eq!(export(tidegate), before, "nothing has changed");
    let problems = done["problems"].as_array().unwrap_or_else(|| panic!("no problems: {done}"));
    problems
        .iter()
        .map(|p| format!("{}: {}; {}", p["line"], p["what"].as_str().unwrap(), p["remedy"].as_str().unwrap()))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The effective configuration.
#[track_caller]
fn export(tidegate: &Tidegate) -> String {
    tidegate.admin(crate::client::Call::get("/api/v1/export")).expect_status(200).text()
}

/// What a backend is called once its name means another address.
fn away(name: &str, origin: &crate::origin::Origin) -> String {
    let (host, port) = origin.address().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.parse().unwrap())).unwrap();
    tidegate::model::settings::away_name(name, &tidegate::model::settings::Address { host, port })
}
