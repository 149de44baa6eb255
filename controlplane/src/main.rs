//! The `ringward` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    controlplane::cli::run(controlplane::cli::Cli::parse())
}
