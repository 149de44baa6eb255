//! The parts of `cargo lab bench api`, each a process of its own, so that none of them is measured with another.
//!
//! - `bench-api pbxes COUNT` is as many fake PBXes; it prints their addresses, one a line, and ends with its standard input.
//! - `bench-api bare DATABASE_URL` is the framework alone with the one insert; it prints its address, and ends likewise.
//! - `bench-api load ADDRESS KEY CONNECTIONS WARM_UP POSTS IDS` posts as many calls after as many that do not count, writes the
//!   ids that it was answered to the file, and prints what it took.
//! - `bench-api neighbour ADDRESS LOUD_KEY QUIET_KEY POSTS` posts so many calls with one key, alone and while the other asks without end,
//!   and prints what each took.
//! - `bench-api found DATABASE_URL IDS` prints how many of these ids are in the database.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod bare;
mod found;
mod load;
mod neighbour;
mod pbxes;

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        // One thread each: what is measured has the cores. The framework alone has as many as Ringward.
        ["pbxes", count] => alone()?.block_on(pbxes::run(count.parse().context("COUNT")?)),
        ["load", address, key, connections, warm_up, posts, ids] => {
            let wanted = load::Wanted {
                address: address.parse().context("ADDRESS")?,
                key: key.to_owned(),
                connections: connections.parse().context("CONNECTIONS")?,
                warm_up: warm_up.parse().context("WARM_UP")?,
                posts: posts.parse().context("POSTS")?,
                ids: ids.into(),
            };
            alone()?.block_on(load::run(wanted))
        }
        ["neighbour", address, loud, quiet, posts] => {
            let (address, posts) = (address.parse().context("ADDRESS")?, posts.parse().context("POSTS")?);
            alone()?.block_on(neighbour::run(address, loud, quiet, posts))
        }
        ["bare", url] => tokio::runtime::Runtime::new()?.block_on(bare::run(url)),
        ["found", url, ids] => alone()?.block_on(found::run(url, ids)),
        _ => bail!(
            "pbxes COUNT | bare URL | load ADDRESS KEY CONNECTIONS WARM_UP POSTS IDS | neighbour ADDRESS LOUD QUIET POSTS | found URL IDS"
        ),
    }
}

fn alone() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Prints lines at once, and returns when standard input ends: whoever started this is done, or dead.
async fn serve_until_left(lines: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    out.flush()?;
    drop(out);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
