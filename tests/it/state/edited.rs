//! The file is edited while nobody runs: the next start applies the edit as a reload would have, or says why not.

use super::{at_home, users};
use crate::origin::Origin;
use crate::process::{delay, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

fn shop(current: &str, releases: &[(&str, &[&Origin])]) -> Shop {
    let shop = Shop::new("cookie").app(&format!("current: {current}"));
    releases.iter().fold(shop, |shop, (name, origins)| shop.release(name, origins))
}

/// Starts again with another file, which must go well.
fn start_with(tidegate: &mut Tidegate, file: &Shop) {
    tidegate.stop();
    tidegate.write_config(&file.yaml());
    tidegate.start_again();
}

#[test]
fn an_edited_current_is_a_promotion_whether_the_release_was_known_or_not() {
    let (a1, b1, c1) = (backend("v1", "a1"), backend("v2", "b1"), backend("v3", "c1"));
    let mut tidegate = shop("v1", &[("v1", &[&a1]), ("v2", &[&b1])]).start();
    let mut first = users(&tidegate, 3);
    start_with(&mut tidegate, &shop("v2", &[("v1", &[&a1]), ("v2", &[&b1])]));
    assert_eq!((tidegate.release_state("shop", "v1").as_str(), tidegate.release_state("shop", "v2").as_str()), ("draining", "current"));
    assert_eq!(tidegate.drain("shop/v1")["initial"], 3);
    assert_eq!(at_home(&mut first), 3);
    tidegate.wait_for_backend("shop", "v2", "b1", "admission", "everyone");
    let mut second = users(&tidegate, 3);
    assert!(second.iter().all(|(_, home)| home == "b1"));
    // A deploy while nobody runs: nobody could have probed it, and nobody is served by a refusal.
    start_with(&mut tidegate, &shop("v3", &[("v1", &[&a1]), ("v2", &[&b1]), ("v3", &[&c1])]));
    assert_eq!(tidegate.release_state("shop", "v2"), "draining");
    assert_eq!((at_home(&mut first), at_home(&mut second)), (3, 3));
    tidegate.wait_for_backend("shop", "v3", "c1", "admission", "everyone");
    assert_eq!(tidegate.browser().get("/").word("backend"), "c1");
    // The same file once more is no edit.
    let drains = tidegate.admin_get("/api/v1/drains")["drains"].as_array().unwrap().len();
    assert!(tidegate.stop().success());
    tidegate.start_again();
    assert_eq!(tidegate.admin_get("/api/v1/drains")["drains"].as_array().unwrap().len(), drains);
}

#[test]
fn an_edit_that_promotes_a_broken_release_leaves_the_old_one_to_help_out() {
    let (a1, mut b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut tidegate = shop("v1", &[("v1", &[&a1])]).start();
    b1.stop();
    start_with(&mut tidegate, &shop("v2", &[("v1", &[&a1]), ("v2", &[&b1])]));
    assert_eq!(tidegate.browser().get("/").expect_status(200).word("backend"), "a1");
    b1.listen();
    tidegate.wait_for_backend("shop", "v2", "b1", "admission", "everyone");
    assert_eq!(tidegate.browser().get("/").expect_status(200).word("backend"), "b1");
}

#[test]
fn what_was_removed_with_live_sessions_goes_on_with_a_word_in_figures_and_forced_it_goes() {
    let (a1, a2, b1) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"));
    let whole = shop("v2", &[("v1", &[&a1, &a2]), ("v2", &[&b1])]);
    let mut tidegate = shop("v1", &[("v1", &[&a1, &a2]), ("v2", &[&b1])]).start();
    let mut users = users(&tidegate, 4);
    start_with(&mut tidegate, &whole);
    delay(std::time::Duration::from_millis(500)); // written within 100 ms
    tidegate.kill();
    let check = |tidegate: &mut Tidegate, yaml: &str, expected: &str| {
        tidegate.write_config(yaml);
        tidegate.start_again();
        let said = tidegate.read("tidegate.log");
        assert!(said.contains(expected) && said.contains("the edited file is not applied"), "{said}");
        let differs = tidegate.admin_get("/api/v1/status")["differs"].to_string();
        assert!(differs.contains("has changed since it was applied"), "{differs}");
        tidegate.kill();
    };
    check(&mut tidegate, &shop("v2", &[("v2", &[&b1])]).yaml(), "shop/v1: 4 live sessions");
    check(&mut tidegate, &shop("v2", &[("v1", &[&a1]), ("v2", &[&b1])]).yaml(), "shop/v1/a2: 2 live sessions");
    check(&mut tidegate, &whole.yaml().replace("  shop:\n", "  store:\n"), "an app that is renamed counts as removed");
    tidegate.write_config(&whole.yaml());
    tidegate.start_again();
    assert_eq!(at_home(&mut users), 4, "the right file again, and nothing was lost by the wrong ones");
    assert!(tidegate.stop().success());
    tidegate.write_config(&shop("v2", &[("v2", &[&b1])]).yaml());
    tidegate.try_start_again(&["--force"]).unwrap();
    for (user, _) in &mut users {
        user.disconnect();
        assert_eq!(user.get("/").expect_status(200).word("backend"), "b1", "evicted, and a clean start");
    }
    assert!(!tidegate.status("shop").to_string().contains("v1"));
}

#[test]
fn a_new_backend_and_a_changed_weight_are_just_there() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let mut tidegate = shop("v1", &[("v1", &[&a1])]).start();
    let mut all = users(&tidegate, 3);
    tidegate.stop();
    tidegate.write_config(&Shop::new("cookie").weighted_release("v1", &[(&a1, 0), (&a2, 5)]).yaml());
    tidegate.start_again();
    assert_eq!(at_home(&mut all), 3);
    tidegate.wait_for_backend("shop", "v1", "a2", "admission", "everyone");
    assert!(users(&tidegate, 5).iter().all(|(_, home)| home == "a2"));
    let truth = tidegate.cli(&["export"]).expect_code(0).stdout;
    assert!(truth.contains("weight: 5"), "{truth}");
}

#[test]
fn a_state_without_sessions_speaks_against_nothing() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut tidegate = shop("v1", &[("v1", &[&a1])]).start();
    tidegate.stop();
    let other = shop("v2", &[("v2", &[&b1])]).yaml().replace("  shop:\n", "  store:\n");
    tidegate.write_config(&other);
    tidegate.start_again();
    tidegate.wait_for_backend("store", "v2", "b1", "admission", "everyone");
    wait_for("it serves", SOON, || tidegate.browser().get("/").status == 200);
}
