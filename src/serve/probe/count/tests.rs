//! Every kind of answer to a question for the number of sessions, from real sockets.

use std::sync::LazyLock;

use super::*;
use crate::model::settings::CountFormat;
use crate::serve::probe::stub::{Manner, Stub, refused, spec};

const SOON: Duration = Duration::from_millis(600);

const HEAD: &str =
    "OK - Session information for application at context path [/shop]\nDefault maximum session inactive interval is [30] minutes\n";

fn probe(user_file: Option<&str>) -> CountProbe {
    let user_file = user_file.map(str::to_owned);
    CountProbe { url_path: "/manager/text/sessions?path=/shop".to_owned(), user_file, format: CountFormat::Tomcat }
}

async fn ask(address: SocketAddr, probe: &CountProbe, cookies: &mut Cookies) -> std::result::Result<u64, Failure> {
    let spec = spec(address);
    let question = Question { spec: &spec, health: &HealthSettings::default(), probe, address: Some(address), patience: SOON };
    // Reading the system's certificates takes longer than a question.
    static CONNECTORS: LazyLock<Connectors> = LazyLock::new(Connectors::default);
    question.ask(&CONNECTORS, cookies).await
}

fn answer(status: &str, body: &str) -> Manner {
    Manner::Answers(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

async fn check(manner: Manner, expected: std::result::Result<u64, CountFault>, words: &str) {
    let stub = Stub::start(manner).await;
    let begun = Instant::now();
    let got = ask(stub.address, &probe(None), &mut Cookies::default()).await;
    assert_eq!(got.as_ref().map_err(|(fault, _)| *fault).copied(), expected, "{got:?}");
    if let Err((_, why)) = got {
        assert!(why.contains(words), "{words}: {why}");
    }
    assert!(begun.elapsed() < SOON + Duration::from_secs(5), "{words}: {:?}", begun.elapsed());
}

#[tokio::test]
async fn only_a_whole_answer_with_a_number_is_a_reading() {
    check(answer("200 OK", HEAD), Ok(0), "").await;
    check(answer("200 OK", &format!("{HEAD}Inactive for [<1] minutes: [3] sessions\n")), Ok(3), "").await;
    check(answer("200 OK", "<html>login</html>"), Err(CountFault::Unreadable), "not the text of Tomcat's manager").await;
    check(answer("200 OK", "FAIL - No context exists named [/shop]"), Err(CountFault::Unreadable), "No context exists").await;
    check(answer("404 Not Found", HEAD), Err(CountFault::Status), "status 404; check url_path").await;
    check(answer("302 Found", ""), Err(CountFault::Status), "status 302").await;
    check(answer("401 Unauthorized", ""), Err(CountFault::Unauthorized), "status 401; check user_file").await;
    check(answer("403 Forbidden", ""), Err(CountFault::Unauthorized), "status 403").await;
    check(Manner::Closes, Err(CountFault::Unreachable), "connection closed").await;
    check(Manner::Answers("SSH-2.0-OpenSSH\r\n".repeat(4)), Err(CountFault::Unreadable), "not HTTP").await;
    let short = format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{HEAD}");
    check(Manner::Answers(short), Err(CountFault::Unreachable), "before the answer was complete").await;
    let large = answer("200 OK", &format!("{HEAD}{}", " ".repeat(BODY_MAX)));
    check(large, Err(CountFault::TooLarge), "larger than 1048576 bytes").await;
}

#[test]
fn a_fault_is_told_once_however_its_words_vary() {
    use CountFault::{Status, Unreadable};
    let check = |last: Option<CountFault>, result: std::result::Result<u64, CountFault>, expected: Option<&str>| {
        let result = result.map_err(|fault| (fault, "why, at 12:03:07".to_owned()));
        assert_eq!(news(last, &result).as_deref(), expected, "{last:?} {result:?}");
    };
    let unknown = Some("its own count of sessions is unknown: why, at 12:03:07");
    check(None, Err(Status), unknown);
    check(Some(Status), Err(Status), None);
    check(Some(Status), Err(Unreadable), unknown);
    check(Some(Unreadable), Ok(4), Some("its own count of sessions is known again: 4"));
    check(None, Ok(4), None);
}

#[tokio::test]
async fn a_backend_that_hangs_or_drips_is_given_up() {
    check(Manner::Silent, Err(CountFault::Silent), "no answer within 600ms").await;
    check(Manner::Drips("HTTP/1.1 200 OK\r\nX: ".to_owned()), Err(CountFault::Silent), "no answer within").await;
    check(Manner::Drips(format!("HTTP/1.1 200 OK\r\n\r\n{HEAD}")), Err(CountFault::Silent), "no answer within").await;
    let nobody = ask(refused(), &probe(None), &mut Cookies::default()).await;
    assert_eq!(nobody, Err((CountFault::Unreachable, "connect refused".to_owned())));
}

#[tokio::test]
async fn the_user_is_read_anew_for_each_question_and_cookies_are_kept() {
    let file = std::env::temp_dir().join(format!("tidegate-count-{}", std::process::id()));
    let name = file.to_str().expect("a temporary directory has a plain name");
    let manner = Manner::Answers("HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=abc; Path=/manager\r\nContent-Length: 0\r\n\r\n".to_owned());
    let stub = Stub::start(manner).await;
    let mut cookies = Cookies::default();
    for user in ["probe:first", "probe:second\n"] {
        std::fs::write(&file, user).expect("it can be written");
        assert!(ask(stub.address, &probe(Some(name)), &mut cookies).await.is_err());
    }
    let requests = stub.requests();
    let [first, second] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(first.starts_with("GET /manager/text/sessions?path=/shop HTTP/1.1\r\n"), "{first}");
    assert!(first.contains("Basic cHJvYmU6Zmlyc3Q=") && !first.contains("JSESSIONID"), "{first}");
    assert!(second.contains("Basic cHJvYmU6c2Vjb25k\r\n") && second.contains("JSESSIONID=abc"), "{second}");

    std::fs::write(&file, "nobody").expect("it can be written");
    let (fault, why) = ask(stub.address, &probe(Some(name)), &mut cookies).await.expect_err("no user");
    assert!(fault == CountFault::UserFile && why.ends_with("holds no user:password"), "{why}");
    std::fs::remove_file(&file).expect("it can be removed");
    let (fault, why) = ask(stub.address, &probe(Some(name)), &mut cookies).await.expect_err("no file");
    assert!(fault == CountFault::UserFile && why.contains("cannot be read"), "{why}");
    assert_eq!(stub.requests().len(), 2, "without a user nobody is asked");
}
