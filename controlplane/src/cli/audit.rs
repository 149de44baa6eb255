//! `audit list|export|verify`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use controlplane_core::audit::{Hex, Line, Report, Verifier};
use serde_json::json;

use super::{
    client::{Door, Failure},
    commands::{Done, encoded, show, show_list},
    table::cell,
};
use crate::audit::signing::is_signed;

/// Longest line of an export: a row with the largest difference of a fleet has some 100 KB.
const LINE_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Who did what, the newest first.
    List(ListArgs),
    /// Writes the log, or what a filter lets pass, to standard output.
    Export(ExportArgs),
    /// Proves that nothing was changed, removed or cut off: exit code 0 whole, 1 not.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only what is later than this moment, as 2026-11-24T12:00:00Z.
    #[arg(long)]
    after: Option<String>,
    /// Only what is not later than this moment.
    #[arg(long)]
    until: Option<String>,
    /// Only what this key or node did.
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, or as `key.*` all that begin so.
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this.
    #[arg(long)]
    target: Option<String>,
    /// Only success, denied or failure.
    #[arg(long)]
    outcome: Option<String>,
    /// Only what is of this organisation.
    #[arg(long)]
    org: Option<String>,
}

impl FilterArgs {
    fn parameters(&self) -> impl Iterator<Item = String> {
        let given = [
            ("after", &self.after),
            ("until", &self.until),
            ("actor", &self.actor),
            ("action", &self.action),
            ("target", &self.target),
            ("outcome", &self.outcome),
            ("org", &self.org),
        ];
        given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_deref()?))))
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// How many, 1 to 100.
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// Goes on behind this row.
    #[arg(long, value_name = "ID")]
    starting_after: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A line of JSON for each row; without a filter, `audit verify --export` proves it.
    Ndjson,
    /// For spreadsheets.
    Csv,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// What to write.
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// An export as NDJSON, instead of the running control plane's log; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Heads from outside of the database: audit-heads.ndjson of the data directory (repeatable).
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,
    /// Believes this key alone, as in audit-key.pub (repeatable); without it, the control plane's own, or the key of
    /// the first head.
    #[arg(long, value_name = "HEX")]
    public_key: Vec<Hex>,
}

async fn list(door: &Door, args: &ListArgs) -> Done {
    let mut parameters: Vec<_> = args.filter.parameters().collect();
    parameters.push(format!("limit={}", args.limit));
    parameters.extend(args.starting_after.as_ref().map(|id| format!("starting_after={}", encoded(id))));
    let answer = door.get(&format!("/admin/v1/audit?{}", parameters.join("&"))).await?;
    let header = ["WHEN", "ACTOR", "FROM", "ACTION", "TARGET", "OUTCOME", "REASON", "ID"];
    let members = ["occurred_at", "who", "ip", "action", "target_id", "outcome", "reason", "id"];
    let mut shown = answer.clone();
    for row in shown["data"].as_array_mut().into_iter().flatten() {
        let who = if row["actor"].is_null() { cell(row, "actor_type") } else { cell(row, "actor") };
        row["who"] = who.into();
    }
    show_list(door, if door.json { &answer } else { &shown }, &header, &members, "Nothing was done.");
    Ok(ExitCode::SUCCESS)
}

