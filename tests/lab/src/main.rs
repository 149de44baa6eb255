//! `cargo lab …`: the lab by hand, and everything that CI runs.
mod bench;
mod debs;
mod demo;
mod even;
mod fuzz;
mod hands;
mod jobs;
mod output;
mod soak;
mod stages;
mod story;
mod upgrade;

use clap::{Parser, Subcommand};
use lab::memory;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "lab", bin_name = "cargo lab", about = "A small fleet of real Asterisk PBXes and carriers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job on real parts, told as it happens
    Demo(demo::Wanted),
    /// Boots PBXes and carriers and leaves them running
    Up(hands::Up),
    /// Ends everything that runs, or was left by a crash
    Down,
    /// Shows what runs, and what each carrier saw
    Status {
        /// One JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Opens a shell on a host
    Shell {
        /// pbx-1, a, …
        name: String,
        /// Asterisk's console instead of a shell
        #[arg(long)]
        asterisk: bool,
    },
    /// Changes what a carrier does with every call
    Carrier {
        /// a, b, c
        name: String,
        /// normal (by number), answer, busy, ring, trying, silent, deaf, slow, dead, srv, or a SIP code
        behaviour: lab::Behaviour,
    },
    /// Sends hostile SIP to a PBX
    Attack(hands::Attack),
    /// Makes the root that Asterisk runs from, if it is not there yet
    Root {
        /// Which Asterisk
        #[arg(long, value_enum, default_value = "22")]
        asterisk: lab::AsteriskVersion,
    },
    /// Format, lints, documentation, licences, unused dependencies
    Check,
    /// Everything that CI runs, stage by stage
    Test(stages::Wanted),
    /// Builds a fleet by Ansible from bare hosts, changes, upgrades and reduces it
    Ansible,
    /// Builds Debian packages of both programs, in the optimised build, with manual pages and completions
    Packages(debs::Wanted),
    /// Measures, in the optimised build
    Bench {
        /// agent: its memory and processor time, idle and at 100 calls per second; api: durable calls accepted per second, beside the bare framework; ban: from the packet that earns a ban to the first one dropped, beside fail2ban; dispatch: from POST to the end with fake PBXes; failover: from a 503 to the next INVITE; fleet: a thousand linked nodes, and five thousand; jail: a log read and weighed, beside fail2ban; originate: calls on real Asterisk, beside a bare loop; replicas: three control planes, one broken every ten seconds, at 200 calls per second to fake PBXes and at 16 to real Asterisk
        what: bench::Bench,
        #[command(flatten)]
        size: bench::Size,
        /// One JSON object as the last line
        #[arg(long)]
        json: bool,
    },
    /// Kills, freezes and cuts at random while calls run; what was told is held against what carriers saw
    Chaos(stages::Chaos),
    /// Asks the customers' API as its document says, and as it says it may not be asked
    Fuzz(fuzz::Wanted),
    /// Runs a command with a second lab beside the machine's: own network, no way out
    Apart {
        /// A plain word; labs of different names do not know of each other
        name: String,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Writes Grafana's dashboards into docs/dashboards
    Dashboards {
        /// Writes nothing: fails where a file is not as it should be
        #[arg(long)]
        check: bool,
    },
    /// What takes too long for CI
    Soak(soak::Wanted),
}

/// Goes on without what `cargo run` says of this package by variables: build scripts of others look at them, and a cargo
/// below would compile these, and all that is built on them, anew; the next one by hand would again.
fn forget_who_started_it() {
    let is_said = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    let said: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).filter(is_said).collect();
    let Ok(program) = std::env::current_exe() else { return };
    if said.is_empty() {
        return;
    }
    let mut again = std::process::Command::new(program);
    again.args(std::env::args_os().skip(1));
    said.iter().for_each(|name| {
        again.env_remove(name);
    });
    let error = again.exec();
    output::note(&format!("cannot begin again without cargo's variables, so some is compiled anew: {error}"));
}

fn main() -> ExitCode {
    forget_who_started_it();
    let command = Arguments::parse().command;
    let result = match command {
        Command::Demo(wanted) => demo::demo(&wanted),
        Command::Up(wanted) => hands::up(&wanted),
        Command::Down => lab::sweep().map_err(Into::into),
        Command::Status { json } => hands::status(json),
        Command::Shell { name, asterisk } => hands::shell(&name, asterisk),
        Command::Carrier { name, behaviour } => hands::carrier(&name, behaviour),
        Command::Attack(wanted) => hands::attack(&wanted),
        Command::Root { asterisk } => lab::ensure_root(asterisk).map(|_| ()).map_err(Into::into),
        Command::Check => stages::check(),
        Command::Test(wanted) => stages::test(&wanted),
        Command::Ansible => stages::ansible(),
        Command::Packages(wanted) => debs::packages(&wanted),
        Command::Bench { what, size, json } => bench::bench(what, size, json),
        Command::Chaos(wanted) => stages::chaos(&wanted),
        Command::Fuzz(wanted) => fuzz::fuzz(&wanted),
        Command::Apart { name, command } => hands::apart(&name, &command),
        Command::Dashboards { check } => hands::dashboards(check),
        Command::Soak(wanted) => soak::soak(&wanted),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
