//! HTTP/1.1 messages as bytes: the reading half that the test client and the scripted backend share.
//!
//! Nothing is normalised: heads are kept verbatim, fields keep their order, spelling and duplicates,
//! because that is what the tests are about.

use std::io::{self, BufRead, Read, Write};

/// A head larger than this is a bug of whoever sent it.
const MAX_HEAD: usize = 1 << 20;

/// A message head: the start line, the fields, and the bytes as they came.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// `GET / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start: String,
    /// Name and value as sent, in order.
    pub fields: Vec<(String, String)>,
    /// Everything up to and including the empty line.
    pub raw: String,
}

impl Head {
    /// Reads one head. `Ok(None)` when the peer closed before its first byte.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut raw = Vec::new();
        loop {
            let before = raw.len();
            let read = from.take((MAX_HEAD - before) as u64).read_until(b'\n', &mut raw)?;
            if read == 0 {
                if raw.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed within a head"));
            }
            if matches!(&raw[before..], b"\r\n" | b"\n") {
                if before == 0 {
                    raw.clear(); // an empty line before a message: RFC 9112 §2.2
                    continue;
                }
                return Ok(Some(Head::parse(&raw)));
            }
        }
    }

    fn parse(raw: &[u8]) -> Head {
        let raw = String::from_utf8_lossy(raw).into_owned();
        let mut lines = raw.lines();
        let start = lines.next().unwrap_or_default().to_owned();
        let fields =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Head { start, fields, raw }
    }

    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields_named(name).next()
    }

    /// All fields of that name.
    pub fn fields_named<'s, 'n>(&'s self, name: &'n str) -> impl Iterator<Item = &'s str> + use<'s, 'n> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Is the comma-separated field of that name holding this word?
    pub fn says(&self, name: &str, word: &str) -> bool {
        self.fields_named(name).flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    }

    /// The n-th word of the start line.
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }
}

/// How the end of a body is known when its head says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unstated {
    /// Requests: no body.
    Empty,
    /// Responses: until the connection closes.
    UntilClose,
}

/// Reads the body that belongs to `head`.
pub fn read_body(from: &mut impl BufRead, head: &Head, unstated: Unstated) -> io::Result<Vec<u8>> {
    if head.says("transfer-encoding", "chunked") {
        return read_chunked(from);
    }
    let mut body = Vec::new();
    if let Some(length) = head.field("content-length") {
        let length: u64 = length.parse().map_err(|_| bad("content-length"))?;
        from.take(length).read_to_end(&mut body)?;
        if (body.len() as u64) < length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {} of {length} body bytes", body.len())));
        }
    } else if unstated == Unstated::UntilClose {
        from.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_chunked(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = read_chunk(from)?;
        if chunk.is_empty() {
            return Ok(body);
        }
        body.extend_from_slice(&chunk);
    }
}

/// One chunk; empty for the last one, whose trailers are read and dropped.
pub fn read_chunk(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let size = read_line(from)?;
    let digits = size.split(';').next().unwrap_or_default().trim();
    let size = usize::from_str_radix(digits, 16).map_err(|_| bad("chunk size"))?;
    if size == 0 {
        while !read_line(from)?.is_empty() {}
        return Ok(Vec::new());
    }
    let mut chunk = vec![0; size];
    from.read_exact(&mut chunk)?;
    if !read_line(from)?.is_empty() {
        return Err(bad("chunk end"));
    }
    Ok(chunk)
}

/// Writes a chunked body in pieces of `piece` bytes.
pub fn write_chunked(to: &mut impl Write, body: &[u8], piece: usize) -> io::Result<()> {
    for chunk in body.chunks(piece.max(1)) {
        write!(to, "{:x}\r\n", chunk.len())?;
        to.write_all(chunk)?;
        to.write_all(b"\r\n")?;
    }
    to.write_all(b"0\r\n\r\n")
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed within a body"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad {what}"))
}

/// A value of a query string, not decoded.
pub fn query_value<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}
