//! HTTP/2 by ALPN and with prior knowledge, and its end at a stop.

use ::h2::client::{SendRequest, handshake};

use super::*;

/// A client connection whose driving task says how it ended.
async fn client<T>(io: T) -> (SendRequest<Bytes>, tokio::task::JoinHandle<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.unwrap();
    (sender, tokio::spawn(async { connection.await.is_ok() }))
}

async fn get_h2(sender: &SendRequest<Bytes>, path: &str) -> Result<String, ::h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let request = http::Request::get(format!("http://a{path}"));
    let (answer, _) = sender.send_request(request.body(()).unwrap(), true)?;
    let mut body = answer.await?.into_body();
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        text.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(text).unwrap())
}

async fn exchange(stage: &Stage, sender: &SendRequest<Bytes>, me: SocketAddr) {
    let all = (0..50).map(|n| {
        let path = format!("/{n}");
        async move {
            let text = get_h2(sender, &path).await.unwrap();
            assert_eq!(text, format!("GET {path} 0 from {me}"));
        }
    });
    futures_util::future::join_all(all).await;
    assert_eq!(get_h2(sender, "/big").await.unwrap().len(), 1 << 20);
    assert_eq!(stage.stop.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_clients_that_offer_it_get_http2() {
    let files = tls::Files::new();
    let spec = files.spec(&["shop.example.com"]);
    let stage = Stage::with(TransportOptions::default(), Some(spec)).await;
    let io = tls::connect(&stage, None, b"\x02h2\x08http/1.1", None).await.unwrap();
    assert_eq!(io.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
    let me = io.get_ref().local_addr().unwrap();
    let (sender, _) = client(io).await;
    exchange(&stage, &sender, me).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_clients_with_prior_knowledge_get_http2() {
    let stage = Stage::new().await;
    let io = stage.connect().await;
    let me = io.local_addr().unwrap();
    let (sender, _) = client(io).await;
    exchange(&stage, &sender, me).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_in_pieces_is_still_one() {
    let stage = Stage::new().await;
    let mut io = stage.connect().await;
    io.set_nodelay(true).unwrap();
    for piece in ["P", "RI * HTT", "P/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        io.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first frame of a server is SETTINGS, type 4.
    let mut frame = [0; 9];
    io.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let options = TransportOptions { idle_timeout: Duration::from_millis(200), ..TransportOptions::default() };
    let mut stage = Stage::with(options, None).await;
    let (sender, ended) = client(stage.connect().await).await;
    let held = tokio::spawn({
        let sender = sender.clone();
        async move { get_h2(&sender, "/held").await }
    });
    stage.arrived("/held").await;
    tokio::time::sleep(options.idle_timeout * 2).await;
    assert!(!ended.is_finished());
    stage.backend.release();
    assert!(held.await.unwrap().unwrap().starts_with("GET /held"));
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_says_goaway_and_finishes_the_stream_under_way() {
    let mut stage = Stage::new().await;
    let (idle, idle_ended) = client(stage.connect().await).await;
    get_h2(&idle, "/").await.unwrap();
    stage.arrived("/").await;
    let (busy, busy_ended) = client(stage.connect().await).await;
    let held = tokio::spawn({
        let busy = busy.clone();
        async move { get_h2(&busy, "/held").await }
    });
    stage.arrived("/held").await;
    let backend = stage.backend.clone();
    let stopping = tokio::spawn(async move { stage.run_stop(PATIENCE).await });
    // The idle one ends by its GOAWAY while the other is still held, and sooner than a dead one would.
    let soon = super::super::http2::LAST_BYTES / 2;
    let idle_ended = tokio::time::timeout(soon, idle_ended).await.unwrap();
    assert!(idle_ended.unwrap(), "ended by an error");
    assert!(!stopping.is_finished() && !held.is_finished());
    backend.release();
    assert!(held.await.unwrap().unwrap().starts_with("GET /held"));
    assert_eq!(stopping.await.unwrap(), Stopped::Done);
    assert!(busy_ended.await.unwrap(), "ended by an error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanished_does_not_hold_up_a_stop_for_ever() {
    let stage = Stage::new().await;
    let mut dead = stage.connect().await;
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    dead.write_all(hello).await.unwrap();
    // SETTINGS have come, so the connection is up. From here on the client says nothing more, not even to GOAWAY.
    dead.read_exact(&mut [0; 9]).await.unwrap();
    assert_eq!(stage.run_stop(PATIENCE).await, Stopped::Done);
}
