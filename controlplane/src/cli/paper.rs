//! What shells and `man` read: completions and manual pages, made of the commands themselves.

use std::{io::Write, path::Path, process::ExitCode};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, client::Failure, commands::Done};

/// Prints what a shell completes commands by.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ringward", &mut text);
    // Who reads no further has what he wanted.
    let _ = std::io::stdout().write_all(&text);
    ExitCode::SUCCESS
}

/// Writes a manual page of the program and of each of its commands.
pub(super) fn man(folder: &Path) -> Done {
    let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    eprintln!("Look at one with: man {}/ringward.1", folder.display());
    Ok(ExitCode::SUCCESS)
}
