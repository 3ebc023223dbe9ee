//! The status page before readers of all kinds.

use super::*;

#[tokio::test]
async fn a_public_address_shows_no_data_before_the_token() {
    let public = port("0.0.0.0:9180").await;
    let get = |path: &str, token: &str| format!("GET {path} HTTP/1.1\r\nHost: proxy.example\r\n{token}Connection: close\r\n\r\n");
    let right = format!("Authorization: Bearer {SECRET}\r\n");
    let wrong = "Authorization: Bearer fedcba9876543210fedcba9876543210\r\n";

    let form = public.raw(&get("/", "")).await;
    assert_eq!(form.status, 200);
    for secret in ["v41", "v42", "shop", "8081", "a1", "data-k"] {
        assert!(!form.body.contains(secret), "{secret}: {}", form.body);
    }
    assert!(form.body.contains("id=\"token\""));
    for path in ["/page.css", "/page.js", "/orders.js", "/favicon.svg"] {
        let part = public.raw(&get(path, "")).await;
        assert_eq!(part.status, 200, "{path}");
        assert!(!part.body.contains("shop/v41"), "{path}");
    }
    assert_eq!(public.raw(&get("/live", "")).await.status, 401);
    let refused = public.raw(&get("/", wrong)).await;
    assert_eq!(refused.status, 401);
    assert!(refused.json()["error"].as_str().unwrap().contains("wrong"));

    let page = public.raw(&get("/", &right)).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("data-k=\"shop/v41/a1.live\""), "{}", page.body);
}

#[tokio::test]
async fn a_stream_ends_with_the_process() {
    let port = port("127.0.0.1:9180").await;
    let mut stream = BufReader::new(TcpStream::connect(port.address).await.unwrap());
    stream.get_mut().write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0);
    }
    let frame: Value = serde_json::from_str(line.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(frame["cells"]["shop/v41.state"], "current");
    port.stop.send(true).unwrap();
    let mut rest = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn names_with_markup_reach_the_page_as_text() {
    let port = port("127.0.0.1:9180").await;
    port.control.note(Owner::Health, "shop/v41/<b>a1</b>", "<script>alert(1)</script>");
    let page = port.ask("GET", "/", None).await.body;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script>alert"), "{page}");
}

#[tokio::test]
async fn a_rollback_is_offered_only_to_a_release_that_was_current() {
    // v42 drains, as what a file lists beside the current release does at a first start; nobody knows that it ever served.
    let port = port("127.0.0.1:9180").await;
    assert!(!port.ask("GET", "/", None).await.body.contains("rollback shop"));
    let current = |to: &str| port.control.apply(&promote(to), Owner::Operator, DrainOrder::default()).map(drop);
    current("v42").unwrap();
    assert!(port.ask("GET", "/", None).await.body.contains("data-order=\"rollback shop\" data-to=\"v41\""));
}

fn promote(release: &str) -> Change {
    Change::Promote { app: "shop".to_owned(), release: release.to_owned(), from: None, force: false }
}

#[tokio::test]
async fn open_pages_share_one_page_of_a_structure_and_visitors_get_the_figures_of_the_moment() {
    let port = port("127.0.0.1:9180").await;
    let structure = |page: &str| page.split("data-structure=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let first = port.ask("GET", "/", None).await.body;
    let path = format!("/?structure={}", structure(&first));
    let shared = port.ask("GET", &path, None).await.body;
    port.control.note(Owner::Health, "shop/v41/a1", "something happens");
    assert_eq!(port.ask("GET", &path, None).await.body, shared, "drawn once");
    assert!(port.ask("GET", "/", None).await.body.contains("something happens"));
    assert!(port.ask("GET", "/?structure=another", None).await.body.contains("something happens"));
}
