//! `ringward-agent run | join TOKEN | status | check | jail status | jail test FILE | ban … | allow … | firewall …`.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use node_agent_ami::{ActionIds, ConnectConfig, Secret, Session};
use node_agent_protocol::{JoinToken, LINK_PATH, MESSAGE_MAX, tls};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    app::App,
    clock::{Chance, Clock},
    dial,
    identity::StateDir,
    jail::JailCommand,
    joining,
    settings::{Login, Settings},
    systemd,
    ward::commands::{self, AllowCommand, BanCommand, FirewallCommand},
};

/// The Ringward node agent.
#[derive(Debug, Parser)]
#[command(name = "ringward-agent", version)]
pub struct Cli {
    /// A TOML file with settings; without, /etc/ringward-agent.toml if it is there.
    #[arg(long, env = "RINGWARD_AGENT_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent.
    Run,
    /// Joins the fleet with a token of `ringward node token NAME`.
    Join {
        /// `rwj_…`
        token: String,
        /// Join again although this node has joined already.
        #[arg(long)]
        again: bool,
    },
    /// What the running agent knows.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tries settings, certificate, Asterisk and control planes, and says what to mend.
    Check,
    /// How jails stand; tries patterns and rules on a log.
    #[command(subcommand)]
    Jail(JailCommand),
    /// Bans on this node.
    #[command(subcommand)]
    Ban(BanCommand),
    /// Networks that are never banned on this node.
    #[command(subcommand)]
    Allow(AllowCommand),
    /// The firewall of this node.
    #[command(subcommand)]
    Firewall(FirewallCommand),
    /// Prints what a shell completes commands by.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Writes manual pages, one of each command.
    Man {
        /// Where to.
        folder: PathBuf,
    },
}

/// Prints what a shell completes commands by.
fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ringward-agent", &mut text);
    // Who reads no further has what he wanted.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &text);
    ExitCode::SUCCESS
}

/// Writes a manual page of the program and of each of its commands.
fn man(folder: &std::path::Path) -> ExitCode {
    let written =
        std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{}: {error}", folder.display()), 1),
    }
}

/// Runs it. 0: done; 1: it failed, or `check` found something; 2: wrong usage or settings.
pub fn run(cli: &Cli) -> ExitCode {
    let settings = match (Settings::load(cli.config.as_deref()), &cli.command) {
        (Ok(settings), _) => settings,
        // What brings the old rules back must not hang on a file that somebody is editing.
        (
            Err(_),
            Command::Firewall(FirewallCommand::Revert(_) | FirewallCommand::Guard(_))
            | Command::Completions { .. }
            | Command::Man { .. },
        ) => Settings::default(),
        (Err(error), _) => return fail(&error.to_string(), 2),
    };
    let threads = match cli.command {
        Command::Run => 2,
        Command::Join { .. }
        | Command::Status { .. }
        | Command::Check
        | Command::Jail(_)
        | Command::Ban(_)
        | Command::Allow(_)
        | Command::Firewall(_)
        | Command::Completions { .. }
        | Command::Man { .. } => 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string(), 1),
    };
    let done = runtime.block_on(async {
        match &cli.command {
            Command::Run => serve(settings).await,
            Command::Join { token, again } => join(&settings, token, *again).await,
            Command::Status { json } => status(&settings, *json).await,
            Command::Check => check(&settings).await,
            Command::Jail(command) => command.run(&settings, say).await,
            Command::Ban(command) => command.run(&settings, say).await,
            Command::Allow(command) => command.run(&settings, say).await,
            Command::Firewall(command) => command.run(&settings, say).await,
            Command::Completions { shell } => Ok(completions(*shell)),
            Command::Man { folder } => Ok(man(folder)),
        }
    });
    match done {
        Ok(code) => code,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

#[allow(clippy::print_stderr, reason = "the command line's own words")]
fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("ringward-agent: {text}");
    ExitCode::from(code)
}

#[allow(clippy::print_stdout, reason = "the command line's own words")]
fn say(text: &str) {
    println!("{text}");
}

fn log(json: bool) {
    let filter = EnvFilter::try_from_env("RINGWARD_AGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
    }
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    log(settings.log_json);
    let mut app = App::start(settings, Clock::system(), Chance::from_os()?).await?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    systemd::serves();
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = int.recv() => tracing::info!("SIGINT: stopping"),
        () = app.failed() => return Ok(ExitCode::FAILURE),
    }
    systemd::stops();
    app.status().spool.sync();
    Ok(ExitCode::SUCCESS)
}

