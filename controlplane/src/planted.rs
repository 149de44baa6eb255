//! The program `ringward` with a bug on purpose: see `calls/planted.rs`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    controlplane::cli::run(controlplane::cli::Cli::parse())
}
