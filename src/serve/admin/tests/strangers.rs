//! Who is not let in.

use super::*;

#[tokio::test]
async fn strangers_are_kept_out() {
    let local = port("127.0.0.1:9180").await;
    let public = port("0.0.0.0:9180").await;
    let right = format!("Authorization: Bearer {SECRET}\r\n");
    let wrong = "Authorization: Bearer fedcba9876543210fedcba9876543210\r\n";
    let order = ("POST", "/api/v1/apps/shop/promote");
    let question = ("GET", "/api/v1/status");
    for (port, (method, path), headers, expected) in [
        (&local, question, "", 200),
        (&local, question, "Host: 127.0.0.1:9180\r\n", 200),
        (&local, question, "Host: evil.example\r\n", 403),
        (&local, ("GET", "/healthz"), "Host: evil.example\r\n", 200),
        (&local, order, "", 401),
        (&local, order, wrong, 401),
        (&local, order, &format!("{right}Host: evil.example\r\n"), 403),
        (&public, question, "", 401),
        (&public, question, wrong, 401),
        (&public, question, &right, 200),
        (&public, question, &format!("{right}Host: proxy.example\r\n"), 200),
        (&public, ("GET", "/metrics"), "", 401),
        (&public, ("GET", "/healthz"), "", 200),
        (&public, ("GET", "/"), "", 200),
        (&public, order, "", 401),
        // The check comes before everything else: strangers do not even learn what exists.
        (&public, ("GET", "/nothing"), "", 401),
        // Past the check the missing body is the first thing that is wrong.
        (&local, order, &right, 400),
        (&public, order, &right, 400),
    ] {
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let answer = port.raw(&format!("{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n")).await;
        assert_eq!(answer.status, expected, "{method} {path} {headers:?}: {}", answer.body);
        assert_eq!(answer.head.contains("www-authenticate: bearer"), expected == 401);
        assert!(answer.head.contains("cache-control: no-store"));
    }
    assert_eq!(local.control.view().app("shop").unwrap().current.as_deref(), Some("v41"));
}
