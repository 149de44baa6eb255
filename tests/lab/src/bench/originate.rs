//! `cargo lab bench originate`: calls per second through the API on real Asterisk, beside a bare loop over AMI on the same
//! fleet in the same run: the same Originates, as many in flight, and nothing written down, chosen or followed up.
//!
//! Then 50 calls a second by each: from the acceptance (or the Originate) to the INVITE on the carrier's wire. Carriers ring for
//! 0.2 s and answer, a beep of 0.44 s is played, and the dialplan hangs up: so many are in flight that it is the machine that
//! bounds them. Control plane, PBXes and carriers share its cores, so that what the control plane takes is missing to Asterisk.
use super::{CONTROL_PLANE, Measured, build, cpu_time, round, spread::Spread};
use crate::output;
use anyhow::{Context as _, ensure};
use lab::{
    AmiUser, ControlPlane, Dialog, Lab, Pbx, Plan, Setup, now, numbers, pause, since_1970, wait_until,
};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Calls of each, as fast as they go.
const CALLS: u16 = 4_000;
/// In flight on each of the two PBXes: at 0.65 s a call, 390 a second would fill them.
const IN_FLIGHT: u16 = 128;
/// Calls of each whose way to the wire is timed, and how often one is placed.
const TIMED: u16 = 500;
const EVERY: Duration = Duration::from_millis(20);
/// No packet for so long: nothing more comes.
const QUIET: Duration = Duration::from_secs(1);
/// For all calls of one run.
const PATIENCE: Duration = Duration::from_secs(180);
const RATIO_MIN: f64 = 0.85;
const ADDED_P99_MS_MAX: f64 = 5.0;
/// On a disk. Emptied before and after.
const FOLDER: &str = "/var/tmp/ringward-bench-originate";
/// Customers that post at the same time.
const CUSTOMERS: usize = 8;
/// Between two looks whether all have ended: each is a scrape, which costs the control plane a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whose calls: each has numbers of its own.
#[derive(Clone, Copy)]
enum Part {
    Ours,
    Bare,
    OursTimed,
    BareTimed,
}

impl Part {
    fn number(self, call: u16) -> String {
        let first = match self {
            Part::Ours => 0,
            Part::Bare => CALLS,
            Part::OursTimed => 2 * CALLS,
            Part::BareTimed => 2 * CALLS + TIMED,
        };
        numbers::number(numbers::ANSWER_AND_HANG_UP, first + call)
    }
}

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[CONTROL_PLANE])?;
    let plan = Plan { trunk_cps_max: 1_000, trunk_channels_max: IN_FLIGHT.into(), ..Plan::default() };
    let lab = Lab::up(plan)?;
    let folder = Path::new(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let log_in = || lab.pbxes().iter().map(Bare::login).collect::<anyhow::Result<Vec<_>>>();
    output::note(&format!("{CALLS} calls by a bare loop over AMI"));
    // Its sessions end with it: Asterisk would tell them of Ringward's calls too.
    let bare_cps = per_second(&mut log_in()?, Part::Bare)?;
    reached_once(&lab, Part::Bare, CALLS)?;
    let plane = ControlPlane::start_with(&lab, Setup::new(folder).release().open_calls_max(10_000))?;
    output::note(&format!("{CALLS} calls by Ringward"));
    let cpu_before = cpu_time(plane.pid().context("it is not running")?)?;
    let cps = ours(&plane)?;
    let cpu = cpu_time(plane.pid().context("it is not running")?)? - cpu_before;
    reached_once(&lab, Part::Ours, CALLS)?;
    let cpu_us = cpu.as_secs_f64() * 1e6 / f64::from(CALLS);
    output::note(&format!("{TIMED} calls of each, one every {} ms", EVERY.as_millis()));
    let accepted = place_timed(&plane)?;
    let ours_ms = to_wire(&lab, Part::OursTimed, &accepted)?;
    plane.stop()?;
    let sent = send_timed(&mut log_in()?)?;
    let bare_ms = to_wire(&lab, Part::BareTimed, &sent)?;
    std::fs::remove_dir_all(folder)?;

    let ratio = cps / bare_cps;
    // Against the typical way from an Originate to the wire, as if Asterisk were never slow by itself.
    let added = ours_ms.at(0.99) - bare_ms.at(0.5);
    let lines = vec![
        format!("{CALLS} calls, {} in flight{:>22}", 2 * IN_FLIGHT, "calls/s"),
        format!("  Ringward, SQLite{cps:>30.1}"),
        format!("  a bare loop over AMI{bare_cps:>26.1}"),
        format!("  {:.0} % of it, {cpu_us:.0} µs of the control plane's processor time each", 100.0 * ratio),
        format!("to the INVITE, at 50 calls/s, ms{:>12}{:>9}{:>9}", "p50", "p99", "most"),
        format!("  Ringward, from the acceptance {ours_ms}"),
        format!("  bare, from the Originate      {bare_ms}"),
        format!(
            "  targets: {RATIO_MIN} of the bare loop, {ADDED_P99_MS_MAX} ms added at p99; measured {added:.2} ms"
        ),
    ];
    let met = ratio >= RATIO_MIN && added <= ADDED_P99_MS_MAX;
    let figures = json!({
        "cps": round(cps), "bare_cps": round(bare_cps), "ratio_to_bare": round(ratio), "added_p99_ms": round(added),
        "control_plane_cpu_us_per_call": round(cpu_us), "to_invite_p50_ms": round(ours_ms.at(0.5)),
        "to_invite_p99_ms": round(ours_ms.at(0.99)),
    });
    let peer = json!({
        "name": "a bare loop over AMI", "cps": round(bare_cps), "to_invite_p50_ms": round(bare_ms.at(0.5)),
        "to_invite_p99_ms": round(bare_ms.at(0.99)),
    });
    let targets = json!({"ratio_to_bare": RATIO_MIN, "added_p99_ms": ADDED_P99_MS_MAX});
    Ok(Measured { bench: "originate", figures, peer, targets, met, lines })
}

