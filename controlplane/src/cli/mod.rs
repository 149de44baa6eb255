//! The operators' command line, and `serve`.
//!
//! Noun, then verb. Data goes to stdout, talk to stderr; `--json` prints what the API answered. Exit codes
//! are a contract (docs/adr/0003): 0 done, 1 no or differs, 2 usage, 3 unreachable, 4 denied, 5 not found,
//! 6 refused for safety.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]

mod agents;
mod audit;
mod bans;
mod client;
mod commands;
mod health;
mod keys;
mod notices;
mod oncall;
mod paper;
mod replicas;
mod restore;
mod rules;
mod serve;
mod systemd;
mod table;
mod watch;
mod webhooks;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use self::client::Failure;
use self::watch::WatchArgs;

/// Calls people through a fleet of Asterisk PBXes, past whatever is down.
#[derive(Debug, Parser)]
#[command(name = "ringward", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Prints the API's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// The control plane's operator door.
    #[arg(long, global = true, env = "RINGWARD_OPERATOR_URL", default_value = "http://127.0.0.1:8081")]
    operator_url: String,
    /// An operator key, from `ringward bootstrap` or `ringward key create --operator`.
    #[arg(long, global = true, env = "RINGWARD_OPERATOR_KEY", hide_env_values = true)]
    operator_key: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the control plane.
    Serve(serve::ServeArgs),
    /// Makes the first operator key and shows it, once; for whoever can read the server's data directory.
    Bootstrap(BootstrapArgs),
    /// Puts a backup in the database's place and holds what was open in it; the server must not run.
    Restore(restore::RestoreArgs),
    /// What is held since a backup was restored.
    #[command(subcommand)]
    Held(restore::HeldCommand),
    /// Shows the fleet at a glance.
    Status(WatchArgs),
    /// The control planes that share the database: who lives, who leads, what each drives.
    Replicas(WatchArgs),
    /// Puts fleet.toml in force; what the file lacks stays unless --prune is given.
    Apply(ApplyArgs),
    /// Shows what `apply` would change: exit code 0 nothing, 1 something.
    Diff(FileArgs),
    /// PBX hosts.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Carrier accounts on nodes.
    #[command(subcommand)]
    Trunk(TrunkCommand),
    /// Which trunk a number would take.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Calls.
    #[command(subcommand)]
    Call(CallCommand),
    /// Addresses that are banned on every node.
    #[command(subcommand)]
    Ban(bans::BanCommand),
    /// Addresses that are never banned.
    #[command(subcommand)]
    Allow(bans::AllowCommand),
    /// What an organisation may phone: everything is closed until it is opened.
    #[command(subcommand)]
    Policy(rules::PolicyCommand),
    /// How much an organisation or a key may have.
    #[command(subcommand)]
    Limits(rules::LimitsCommand),
    /// How long what is of an organisation is kept.
    #[command(subcommand)]
    Retention(rules::RetentionCommand),
    /// Who did what, and the proof that nothing was changed.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Takes a number, and what was said to it, out of every ended call.
    Erase {
        /// The number, as +48221234567.
        number: String,
    },
    /// API keys.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Customers.
    #[command(subcommand)]
    Org(keys::OrgCommand),
    /// Events on their way to customers' webhooks.
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Where alerts come in, and whom to phone about them.
    #[command(subcommand)]
    Hook(oncall::HookCommand),
    /// What alerts have become, and who was phoned.
    #[command(subcommand)]
    Incident(oncall::IncidentCommand),
    /// What everybody reads on the public status page.
    #[command(subcommand)]
    Notice(notices::NoticeCommand),
    /// Prints the customers' API as an OpenAPI 3.1 document.
    Openapi,
    /// Prints what a shell completes commands by, as in: ringward completions bash > /etc/bash_completion.d/ringward
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Writes manual pages, one of each command.
    Man {
        /// Where to, as in: ringward man /usr/local/share/man/man1
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct BootstrapArgs {
    /// The server's data directory; without it, as the server's settings say.
    #[arg(long, value_name = "DIR", env = "RINGWARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The server's file with settings.
    #[arg(long, env = "RINGWARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also where an operator key exists, as after losing it.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The fleet file; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Also removes what the file lacks.
    #[arg(long)]
    prune: bool,
}

#[derive(Debug, Args)]
struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Only shows what would change.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// One line each.
    List(WatchArgs),
    /// What a node's agent says of it, and its latest facts.
    Show {
        /// Its name in fleet.toml.
        name: String,
    },
    /// Prints the command that joins a node: for one use, within an hour.
    Token {
        /// Its name in fleet.toml.
        name: String,
        /// Where the node reaches a replica, as https://HOST:8443 (repeatable); none: as set by agents.urls.
        #[arg(long)]
        url: Vec<String>,
    },
    /// Why a node is in its state, and how it came to it.
    Why {
        /// Its name.
        name: String,
    },
    /// Sends no new call over a node; those under way go on to their end.
    Drain(HoldArgs),
    /// Takes that back.
    Undrain(HoldArgs),
    /// Cuts a node's link at once and refuses its certificates from now on.
    Revoke {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
struct HoldArgs {
    /// Its name in fleet.toml.
    name: String,
    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Subcommand)]
enum TrunkCommand {
    /// One line each.
    List(WatchArgs),
    /// Why a trunk is in its state, since when, on what evidence, and what comes next.
    Why {
        /// Its name in fleet.toml.
        name: String,
    },
    /// Sends no call over a trunk until it is enabled.
    Disable(HoldArgs),
    /// Takes that back: it is used as far as its health allows.
    Enable(HoldArgs),
    /// Places one call of our own over a trunk now, and waits for its end: exit code 0 as expected, 1 not.
    Canary {
        /// Its name in fleet.toml.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Who would be chosen for a number, who is passed over, and why.
    Explain {
        /// The number, as +48221234567.
        number: String,
    },
}

#[derive(Debug, Subcommand)]
enum CallCommand {
    /// Places a call and follows it to its end: exit code 0 answered, 1 not.
    Place(PlaceArgs),
    /// Shows a call and its attempts.
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// The latest calls, of all organisations that the key may see.
    List(CallListArgs),
    /// Ends a call.
    Cancel {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Args)]
struct CallListArgs {
    /// How many, 1 to 100.
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// Only those to this number, as +48221234567.
    #[arg(long)]
    to: Option<String>,
    /// Only those with this in their metadata: KEY=VALUE, or VALUE under any key.
    #[arg(long)]
    metadata: Option<String>,
    /// Only those that are there now, as `failed`.
    #[arg(long)]
    status: Option<String>,
    /// Only this organisation's: its id or slug.
    #[arg(long)]
    org: Option<String>,
    /// Only older ones than this, as the hint below a page says.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The number to phone, as +48221234567.
    to: String,
    /// The number to show.
    #[arg(long)]
    from: Option<String>,
    /// What to play: a recording, or a sound that every Asterisk brings.
    #[arg(long, default_value = "builtin:hello-world", conflicts_with = "text")]
    audio: String,
    /// What to say.
    #[arg(long)]
    text: Option<String>,
    /// The language of the text, as en or pl.
    #[arg(long, requires = "text")]
    language: Option<String>,
    /// The callee shall press 1; * plays it again.
    #[arg(long)]
    acknowledge: bool,
    /// What to do when nobody can know whether it rang: retry (rings at least once) or fail (at most once).
    #[arg(long, default_value = "retry")]
    on_unknown: String,
    /// How long it may ring, in seconds.
    #[arg(long, default_value_t = 25)]
    ring_timeout: u16,
    /// Returns as soon as the call is accepted.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// What is delivered where, newest event first.
    Deliveries {
        /// Only to this endpoint, or `callback`.
        #[arg(long)]
        endpoint: Option<String>,
        /// Only those that are pending, delivered or dead.
        #[arg(long)]
        state: Option<String>,
        /// How many, 1 to 100.
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// Sends an event again, under the same id.
    Replay {
        /// The event's id.
        event: String,
        /// The endpoint's id, or `callback`.
        #[arg(long)]
        endpoint: String,
    },
}

/// Does what the command line asks.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
        Err(error) => Err(Failure::local(format!("the system gives no threads: {error}"))),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("ringward: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let door = || client::Door::new(&cli.operator_url, cli.operator_key.as_deref(), cli.json);
    match &cli.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Bootstrap(args) => commands::bootstrap(&door()?, args).await,
        Command::Restore(args) => restore::restore(args).await,
        Command::Held(command) => restore::held(&door()?, command).await,
        Command::Openapi => {
            print!("{}", crate::http::openapi::text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => Ok(paper::completions(*shell)),
        Command::Man { folder } => paper::man(folder),
        Command::Status(args) => {
            let door = door()?;
            watch::look(&door, *args, async || commands::status(&door).await).await
        }
        Command::Replicas(args) => {
            let door = door()?;
            watch::look(&door, *args, async || replicas::replicas(&door).await).await
        }
        Command::Apply(args) => {
            commands::apply(&door()?, &args.file.file, args.file.prune, args.dry_run).await
        }
        Command::Diff(args) => commands::diff(&door()?, &args.file, args.prune).await,
        Command::Node(NodeCommand::List(args)) => {
            let door = door()?;
            watch::look(&door, *args, async || commands::nodes(&door).await).await
        }
        Command::Node(NodeCommand::Show { name }) => agents::show_agent(&door()?, name).await,
        Command::Node(NodeCommand::Token { name, url }) => agents::token(&door()?, name, url).await,
        Command::Node(NodeCommand::Revoke { name }) => agents::revoke(&door()?, name).await,
        Command::Node(NodeCommand::Why { name }) => health::node_why(&door()?, name).await,
        Command::Node(NodeCommand::Drain(HoldArgs { name, reason })) => {
            health::set_hold(&door()?, "nodes", name, "drain", reason.as_deref()).await
        }
        Command::Node(NodeCommand::Undrain(HoldArgs { name, reason })) => {
            health::set_hold(&door()?, "nodes", name, "undrain", reason.as_deref()).await
        }
        Command::Trunk(TrunkCommand::List(args)) => {
            let door = door()?;
            watch::look(&door, *args, async || commands::trunks(&door).await).await
        }
        Command::Trunk(TrunkCommand::Why { name }) => health::trunk_why(&door()?, name).await,
        Command::Trunk(TrunkCommand::Disable(HoldArgs { name, reason })) => {
            health::set_hold(&door()?, "trunks", name, "disable", reason.as_deref()).await
        }
        Command::Trunk(TrunkCommand::Enable(HoldArgs { name, reason })) => {
            health::set_hold(&door()?, "trunks", name, "enable", reason.as_deref()).await
        }
        Command::Trunk(TrunkCommand::Canary { name }) => health::canary(&door()?, name).await,
        Command::Route(RouteCommand::Explain { number }) => commands::explain(&door()?, number).await,
        Command::Call(CallCommand::Place(args)) => commands::place(&door()?, args).await,
        Command::Call(CallCommand::Show { id, watch }) => {
            let door = door()?;
            watch::look(&door, *watch, async || commands::show_call(&door, id).await).await
        }
        Command::Call(CallCommand::List(args)) => {
            let door = door()?;
            watch::look(&door, args.watch, async || commands::calls(&door, args).await).await
        }
        Command::Call(CallCommand::Cancel { id }) => commands::cancel(&door()?, id).await,
        Command::Ban(command) => bans::ban(&door()?, command).await,
        Command::Erase { number } => audit::erase(&door()?, number).await,
        Command::Audit(command) => audit::audit(door, cli.json, command).await,
        Command::Allow(command) => bans::allow(&door()?, command).await,
        Command::Policy(command) => rules::policy(&door()?, command).await,
        Command::Limits(command) => rules::limits(&door()?, command).await,
        Command::Retention(command) => rules::retention(&door()?, command).await,
        Command::Key(command) => keys::key(&door()?, command).await,
        Command::Org(command) => keys::org(&door()?, command).await,
        Command::Hook(command) => oncall::hook(&door()?, command).await,
        Command::Incident(command) => oncall::incident(&door()?, command).await,
        Command::Notice(command) => notices::notice(&door()?, command).await,
        Command::Webhook(WebhookCommand::Deliveries { endpoint, state, limit }) => {
            webhooks::deliveries(&door()?, endpoint.as_deref(), state.as_deref(), *limit).await
        }
        Command::Webhook(WebhookCommand::Replay { event, endpoint }) => {
            webhooks::replay(&door()?, event, endpoint).await
        }
    }
}
