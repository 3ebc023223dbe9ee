//! The pipeline's script, `deploy/pipeline/deploy.sh`, before the real binary and two real Tomcats: a deploy, and each way it may fail.
//!
//! Every story has a tidegate of its own and all share the two Tomcats: sessions of one story mean nothing to the others. The
//! story in which the old Tomcat dies is told last.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Browser, Call};
use crate::process::{Process, free_port, require_file, wait_for};
use crate::shop::Shop;
use crate::tidegate::{Tidegate, binary};
use crate::tomcat::{Context, Tomcat, TomcatSpec};

/// A drain believes itself one idle timeout after a start without history, so it cannot be the usual half hour.
const IDLE_TIMEOUT: &str = "6s";
/// Idle timeout, confirmation, smoke test and a slow machine.
const DEPLOYS: Duration = Duration::from_secs(60);
const PAGE: &str = "/shop/index.jsp";

#[test]
fn the_pipeline_deploys_and_tells_every_failure_by_its_exit_code() {
    require_file("/usr/bin/jq", "jq");
    require_file("/usr/bin/curl", "curl");
    let shop = [Context { path: "/shop", cookies: true }];
    let specs = [("v1", "a1"), ("v2", "b1")].map(|(release, name)| TomcatSpec::new(release, name).with_contexts(&shop));
    let mut tomcats = Tomcat::start_all(specs);
    let (old, new) = (tomcats[0].address(), tomcats[1].address());
    std::thread::scope(|scope| {
        scope.spawn(|| everybody_moves_on_and_the_old_release_is_stopped(&old, &new));
        scope.spawn(|| a_smoke_test_that_fails_leaves_nothing_behind(&old, &new));
        scope.spawn(|| a_deadline_leaves_the_drain_running_and_the_same_call_waits_on(&old, &new));
        scope.spawn(|| a_deadline_that_evicts_ends_the_deploy(&old, &new));
        scope.spawn(|| somebody_elses_decision_ends_the_deploy(&old, &new));
        scope.spawn(|| a_pipeline_without_a_tidegate_fails(&old, &new));
        scope.spawn(|| silence_in_the_middle_promotes_nothing(&old, &new));
        scope.spawn(|| a_cancelled_pipeline_leaves_nothing_behind(&old, &new));
    });
    let story = Story::begin(&old, &new);
    let mut user = story.user();
    let mut deploy = story.deploy("dies", &[]);
    story.wait_until_v1_drains(&mut user);
    tomcats[0].kill();
    // Clicks on: a stand-in takes them in, and that is how their session is lost.
    story.ends_with(&mut deploy, 3, || drop(user.send(Call::get(PAGE))));
    assert_eq!(story.tidegate.status("shop")["current"], "v2");
}

fn everybody_moves_on_and_the_old_release_is_stopped(old: &str, new: &str) {
    let story = Story::begin(old, new);
    let mut user = story.user();
    let retired = story.file("retired");
    let retire = format!("echo \"$OLD\" > {}", retired.display());
    let mut deploy = story.deploy("fine", &["--retire", &retire]);
    story.wait_until_v1_drains(&mut user);
    assert_eq!(story.tidegate.browser().get(PAGE).word("release"), "v2", "a new user");
    assert_eq!(user.get(PAGE).word("release"), "v1", "a known one");
    assert_eq!(deploy.ended(), None, "somebody is on v1");
    assert!(!retired.exists(), "its processes are needed");
    user.get("/shop/logout.jsp").expect_status(200);
    story.ends_with(&mut deploy, 0, || ());
    assert_eq!(story.tidegate.release_state("shop", "v1"), "stopped");
    assert_eq!(std::fs::read_to_string(&retired).unwrap(), "v1\n");
    // A pipeline that is run again must not undo or repeat anything.
    story.ends_with(&mut story.deploy("again", &[]), 0, || ());
}

fn a_smoke_test_that_fails_leaves_nothing_behind(old: &str, new: &str) {
    let story = Story::begin(old, new);
    let check = |name: &str, options: &[&str]| {
        let mut deploy = story.deploy(name, options);
        story.ends_with(&mut deploy, 1, || ());
        assert!(deploy.log_tail().contains("smoke test failed: shop/v2/b1 at "), "{}", deploy.log_tail());
        let status = story.tidegate.status("shop");
        assert_eq!((&status["current"], status["releases"].get("v2")), (&"v1".into(), None), "{name}");
    };
    check("no-such-page", &["--smoke-path", "/shop/missing.jsp", "--smoke-timeout", "1"]);
    // Tomcat redirects from a folder's name without a slash at its end.
    check("redirected", &["--smoke-path", "/shop", "--smoke-timeout", "0"]);
    check("below-a-prefix", &["--path", "/elsewhere", "--smoke-timeout", "0"]);
    check("own-test", &["--smoke", "test \"$BACKEND\" = elsewhere", "--smoke-timeout", "0"]);
    let free = format!("127.0.0.1:{}", free_port());
    let nobody = Story::begin(old, &free);
    let mut deploy = nobody.deploy("nobody-there", &["--smoke-timeout", "1"]);
    nobody.ends_with(&mut deploy, 1, || ());
    assert_eq!(nobody.tidegate.status("shop")["releases"].get("v2"), None);
}

