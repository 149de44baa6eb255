//! Two organisations: how long one waits for its answers, alone and while the other asks far beyond what it may.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::ensure;
use serde_json::json;
use tokio::{
    net::TcpStream,
    task::LocalSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::load::{ANSWER_MAX, Request, ask, ms, request};

/// Between two calls of the one that is measured: 50 a second.
const QUIET_EVERY: Duration = Duration::from_millis(20);
/// Connections of the other, and what each of them waits between two posts: some 400 a second.
const LOUD: usize = 16;
const LOUD_EVERY: Duration = Duration::from_millis(40);
/// Numbers of the two are apart.
const LOUD_FROM: usize = 5_000_000;

/// Prints `{"alone_p50_ms", "alone_p99_ms", "beside_p50_ms", "beside_p99_ms", "posts", "refused"}`: of as many posts each of the
/// quiet one, and how many of the loud one were refused meanwhile.
pub(crate) async fn run(address: SocketAddr, loud: &str, quiet: &str, posts: usize) -> anyhow::Result<()> {
    let mut request_of_quiet = request(quiet);
    let alone = measure(address, &mut request_of_quiet, 0, posts).await?;
    let refused = Rc::new(Cell::new(0_u64));
    let local = LocalSet::new();
    for n in 0..LOUD {
        let (request, refused) = (request(loud), Rc::clone(&refused));
        local.spawn_local(flood(address, request, LOUD_FROM + n * 10_000, refused));
    }
    let beside = local.run_until(measure(address, &mut request_of_quiet, posts, posts)).await?;
    ensure!(refused.get() > 0, "the loud one was never refused");
    println!(
        "{}",
        json!({
            "alone_p50_ms": ms(&alone, 0.5), "alone_p99_ms": ms(&alone, 0.99), "beside_p50_ms": ms(&beside, 0.5),
            "beside_p99_ms": ms(&beside, 0.99), "posts": posts, "refused": refused.get(),
        })
    );
    Ok(())
}

/// What each post took, sorted; all of them are accepted. One that is late is not waited for by the next one's clock.
async fn measure(
    address: SocketAddr,
    request: &mut Request,
    from: usize,
    posts: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut answer, mut took) = (Vec::with_capacity(ANSWER_MAX), Vec::with_capacity(posts));
    let mut due = interval(QUIET_EVERY);
    for n in from..from + posts {
        // Counted from when it was due, so that a slow answer shows in those that waited behind it.
        let due = due.tick().await;
        let accepted = ask(&mut stream, request.to(n), &mut answer).await?;
        ensure!(accepted.is_some(), "not accepted: {}", String::from_utf8_lossy(&answer));
        took.push(Instant::now() - due);
    }
    took.sort_unstable();
    Ok(took)
}

async fn flood(address: SocketAddr, mut request: Request, from: usize, refused: Rc<Cell<u64>>) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let mut answer = Vec::with_capacity(ANSWER_MAX);
    let mut due = interval(LOUD_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in from.. {
        due.tick().await;
        match ask(&mut stream, request.to(n), &mut answer).await {
            Ok(None) => refused.set(refused.get() + 1),
            Ok(Some(_)) => {}
            Err(_) => return,
        }
    }
}