async fn export(door: &Door, args: &ExportArgs) -> Done {
    let format = match args.format {
        Format::Ndjson => "ndjson",
        Format::Csv => "csv",
    };
    let mut parameters = vec![format!("format={format}")];
    parameters.extend(args.filter.parameters());
    let mut answer = door.stream(&format!("/admin/v1/audit/export?{}", parameters.join("&"))).await?;
    let mut out = std::io::stdout().lock();
    while let Some(part) = answer.part().await? {
        out.write_all(&part).map_err(|error| Failure::local(format!("standard output: {error}")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|error| Failure::local(format!("{}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

fn lines(path: &Path) -> Result<impl Iterator<Item = Result<String, Failure>>, Failure> {
    let name = path.display().to_string();
    Ok(open(path)?.lines().map(move |line| line.map_err(|error| Failure::local(format!("{name}: {error}")))))
}

type Proof = Verifier<fn(&Hex, &[u8], &Hex) -> bool>;

/// Takes heads; the key of the first.
fn read_heads(text: impl Iterator<Item = Result<String, Failure>>) -> Result<Vec<Line>, Failure> {
    let mut heads = Vec::new();
    for line in text {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(head @ Line::AuditHead(_)) => heads.push(head),
            // A line that was being written when the machine stopped.
            Ok(_) | Err(_) => eprintln!("ringward: passed over what is no head: {line:.60}"),
        }
    }
    Ok(heads)
}

fn proof(keys: Vec<Hex>, heads: &[Line]) -> Result<Proof, Failure> {
    let first = || {
        heads.iter().find_map(|line| match line {
            Line::AuditHead(head) => Some(head.key.clone()),
            Line::AuditExport { .. }
            | Line::AuditCheckpoint(_)
            | Line::AuditRow { .. }
            | Line::AuditEnd { .. } => None,
        })
    };
    let keys = if keys.is_empty() { first().into_iter().collect() } else { keys };
    if keys.is_empty() {
        return Err(Failure::usage("name the key with --public-key, or heads with --heads"));
    }
    let mut proof = Proof::new(keys, is_signed);
    for line in heads {
        if let Line::AuditHead(head) = line {
            proof.head(head);
        }
    }
    Ok(proof)
}

async fn verify(door: impl Fn() -> Result<Door, Failure>, json: bool, args: &VerifyArgs) -> Done {
    let mut heads = Vec::new();
    for path in &args.heads {
        heads.extend(read_heads(lines(path)?)?);
    }
    let report = if let Some(path) = &args.export {
        let mut proof = proof(args.public_key.clone(), &heads)?;
        for line in lines(path)? {
            proof.line(&line?);
        }
        proof.finish()
    } else {
        let door = door()?;
        let mut keys = args.public_key.clone();
        if keys.is_empty() {
            let answer = door.get("/admin/v1/audit/key").await?;
            keys.extend(answer["public_key"].as_str().and_then(|key| key.parse().ok()));
        }
        let told = door.get_text("/admin/v1/audit/heads").await?;
        heads.extend(read_heads(told.lines().map(|line| Ok(line.to_owned())))?);
        let proof = proof(keys, &heads)?;
        streamed(&door, proof).await?
    };
    told(json, &report, heads.len());
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Proves the running control plane's log, line by line as it comes.
async fn streamed(door: &Door, mut proof: Proof) -> Result<Report, Failure> {
    let mut answer = door.stream("/admin/v1/audit/export?format=ndjson").await?;
    let mut rest: Vec<u8> = Vec::new();
    while let Some(part) = answer.part().await? {
        rest.extend_from_slice(&part);
        let mut from = 0;
        while let Some(length) = rest[from..].iter().position(|byte| *byte == b'\n') {
            proof.line(&String::from_utf8_lossy(&rest[from..from + length]));
            from += length + 1;
        }
        rest.drain(..from);
        if rest.len() > LINE_MAX {
            return Err(Failure::local("the export has a line of more than 8 MiB"));
        }
    }
    Ok(proof.finish())
}

fn told(json: bool, report: &Report, heads: usize) {
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if json {
        let answer = json!({
            "object": "audit_verification", "whole": report.is_whole(), "rows": report.rows,
            "first_seq": report.first.as_ref().map(|row| row.seq), "last_seq": report.last.as_ref().map(|row| row.seq),
            "erased": report.erased, "heads": report.heads, "findings": findings,
            "findings_total": report.findings_total,
        });
        println!("{answer}");
        return;
    }
    for finding in &findings {
        println!("{finding}");
    }
    if report.findings_total > findings.len() as u64 {
        println!("… and {} more", report.findings_total - findings.len() as u64);
    }
    let row = |row: &Option<controlplane_core::audit::Place>| {
        row.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    println!(
        "{}: {} rows, from {} to {}; {} erased or out of sight, as checkpoints tell; {} heads agree.",
        if report.is_whole() { "whole" } else { "NOT whole" },
        report.rows,
        row(&report.first),
        row(&report.last),
        report.erased,
        report.heads
    );
    if heads == 0 {
        println!("No head was there to compare with: an end that was cut off would not show.");
    }
}

pub(super) async fn erase(door: &Door, number: &str) -> Done {
    let answer = door.post("/admin/v1/erasures", &json!({"number": number})).await?;
    show(door, &answer, || {
        format!(
            "{} ended calls name the number no more; {} are not ended and were left. In the audit log it is {}.\n",
            cell(&answer, "calls"),
            cell(&answer, "open_calls"),
            cell(&answer, "reference")
        )
    });
    Ok(if answer["open_calls"] == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(super) async fn audit(
    door: impl Fn() -> Result<Door, Failure>,
    json: bool,
    command: &AuditCommand,
) -> Done {
    match command {
        AuditCommand::List(args) => list(&door()?, args).await,
        AuditCommand::Export(args) => export(&door()?, args).await,
        AuditCommand::Verify(args) => verify(door, json, args).await,
    }
}
