//! Commands against a real admin port: what is done, what is refused, and with which exit code.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use super::Failure;
use super::act::{Out, act};
use super::args::Cli;
use super::screen::Medium;
use crate::model::admission::{Health, Intent};
use crate::model::ledger::{EndReason, LossCause};
use crate::serve::admin::tests::{Port, SECRET, port_with};

/// A file with the port's token.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(test: &str, token: &str) -> TokenFile {
        let path = std::env::temp_dir().join(format!("tidegate-cli-{test}-{}", std::process::id()));
        std::fs::write(&path, format!("{token}\n")).unwrap();
        TokenFile(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Types `line` with these admin addresses.
async fn typed(line: &str, admin: &str, token: &TokenFile) -> Result<u8, Failure> {
    typed_and_read(line, admin, token).await.0
}

/// What a command wrote to standard output.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn paper_out(paper: &Paper) -> Out {
    Out { write: Box::new(paper.clone()), medium: Medium::PLAIN }
}

async fn typed_and_read(line: &str, admin: &str, token: &TokenFile) -> (Result<u8, Failure>, String) {
    let paper = Paper::default();
    let words = ["tidegate", "--admin", admin, "--token-file", token.0.to_str().unwrap()].into_iter().chain(line.split(' '));
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
    let done = act(&cli.ask, cli.command, paper_out(&paper)).await;
    let text = String::from_utf8(paper.0.take()).unwrap();
    (done, text)
}

async fn port() -> (Port, String) {
    port_idle(Duration::from_secs(1800)).await
}

async fn port_idle(idle_timeout: Duration) -> (Port, String) {
    let port = port_with("127.0.0.1:9180", idle_timeout).await;
    let url = format!("http://{}", port.address);
    (port, url)
}

fn current(port: &Port) -> String {
    port.control.view().app("shop").unwrap().current.as_deref().unwrap().to_owned()
}

#[tokio::test]
async fn commands_do_what_they_say_or_name_the_remedy() {
    let (port, url) = port().await;
    let token = TokenFile::new("commands", SECRET);
    port.open_session("v41", "a1", b"one");
    for (line, expected) in [
        ("status", Ok(0)),
        ("status shop --json", Ok(0)),
        ("status shap", Err("apps are: shop")),
        ("sessions shop --list", Ok(0)),
        ("sessions shop/v41 --json", Ok(0)),
        ("sessions shop/v9", Err("releases are: v41, v42")),
        ("stage shop v43 --backend c1=127.0.0.1:9181", Ok(0)),
        ("stage shop v43 --backend c1=127.0.0.1:9182", Err("exists already")),
        ("promote shop v43", Err("has no healthy backend: c1 is untested")),
        ("promote shop v42 --from v9", Err("current is 'v41'")),
        ("promote shop v42 --from v41", Ok(0)),
        ("rollback shop --from v42", Ok(0)),
        // A script that is run again.
        ("rollback shop --from v42", Ok(0)),
        ("rollback shop", Ok(0)),
        ("rollback shop --from v41", Err("--to RELEASE")),
        ("drain shop/v41/a1 --deadline 4h --then move_idle", Ok(0)),
        ("drain shop/v41/a2", Err("then new clients go to")),
        ("drain shop/v41/a22", Err("nearest: shop/v41/a2")),
        ("drain host:127.0.0.2", Err("nearest: host:127.0.0.1")),
        ("maintain shop/v41/a1", Err("drain it first")),
        ("serve shop/v41/a1", Ok(0)),
        ("evict shop/v41 --idle 1h", Ok(0)),
        ("lost shop/v41/a1", Ok(0)),
        ("lost shop/v41/a22", Err("nearest: shop/v41/a2")),
        ("stop shop/v43", Ok(0)),
        ("remove shop/v43", Ok(0)),
        ("remove shop/v42", Err("configuration file")),
        ("explain shop --cookie A=b --path /x", Ok(0)),
        ("export", Ok(0)),
        ("events", Ok(0)),
        ("reload", Err("without a file")),
        ("upgrade", Err("this process serves on")),
        ("wait d99", Err("does not exist")),
        ("promote a/b ..", Err("app 'a/b' does not exist")),
    ] {
        match (typed(line, &url, &token).await, expected) {
            (Ok(exit), Ok(expected)) => assert_eq!(exit, expected, "{line}"),
            (Err(failure), Err(words)) => {
                assert_eq!(failure.exit, 1, "{line}");
                assert!(failure.message.contains(words), "{line}: {}", failure.message);
            }
            (done, expected) => panic!("{line}: {done:?}, not {expected:?}"),
        }
    }
    assert_eq!(current(&port), "v41");
}

