//! Runs command-line tools; an error holds the command line and what the tool said.
use crate::LabError;
use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// How much of a tool's words an error repeats.
const OUTPUT_MAX: usize = 2_000;

/// Runs `program` to its end and gives what it wrote to standard output.
pub(crate) fn run<I, S>(what: &str, program: &str, args: I) -> Result<String, LabError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    finish(what, &mut command)
}

/// Runs an already built command to its end and gives its standard output.
pub(crate) fn finish(what: &str, command: &mut Command) -> Result<String, LabError> {
    let output = command.output().map_err(|source| start_error(what, command, source))?;
    judge(what, command, &output)
}

/// Runs `program` with `input` on its standard input.
pub(crate) fn feed(what: &str, command: &mut Command, input: &str) -> Result<String, LabError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| start_error(what, command, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|source| start_error(what, command, source))?;
    }
    let output = child.wait_with_output().map_err(|source| start_error(what, command, source))?;
    judge(what, command, &output)
}

/// Whether a program of this name is in the search path or the system's folders.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin"])
        .any(|folder| std::path::Path::new(folder).join(program).exists())
}

fn start_error(what: &str, command: &Command, source: std::io::Error) -> LabError {
    LabError::Start {
        what: what.into(),
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    }
}

fn judge(what: &str, command: &Command, output: &Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stdout));
    let skip = said.chars().count().saturating_sub(OUTPUT_MAX);
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    Err(LabError::Command {
        what: what.into(),
        command: line,
        status: output.status.to_string(),
        output: said.chars().skip(skip).collect::<String>().trim().to_owned(),
    })
}
