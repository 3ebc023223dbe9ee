//! The load's HTTP/2, plain with prior knowledge: one connection for each port, one stream at a time.
//!
//! A connection that says GOAWAY is left without complaint; a stream that is torn is a failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::user::User;
use super::{Kind, Outcome, Shared};
use crate::client::HOST;

/// A stream that the server never looked at is sent again so often: each time the connection is a new one.
const AGAIN: usize = 3;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut users = User::several(shared.plan.users);
    let mut kept: HashMap<u16, SendRequest<Bytes>> = HashMap::new();
    for turn in 0.. {
        if shared.is_over() {
            return;
        }
        let port = shared.port(turn);
        kept.retain(|port, _| shared.goes_to(*port));
        let user = &mut users[turn % shared.plan.users];
        let target = shared.target();
        let cookies = user.cookies(&target);
        let begun = Instant::now();
        let mut again = 0;
        let outcome = loop {
            let went = timeout(shared.plan.patience, exchange(&shared, &mut kept, port, &target, &cookies)).await;
            match went {
                Ok(Ok(outcome)) => break outcome,
                Ok(Err(NeverLookedAt)) if again < AGAIN => {
                    again += 1;
                    shared.report.lock().unwrap().untouched_streams += 1;
                }
                Ok(Err(NeverLookedAt)) => break Outcome::Failed(Kind::Refused, format!("turned away {again} times")),
                Err(_) => break Outcome::Failed(Kind::Silent, format!("nothing in {:?}", shared.plan.patience)),
            }
        };
        if matches!(outcome, Outcome::Failed(..)) {
            kept.remove(&port);
        }
        shared.note(format!("{} {target} (HTTP/2, {port})", shared.plan.method), begun, user, outcome);
        shared.think().await;
    }
}

/// The server said so: RFC 9113 §6.8 (a higher stream than the last of GOAWAY) and §8.7 (`REFUSED_STREAM`).
struct NeverLookedAt;

async fn exchange(
    shared: &Shared,
    kept: &mut HashMap<u16, SendRequest<Bytes>>,
    port: u16,
    target: &str,
    cookies: &str,
) -> Result<Outcome, NeverLookedAt> {
    let ready = match kept.remove(&port) {
        // An error here is a connection that ended between two streams: nothing was sent.
        Some(sender) => sender.ready().await.ok(),
        None => None,
    };
    let mut sender = match ready {
        Some(sender) => sender,
        None => match connect(port).await {
            Ok(sender) => sender,
            Err(failed) => return Ok(failed),
        },
    };
    let is_post = shared.plan.method == "POST";
    let mut request = http::Request::builder().method(shared.plan.method).uri(format!("http://{HOST}{target}"));
    if !cookies.is_empty() {
        request = request.header("cookie", cookies);
    }
    let request = request.body(()).expect("a valid request");
    let (answer, mut body) = sender.send_request(request, !is_post).map_err(|_| NeverLookedAt)?;
    if is_post {
        // A stream that was reset meanwhile says so with its answer.
        body.send_data(Bytes::copy_from_slice(target.as_bytes()), true).ok();
    }
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => return torn(&error, Kind::Unanswered),
    };
    let (head, mut received) = answer.into_parts();
    let mut text = Vec::new();
    while let Some(piece) = received.data().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Ok(Outcome::Failed(Kind::CutAnswer, format!("{} bytes, {error}", text.len()))),
        };
        received.flow_control().release_capacity(piece.len()).expect("our own window");
        text.extend_from_slice(&piece);
    }
    kept.insert(port, sender);
    let cookies = head.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
    Ok(Outcome::Answered(head.status.as_u16(), cookies, String::from_utf8_lossy(&text).into_owned()))
}

async fn connect(port: u16) -> Result<SendRequest<Bytes>, Outcome> {
    let refused = |error: &dyn std::fmt::Display| Outcome::Failed(Kind::Refused, error.to_string());
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| refused(&error))?;
    stream.set_nodelay(true).map_err(|error| refused(&error))?;
    let unanswered = |error: h2::Error| Outcome::Failed(Kind::Unanswered, error.to_string());
    let (sender, connection) = h2::client::handshake(stream).await.map_err(unanswered)?;
    tokio::spawn(connection);
    sender.ready().await.map_err(unanswered)
}

fn torn(error: &h2::Error, kind: Kind) -> Result<Outcome, NeverLookedAt> {
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let gone = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    if refused || gone { Err(NeverLookedAt) } else { Ok(Outcome::Failed(kind, error.to_string())) }
}
