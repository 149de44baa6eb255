//! `--watch`: the same look again and again. On a terminal it is drawn anew in place, elsewhere each change follows the one
//! before; with `--json` a line for each change.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use tokio::time::sleep;

use super::{client::Door, commands::Done};

/// Between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(2);
/// The exit code of a control plane that cannot be reached: it may be back at the next look.
const UNREACHABLE: u8 = 3;
/// To the upper left corner, and everything from there on is cleared.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Of commands that can be looked at for longer.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct WatchArgs {
    /// Looks again every 2 s, until Ctrl-C; with --json each change is one line.
    #[arg(long)]
    pub(super) watch: bool,
}

/// What was shown last.
#[derive(Debug, Default)]
pub(super) struct Screen {
    last: Mutex<Option<String>>,
}

impl Screen {
    /// Shows a text if it is another than the last. `false`: whoever read it is gone.
    pub(super) fn put(&self, text: &str, is_json: bool) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() == Some(text) {
            return true;
        }
        let mut out = std::io::stdout().lock();
        let before = match (&*last, is_json) {
            (_, true) => "",
            _ if out.is_terminal() => CLEAR,
            (Some(_), false) => "\n",
            (None, false) => "",
        };
        let written = write!(out, "{before}{text}").and_then(|()| out.flush());
        *last = Some(text.to_owned());
        written.is_ok()
    }
}

/// Looks once, or for as long as it is watched and `is_over` does not say that there is no more to come.
pub(super) async fn look(door: &Door, watch: WatchArgs, look: impl AsyncFn() -> Done) -> Done {
    if !watch.watch {
        return look().await;
    }
    door.watch();
    let mut was_reached = true;
    loop {
        match look().await {
            Ok(_) => was_reached = true,
            Err(failure) if failure.exit_code() == UNREACHABLE => {
                if std::mem::take(&mut was_reached) {
                    eprintln!("ringward: {failure}\n  Trying again.");
                }
            }
            Err(failure) => return Err(failure),
        }
        if door.is_over() {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(EVERY).await;
    }
}
