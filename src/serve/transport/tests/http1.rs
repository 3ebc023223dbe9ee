//! HTTP/1: keep-alive, pipelining, short and slow and oversized requests.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_many_requests_and_the_proxy_knows_the_client() {
    let stage = Stage::new().await;
    let mut client = stage.connect().await;
    let me = client.local_addr().unwrap();
    for round in 0..20 {
        let answer = get(&mut client, &format!("/{round}")).await;
        assert_eq!(answer.body, format!("GET /{round} 0 from {me}"));
        assert!(!answer.closes());
    }
    assert_eq!(stage.stop.connections(), 1);
    drop(client);
    until("the connection is counted out", || stage.stop.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let stage = Stage::new().await;
    let mut client = stage.connect().await;
    let me = client.local_addr().unwrap();
    for _ in 0..10 {
        let together = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
            POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
            GET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(together.as_bytes()).await.unwrap();
        for expected in ["GET /1 0", "POST /2 5", "GET /3 0"] {
            let answer = read_answer(&mut client).await;
            assert_eq!(answer.body, format!("{expected} from {me}"));
        }
    }
    // And the connection is an ordinary one afterwards.
    assert_eq!(get(&mut client, "/4").await.status(), "200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipelined_head_in_two_pieces_is_put_together() {
    let stage = Stage::new().await;
    let mut client = stage.connect().await;
    let first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHo";
    client.write_all(first).await.unwrap();
    assert!(read_answer(&mut client).await.body.starts_with("GET /1 "));
    client.write_all(b"st: a\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut client).await.body.starts_with("GET /2 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shortest_request_and_garbage_are_answered_at_once() {
    let stage = Stage::new().await;
    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "200"),
        ("P / HTTP/1.0\r\n\r\n", "200"),
        ("PRI / HTTP/1.0\r\n\r\n", "200"),
        ("\x16\x03\x01\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\nx\r\n\r\n", "400"),
    ] {
        let mut client = stage.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_answer(&mut client).await;
        assert_eq!(answer.status(), status, "{request:?}");
        assert_eq!(read_to_end(&mut client).await, "", "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_whole_in_both_directions() {
    let stage = Stage::new().await;
    let mut client = stage.connect().await;
    let answer = get(&mut client, "/big").await;
    assert_eq!(answer.body, "x".repeat(1 << 20));
    let head = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&vec![b'y'; 3_000_000]).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(answer.body.starts_with("POST /up 3000000 "), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_given_before_the_body_was_read_does_not_reset_the_client() {
    let stage = Stage::new().await;
    for _ in 0..20 {
        let mut client = stage.connect().await;
        let head = "POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&[b'y'; 100_000]).await.unwrap();
        assert_eq!(read_answer(&mut client).await.status(), "403");
        // Still read, and thrown away: a reset could have overtaken the answer on a slower way.
        client.write_all(&vec![b'y'; 1_900_000]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut client).await, "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dripping_head_gets_a_408_when_its_time_is_over() {
    let options = TransportOptions { header_timeout: Duration::from_millis(300), ..TransportOptions::default() };
    let stage = Stage::with(options, None).await;
    let mut client = stage.connect().await;
    // On a second request, so that the deadline begins with each head.
    assert_eq!(get(&mut client, "/").await.status(), "200");
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = client.split();
    let dripping = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while writer.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    };
    tokio::select! {
        text = read_to_end(&mut reader) => assert!(text.starts_with("HTTP/1.1 408 "), "{text}"),
        () = dripping => panic!("writing ended first"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_deadline_does_not_limit_the_answer() {
    let options = TransportOptions { header_timeout: Duration::from_millis(200), ..TransportOptions::default() };
    let mut stage = Stage::with(options, None).await;
    let backend = stage.backend.clone();
    let mut client = stage.connect().await;
    let held = "POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    // Alone, then as the first and the second of two: the second's head is in Pingora's hands before we expect it.
    for together in [1, 2] {
        client.write_all(held.repeat(together).as_bytes()).await.unwrap();
        for _ in 0..together {
            stage.arrived("/held").await;
            tokio::time::sleep(options.header_timeout * 2).await;
            backend.release();
            assert_eq!(read_answer(&mut client).await.status(), "200");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_closed_without_a_word() {
    let options = TransportOptions {
        idle_timeout: Duration::from_millis(100),
        header_timeout: Duration::from_millis(200),
        ..TransportOptions::default()
    };
    let stage = Stage::with(options, None).await;
    let mut never_spoke = stage.connect().await;
    let mut spoke = stage.connect().await;
    assert_eq!(get(&mut spoke, "/").await.status(), "200");
    assert_eq!(read_to_end(&mut spoke).await, "");
    assert_eq!(read_to_end(&mut never_spoke).await, "");
    until("both are counted out", || stage.stop.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_a_client_waits_until_another_leaves() {
    let options = TransportOptions { max_connections: Some(1), ..TransportOptions::default() };
    let stage = Stage::with(options, None).await;
    let mut first = stage.connect().await;
    assert_eq!(get(&mut first, "/").await.status(), "200");
    let mut second = stage.connect().await;
    second.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), second.peek(&mut byte));
    assert!(early.await.is_err(), "answered above the limit");
    drop(first);
    assert_eq!(read_answer(&mut second).await.status(), "200");
}
