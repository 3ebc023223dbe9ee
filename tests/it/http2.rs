//! The test's HTTP/2 client, for what HTTP/1.1 cannot say: split cookies, bodies that end in an empty DATA frame, many
//! streams. Each call runs a small runtime of its own; it never shares one with the test.

use std::pin::Pin;

use bytes::Bytes;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode};
use pingora_core::protocols::tls::SslStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What to send on a stream: fields, and DATA frames of which the last ends the stream. None: the head ends it.
pub struct Stream<'a> {
    /// The method.
    pub method: &'a str,
    /// Scheme, authority and path.
    pub url: &'a str,
    /// In that order, duplicates as they are.
    pub fields: &'a [(&'a str, &'a str)],
    /// One DATA frame each.
    pub frames: &'a [&'a str],
}

/// Status, head and body.
pub type Answer = (u16, http::HeaderMap, String);

/// Sends them one after the other on one plain connection with prior knowledge.
pub fn plain(port: u16, streams: &[Stream]) -> Vec<Answer> {
    run(async {
        let io = TcpStream::connect(("127.0.0.1", port)).await.expect("the listener accepts");
        exchange(io, streams).await
    })
}

/// The same over TLS, with the protocol that was negotiated.
pub fn tls(port: u16, name: &str, streams: &[Stream]) -> Vec<Answer> {
    run(async {
        let io = TcpStream::connect(("127.0.0.1", port)).await.expect("the listener accepts");
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        context.set_verify(SslVerifyMode::NONE); // who shows which certificate is another test
        context.set_alpn_protos(b"\x02h2\x08http/1.1").unwrap();
        let mut ssl = Ssl::new(&context.build()).unwrap();
        ssl.set_hostname(name).unwrap();
        let mut io = SslStream::new(ssl, io).unwrap();
        Pin::new(&mut io).connect().await.expect("a TLS handshake");
        assert_eq!(io.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
        exchange(io, streams).await
    })
}

/// Reads a stream on a plain connection until it is torn; `then` is called after its first piece. What came, unless it ended whole.
pub fn until_torn(port: u16, stream: &Stream, then: impl FnOnce()) -> Option<String> {
    run(async {
        let io = TcpStream::connect(("127.0.0.1", port)).await.expect("the listener accepts");
        let (sender, connection) = h2::client::handshake(io).await.expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(stream.method).uri(stream.url);
        for (name, value) in stream.fields {
            request = request.header(*name, *value);
        }
        let mut sender = sender.ready().await.expect("an open connection");
        let (answer, _) = sender.send_request(request.body(()).expect("a valid request"), true).expect("a stream");
        let mut received = answer.await.expect("an answer").into_body();
        let (mut text, mut then) = (String::new(), Some(then));
        while let Some(piece) = received.data().await {
            let Ok(piece) = piece else { return Some(text) };
            received.flow_control().release_capacity(piece.len()).expect("our own window");
            text += &String::from_utf8_lossy(&piece);
            if let Some(then) = then.take() {
                then();
            }
        }
        None
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn exchange(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, streams: &[Stream<'_>]) -> Vec<Answer> {
    let (mut sender, connection) = h2::client::handshake(io).await.expect("an HTTP/2 handshake");
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for stream in streams {
        let mut request = http::Request::builder().method(stream.method).uri(stream.url);
        for (name, value) in stream.fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        sender = sender.ready().await.expect("an open connection");
        let (answer, mut body) = sender.send_request(request, stream.frames.is_empty()).expect("a stream");
        for (at, frame) in stream.frames.iter().enumerate() {
            let is_last = at + 1 == stream.frames.len();
            body.send_data(Bytes::copy_from_slice(frame.as_bytes()), is_last).expect("an open stream");
            tokio::task::yield_now().await; // a frame of its own
        }
        let answer = answer.await.expect("an answer");
        let (head, mut received) = answer.into_parts();
        let mut text = Vec::new();
        while let Some(piece) = received.data().await {
            let piece = piece.expect("a whole body");
            received.flow_control().release_capacity(piece.len()).expect("our own window");
            text.extend_from_slice(&piece);
        }
        answers.push((head.status.as_u16(), head.headers, String::from_utf8_lossy(&text).into_owned()));
    }
    answers
}