/// Every phone of a part was reached, and none twice.
fn reached_once(lab: &Lab, part: Part, calls: u16) -> anyhow::Result<()> {
    let mut reached = HashMap::new();
    for carrier in lab.carriers() {
        for (number, seen) in carrier.seen_when_quiet(QUIET)?.by_number {
            *reached.entry(number).or_insert(0) += seen.reached;
        }
    }
    let wrong = |call: &u16| reached.get(part.number(*call).trim_start_matches('+')) != Some(&1);
    let wrong: Vec<u16> = (0..calls).filter(wrong).collect();
    ensure!(wrong.is_empty(), "{} of {calls} phones were not reached once: {wrong:?}", wrong.len());
    Ok(())
}

fn body(part: Part, call: u16) -> Value {
    json!({"to": part.number(call), "message": {"audio_id": "builtin:beep"}})
}

/// All at once; they wait for their trunks' channels. Calls per second until the last has ended.
fn ours(plane: &ControlPlane) -> anyhow::Result<f64> {
    let began = now();
    let calls: Vec<u16> = (0..CALLS).collect();
    std::thread::scope(|scope| {
        let share =
            |share: &[u16]| share.iter().try_for_each(|call| plane.place(&body(Part::Ours, *call)).map(drop));
        let customers: Vec<_> = calls
            .chunks(calls.len().div_ceil(CUSTOMERS))
            .map(|calls| scope.spawn(move || share(calls)))
            .collect();
        customers.into_iter().try_for_each(|customer| match customer.join() {
            Ok(placed) => placed.map_err(anyhow::Error::from),
            Err(_) => anyhow::bail!("a customer broke"),
        })
    })?;
    while plane.metric("ringward_calls_open", &[])? != 0.0 {
        ensure!(began.elapsed() < PATIENCE, "calls never ended");
        pause(LOOK_EVERY);
    }
    Ok(f64::from(CALLS) / began.elapsed().as_secs_f64())
}

/// Each number, without `+`, and when its call was accepted, since 1970.
fn place_timed(plane: &ControlPlane) -> anyhow::Result<HashMap<String, Duration>> {
    let began = now();
    let mut ids = Vec::new();
    for call in 0..TIMED {
        pause((began + EVERY * u32::from(call)).saturating_duration_since(now()));
        ids.push(plane.place(&body(Part::OursTimed, call))?);
    }
    let mut accepted = HashMap::new();
    for (call, id) in (0..).zip(&ids) {
        let seen = plane.ended(id, PATIENCE)?;
        let at = seen["created_at"].as_str().context("no created_at")?;
        let at = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339)?;
        let at = Duration::from_nanos(u64::try_from(at.unix_timestamp_nanos())?);
        accepted.insert(Part::OursTimed.number(call).trim_start_matches('+').to_owned(), at);
    }
    Ok(accepted)
}

/// Ms from these moments to the INVITEs.
fn to_wire(lab: &Lab, part: Part, since: &HashMap<String, Duration>) -> anyhow::Result<Spread> {
    reached_once(lab, part, TIMED)?;
    let mut took = Vec::new();
    for carrier in lab.carriers() {
        let ms = |dialog: &Dialog| {
            let since = since.get(&dialog.number)?;
            Some((dialog.at.as_secs_f64() - since.as_secs_f64()) * 1_000.0)
        };
        took.extend(carrier.dialogs()?.iter().filter_map(ms));
    }
    ensure!(took.len() == usize::from(TIMED), "{} of {TIMED} INVITEs were seen", took.len());
    Ok(Spread::of(took))
}

/// A session that asks for calls and counts their ends.
struct Bare {
    stream: TcpStream,
    buffer: Vec<u8>,
    endpoint: String,
    open: HashSet<String>,
}

