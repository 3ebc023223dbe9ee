//! The load's HTTP/1.1: one connection for each port, or one for each request.
//!
//! A head that is read in pieces is parsed anew with each piece; answers are short here.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::user::User;
use super::{Kind, Outcome, Shared};
use crate::client::HOST;
use crate::http::{self, Head, Unstated};

pub(super) async fn run(shared: Arc<Shared>, keep: bool) {
    let mut users = User::several(shared.plan.users);
    let mut kept: HashMap<u16, TcpStream> = HashMap::new();
    let how = if keep { "keep-alive" } else { "close" };
    for turn in 0.. {
        if shared.is_over() {
            return;
        }
        let port = shared.port(turn);
        kept.retain(|port, _| shared.goes_to(*port));
        let user = &mut users[turn % shared.plan.users];
        let target = shared.target();
        let connection = if keep { kept.remove(&port) } else { None };
        let reused = if connection.is_some() { "reused " } else { "" };
        let request = format!("{} {target} ({reused}{how}, {port})", shared.plan.method);
        let text = written(&shared, &target, user, keep);
        let begun = Instant::now();
        let (outcome, connection) = timeout(shared.plan.patience, exchange(connection, port, &text))
            .await
            .unwrap_or_else(|_| (Outcome::Failed(Kind::Silent, format!("nothing in {:?}", shared.plan.patience)), None));
        if let Some(connection) = connection.filter(|_| keep) {
            kept.insert(port, connection);
        }
        shared.note(request, begun, user, outcome);
        shared.think().await;
    }
}

/// The request of a user on a connection of its own.
pub(super) async fn alone(shared: &Shared, port: u16, user: &mut User) {
    let target = shared.target();
    let text = written(shared, &target, user, false);
    let begun = Instant::now();
    let (outcome, _) = timeout(shared.plan.patience, exchange(None, port, &text))
        .await
        .unwrap_or_else(|_| (Outcome::Failed(Kind::Silent, String::new()), None));
    shared.note(format!("{} {target} (close, {port})", shared.plan.method), begun, user, outcome);
}

fn written(shared: &Shared, target: &str, user: &User, keep: bool) -> String {
    let mut text = format!("{} {target} HTTP/1.1\r\nHost: {HOST}\r\n", shared.plan.method);
    let cookies = user.cookies(target);
    if !cookies.is_empty() {
        text += &format!("Cookie: {cookies}\r\n");
    }
    if !keep {
        text += "Connection: close\r\n";
    }
    let body = if shared.plan.method == "POST" { target } else { "" };
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

/// The outcome, and the connection where it can be used again.
async fn exchange(connection: Option<TcpStream>, port: u16, text: &str) -> (Outcome, Option<TcpStream>) {
    let none = if connection.is_some() { Kind::ReusedReset } else { Kind::Unanswered };
    let mut stream = match connection {
        Some(stream) => stream,
        None => match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => stream,
            Err(error) => return (Outcome::Failed(Kind::Refused, error.to_string()), None),
        },
    };
    // Small requests: nothing to wait for. A connection that is gone says so below.
    stream.set_nodelay(true).ok();
    let mut read = Vec::new();
    let written = stream.write_all(text.as_bytes()).await;
    // Whoever closes early may have answered first.
    let answer = answer(&mut stream, &mut read).await;
    match answer {
        Ok((head, body)) => {
            let Ok(status) = head.word(1).parse() else {
                return (Outcome::Failed(Kind::Garbage, first(&read)), None);
            };
            let cookies = head.fields_named("set-cookie").map(str::to_owned).collect();
            let kept = (!head.says("connection", "close") && !is_until_close(&head)).then_some(stream);
            (Outcome::Answered(status, cookies, String::from_utf8_lossy(&body).into_owned()), kept)
        }
        Err(error) if read.is_empty() => {
            let error = written.err().unwrap_or(error);
            (Outcome::Failed(none, format!("{error}, 0 bytes")), None)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => (Outcome::Failed(Kind::Garbage, first(&read)), None),
        Err(_) => (Outcome::Failed(Kind::CutAnswer, first(&read)), None),
    }
}

/// One whole answer; all that came of it is in `read`.
pub(super) async fn answer(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<(Head, Vec<u8>)> {
    let head = head(stream, read).await?;
    let from = head.raw.len();
    loop {
        if !is_until_close(&head) {
            match http::read_body(&mut &read[from..], &head, Unstated::Empty) {
                Ok(body) => return Ok((head, body)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        if stream.read_buf(read).await? == 0 {
            return if is_until_close(&head) { Ok((head, read.split_off(from))) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// The head alone: for an answer that switches protocols.
pub(super) async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Head> {
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if read.len() >= 5 && !read.starts_with(b"HTTP/") {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(Head::read(&mut read.as_slice())?.expect("a head that is there"))
}

fn is_until_close(head: &Head) -> bool {
    let bounded = head.field("content-length").is_some() || head.says("transfer-encoding", "chunked");
    !bounded && !matches!(head.word(1), "204" | "304")
}

fn first(bytes: &[u8]) -> String {
    let few = &bytes[..bytes.len().min(120)];
    format!("{} bytes: {:?}", bytes.len(), String::from_utf8_lossy(few))
}