#[tokio::test]
async fn an_option_that_would_do_nothing_is_refused_before_anything_is_done() {
    let (port, url) = port().await;
    let token = TokenFile::new("options", SECRET);
    for line in ["promote shop v42 --timeout 1h", "rollback shop --to v42 --timeout 1h"] {
        let refused = typed(line, &url, &token).await.unwrap_err();
        assert!(refused.exit == 64 && refused.message.contains("add --wait"), "{line}: {}", refused.message);
    }
    assert_eq!(current(&port), "v41");
    assert_eq!(typed("promote shop v42 --timeout 1h --then keep", &url, &token).await, Ok(0));
}

#[tokio::test]
async fn a_script_reads_one_document() {
    let ((_one, first), (_two, second)) = (port().await, port().await);
    let token = TokenFile::new("document", SECRET);
    let both = format!("{first},{second}");
    for (line, admin, field) in [
        ("status --json", &first, "/apps/shop/current"),
        ("status shop --json", &first, "/apps/shop/releases/v41/state"),
        ("sessions shop --json", &first, "/sessions/live"),
        ("stage shop v43 --backend c1=h:1 --json", &first, "/backends/c1/address"),
        ("promote shop v42 --json", &first, "/drains/0"),
        ("drain shop/v42/b1 --force --json", &first, "/id"),
        ("rollback shop --wait --timeout 10ms --json", &first, "/drains/0/verdict"),
        ("events --json", &first, "/0/what"),
        ("export --json", &first, "/yaml"),
        ("explain shop --json", &first, "/decision"),
        ("evict shop/v41 --json", &first, "/evicted"),
        ("lost shop/v41 --json", &first, "/lost"),
        ("serve shop/v41/a1 --json", &both, &format!("/{}/intent", first.replace('/', "~1"))),
    ] {
        let (done, text) = typed_and_read(line, admin, &token).await;
        assert!(done.is_ok(), "{line}: {done:?}");
        let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"));
        assert!(document.pointer(field).is_some(), "{line}: no {field} in {text}");
    }
}

#[tokio::test]
async fn a_rollback_that_has_happened_says_so() {
    let (port, url) = port().await;
    let token = TokenFile::new("rolled", SECRET);
    let say = async |line: &str| {
        let (done, text) = typed_and_read(line, &url, &token).await;
        assert_eq!(done, Ok(0), "{line}");
        text.trim_end().to_owned()
    };
    say("promote shop v42").await;
    let first = say("rollback shop").await;
    assert!(first.starts_with("v41 is current; drains: d"), "{first}");
    assert_eq!(say("rollback shop").await, first);
    say("stop shop/v42 --force").await;
    assert_eq!(say("rollback shop").await, "already rolled back: v41 is current; nothing drains");
    assert_eq!(typed("rollback shop --from v42 --wait", &url, &token).await, Ok(0));
    assert_eq!(current(&port), "v41");
}

#[tokio::test]
async fn a_wrong_token_changes_nothing() {
    let (port, url) = port().await;
    let token = TokenFile::new("wrong", "fedcba9876543210fedcba9876543210");
    let refused = typed("promote shop v42", &url, &token).await.unwrap_err();
    assert!(refused.message.contains("the token is wrong"), "{}", refused.message);
    assert_eq!(current(&port), "v41");
}

