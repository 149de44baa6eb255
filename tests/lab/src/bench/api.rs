//! `cargo lab bench api`: durable POST /v1/calls per second, and how long one takes, at 64 connections on SQLite and on
//! PostgreSQL, with fake PBXes to which the calls go as fast as their trunks take them. Beside it the limit: the bare framework
//! with the one insert, as durable, and nothing else (`tests/bench_api`).
//!
//! Databases lie on a disk. The server is killed after the last answer, and every call that was answered must be in its
//! database. Load, fake PBXes, servers and PostgreSQL share the machine's cores.
use super::{CONTROL_PLANE, Measured, build, cpu_time, cpu_time_of_ended, release, round, spread::Spread};
use crate::output;
use anyhow::{Context as _, ensure};
use lab::{ControlPlane, Lab, Setup, Signal, now, postgres::Cluster};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(super) const CONNECTIONS: u32 = 64;
const WARM_UP: u32 = 4_000;
const POSTS: u32 = 32_000;
/// Nearly none of these calls has ended when the last one is accepted.
pub(super) const OPEN_MAX: u32 = 50_000;
const PBXES: usize = 2;
/// Two PBXES with this pace are a fleet of 100 calls per second.
const CPS_OF_EACH: u32 = 50;
/// The program's own default; no number is called twice.
pub(super) const THROTTLE: &str =
    "[{calls=1,per_s=60},{calls=3,per_s=900},{calls=7,per_s=3600},{calls=15,per_s=10800}]";
const POSTS_PER_S_MIN: f64 = 5_000.0;
const P99_MS_MAX: f64 = 25.0;
/// On a disk. Emptied before and after.
const FOLDER: &str = "/var/tmp/ringward-bench-api";
/// Posts of the one whose answers are timed, alone and beside the other; so many a second (`bench_api/src/neighbour.rs`).
const NEIGHBOUR_POSTS: u32 = 1_500;
const NEIGHBOUR_PER_S: u32 = 50;
/// Requests per second that the other one may have answered.
const LOUD_MAX: u32 = 20;
const SYNCS: usize = 200;
const PROGRAM: &str = "bench-api";
const PEER: &str = "axum, one insert";

#[derive(Clone, Copy)]
enum Store {
    Sqlite,
    Postgres,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Store::Sqlite => "SQLite",
            Store::Postgres => "PostgreSQL",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Store::Sqlite => "sqlite",
            Store::Postgres => "postgres",
        }
    }

    /// An empty one; PostgreSQL runs while the cluster lives.
    fn fresh(self, folder: &Path) -> anyhow::Result<(Option<Cluster>, String)> {
        Ok(match self {
            Store::Sqlite => (None, format!("sqlite://{}", folder.join("ringward.db").display())),
            Store::Postgres => {
                let cluster = Cluster::start_on_disk()?;
                let url = cluster.url();
                (Some(cluster), url)
            }
        })
    }
}

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[CONTROL_PLANE])?;
    let _alone = Lab::alone()?;
    let sync_ms = sync_ms(&empty()?)?;
    let (mut figures, mut peer) = (json!({"disk_sync_p50_ms": round(sync_ms)}), json!({"name": PEER}));
    let mut lines = vec![format!(
        "{:<34}{:>9}{:>9}{:>9}{:>9}{:>12}",
        "", "posts/s", "p50 ms", "p99 ms", "max ms", "CPU µs each"
    )];
    let mut met = true;
    for store in [Store::Sqlite, Store::Postgres] {
        output::note(&format!("{POSTS} calls, {CONNECTIONS} at a time, {}", store.name()));
        let (ours, placed) = ringward(store)?;
        let bare = bare(store)?;
        lines.push(ours.line(&format!("Ringward, {}", store.name())));
        lines.push(bare.line(&format!("{PEER}, {}", store.name())));
        let ratio = ours.posts_per_s / bare.posts_per_s;
        lines.push(format!("  {:.0} % of it; {placed} of the calls were placed meanwhile", 100.0 * ratio));
        met &= ours.posts_per_s >= POSTS_PER_S_MIN && ours.p99_ms <= P99_MS_MAX;
        figures[store.key()] = ours.json();
        figures[store.key()]["ratio_to_bare"] = round(ratio).into();
        figures[store.key()]["placed"] = placed.into();
        peer[store.key()] = bare.json();
    }
    output::note("one organisation beside another that is refused");
    let beside = neighbour()?;
    lines.push(format!(
        "{:<34}{:>9}{:>9.2}{:>9.2}",
        "One organisation alone",
        NEIGHBOUR_PER_S,
        number(&beside, "alone_p50_ms")?,
        number(&beside, "alone_p99_ms")?
    ));
    lines.push(format!(
        "{:<34}{:>9}{:>9.2}{:>9.2}",
        "  beside one at its limit",
        NEIGHBOUR_PER_S,
        number(&beside, "beside_p50_ms")?,
        number(&beside, "beside_p99_ms")?
    ));
    lines.push(format!("  of which {} posts were refused meanwhile", beside["refused"]));
    figures["neighbour"] = beside;
    lines.push(format!(
        "{POSTS} calls each, all of them found after kill -9; a sync of the disk takes {sync_ms:.2} ms; target: \
         {POSTS_PER_S_MIN} posts/s, p99 of {P99_MS_MAX} ms"
    ));
    empty()?;
    let targets = json!({"posts_per_s": POSTS_PER_S_MIN, "p99_ms": P99_MS_MAX});
    Ok(Measured { bench: "api", figures, peer, targets, met, lines })
}