impl Bare {
    fn login(pbx: &Pbx) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(pbx.ami_address())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        let endpoint = pbx.trunks().first().context("a PBX without a trunk")?.endpoint.clone();
        let mut bare = Bare { stream, buffer: Vec::new(), endpoint, open: HashSet::new() };
        let (user, secret) = (AmiUser::Calls.username(), pbx.secret(AmiUser::Calls)?);
        write!(bare.stream, "Action: Login\r\nUsername: {user}\r\nSecret: {secret}\r\n\r\n")?;
        let mut is_in = false;
        wait_until("AMI to let the bare loop in", Duration::from_secs(5), "its secret", || {
            is_in |= bare.read().is_ok_and(|blocks| blocks.iter().any(|block| block.contains("Success")));
            is_in
        })?;
        Ok(bare)
    }

    fn originate(&mut self, number: &str) -> anyhow::Result<()> {
        // As an attempt's id: any other is a stranger to the dialplan, and hung up at once.
        let (endpoint, id) = (&self.endpoint, format!("att_{:0>26}", number.trim_start_matches('+')));
        // In one write: a packet for each header would wait for the last one's acknowledgement.
        let action = format!(
            "Action: Originate\r\nActionID: {id}\r\nChannel: PJSIP/{number}@{endpoint}\r\nContext: ringward-call\r\n\
             Exten: s\r\nPriority: 1\r\nTimeout: 38000\r\nAsync: true\r\nChannelId: {id}\r\n\
             Variable: RINGWARD_ATTEMPT={id}\r\nVariable: RINGWARD_AUDIO=beep\r\nVariable: RINGWARD_REPEAT=1\r\n\
             Variable: RINGWARD_TIME_LIMIT=120\r\nVariable: CHANNEL(hangup_handler_push)=\"ringward-record,s,1\"\r\n\r\n"
        );
        self.stream.write_all(action.as_bytes())?;
        self.open.insert(id);
        Ok(())
    }

    /// Whole blocks that have come.
    fn read(&mut self) -> anyhow::Result<Vec<String>> {
        let mut bytes = [0_u8; 65_536];
        match self.stream.read(&mut bytes) {
            Ok(0) => anyhow::bail!("AMI closed the session"),
            Ok(length) => self.buffer.extend_from_slice(bytes.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(end) = self.buffer.windows(4).rposition(|four| four == b"\r\n\r\n") else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.buffer.drain(..end + 4).collect();
        Ok(String::from_utf8_lossy(&whole).split("\r\n\r\n").map(str::to_owned).collect())
    }

    /// Notes which calls have ended.
    fn follow(&mut self) -> anyhow::Result<()> {
        for block in self.read()? {
            let header =
                |name: &str| block.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            if header("Event") == Some("OriginateResponse") && header("Response") == Some("Failure") {
                anyhow::bail!("an Originate failed: {block}");
            }
            if header("Event") == Some("Hangup")
                && let Some(id) = header("Uniqueid")
            {
                ensure!(header("Cause") == Some("16"), "a call was not heard to its end: {block}");
                self.open.remove(id);
            }
        }
        Ok(())
    }
}

/// Calls per second of bare loops, each with [`IN_FLIGHT`] open at a time.
fn per_second(bare: &mut [Bare], part: Part) -> anyhow::Result<f64> {
    let each = usize::from(CALLS) / bare.len();
    let calls: Vec<u16> = (0..CALLS).collect();
    let began = now();
    std::thread::scope(|scope| {
        let loops: Vec<_> = bare
            .iter_mut()
            .zip(calls.chunks(each))
            .map(|(bare, calls)| {
                scope.spawn(move || {
                    let mut left = calls.iter();
                    loop {
                        while bare.open.len() < usize::from(IN_FLIGHT)
                            && let Some(call) = left.next()
                        {
                            bare.originate(&part.number(*call))?;
                        }
                        if bare.open.is_empty() {
                            return anyhow::Ok(());
                        }
                        ensure!(began.elapsed() < PATIENCE, "{} calls never ended", bare.open.len());
                        bare.follow()?;
                    }
                })
            })
            .collect();
        loops.into_iter().try_for_each(|one| match one.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a bare loop broke"),
        })
    })?;
    Ok(f64::from(CALLS) / began.elapsed().as_secs_f64())
}

/// As [`place_timed`], without anything between: when each Originate was sent.
fn send_timed(bare: &mut [Bare]) -> anyhow::Result<HashMap<String, Duration>> {
    let began = now();
    let mut sent = HashMap::new();
    for call in 0..TIMED {
        let due = began + EVERY * u32::from(call);
        while now() < due {
            bare.iter_mut().try_for_each(Bare::follow)?;
        }
        let number = Part::BareTimed.number(call);
        let one = usize::from(call) % bare.len();
        sent.insert(number.trim_start_matches('+').to_owned(), since_1970());
        bare.get_mut(one).context("no PBX")?.originate(&number)?;
    }
    wait_until("the last calls to end", PATIENCE, "the PBXes", || {
        bare.iter_mut().all(|bare| bare.follow().is_ok() && bare.open.is_empty())
    })?;
    Ok(sent)
}
