//! The example for two proxies: the same file twice.

use super::{AT_ROOT, Example, User, ends_when_they_leave, newcomers, wait_for_admission};
use crate::origin::{Origin, OriginSpec};
use crate::process::Scratch;

#[test]
fn two_proxies_from_one_file_keep_whoever_changes_sides() {
    let [a1, a2, b1] = [("v1", "a1"), ("v1", "a2"), ("v2", "b1")].map(|(release, name)| Origin::start(OriginSpec::new(release, name)));
    let scratch = Scratch::new("pair");
    let key = scratch.write("k1.key", "5ec1f7a0d39b4c6e8f20417d6ab93ce85ec1f7a0d39b4c6e8f20417d6ab93ce8\n");
    let addresses = [("10.0.0.11:8080", a1.address()), ("10.0.0.12:8080", a2.address()), ("10.0.0.21:8080", b1.address())];
    let example = Example::of("pair.yaml").at(&addresses);
    let example = example.with("0.0.0.0:9180", "127.0.0.1:@admin").with("/etc/tidegate/token", "@folder/token");
    let example = example.with("/etc/tidegate/k1.key", &key.display().to_string()).with("/var/lib/tidegate", "@folder/state");
    let proxies = [example.start(), example.start()];
    for proxy in &proxies {
        wait_for_admission(proxy, &["v1/a1", "v1/a2"], "everyone");
        proxy.wait_for_backend("shop", "v2", "b1", "health", "up");
    }
    // In an order in which balancing would not put them there again.
    let mut users = ["a1", "a1", "a1", "a2", "a2", "a2"].map(|home| User::on(proxies[0].port(), AT_ROOT, home));
    for side in [1, 0, 1] {
        for user in &mut users {
            user.moves_to(proxies[side].port());
            user.click();
        }
    }
    let arguments = ["promote", "shop", "v2", "--wait"];
    let mut promotion = proxies[0].cli_with_in_background(&proxies[1], "promote", &arguments);
    for proxy in &proxies {
        proxy.wait_for_state("shop", "v1", "draining");
        assert_eq!(newcomers(proxy.port(), AT_ROOT, 2), ["b1"; 2]);
    }
    users[0].moves_to(proxies[0].port());
    ends_when_they_leave(&mut promotion, users.into(), &mut []);
    for proxy in &proxies {
        assert_eq!(proxy.release_state("shop", "v1"), "drained");
    }
}