/// Ringward as it is run, and how many calls it placed meanwhile.
fn ringward(store: Store) -> anyhow::Result<(Load, u64)> {
    let folder = empty()?;
    std::fs::create_dir_all(&folder)?;
    let (_cluster, url) = store.fresh(&folder)?;
    let pbxes = Part::start(&["pbxes", &PBXES.to_string()], PBXES)?;
    std::fs::write(folder.join("secret"), "secret\n")?;
    let setup = Setup::new(&folder).release().throttle(THROTTLE).open_calls_max(OPEN_MAX);
    let plane = ControlPlane::open(setup.database(url.clone()))?;
    plane.apply(&fleet(&pbxes.lines, CPS_OF_EACH))?;
    let door = plane.api_url();
    let door = door.strip_prefix("http://").context("no address")?;
    let load = load(
        door,
        plane.customer_key(),
        &folder,
        plane.pid().context("it is not running")?,
        (WARM_UP, POSTS),
    )?;
    let placed = plane.metric("ringward_call_setup_seconds_count", &[])? as u64;
    plane.signal(Signal::Kill)?;
    all_found(&url, &folder)?;
    Ok((load, placed))
}

/// Two organisations, of which one asks 400 times a second and may 20 times: what the other one's posts take.
fn neighbour() -> anyhow::Result<Value> {
    let folder = empty()?;
    std::fs::create_dir_all(&folder)?;
    let pbxes = Part::start(&["pbxes", &PBXES.to_string()], PBXES)?;
    std::fs::write(folder.join("secret"), "secret\n")?;
    let plane =
        ControlPlane::open(Setup::new(&folder).release().throttle(THROTTLE).open_calls_max(OPEN_MAX))?;
    plane.apply(&fleet(&pbxes.lines, CPS_OF_EACH))?;
    let limits = json!({"requests_per_s": LOUD_MAX});
    plane.admin("PUT", "/admin/v1/orgs/default/limits", Some(&limits))?;
    let org = plane.admin("POST", "/admin/v1/orgs", Some(&json!({"slug": "quiet", "name": "Quiet"})))?;
    let key = plane.admin("POST", "/admin/v1/keys", Some(&json!({"name": "quiet", "org": org["id"]})))?;
    let quiet = key["secret"].as_str().context("no key")?;
    let door = plane.api_url();
    let door = door.strip_prefix("http://").context("no address")?;
    part(&["neighbour", door, plane.customer_key(), quiet, &NEIGHBOUR_POSTS.to_string()])
}

/// The bare framework.
fn bare(store: Store) -> anyhow::Result<Load> {
    let folder = empty()?;
    std::fs::create_dir_all(&folder)?;
    let (_cluster, url) = store.fresh(&folder)?;
    let server = Part::start(&["bare", &url], 1)?;
    let address = server.lines.first().context("no address")?;
    let load = load(address, "none", &folder, server.pid(), (WARM_UP, POSTS))?;
    // Killed too.
    drop(server);
    all_found(&url, &folder)?;
    Ok(load)
}

/// A fleet of PBXes at these addresses, a trunk of this pace each.
pub(super) fn fleet(addresses: &[String], cps: u32) -> String {
    let mut text = "[[carrier]]\nname = \"carrier\"\n".to_owned();
    let mut trunks = Vec::new();
    for (n, address) in addresses.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[node]]\nname = \"pbx-{n}\"\nregion = \"here\"\n\
             ami = {{ address = \"{address}\", username = \"ringward\", secret_file = \"secret\" }}\n\
             \n[[trunk]]\nname = \"trunk-{n}\"\nnode = \"pbx-{n}\"\ncarrier = \"carrier\"\nendpoint = \"carrier\"\n\
             cps_max = {cps}\n"
        );
        trunks.push(format!("\"trunk-{n}\""));
    }
    text + &format!("\n[[route]]\nprefix = \"+\"\ntiers = [[{}]]\n", trunks.join(", "))
}