async fn join(settings: &Settings, token: &str, again: bool) -> anyhow::Result<ExitCode> {
    let token: JoinToken = token.parse()?;
    let state = StateDir::open(&settings.state_dir)?;
    if let Some(identity) = state.identity()?
        && !again
    {
        anyhow::bail!("this node has joined as {}; --again replaces its key and certificate", identity.node);
    }
    let identity = joining::join(&token, &state).await?;
    say(&format!("joined as {}, certificate {}", identity.node, identity.fingerprint));
    // A running agent has the old certificate in hand.
    let start =
        if again { "systemctl restart ringward-agent" } else { "systemctl enable --now ringward-agent" };
    say(&format!("start the agent: {start}"));
    Ok(ExitCode::SUCCESS)
}

/// What the running agent says of itself.
pub(crate) async fn running(settings: &Settings) -> anyhow::Result<serde_json::Value> {
    let address = settings.metrics.listen;
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("the agent does not answer at {address}: is it running?"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/status")
        .header(hyper::header::HOST, address.to_string())
        .body(http_body_util::Empty::<hyper::body::Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

async fn status(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let status = running(settings).await?;
    if as_json {
        say(&status.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    say(&format!("node       {}", text(&status["node"])));
    say(&format!("version    {}", text(&status["version"])));
    say(&format!("certificate {}", text(&status["certificate"]["fingerprint"])));
    for (url, state) in status["links"].as_object().into_iter().flatten() {
        say(&format!("link       {url}: {}", text(state)));
    }
    let seen = &status["observations"];
    say(&format!("ami        {}", text(&seen["ami"]["state"])));
    say(&format!("asterisk   {}", text(&seen["asterisk"]["version"])));
    say(&format!("gate       {}", seen["gate"]));
    say(&format!("spool      {}", seen["spool"]));
    for endpoint in seen["endpoints"].as_array().into_iter().flatten() {
        let contacts = endpoint["contacts"].as_array().into_iter().flatten();
        let contacts: Vec<_> = contacts
            .map(|contact| format!("{} {}", text(&contact["uri"]), text(&contact["status"])))
            .collect();
        say(&format!("endpoint   {}: {}", text(&endpoint["endpoint"]), contacts.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut is_good = true;
    let mut report = |what: &str, result: anyhow::Result<String>| match result {
        Ok(words) => say(&format!("good  {what}: {words}")),
        Err(error) => {
            is_good = false;
            say(&format!("BAD   {what}: {error:#}"));
        }
    };
    let users = [("AMI, user that places calls", &settings.ami), ("AMI, observer", &settings.observer)];
    for (what, login) in users {
        report(what, try_ami(login).await);
    }
    // It may ask nothing, not even that.
    let security = enter_ami(&settings.security).await;
    let words = format!("logged in at {}", settings.security.address);
    report("AMI, user that reads security events", security.map(|_session| words));
    report("firewall", commands::check(settings).await);
    for finding in commands::foreign(settings).await {
        if finding.is_certain {
            report("rules of others", Err(anyhow::anyhow!(finding.text)));
        } else {
            say(&format!("note  rules of others: {}", finding.text));
        }
    }
    let identity = StateDir::open(&settings.state_dir).and_then(|state| state.identity());
    match identity {
        Err(error) => report("identity", Err(error.into())),
        Ok(None) => report("identity", Err(anyhow::anyhow!("not joined: `ringward-agent join TOKEN`"))),
        Ok(Some(identity)) => {
            let days = (identity.expires_unix_s - Clock::system().unix_s()) / 86_400;
            let valid = if days < 0 {
                Err(anyhow::anyhow!("has ended: join again"))
            } else {
                Ok(format!("{days} days left"))
            };
            report(&format!("certificate of {}", identity.node), valid);
            let urls = if settings.control_planes.is_empty() {
                &identity.control_planes
            } else {
                &settings.control_planes
            };
            for url in urls {
                let config = tls::joined(&identity.ca_pem, &identity.certificate_pem, &identity.key_pem)?;
                let opened = dial::web_socket(url, LINK_PATH, config, MESSAGE_MAX).await;
                report(
                    &format!("control plane {url}"),
                    opened.map(|_| "lets us in".to_owned()).map_err(Into::into),
                );
            }
        }
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn try_ami(login: &Login) -> anyhow::Result<String> {
    let session = enter_ami(login).await?;
    let status = session.core_status().await?;
    Ok(format!("logged in at {}, Asterisk runs since {}", login.address, status.incarnation.as_str()))
}

async fn enter_ami(login: &Login) -> anyhow::Result<Session> {
    let secret = Secret::new(login.secret()?);
    let config =
        ConnectConfig::new(login.address.to_string(), &login.username, secret, ActionIds::from_os()?);
    let (session, _events) = Session::connect(&config).await?;
    Ok(session)
}
