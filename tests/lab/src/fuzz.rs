//! The customers' API, asked thousands of times as its own document says it may be asked, and as it says it may not.
//!
//! Schemathesis reads `/v1/openapi.json` of a real `ringward serve` on SQLite, makes requests of it, and looks at every
//! answer: no 500, no status, media type or body that is not declared, nothing accepted that the document forbids. It is
//! run [apart](lab::apart), without a way out: it names addresses for webhooks, and none of them is to be met.
use crate::{output, stages};
use anyhow::Context as _;
use lab::{ControlPlane, Setup};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What is looked at in every answer. Not whether all is accepted that the document allows: an organisation's rules,
/// what was there before and the time of day refuse too, and no schema says so.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,negative_data_rejection,\
                      missing_required_header,unsupported_method,ignored_auth,use_after_free";

/// What may end the key that asks: asked with another key, last, beside what keys are made and found with.
const ENDS_KEYS: [&str; 2] = ["rotate_api_key", "revoke_api_key"];
const FINDS_KEYS: [&str; 3] = ["create_api_key", "list_api_keys", "show_api_key"];

#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Where every choice comes from
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Cases of each operation, beside those that stand for each bound in the document
    #[arg(long, default_value_t = CASES)]
    cases: u32,
    /// Is already apart
    #[arg(long, hide = true)]
    apart: bool,
}

const SEED: u64 = 1;
const CASES: u32 = 60;

/// Fewest calls that have to be accepted.
const CALLS_MIN: usize = 20;

/// Asked for by itself too, so many times as often: of 20 calls that the document allows one is accepted.
const CALLS: (&str, u32) = ("create_call", 5);

impl Default for Wanted {
    fn default() -> Self {
        Wanted { seed: SEED, cases: CASES, apart: false }
    }
}

/// Builds and installs what it takes, and asks.
pub(crate) fn fuzz(wanted: &Wanted) -> anyhow::Result<()> {
    if wanted.apart {
        return ask(wanted);
    }
    lab::install_network_tools()?;
    lab::install_speech()?;
    lab::install_schemathesis()?;
    stages::build_programs()?;
    let mut command = lab::apart("fuzz", lab::program("lab")?);
    command.args([
        "fuzz",
        "--apart",
        "--seed",
        &wanted.seed.to_string(),
        "--cases",
        &wanted.cases.to_string(),
    ]);
    stages::run(&mut command, "cargo lab fuzz")
}

fn ask(wanted: &Wanted) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("ringward-fuzz-{}", std::process::id()));
    let plane = ControlPlane::open(Setup::new(&folder))?;
    // Every number may be phoned, so that calls are accepted; there is no trunk that would.
    plane.admin("PUT", "/admin/v1/orgs/default/policy", Some(&json!({"prefixes": {"+": "allow"}})))?;
    let own = plane.admin("POST", "/admin/v1/keys", Some(&json!({"name": "fuzz"})))?;
    let own = own["secret"].as_str().context("a key for what ends keys")?;
    let url = plane.api_url();
    let all = ENDS_KEYS.into_iter().flat_map(|id| ["--exclude-operation-id", id]);
    let all = schemathesis(wanted, &folder, &url, plane.customer_key(), all);
    let last = ENDS_KEYS.into_iter().chain(FINDS_KEYS).flat_map(|id| ["--include-operation-id", id]);
    let last = schemathesis(wanted, &folder, &url, own, last);
    let more = Wanted { cases: wanted.cases * CALLS.1, ..*wanted };
    let calls = ["--include-operation-id", CALLS.0].into_iter();
    let calls = schemathesis(&more, &folder, &url, plane.customer_key(), calls);
    let accepted = plane.customer("GET", "/v1/calls?limit=100", None)?;
    plane.stop()?;
    all.and(last).and(calls).with_context(|| format!("its log is {}", plane.log().display()))?;
    let log = fs::read_to_string(plane.log()).context("read the control plane's log")?;
    anyhow::ensure!(!log.contains("panicked"), "something panicked: see {}", plane.log().display());
    // Where every call is refused, nothing behind the refusals was asked.
    let accepted = accepted["data"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(accepted >= CALLS_MIN, "only {accepted} calls were accepted");
    fs::remove_dir_all(&folder).context("remove its folder")
}

fn schemathesis<'a>(
    wanted: &Wanted,
    folder: &Path,
    url: &str,
    key: &str,
    filter: impl Iterator<Item = &'a str>,
) -> anyhow::Result<()> {
    output::note(&format!("Schemathesis against {url}, seed {}", wanted.seed));
    let mut command = Command::new(lab::install_schemathesis()?);
    command
        .args(["run", &format!("{url}/v1/openapi.json"), "--checks", CHECKS])
        .args(["--seed", &wanted.seed.to_string(), "--max-examples", &wanted.cases.to_string()])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--generation-database", "none", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", "cases")
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis"))
        .args(filter)
        .current_dir(folder);
    stages::run(&mut command, "schemathesis")
}
