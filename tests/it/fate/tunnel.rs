//! The load's WebSockets: each sends a word, waits for its echo and thinks, for as long as the load lasts.
//!
//! One that is cut is opened again, so that a later cut is seen too.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::user::User;
use super::{Failure, Kind, Shared, http1};
use crate::client::HOST;
use crate::websocket::{self, Frame};

pub(super) async fn run(shared: Arc<Shared>) {
    let mut user = User::default();
    for turn in 0.. {
        if shared.is_over() {
            return;
        }
        let port = shared.port(turn);
        http1::alone(&shared, port, &mut user).await;
        shared.report.lock().unwrap().sent += 1;
        let opened = timeout(shared.plan.patience, open(port, &user)).await;
        match opened.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(mut stream) => {
                note_opened(&shared);
                if let Err(seen) = talk(&shared, &mut stream).await {
                    fail(&shared, Kind::TunnelCut, port, seen);
                }
            }
            Err(seen) => fail(&shared, Kind::TunnelRefused, port, seen),
        }
        shared.think().await;
    }
}

fn note_opened(shared: &Shared) {
    let mut report = shared.report.lock().unwrap();
    report.tunnels += 1;
    report.answered += 1;
}

fn fail(shared: &Shared, kind: Kind, port: u16, seen: String) {
    let request = format!("GET /echo (WebSocket, {port})");
    shared.report.lock().unwrap().failures.push(Failure { kind, request, at: shared.began.elapsed(), seen });
}

async fn open(port: u16, user: &User) -> Result<TcpStream, String> {
    let plain = |error: io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(plain)?;
    stream.set_nodelay(true).map_err(plain)?;
    let cookies = user.cookies("/echo");
    let text = format!(
        "GET /echo HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await.map_err(plain)?;
    let head = http1::head(&mut stream, &mut Vec::new()).await.map_err(plain)?;
    if head.word(1) == "101" { Ok(stream) } else { Err(head.start) }
}

/// Until the load is over, which closes it properly.
async fn talk(shared: &Shared, stream: &mut TcpStream) -> Result<(), String> {
    let begun = Instant::now();
    let mut said = 0_u64;
    while !shared.is_over() {
        let word = format!("word {said}");
        let exchanged = timeout(shared.plan.patience, echo(stream, &word)).await;
        match exchanged {
            Ok(Ok(Frame::Text(text))) if text == word => said += 1,
            Ok(Ok(other)) => return Err(format!("{other:?} after {said} echoes and {:?}", begun.elapsed())),
            Ok(Err(error)) => return Err(format!("{error} after {said} echoes and {:?}", begun.elapsed())),
            Err(_) => return Err(format!("silent after {said} echoes")),
        }
        shared.report.lock().unwrap().echoes += 1;
        shared.think().await;
    }
    let mut frame = Vec::new();
    websocket::write_close(&mut frame, true).map_err(|error| error.to_string())?;
    // Nobody needs to hear it.
    stream.write_all(&frame).await.ok();
    Ok(())
}

async fn echo(stream: &mut TcpStream, word: &str) -> io::Result<Frame> {
    let mut frame = Vec::new();
    websocket::write_text(&mut frame, word, true)?;
    stream.write_all(&frame).await?;
    let mut head = [0; 2];
    if let Err(error) = stream.read_exact(&mut head).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(Frame::Closed) } else { Err(error) };
    }
    // Servers do not mask, and these frames are short.
    let mut whole = head.to_vec();
    whole.resize(2 + usize::from(head[1]), 0);
    stream.read_exact(&mut whole[2..]).await?;
    websocket::read(&mut whole.as_slice())
}
