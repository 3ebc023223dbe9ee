//! `drain.webhook`: a verdict reaches another system, signed, however often it takes; and a receiver that hangs holds up nobody.

use std::io::{BufReader, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::Value;

use crate::http::{Head, Unstated, read_body};
use crate::process::wait_for;
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok};
use crate::tidegate::{SOON, Tidegate};

/// What a receiver took.
type Taken = Arc<Mutex<Vec<(Head, Vec<u8>)>>>;

/// Fails twice, each time differently, then takes what comes.
fn reluctant_receiver() -> (Speaker, Taken) {
    let taken: Taken = Arc::default();
    let (taking, attempts) = (Arc::clone(&taken), AtomicUsize::new(0));
    let receiver = Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        let Some(head) = Head::read(&mut input)? else { return Ok(()) };
        let body = read_body(&mut input, &head, Unstated::Empty)?;
        match attempts.fetch_add(1, Ordering::SeqCst) {
            0 => out.write_all(b"HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\n\r\n"),
            1 => Ok(()),
            _ => {
                taking.lock().unwrap().push((head, body));
                answer_ok(&mut out, "thanks")
            }
        }
    });
    (receiver, taken)
}

fn signed_well(tidegate: &Tidegate, (head, body): &(Head, Vec<u8>)) -> bool {
    let signature = head.field("x-tidegate-signature").expect("a signature");
    let (time, mac) = signed_parts(signature);
    let key = tidegate.read("state/keys/shop.webhook");
    let key = PKey::hmac(key.trim_end().as_bytes()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    signer.update(format!("{time}.").as_bytes()).unwrap();
    signer.update(body).unwrap();
    let expected: String = signer.sign_to_vec().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    mac == expected && now.abs_diff(time) < 60
}

fn signed_parts(signature: &str) -> (u64, &str) {
    let (time, mac) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("t=…,v1=…");
    (time.parse().expect("seconds"), mac)
}

fn deliveries(tidegate: &Tidegate, result: &str) -> f64 {
    tidegate.metrics().sum("tidegate_webhook_deliveries_total", &[("result", result)])
}

#[test]
fn verdicts_and_missed_deadlines_are_reported_until_the_receiver_takes_them() {
    let (receiver, taken) = reluctant_receiver();
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let webhook = format!("http://localhost:{}/tidegate?from=test", receiver.port());
    let tidegate = Shop::new("cookie")
        .session("idle_timeout: 2s")
        .app(&format!("drain: {{deadline: 500ms, webhook: \"{webhook}\"}}"))
        .release("v1", &[&a1])
        .release("v2", &[&b1])
        .start();
    let mut user = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let reported = |id: &str, verdict: &str| -> Option<Value> {
        let taken = taken.lock().unwrap();
        let documents = taken.iter().map(|(_, body)| serde_json::from_slice::<Value>(body).expect("JSON"));
        documents.into_iter().find(|document| document["id"] == id && document["verdict"] == verdict)
    };
    let drain = tidegate.admin_get("/api/v1/drains")["drains"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    wait_for("the missed deadline is reported", SOON, || {
        user.get("/").expect_status(200);
        reported(&drain, "late").is_some()
    });
    let late = reported(&drain, "late").unwrap();
    assert_eq!((late["target"].as_str(), late["remaining"].as_u64(), late["state"].as_str()), (Some("shop/v1"), Some(1), Some("draining")));
    user.get("/logout");
    wait_for("the verdict is reported", SOON, || reported(&drain, "drained").is_some());
    let mut told = tidegate.admin_get(&format!("/api/v1/drains/{drain}"));
    assert_eq!(reported(&drain, "drained").unwrap(), told.take(), "as the API tells it");

    let mut other = user_on(&tidegate, "b1");
    tidegate.cli(&["promote", "shop", "v1"]).expect_code(0);
    let next = tidegate.admin_get("/api/v1/drains")["drains"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    assert_ne!(next, drain);
    other.get("/");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    wait_for("a drain that was overtaken is reported", SOON, || reported(&next, "superseded").is_some());

    wait_for("what was taken is counted", SOON, || deliveries(&tidegate, "delivered") == taken.lock().unwrap().len() as f64);
    let taken = taken.lock().unwrap();
    for report in taken.iter() {
        assert_eq!(report.0.start, "POST /tidegate?from=test HTTP/1.1");
        assert_eq!(report.0.field("host"), Some(format!("localhost:{}", receiver.port()).as_str()));
        assert!(signed_well(&tidegate, report), "{}", report.0.raw);
    }
    let twice = taken.iter().filter(|(_, body)| String::from_utf8_lossy(body).contains("\"late\"")).count();
    assert_eq!(twice, 1, "told once");
    assert_eq!((deliveries(&tidegate, "failed"), deliveries(&tidegate, "given_up")), (2.0, 0.0));
    let log = tidegate.read("tidegate.log");
    assert!(log.contains(&format!("not reported to localhost:{}: status 503; next attempt in 1s", receiver.port())), "{log}");
    assert!(!log.contains("from=test"), "a URL may carry a secret: {log}");
}

#[test]
fn a_receiver_that_hangs_holds_up_nobody() {
    let heard = Arc::new(AtomicUsize::new(0));
    let hearing = Arc::clone(&heard);
    let receiver = Speaker::start(move |stream| {
        hearing.fetch_add(1, Ordering::SeqCst);
        std::io::copy(&mut &*stream, &mut std::io::sink()).map(drop)
    });
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("cookie")
        .session("idle_timeout: 1s")
        .app(&format!("drain: {{webhook: \"http://127.0.0.1:{}/\"}}", receiver.port()))
        .release("v1", &[&a1])
        .release("v2", &[&b1])
        .start();
    for (next, old) in [("v2", "v1"), ("v1", "v2"), ("v2", "v1")] {
        tidegate.cli(&["promote", "shop", next]).expect_code(0);
        tidegate.wait_for_state("shop", old, "drained");
    }
    wait_for("three reports hang", SOON, || heard.load(Ordering::SeqCst) >= 3);
    let begun = Instant::now();
    assert_eq!(tidegate.browser().get("/").word("backend"), "b1");
    assert_eq!(tidegate.sessions("shop", "v2").unconfirmed, 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(deliveries(&tidegate, "delivered"), 0.0);
}