fn a_deadline_leaves_the_drain_running_and_the_same_call_waits_on(old: &str, new: &str) {
    let story = Story::begin(old, new);
    let mut user = story.user();
    let mut deploy = story.deploy("late", &["--timeout", "3s"]);
    story.ends_with(&mut deploy, 2, || drop(user.get(PAGE)));
    assert_eq!(user.get(PAGE).word("release"), "v1", "nobody was moved");
    assert_eq!(story.tidegate.release_state("shop", "v1"), "draining");
    let mut again = story.deploy("waits-on", &[]);
    wait_for("it waits", DEPLOYS, || {
        user.get(PAGE);
        again.log_tail().contains("current already")
    });
    assert_eq!(again.ended(), None);
    user.get("/shop/logout.jsp").expect_status(200);
    story.ends_with(&mut again, 0, || ());
    assert_eq!(story.tidegate.release_state("shop", "v1"), "stopped");
}

fn a_deadline_that_evicts_ends_the_deploy(old: &str, new: &str) {
    let story = Story::begin(old, new);
    let mut user = story.user();
    // Longer than the idle timeout: before that no drain is sure of itself.
    let mut deploy = story.deploy("evicts", &["--timeout", "10s", "--then", "evict"]);
    story.ends_with(&mut deploy, 0, || drop(user.get(PAGE)));
    assert_eq!(user.get(PAGE).word("release"), "v2", "served anew");
    assert_eq!(story.tidegate.release_state("shop", "v1"), "stopped");
}

fn somebody_elses_decision_ends_the_deploy(old: &str, new: &str) {
    let story = Story::begin(old, new);
    let mut user = story.user();
    let mut deploy = story.deploy("rolled-back", &[]);
    story.wait_until_v1_drains(&mut user);
    story.tidegate.cli(&["rollback", "shop"]).expect_code(0);
    story.ends_with(&mut deploy, 4, || drop(user.get(PAGE)));
    assert_eq!(story.tidegate.status("shop")["current"], "v1");

    // Promoted between our look and our promotion: the smoke test is where the time goes.
    let story = Story::begin(old, new);
    let other = format!("127.0.0.1:{}", free_port());
    story.tidegate.cli(&["stage", "shop", "v3", "--backend", &format!("c1={other}")]).expect_code(0);
    let mut deploy = story.deploy("overtaken", &["--smoke", "tidegate promote shop v3 --force"]);
    story.ends_with(&mut deploy, 4, || ());
    assert_eq!(story.tidegate.status("shop")["current"], "v3");
}

fn a_pipeline_without_a_tidegate_fails(old: &str, new: &str) {
    let story = Story::begin(old, new);
    let run = |arguments: &[&str], admin: &str| {
        let mut command = story.command(arguments);
        command.env("TIDEGATE_ADMIN", admin);
        let output = command.output().expect("the script runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (fine, nobody) = (story.tidegate.admin_url(), format!("http://127.0.0.1:{}", free_port()));
    let (code, said) = run(&["shop", "v2", "--backend", "b1=127.0.0.1:1"], &nobody);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&nobody), "{said}");
    let check = |arguments: &[&str], expected: i32, word: &str| {
        let (code, said) = run(arguments, &fine);
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    };
    check(&[], 64, "an app and a release are needed");
    check(&["shop"], 64, "an app and a release are needed");
    check(&["shop", "v2"], 64, "no --backend says where it is");
    check(&["shop", "v2", "--backend", "127.0.0.1:1"], 64, "is not NAME=HOST:PORT");
    check(&["shop", "v2", "--bakend", "b1=127.0.0.1:1"], 64, "--bakend is no option");
    check(&["shop", "v2", "--smoke-timeout", "1m"], 64, "wants seconds");
    check(&["shop", "v2", "--timeout"], 64, "needs a value");
    // The former release's own address: tidegate refuses to stage that.
    check(&["shop", "v2", "--backend", &format!("b1={old}")], 1, "was not staged");
    story.tidegate.cli(&["stage", "shop", "v2", "--backend", "b1=127.0.0.1:1"]).expect_code(0);
    check(&["shop", "v2", "--backend", &format!("b1={new}")], 1, "is known already, and not with b1=");
    assert_eq!(story.tidegate.release_state("shop", "v2"), "staged", "it is somebody else's");
    assert_eq!(run(&["--help"], &nobody).0, Some(0));
}

