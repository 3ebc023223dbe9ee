//! What the sample app shows: a page for browsers, the same facts as JSON for the simulated users.
//!
//! The page asks for nothing from elsewhere, so the demo works without a network.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::releases;

/// What a visitor sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    /// Which release answered.
    pub release: String,
    /// Which of its backends.
    pub backend: String,
    /// Who is logged in.
    pub user: Option<String>,
    /// Clicks of this session.
    pub counter: u64,
}

impl Page {
    /// As the simulated users read it.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number are always JSON")
    }
}

/// As a browser shows it. `user` is free of markup (see `app::user_name`).
pub(super) fn html(page: &Page, idle_timeout: Duration) -> String {
    let (greeting, account) = match &page.user {
        Some(user) => {
            (format!("Hello, <b>{user}</b>. You are logged in."), r#"<form method="post" action="/logout"><button>log out</button></form>"#)
        }
        None => (
            "Hello. You have a session, and no name yet.".to_owned(),
            r#"<form method="post" action="/login"><input name="name" placeholder="your name" maxlength="20"> <button>log in</button></form>"#,
        ),
    };
    let values = [
        ("{release}", page.release.as_str()),
        ("{backend}", page.backend.as_str()),
        ("{colour}", releases::web_colour(&page.release)),
        ("{greeting}", greeting.as_str()),
        ("{counter}", &page.counter.to_string()),
        ("{account}", account),
        ("{idle}", &idle_timeout.as_secs().to_string()),
    ];
    values.iter().fold(include_str!("page.html").to_owned(), |html, (name, value)| html.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_complete_and_asks_for_nothing_from_elsewhere() {
        for user in [None, Some("ada".to_owned())] {
            let page = Page { release: "v2".to_owned(), backend: "b1".to_owned(), user, counter: 41 };
            let html = html(&page, Duration::from_secs(15));
            for expected in ["release v2", "backend b1", ">41<", "15 s"] {
                assert!(html.contains(expected), "{expected}");
            }
            for placeholder in ["{release}", "{backend}", "{colour}", "{greeting}", "{counter}", "{account}", "{idle}"] {
                assert!(!html.contains(placeholder), "{placeholder}");
            }
            assert!(!html.contains("://") && !html.contains("<script"));
        }
    }
}
