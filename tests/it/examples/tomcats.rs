//! Examples for Tomcat, before real ones. Their start is the slow part, so all stories share three of them.

use super::{Example, HOST, ON_TOMCAT, Pages, User, ends_when_they_leave, newcomers, wait_for_admission};
use crate::process::wait_for;
use crate::tidegate::SOON;
use crate::tomcat::{Context, SHOP, Tomcat, TomcatSpec};

/// By its public path: each release has a context of its own.
const MAPPED: Pages = Pages { index: "/shop/index.jsp", logout: "/shop/logout.jsp" };

/// Told before the three.
type Story = fn(&[Tomcat]);

#[test]
fn the_examples_for_tomcat_do_what_their_comments_say() {
    let contexts = [SHOP, "/shop-v41", "/shop-v42"].map(|path| Context { path, cookies: true });
    let specs = [
        TomcatSpec::new("v1", "tomcat1").with_contexts(&contexts),
        TomcatSpec::new("v1", "tomcat2").with_contexts(&contexts[..1]),
        TomcatSpec::new("v2", "tomcat3").with_contexts(&contexts[..1]),
    ];
    let tomcats = Tomcat::start_all(specs);
    let stories: [(&str, Story); 3] =
        [("tomcat.yaml", releases_by_route), ("soft-stop-by-file.yaml", a_file_stops_softly), ("two-contexts.yaml", two_contexts)];
    std::thread::scope(|scope| {
        for (file, story) in stories {
            let tomcats = &tomcats;
            let thread = std::thread::Builder::new().name(file.to_owned());
            thread.spawn_scoped(scope, move || story(tomcats)).expect("a thread can be started");
        }
    });
}

fn releases_by_route(tomcats: &[Tomcat]) {
    let addresses: Vec<(&str, String)> =
        ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"].into_iter().zip(tomcats.iter().map(Tomcat::address)).collect();
    let example = Example::of("tomcat.yaml");
    let tidegate = example.at(&addresses).start();
    wait_for_admission(&tidegate, &["v1/tomcat1", "v1/tomcat2"], "everyone");
    tidegate.wait_for_backend("shop", "v2", "new", "health", "up");
    let known = ["tomcat1", "tomcat2"].map(|home| User::on(tidegate.port(), ON_TOMCAT, home));
    let mut promotion = tidegate.cli_in_background("promote", &["promote", "shop", "v2", "--wait"]);
    tidegate.wait_for_state("shop", "v1", "draining");
    let mut later = [User::on(tidegate.port(), ON_TOMCAT, "tomcat3")];
    let id = later[0].browser.cookie("JSESSIONID").expect("a session");
    assert!(id.ends_with(".tomcat3"), "the route is Tomcat's, whatever the backend's name: {id}");
    assert_eq!(later[0].browser.cookies().len(), 1, "no second cookie");
    ends_when_they_leave(&mut promotion, known.into(), &mut later);
}

fn a_file_stops_softly(tomcats: &[Tomcat]) {
    for tomcat in &tomcats[..2] {
        tomcat.touch("alive.txt");
    }
    let example =
        Example::of("soft-stop-by-file.yaml").at(&[("10.0.0.11:8080", tomcats[0].address()), ("10.0.0.12:8080", tomcats[1].address())]);
    let tidegate = example.start();
    wait_for_admission(&tidegate, &["v1/a1", "v1/a2"], "everyone");
    let mut known = ["tomcat1", "tomcat2"].map(|home| User::on(tidegate.port(), ON_TOMCAT, home));
    tomcats[0].remove("alive.txt");
    // Tomcat may say 403 for five seconds before it says 404. Everybody clicks meanwhile, or they would be idle.
    wait_for("a1 is draining", SOON, || {
        known.iter_mut().for_each(User::click);
        tidegate.backend("shop", "v1", "a1", "health") == "draining"
    });
    assert_eq!(newcomers(tidegate.port(), ON_TOMCAT, 4), ["tomcat2"; 4]);
    known[0].click();
    tomcats[0].touch("alive.txt");
    wait_for_admission(&tidegate, &["v1/a1"], "everyone");

    tidegate.write_config(
        &example.with(&format!("\"{}\", weight: 1", tomcats[1].address()), &format!("\"{}\", weight: 0", tomcats[1].address())).0,
    );
    wait_for("the edited file is applied by itself", SOON, || newcomers(tidegate.port(), ON_TOMCAT, 4) == ["tomcat1"; 4]);
    known[1].click();

    let [first, mut second] = known;
    second.click();
    let mut drain = tidegate.cli_in_background("drain", &["drain", "shop/v1/a2", "--wait"]);
    wait_for_admission(&tidegate, &["v1/a2"], "known_sessions");
    ends_when_they_leave(&mut drain, vec![second], &mut [first]);
}

fn two_contexts(tomcats: &[Tomcat]) {
    let tidegate = Example::of("two-contexts.yaml").at(&[("10.0.0.11:8080", tomcats[0].address())]).start();
    wait_for_admission(&tidegate, &["v41/v41"], "everyone");
    tidegate.wait_for_backend("shop", "v42", "v42", "health", "up");
    let known = [User::on(tidegate.port(), MAPPED, "tomcat1"), User::on(tidegate.port(), MAPPED, "tomcat1")];
    assert_eq!(
        known[0].browser.jar().all().iter().find(|cookie| cookie.name == "JSESSIONID").map(|cookie| cookie.path.clone()),
        Some("/shop".to_owned())
    );
    let count = || ["/shop-v41", "/shop-v42"].map(|context| tomcats[0].manager_sessions(context));
    assert_eq!(count(), [2, 0]);
    let mut promotion = tidegate.cli_in_background("promote", &["promote", "shop", "v42", "--wait"]);
    tidegate.wait_for_state("shop", "v41", "draining");
    let mut later = [User::on(tidegate.port(), MAPPED, "tomcat1")];
    assert_eq!(count(), [2, 1]);
    let next = format!("v43={}", tomcats[0].address());
    tidegate.cli(&["stage", "shop", "v43", "--backend", &next, "--path", "/shop-v43"]).expect_code(0);
    let redirect = later[0].browser.get("/shop").expect_status(302);
    assert_eq!(redirect.head.field("location"), Some("/shop/"), "{HOST} shows its public path only");
    ends_when_they_leave(&mut promotion, known.into(), &mut later);
    assert_eq!(count(), [0, 1]);
}
