//! Requests whose session is gone on a draining backend: one answer, from where new clients go.
//!
//! | file | holds |
//! |---|---|
//! | `table` | method, body, HTTP versions and cause, row by row |
//! | `limits` | what is never replayed, and what a client sees when the first backend answers early |
//! | `moved` | move points, evicted users, what a draining backend is told |

mod limits;
mod moved;
mod table;

use crate::client::{Browser, HOST};
use crate::origin::Origin;
use crate::shop::Shop;
use crate::tidegate::Tidegate;

/// tidegate before `v1`, which drains, and `v2`, with users of `v1` whose sessions tidegate knows by their pins alone.
///
/// Their sessions are older than tidegate's memory, as after an upgrade of the machine; [`Stage::forget`] ends them in the
/// application, too.
struct Stage {
    tidegate: Tidegate,
    users: Vec<Browser>,
}

impl Stage {
    /// `shop` has `v1` first, then `v2`.
    fn new(shop: &Shop, users: usize) -> Stage {
        let mut tidegate = shop.start();
        let users: Vec<Browser> = (0..users)
            .map(|_| {
                let mut user = tidegate.browser();
                user.get("/page").expect_status(200);
                user
            })
            .collect();
        assert!(tidegate.stop().success());
        tidegate.start_anew();
        for (release, backend) in [("v1", "a1"), ("v2", "b1")] {
            tidegate.wait_for_backend("shop", release, backend, "health", "up");
        }
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        Stage { tidegate, users }
    }

    /// A user whose session the application on `a1` forgets.
    fn forgotten(&mut self, a1: &Origin) -> Browser {
        let user = self.users.pop().expect("users enough");
        a1.forget(&user.cookie("JSESSIONID").expect("a session"));
        user
    }

    /// A user whose session lives on `a1`, and tidegate knows it.
    fn living(&mut self) -> Browser {
        let mut user = self.users.pop().expect("users enough");
        assert_eq!(user.get("/peek").word("session"), "known");
        user
    }

    fn replays(&self, cause: &str) -> f64 {
        self.tidegate.metrics().sum("tidegate_replays_total", &[("cause", cause)])
    }

    fn born(&self, backend: &str) -> f64 {
        self.tidegate.metrics().sum("tidegate_sessions_born_total", &[("backend", backend)])
    }
}

/// The cookies of a browser as one field.
fn cookies(user: &Browser) -> String {
    let pairs: Vec<String> = user.jar().matching(HOST, "/page", false).iter().map(|c| format!("{}={}", c.name, c.value)).collect();
    pairs.join("; ")
}