#[tokio::test]
async fn each_address_may_have_a_token_of_its_own() {
    let ((one, first), (_two, second)) = (port().await, port().await);
    let (good, wrong) = (TokenFile::new("own-good", SECRET), TokenFile::new("own-wrong", "fedcba9876543210fedcba9876543210"));
    let (good, wrong) = (good.0.to_str().unwrap(), wrong.0.to_str().unwrap());
    let both = format!("{first},{second}");
    let check = async |admin: &str, files: &str, expected: Result<u8, &str>| {
        let cli = Cli::try_parse_from(["tidegate", "--admin", admin, "--token-file", files, "promote", "shop", "v42"]).unwrap();
        match (act(&cli.ask, cli.command, paper_out(&Paper::default())).await, expected) {
            (done, Ok(exit)) => assert_eq!(done, Ok(exit), "{files}"),
            (done, Err(words)) => assert!(done.as_ref().is_err_and(|failure| failure.message.contains(words)), "{files}: {done:?}"),
        }
    };
    check(&both, &format!("{good},{wrong}"), Err("the token is wrong")).await;
    assert_eq!(current(&one), "v41", "taken back");
    check(&first, &format!("{good},{good}"), Err("2 files for 1 addresses")).await;
    check(&both, &format!("{good},{good}"), Ok(0)).await;
    check(&both, good, Ok(0)).await;
}

#[tokio::test]
async fn nobody_there_is_said_in_plain_words() {
    let token = TokenFile::new("nobody", SECRET);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let failure = typed("status", &url, &token).await.unwrap_err();
    assert_eq!(failure.message, format!("cannot reach tidegate at {url}: connection refused; is `tidegate run` up? use --admin URL"));
    let failure = typed("status", "unix:/nowhere/admin.sock", &token).await.unwrap_err();
    assert!(failure.message.contains("no such file"), "{}", failure.message);
}

#[tokio::test]
async fn several_processes_are_changed_together_or_not_at_all() {
    let ((one, first), (two, second)) = (port().await, port().await);
    let token = TokenFile::new("several", SECRET);
    let absent = typed("promote shop v42", &format!("{first},http://127.0.0.1:1"), &token).await.unwrap_err();
    assert!(absent.message.starts_with("nothing was changed anywhere: "), "{}", absent.message);
    assert_eq!(current(&one), "v41");

    let both = format!("{first},{second}");
    assert_eq!(typed("promote shop v42 --from v41", &both, &token).await, Ok(0));
    assert_eq!((current(&one).as_str(), current(&two).as_str()), ("v42", "v42"));

    // That one of them would refuse can be seen beforehand.
    for slot in [0, 1] {
        observe(&two, slot, Health::Down);
    }
    let refused = typed("promote shop v41", &both, &token).await.unwrap_err();
    let expected = format!("nothing was changed anywhere: {second} would refuse: shop/v41 has no healthy backend");
    assert!(refused.message.starts_with(&expected), "{}", refused.message);
    assert_eq!(current(&one), "v42");
}

fn observe(port: &Port, slot: u32, health: Health) {
    port.control.view().app("shop").unwrap().backend(slot).unwrap().live.observe(health, port.control.now());
}

#[tokio::test]
async fn what_one_process_refuses_is_taken_back_on_the_others() {
    let token = TokenFile::new("taken-back", SECRET);
    let ((one, first), (two, second)) = (port().await, port().await);
    let both = format!("{first},{second}");
    // The second alone has a reason to refuse, each time one that nobody sees beforehand.
    observe(&two, 1, Health::Down);
    observe(&two, 2, Health::Untested);
    assert_eq!(typed("stage shop v50 --backend c1=127.0.0.1:9181", &second, &token).await, Ok(0));
    for (line, refusal, back) in [
        ("promote shop v42", "has no healthy backend", "v41 is current again, and v42 drains"),
        ("drain shop/v41/a1", "then new clients go to", "shop/v41/a1: serve"),
        ("stage shop v43 --backend d1=127.0.0.1:9181", "127.0.0.1:9181", "shop/v43 is forgotten"),
    ] {
        let failure = typed(line, &both, &token).await.unwrap_err();
        assert_eq!(failure.exit, 1);
        let expected = format!("nothing stays changed, because {second} did not follow: ");
        assert!(failure.message.starts_with(&expected) && failure.message.contains(refusal), "{line}: {}", failure.message);
        assert!(failure.message.ends_with(&format!("taken back on {first}: {back}")), "{line}: {}", failure.message);
    }
    let view = one.control.view();
    let shop = view.app("shop").unwrap();
    assert_eq!((current(&one).as_str(), current(&two).as_str()), ("v41", "v41"));
    assert!(shop.release("v43").is_none() && shop.backend(0).unwrap().live.gate.read().intent == Intent::Serve);
}

