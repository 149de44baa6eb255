//! Processes that a lab started, remembered in pid files with their start time.
//!
//! A pid alone may have been given to a stranger since; pid and start time together (field 22 of
//! `/proc/PID/stat`, in clock ticks since boot) name one process for ever. Nothing else is ever ended.
use crate::{LabError, clock, command};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Where the pid files are. `/run` is emptied at boot, as the processes are.
const PIDS: &str = "/run/ringward-lab/pids";
/// How long a process may take to end by SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// How a process is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It may tidy up.
    Term,
    /// It may not: what a power cut or the kernel's memory killer does.
    Kill,
    /// It freezes (a hung machine); ended by [`Signal::Cont`].
    Stop,
    /// It goes on after [`Signal::Stop`].
    Cont,
}

impl Signal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Term => "-TERM",
            Signal::Kill => "-KILL",
            Signal::Stop => "-STOP",
            Signal::Cont => "-CONT",
        }
    }
}

/// Starts `command` apart from this terminal and remembers it as `name`.
pub(crate) fn spawn(name: &str, mut command: Command) -> Result<u32, LabError> {
    use std::os::unix::process::CommandExt as _;
    fs::create_dir_all(PIDS).map_err(LabError::file("create", PIDS))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.process_group(0).spawn().map_err(|source| LabError::Start {
        what: format!("start {name}"),
        program,
        source,
    })?;
    let pid = child.id();
    let started = start_ticks(pid).unwrap_or(0);
    let path = pid_file(name);
    fs::write(&path, format!("{pid} {started}\n")).map_err(LabError::file("write", path))?;
    Ok(pid)
}

/// The pid of `name`, if it lives and is the process that was started.
pub(crate) fn alive(name: &str) -> Option<u32> {
    let text = fs::read_to_string(pid_file(name)).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_ticks(pid)? == started.parse::<u64>().ok()?).then_some(pid)
}

/// Sends `signal` to `name` if it lives.
pub(crate) fn signal(name: &str, signal: Signal) -> Result<(), LabError> {
    if let Some(pid) = alive(name) {
        command::run(&format!("signal {name}"), "kill", [signal.name(), &pid.to_string()])?;
    }
    Ok(())
}

/// Ends `name`, with SIGKILL if SIGTERM is not enough, and forgets it.
pub(crate) fn end(name: &str) -> Result<(), LabError> {
    // A frozen process takes no SIGTERM.
    signal(name, Signal::Cont).ok();
    signal(name, Signal::Term).ok();
    if clock::wait_until(name, TERM_GRACE, "", || alive(name).is_none()).is_err() {
        signal(name, Signal::Kill)?;
        clock::wait_until(&format!("{name} to end"), TERM_GRACE, "see /proc", || alive(name).is_none())?;
    }
    fs::remove_file(pid_file(name)).ok();
    Ok(())
}

/// Names of all processes that were started and not ended.
pub(crate) fn remembered() -> Vec<String> {
    let Ok(entries) = fs::read_dir(PIDS) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn pid_file(name: &str) -> PathBuf {
    PathBuf::from(PIDS).join(name)
}

/// When the process started; `None` if there is none or only its zombie is left.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: read from behind its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_a_start_and_pid_zero_has_none() {
        assert!(start_ticks(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_ticks(0), None);
    }

    #[test]
    fn a_stranger_with_the_same_pid_is_not_ours() {
        assert_eq!(alive("no-such-process-of-this-lab"), None);
    }
}