/// What a run of the load took.
pub(super) struct Load {
    posts_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Of the server's process; PostgreSQL's own are not in it.
    server_cpu_us: f64,
    load_cpu_us: f64,
}

impl Load {
    /// Processor time of the load for each post.
    pub(super) fn cpu_us(&self) -> f64 {
        self.load_cpu_us
    }

    fn line(&self, name: &str) -> String {
        format!(
            "{name:<34}{:>9.0}{:>9.2}{:>9.2}{:>9.2}{:>12.0}",
            self.posts_per_s, self.p50_ms, self.p99_ms, self.max_ms, self.server_cpu_us
        )
    }

    fn json(&self) -> Value {
        json!({
            "posts_per_s": self.posts_per_s.round(), "p50_ms": round(self.p50_ms), "p99_ms": round(self.p99_ms),
            "max_ms": round(self.max_ms), "server_cpu_us_per_post": round(self.server_cpu_us),
            "load_cpu_us_per_post": round(self.load_cpu_us),
        })
    }
}

/// Posts so many calls that do not count, and then those that do.
pub(super) fn load(
    address: &str,
    key: &str,
    folder: &Path,
    server: u32,
    (warm_up, posts): (u32, u32),
) -> anyhow::Result<Load> {
    let all = warm_up + posts;
    let (server_before, load_before) = (cpu_time(server)?, cpu_time_of_ended()?);
    let [connections, warm_up, posts] = [CONNECTIONS, warm_up, posts].map(|count| count.to_string());
    let ids = ids(folder);
    let said = part(&["load", address, key, &connections, &warm_up, &posts, &ids.display().to_string()])?;
    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(all);
    let number = |key: &str| number(&said, key);
    Ok(Load {
        posts_per_s: number("posts_per_s")?,
        p50_ms: number("p50_ms")?,
        p99_ms: number("p99_ms")?,
        max_ms: number("max_ms")?,
        server_cpu_us: each(cpu_time(server)?.saturating_sub(server_before)),
        load_cpu_us: each(cpu_time_of_ended()?.saturating_sub(load_before)),
    })
}

fn number(said: &Value, key: &str) -> anyhow::Result<f64> {
    said[key].as_f64().with_context(|| format!("no {key} in {said}"))
}

/// Every call that was answered is in the database, once, and no other is.
fn all_found(url: &str, folder: &Path) -> anyhow::Result<()> {
    let said = part(&["found", url, &ids(folder).display().to_string()])?;
    let all = json!(WARM_UP + POSTS);
    ensure!(
        said["answered"] == all && said["found"] == all && said["calls"] == all,
        "of {all} calls that were answered there are: {said}"
    );
    Ok(())
}

fn ids(folder: &Path) -> PathBuf {
    folder.join("ids")
}

/// How long a small write takes to be on the disk, the median of some.
fn sync_ms(folder: &Path) -> anyhow::Result<f64> {
    std::fs::create_dir_all(folder)?;
    let mut file = std::fs::File::create(folder.join("sync"))?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = now();
        file.write_all(&[1; 4_096])?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(Spread::of(took).at(0.5))
}

/// Nothing is there: a run before may have left its databases.
pub(super) fn empty() -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {FOLDER}"))?;
    }
    Ok(folder)
}

/// Runs one of the parts to its end; its last line.
fn part(arguments: &[&str]) -> anyhow::Result<Value> {
    let said = Command::new(release(PROGRAM)?)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start a part of the bench")?;
    ensure!(said.status.success(), "{} failed", arguments.first().unwrap_or(&PROGRAM));
    let text = String::from_utf8_lossy(&said.stdout);
    serde_json::from_str(text.trim()).with_context(|| format!("it said {text:?}"))
}

/// A part that runs until this is dropped. It ends by itself too when its standard input does: should this program be killed.
pub(super) struct Part {
    child: Child,
    /// What it said first.
    pub(super) lines: Vec<String>,
}

impl Part {
    pub(super) fn start(arguments: &[&str], lines: usize) -> anyhow::Result<Self> {
        let child = Command::new(release(PROGRAM)?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a part of the bench")?;
        let mut part = Part { child, lines: Vec::new() };
        let out = part.child.stdout.take().context("no output")?;
        part.lines = BufReader::new(out).lines().take(lines).collect::<Result<_, _>>()?;
        ensure!(part.lines.len() == lines, "{} did not start", arguments.first().unwrap_or(&PROGRAM));
        Ok(part)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
