//! Jobs that need a lab each, two at a time: one with the machine's lab, one [apart](lab::apart). A lab mostly waits for
//! time-outs, so two of them take little more of two cores than one.
use crate::output;
use anyhow::{Context as _, bail};
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use tokio::time::Instant;

/// A command that needs a lab; its programs are built and its packages installed.
pub(crate) struct Job {
    /// Whose stage it is.
    pub(crate) stage: &'static str,
    /// Which part of it.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) line: Vec<String>,
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

/// What became of a job.
pub(crate) struct Done {
    pub(crate) stage: &'static str,
    pub(crate) name: String,
    pub(crate) took: Duration,
    pub(crate) result: anyhow::Result<()>,
}

/// Which lab a job gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Apart,
}

/// Runs all, in this order as labs get free; after a red one no other is begun.
pub(crate) fn side_by_side(jobs: Vec<Job>) -> Vec<Done> {
    let mut places = vec![Place::Here];
    match lab::can_run_apart() {
        Ok(()) => places.push(Place::Apart),
        Err(error) => output::note(&format!("one lab at a time, since a second one is refused: {error}")),
    }
    let waiting = Mutex::new(jobs.into_iter());
    let done = Mutex::new(Vec::new());
    let work = |place| {
        loop {
            let is_red = lock(&done).iter().any(|done: &Done| done.result.is_err());
            let Some(job) = lock(&waiting).next().filter(|_| !is_red) else { return };
            let start = Instant::now();
            let result = run(&job, place);
            lock(&done).push(Done { stage: job.stage, name: job.name, took: start.elapsed(), result });
        }
    };
    thread::scope(|scope| {
        for place in places {
            scope.spawn(move || work(place));
        }
    });
    done.into_inner().unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs one job to its end, each line of its output with its name.
fn run(job: &Job, place: Place) -> anyhow::Result<()> {
    let Some((program, arguments)) = job.line.split_first() else { bail!("a job without a program") };
    let line = job.line.join(" ");
    output::note(&format!("{} {}: {line}", job.stage, job.name));
    let mut command = match place {
        Place::Here => Command::new(program),
        Place::Apart => lab::apart("2", program),
    };
    // What is built is built; a second lab has no way to a registry.
    command.args(arguments).envs(job.variables.iter().copied()).env("CARGO_NET_OFFLINE", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
    let (said, complained) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| said.map(|said| show(&job.name, said)));
        scope.spawn(|| complained.map(|complained| show(&job.name, complained)));
    });
    let status = child.wait().with_context(|| format!("wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

fn show(name: &str, from: impl Read) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        output::line(&format!("{name:>14} | {}", String::from_utf8_lossy(&line)));
    }
}
