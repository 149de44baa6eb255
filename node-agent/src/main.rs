//! The `ringward-agent` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    node_agent::cli::run(&node_agent::cli::Cli::parse())
}
