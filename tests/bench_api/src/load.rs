//! Callers that each keep one connection and ask again as soon as they are answered.
//!
//! A request is written from one buffer, in which only the number changes, and an answer is read into another: what is
//! measured is the server. Each call is to a number of its own.

use std::{cell::RefCell, net::SocketAddr, ops::Range, path::PathBuf, rc::Rc, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
    time::Instant,
};

/// What a caller reads at most of one answer.
pub(crate) const ANSWER_MAX: usize = 64 * 1024;
/// Warsaw's fixed lines: as many calls at most.
const NUMBERS: usize = 10_000_000;
const NUMBER: &str = "+48220000000";
/// Digits that change from call to call.
const CHANGING: usize = 7;

pub(crate) struct Wanted {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) connections: usize,
    /// Calls that do not count.
    pub(crate) warm_up: usize,
    /// Calls that do.
    pub(crate) posts: usize,
    /// Where the answered ids go, one a line.
    pub(crate) ids: PathBuf,
}

/// What all callers share.
struct Shared {
    next: usize,
    warm_up: usize,
    all: usize,
    /// When the first call that counts was sent.
    began: Option<Instant>,
    took: Vec<Duration>,
    ids: Vec<u8>,
}

/// Prints `{"posts", "seconds", "posts_per_s", "p50_ms", "p99_ms", "max_ms"}`.
pub(crate) async fn run(wanted: Wanted) -> anyhow::Result<()> {
    let all = wanted.warm_up + wanted.posts;
    ensure!(wanted.connections > 0 && wanted.posts > 0 && all <= NUMBERS, "from 1 to {NUMBERS} calls");
    let shared = Rc::new(RefCell::new(Shared {
        next: 0,
        warm_up: wanted.warm_up,
        all,
        began: None,
        took: Vec::with_capacity(wanted.posts),
        ids: Vec::with_capacity(all * 32),
    }));
    let local = LocalSet::new();
    let callers: Vec<_> = (0..wanted.connections)
        .map(|_| local.spawn_local(call(wanted.address, request(&wanted.key), Rc::clone(&shared))))
        .collect();
    let ended = local
        .run_until(async {
            for caller in callers {
                caller.await??;
            }
            Ok::<_, anyhow::Error>(Instant::now())
        })
        .await?;
    let mut shared = shared.borrow_mut();
    let began = shared.began.context("nothing was sent")?;
    let seconds = (ended - began).as_secs_f64();
    std::fs::write(&wanted.ids, &shared.ids).context("write the ids")?;
    shared.took.sort_unstable();
    let ms = |share: f64| ms(&shared.took, share);
    println!(
        "{}",
        json!({
            "posts": wanted.posts, "seconds": seconds, "posts_per_s": wanted.posts as f64 / seconds,
            "p50_ms": ms(0.5), "p99_ms": ms(0.99), "max_ms": ms(1.0),
        })
    );
    Ok(())
}

/// The time, ms, within which this share of the sorted ones are.
pub(crate) fn ms(sorted: &[Duration], share: f64) -> f64 {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1_000.0
}

/// A whole request, and where its number's last digits begin.
pub(crate) struct Request {
    bytes: Vec<u8>,
    digits: usize,
}

pub(crate) fn request(key: &str) -> Request {
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}}).to_string();
    let text = format!(
        "POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let digits = text.rfind(NUMBER).map_or(0, |at| at + NUMBER.len() - CHANGING);
    Request { bytes: text.into_bytes(), digits }
}

impl Request {
    /// To the number of the `n`th call.
    pub(crate) fn to(&mut self, n: usize) -> &[u8] {
        let mut left = n;
        for digit in self.bytes.iter_mut().skip(self.digits).take(CHANGING).rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        &self.bytes
    }
}

async fn call(address: SocketAddr, mut request: Request, shared: Rc<RefCell<Shared>>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(ANSWER_MAX);
    loop {
        let (n, asked) = {
            let mut shared = shared.borrow_mut();
            if shared.next == shared.all {
                return Ok(());
            }
            let (n, now) = (shared.next, Instant::now());
            shared.next += 1;
            if n == shared.warm_up {
                shared.began = Some(now);
            }
            (n, now)
        };
        let id = ask(&mut stream, request.to(n), &mut answer).await?;
        let id = id.with_context(|| format!("not accepted: {}", String::from_utf8_lossy(&answer)))?;
        let id = answer.get(id).unwrap_or_default();
        let mut shared = shared.borrow_mut();
        if n >= shared.warm_up {
            shared.took.push(asked.elapsed());
        }
        shared.ids.extend_from_slice(id);
        shared.ids.push(b'\n');
    }
}

/// Asks, and reads the answer whole; where in it the id of the call is that it accepts. `None`: it accepts none.
pub(crate) async fn ask(
    stream: &mut TcpStream,
    request: &[u8],
    answer: &mut Vec<u8>,
) -> anyhow::Result<Option<Range<usize>>> {
    stream.write_all(request).await?;
    answer.clear();
    let (head, length) = loop {
        more(stream, answer).await?;
        if let Some(end) = find(answer, b"\r\n\r\n") {
            let head = answer.get(..end).unwrap_or_default();
            break (end + 4, content_length(head).context("an answer without its length")?);
        }
    };
    while answer.len() < head + length {
        more(stream, answer).await?;
    }
    if !answer.starts_with(b"HTTP/1.1 201 ") {
        return Ok(None);
    }
    let from = find(answer, b"\"id\":\"").context("an accepted call without an id")? + 6;
    let long = answer.iter().skip(from).position(|byte| *byte == b'"').context("an id without an end")?;
    Ok(Some(from..from + long))
}

async fn more(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    ensure!(answer.len() < ANSWER_MAX, "an answer of more than {ANSWER_MAX} bytes");
    ensure!(stream.read_buf(answer).await? > 0, "hung up: {}", String::from_utf8_lossy(answer));
    Ok(())
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let is_it = |line: &&[u8]| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let line = head.split(|byte| *byte == b'\n').find(is_it)?;
    std::str::from_utf8(line.get(NAME.len()..)?).ok()?.trim().parse().ok()
}

/// Where `wanted` begins.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_to_a_number_of_its_own() {
        let mut request = request("rw_key");
        let first = String::from_utf8(request.to(0).to_vec()).unwrap();
        assert!(first.contains("Bearer rw_key\r\n") && first.contains("\"to\":\"+48220000000\""), "{first}");
        let other = String::from_utf8(request.to(1_234_567).to_vec()).unwrap();
        assert!(other.contains("\"to\":\"+48221234567\""), "{other}");
        let body = other.split_once("\r\n\r\n").unwrap().1;
        assert!(other.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[test]
    fn an_answer_s_length_is_found_however_it_is_written() {
        assert_eq!(content_length(b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\nx: y"), Some(12));
        assert_eq!(content_length(b"HTTP/1.1 201 Created\r\ncontent-length:7"), Some(7));
        assert_eq!(content_length(b"HTTP/1.1 201 Created\r\nx-content-length: 7"), None);
    }
}
