//! HTTP/1.1 as a load generator speaks it: raw sockets, so that it costs little beside the server that it measures.
//!
//! Bodies that are received are thrown away in the kernel (`MSG_TRUNC`), bodies that are sent come from a file
//! (`sendfile`). One thread drives all connections of a GET; a push has a thread for each connection, which waits anyway.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::RecvFlags;

/// What is wrong, in words.
pub(crate) type Outcome<T> = Result<T, String>;

/// How long a server may keep silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Most that is thrown away by one call.
const THROWN_BYTES: usize = 1024 * 1024;
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// The head of a reply, and how much of the body came with it.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) length: u64,
    pub(crate) location: Option<String>,
    /// Where the body begins in what was received.
    pub(crate) end: usize,
}

/// Reads a head; `None` when it is not whole yet.
fn parse_head(received: &[u8]) -> Outcome<Option<Head>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        if received.len() >= HEAD_MAX_BYTES {
            return Err("the head of a reply is too long".into());
        }
        return Ok(None);
    };
    let text = std::str::from_utf8(received.get(..end).unwrap_or_default()).map_err(|error| error.to_string())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| format!("no status in `{text}`"))?;
    let (mut length, mut location) = (0, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| format!("no length: `{line}`"))?;
        } else if name.eq_ignore_ascii_case("location") {
            location = Some(value.trim().to_owned());
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("the reply is chunked, which is not measured".into());
        }
    }
    Ok(Some(Head { status, length, location, end: end + 4 }))
}

/// A connection for requests one after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
}

/// A body to be sent.
pub(crate) struct Body<'a> {
    pub(crate) common: &'a File,
    pub(crate) common_bytes: u64,
    pub(crate) tail: &'a [u8],
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(SILENCE)).map_err(|error| error.to_string())?;
        Ok(Self { stream, address })
    }

    /// One request; the reply's body is returned when it is wanted.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: Option<&Body<'_>>,
    ) -> Outcome<(Head, Vec<u8>)> {
        let length = body.map_or(0, |body| body.common_bytes + body.tail.len() as u64);
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n{headers}\r\n",
            self.address
        );
        let said = |error: io::Error| format!("{method} {target}: {error}");
        self.stream.write_all(head.as_bytes()).map_err(said)?;
        if let Some(body) = body {
            let mut offset = 0;
            while offset < body.common_bytes {
                let left = usize::try_from(body.common_bytes - offset).unwrap_or(usize::MAX);
                let sent = rustix::fs::sendfile(&self.stream, body.common, Some(&mut offset), left);
                if sent.map_err(|error| said(error.into()))? == 0 {
                    return Err(format!("{method} {target}: the file with the body is too short"));
                }
            }
            self.stream.write_all(body.tail).map_err(said)?;
        }
        let mut received = vec![0; HEAD_MAX_BYTES];
        let mut filled = 0;
        let reply = loop {
            let count = self.stream.read(received.get_mut(filled..).unwrap_or_default()).map_err(said)?;
            if count == 0 {
                return Err(format!("{method} {target}: the connection was closed"));
            }
            filled += count;
            if let Some(reply) = parse_head(received.get(..filled).unwrap_or_default())? {
                break reply;
            }
        };
        let mut content = received.get(reply.end..filled).unwrap_or_default().to_vec();
        if method != "HEAD" {
            let whole = usize::try_from(reply.length).map_err(|error| error.to_string())?;
            let begun = content.len();
            content.resize(whole.max(begun), 0);
            self.stream.read_exact(content.get_mut(begun..).unwrap_or_default()).map_err(said)?;
        }
        Ok((reply, content))
    }
}

/// What a load came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

struct Loop {
    stream: TcpStream,
    received: Vec<u8>,
    filled: usize,
    /// Of the body, once the head is read.
    missing: Option<u64>,
    idle: bool,
}

/// Asks for `target` on `connections` connections again and again for `time`; every reply must be a 200 of `expected` bytes.
pub(crate) fn get_load(
    address: SocketAddr,
    target: &str,
    headers: &str,
    connections: usize,
    expected: u64,
    time: Duration,
) -> Outcome<Load> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    let said = |error: io::Error| format!("GET {target}: {error}");
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| said(error.into()))?;
    let mut loops = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut stream = Connection::open(address)?.stream;
        stream.write_all(request.as_bytes()).map_err(said)?;
        stream.set_nonblocking(true).map_err(said)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, &stream, data, epoll::EventFlags::IN).map_err(|error| said(error.into()))?;
        loops.push(Loop { stream, received: vec![0; HEAD_MAX_BYTES], filled: 0, missing: None, idle: false });
    }
    let began = Instant::now();
    let mut load = Load::default();
    let mut busy = connections;
    let mut thrown = vec![0; THROWN_BYTES];
    let mut events = Vec::with_capacity(connections);
    let silence = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    while busy > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&silence))
            .map_err(|error| said(error.into()))?;
        if events.is_empty() {
            return Err(format!("GET {target}: nothing came for a minute"));
        }
        for event in &events {
            let Some(one) = usize::try_from(event.data.u64()).ok().and_then(|number| loops.get_mut(number)) else {
                continue;
            };
            if one.idle || !one.advance(expected, &mut thrown).map_err(|error| format!("GET {target}: {error}"))? {
                continue;
            }
            load.requests += 1;
            load.bytes += expected;
            if began.elapsed() < time {
                one.missing = None;
                one.filled = 0;
                one.stream.write_all(request.as_bytes()).map_err(said)?;
            } else {
                one.idle = true;
                busy -= 1;
            }
        }
    }
    load.seconds = began.elapsed().as_secs_f64();
    Ok(load)
}

impl Loop {
    /// Takes what is there; whether the reply is whole now.
    fn advance(&mut self, expected: u64, thrown: &mut [u8]) -> Outcome<bool> {
        let missing = match self.missing {
            Some(missing) => missing,
            None => {
                let count = match self.stream.read(self.received.get_mut(self.filled..).unwrap_or_default()) {
                    Ok(0) => return Err("the connection was closed".into()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error.to_string()),
                };
                self.filled += count;
                let Some(head) = parse_head(self.received.get(..self.filled).unwrap_or_default())? else {
                    return Ok(false);
                };
                if head.status != 200 || head.length != expected {
                    return Err(format!(
                        "status {} and {} bytes, expected 200 and {expected}",
                        head.status, head.length
                    ));
                }
                expected - (self.filled - head.end) as u64
            }
        };
        let mut missing = missing;
        if self.missing.is_some() {
            let most = usize::try_from(missing).unwrap_or(usize::MAX).min(thrown.len());
            let piece = thrown.get_mut(..most).unwrap_or_default();
            match rustix::net::recv(&self.stream, piece, RecvFlags::TRUNC) {
                Ok((_, 0)) => return Err("the connection was closed".into()),
                Ok((_, count)) => missing -= count as u64,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.missing = Some(missing);
        Ok(missing == 0)
    }
}