fn silence_in_the_middle_promotes_nothing(old: &str, new: &str) {
    let story = Story::begin(old, new);
    story.tidegate.cli(&["stage", "shop", "v2", "--backend", &format!("b1={new}")]).expect_code(0);
    let (asked, program) = (story.file("asked"), story.file("bin/tidegate"));
    std::fs::remove_file(&program).expect("the link");
    // The script asks three times before it promotes.
    for silent in 1..=3 {
        let wrapper = format!(
            "#!/bin/sh\n[ \"$1\" != status ] || {{ echo >> {0}; [ \"$(wc -l < {0})\" != {silent} ] || exit 1; }}\nexec {1} \"$@\"\n",
            asked.display(),
            binary().display()
        );
        std::fs::write(&program, wrapper).expect("a wrapper");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        std::fs::write(&asked, "").expect("a count");
        let output = story.command(&["shop", "v2", "--smoke", "false", "--smoke-timeout", "0"]).output().expect("the script runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{silent}: {said}");
        assert!(said.contains("tidegate has no answer about shop"), "{silent}: {said}");
        assert_eq!(std::fs::read_to_string(&asked).expect("a count").lines().count(), silent, "it went on");
        assert_eq!(story.tidegate.status("shop")["current"], "v1", "{silent}");
    }
    assert_eq!(story.tidegate.release_state("shop", "v2"), "staged", "it is somebody else's");
}

fn a_cancelled_pipeline_leaves_nothing_behind(old: &str, new: &str) {
    let story = Story::begin(old, new);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let begun = story.file(&format!("{signal:?}"));
        let smoke = format!("touch '{}'; exec sleep 600", begun.display());
        let mut deploy = story.deploy("cancelled", &["--smoke", &smoke]);
        wait_for("it is in the smoke test", DEPLOYS, || begun.exists());
        assert_eq!(story.tidegate.release_state("shop", "v2"), "staged");
        deploy.signal(signal);
        story.ends_with(&mut deploy, 1, || ());
        assert!(deploy.log_tail().contains("interrupted"), "{}", deploy.log_tail());
        assert_eq!(story.tidegate.status("shop")["releases"].get("v2"), None, "{signal:?}");
    }
}

/// A tidegate with v1 on the old Tomcat, and a deploy of v2 on the new one.
struct Story<'a> {
    tidegate: Tidegate,
    new: &'a str,
}

impl Story<'_> {
    fn begin<'a>(old: &str, new: &'a str) -> Story<'a> {
        let tidegate = Shop::new("cookie")
            .session(&format!("idle_timeout: {IDLE_TIMEOUT}"))
            .session("confirm_within: 2s")
            .probed("/shop/health.jsp")
            .patient_probes()
            .release_of("v1", vec![format!("a1: \"{old}\"")])
            .start();
        let folder = tidegate.folder().join("bin");
        std::fs::create_dir(&folder).expect("a folder");
        std::os::unix::fs::symlink(binary(), folder.join("tidegate")).expect("a link");
        Story { tidegate, new }
    }

    /// Somebody who has a session on v1 and is known to come back.
    fn user(&self) -> Browser {
        let mut user = self.tidegate.browser();
        for _ in 0..2 {
            assert_eq!(user.get(PAGE).word("release"), "v1");
        }
        user
    }

    fn file(&self, name: &str) -> PathBuf {
        self.tidegate.folder().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let token = std::fs::read_to_string(self.file("token")).expect("a token");
        let path = std::env::var("PATH").expect("a path");
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/pipeline/deploy.sh"));
        command
            .args(arguments)
            .env("PATH", format!("{}:{path}", self.file("bin").display()))
            .env("TIDEGATE_ADMIN", self.tidegate.admin_url())
            .env("TIDEGATE_TOKEN", token.trim());
        command
    }

    fn deploy(&self, name: &str, options: &[&str]) -> Process {
        let backend = format!("b1={}", self.new);
        let mut arguments = vec!["shop", "v2", "--backend", &backend];
        if !options.contains(&"--smoke") {
            arguments.extend(["--smoke-path", "/shop/health.jsp"]);
        }
        arguments.extend(options); // the last one of two wins
        Process::start(name, self.command(&arguments), &self.file(&format!("{name}.log")))
    }

    /// Until the promotion, while `user` clicks.
    fn wait_until_v1_drains(&self, user: &mut Browser) {
        wait_for("v1 drains", DEPLOYS, || {
            user.get(PAGE);
            self.tidegate.release_state("shop", "v1") == "draining"
        });
    }

    fn ends_with(&self, deploy: &mut Process, code: i32, mut meanwhile: impl FnMut()) {
        wait_for("the pipeline ends", DEPLOYS, || {
            meanwhile();
            deploy.ended().is_some()
        });
        assert_eq!(deploy.ended().and_then(|status| status.code()), Some(code), "{}", deploy.log_tail());
    }
}
