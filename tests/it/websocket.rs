//! WebSocket frames (RFC 6455), just enough for echoes: short, unfragmented, text or close.
//!
//! The key of the handshake is answered properly, because HAProxy checks it.

use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The mask of every client frame; any value is legal, a fixed one makes traces readable.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`: RFC 6455 §4.2.2.
pub fn accept_value(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(openssl::sha::sha1(text.as_bytes()))
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// A close frame, or the end of the stream.
    Closed,
}

/// Writes a text frame; clients must mask, servers must not.
pub fn write_text(to: &mut impl Write, text: &str, masked: bool) -> io::Result<()> {
    write_frame(to, TEXT, text.as_bytes(), masked)
}

/// Writes a close frame without a reason.
pub fn write_close(to: &mut impl Write, masked: bool) -> io::Result<()> {
    write_frame(to, CLOSE, &[], masked)
}

fn write_frame(to: &mut impl Write, kind: u8, payload: &[u8], masked: bool) -> io::Result<()> {
    assert!(payload.len() < 126, "test messages are short");
    let mut frame = vec![0x80 | kind, payload.len() as u8];
    if masked {
        frame[1] |= 0x80;
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    } else {
        frame.extend_from_slice(payload);
    }
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame.
pub fn read(from: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 2];
    match from.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Frame::Closed),
        Err(error) => return Err(error),
    }
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        from.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    from.read_exact(&mut payload)?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    if head[0] & 0x0f == CLOSE {
        return Ok(Frame::Closed);
    }
    Ok(Frame::Text(String::from_utf8_lossy(&payload).into_owned()))
}