#[tokio::test]
async fn questions_to_several_are_answered_as_one() {
    let token = TokenFile::new("questions", SECRET);
    let ((one, first), (two, second)) = (port().await, port().await);
    let both = format!("{first},{second}");
    one.open_session("v41", "a1", b"one");
    two.open_session("v41", "a1", b"one");
    two.open_session("v41", "a2", b"two");
    let document = async |line: &str, admin: &str, exit: u8| {
        let (done, text) = typed_and_read(&format!("{line} --json"), admin, &token).await;
        assert_eq!(done, Ok(exit), "{line}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    };
    let status = document("status", &both, 0).await;
    let kinds = &status["apps"]["shop"]["releases"]["v41"]["sessions"];
    assert_eq!(kinds["live"].as_u64().unwrap() + kinds["unconfirmed"].as_u64().unwrap(), 3, "{status}");
    assert_eq!(status["differences"], serde_json::json!([]));
    assert_eq!(status["asked"], serde_json::json!([first, second]));
    let sessions = document("sessions shop --list", &both, 0).await;
    assert_eq!(sessions["list"].as_array().unwrap().len(), 3);
    for line in ["explain shop --path /x", "export"] {
        let answers = document(line, &both, 0).await;
        assert_eq!(answers.as_object().unwrap().keys().collect::<Vec<_>>().len(), 2, "{line}: {answers}");
    }
    let events = document("events", &both, 0).await;
    assert!(events.as_array().unwrap().iter().any(|event| event["proxy"] == second.as_str()), "{events}");
    // What differs is said, and who is not there.
    assert_eq!(typed("promote shop v42", &second, &token).await, Ok(0));
    let status = document("status", &both, 0).await;
    assert_eq!(status["apps"]["shop"]["current"], "v41 | v42");
    assert!(!status["differences"].as_array().unwrap().is_empty());
    let (done, text) = typed_and_read("status", &both, &token).await;
    assert!(done == Ok(0) && text.contains(&format!("they disagree: shop: current: v41 on {first}, v42 on {second}")), "{text}");
    let half = format!("{first},http://127.0.0.1:1");
    let (done, text) = typed_and_read("status", &half, &token).await;
    assert!(done == Ok(1) && text.contains("NO ANSWER: http://127.0.0.1:1: cannot reach"), "{text}");
    let nobody = typed("status", "http://127.0.0.1:1,http://127.0.0.1:2", &token).await.unwrap_err();
    assert!(nobody.exit == 1 && nobody.message.lines().count() == 2, "{}", nobody.message);
}

#[tokio::test]
async fn a_drain_on_several_is_over_when_it_is_over_on_all() {
    let token = TokenFile::new("over", SECRET);
    let ((one, first), (two, second)) = (port_idle(Duration::from_millis(300)).await, port_idle(Duration::from_millis(300)).await);
    let both = format!("{first},{second}");
    // Numbers differ: one of them has had a drain before.
    assert_eq!(typed("drain shop/v42/b1 --force", &second, &token).await, Ok(0));
    assert_eq!(typed("serve shop/v42/b1", &second, &token).await, Ok(0));
    assert_eq!(typed("promote shop v42", &both, &token).await, Ok(0));
    let number = two.control.drains().last().unwrap().id;
    let wrong = typed(&format!("wait d{number}"), &both, &token).await.unwrap_err();
    assert!(wrong.message.contains("does not exist") || wrong.message.contains("name the target"), "{}", wrong.message);
    let controller = |control: Arc<crate::serve::control::Control>| {
        tokio::spawn(async move {
            loop {
                control.tick();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let first_controller = controller(Arc::clone(&one.control));
    assert_eq!(typed("wait shop/v41", &first, &token).await, Ok(0), "one is through");
    assert_eq!(typed("wait shop/v41 --timeout 2s", &both, &token).await, Ok(2), "the other is not");
    let second_controller = controller(Arc::clone(&two.control));
    let (done, text) = typed_and_read("wait shop/v41 --json", &both, &token).await;
    assert_eq!(done, Ok(0));
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((document["drains"].as_array().unwrap().len(), &document["drains"][0]["verdict"]), (1, &"drained".into()), "{text}");
    first_controller.abort();
    second_controller.abort();
}

#[tokio::test]
async fn a_script_reads_why_it_was_refused() {
    let ((_one, first), (_two, second)) = (port().await, port().await);
    let token = TokenFile::new("refused", SECRET);
    let both = format!("{first},{second}");
    let check = async |line: &str, admin: &str, exit: u8, expected: &str, remedy: &str| {
        let (done, text) = typed_and_read(&format!("{line} --json"), admin, &token).await;
        assert_eq!(done.unwrap_err().exit, exit, "{line}");
        let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"));
        let said = |key: &str| document[key].as_str().unwrap_or_else(|| panic!("{line}: no {key} in {text}")).to_owned();
        assert!(said("error").contains(expected), "{line}: {text}");
        assert!(said("remedy").contains(remedy), "{line}: {text}");
    };
    check("promote shop v99", &first, 1, "release 'v99' of app 'shop' does not exist", "releases are").await;
    check("maintain shop/v41/a9", &first, 1, "a9", "").await;
    check("status shap", &first, 1, "app 'shap' does not exist", "").await;
    check("wait d99", &first, 1, "does not exist", "").await;
    check("reload", &first, 1, "started without a file", "by command").await;
    check("sessions shap", &first, 1, "'shap' does not exist", "").await;
    check("promote shop v99", &both, 1, "nothing was changed anywhere: ", "").await;
    check("status", "http://127.0.0.1:1", 1, "cannot reach tidegate at http://127.0.0.1:1", "--admin").await;
    check("status", "ftp://127.0.0.1:1", 64, "speaks http", "").await;
    check("promote shop v42 --timeout 1s", &first, 64, "--timeout bounds nothing", "").await;
}

#[tokio::test]
async fn waiting_ends_with_what_really_happened() {
    let (port, url) = port_idle(Duration::from_millis(300)).await;
    let token = TokenFile::new("waiting", SECRET);
    // The controller of the real process; not yet running, so nothing settles.
    port.open_session("v41", "a1", b"one");
    assert_eq!(typed("promote shop v42 --wait --timeout 1s", &url, &token).await, Ok(2), "nothing settles without the controller");
    let drain = port.control.drains().last().unwrap().id;
    assert_eq!(typed(&format!("wait d{drain} --timeout 100ms"), &url, &token).await, Ok(2));

    let control = Arc::clone(&port.control);
    let controller = tokio::spawn(async move {
        loop {
            control.tick();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(typed(&format!("wait d{drain}"), &url, &token).await, Ok(0), "its session has ended");
    assert_eq!(typed("promote shop v42 --wait --json", &url, &token).await, Ok(0), "the same promotion again");
    controller.abort();
    // What happens there afterwards is no part of that drain.
    port.open_session("v41", "a1", b"late");
    let view = port.control.view();
    view.app("shop").unwrap().ledger.lose(0, LossCause::Restart, port.control.now());
    assert_eq!(view.app("shop").unwrap().backend(0).unwrap().live.counts.ended(EndReason::Lost), 1);
    assert_eq!(typed(&format!("wait d{drain}"), &url, &token).await, Ok(0), "a verdict stays");

    let superseded = typed("drain shop/v42/b1 --force", &url, &token).await;
    assert_eq!(superseded, Ok(0));
    let drain = port.control.drains().last().unwrap().id;
    assert_eq!(typed("serve shop/v42/b1", &url, &token).await, Ok(0));
    assert_eq!(typed(&format!("wait d{drain}"), &url, &token).await, Ok(4));
    assert_eq!(port.control.view().app("shop").unwrap().backend(2).unwrap().live.gate.read().intent, Intent::Serve);

    port.open_session("v42", "b1", b"two");
    assert_eq!(typed("drain shop/v42/b1 --force --deadline 1s --wait", &url, &token).await, Ok(2), "a deadline that keeps");
}
