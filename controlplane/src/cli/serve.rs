//! `ringward serve`.

use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Failure, systemd};
use crate::{
    app::{App, check_certificates, open_store},
    clock::{Chance, Clock},
    settings::Settings,
};

/// Flags of `serve`; each overrides the setting of its name.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// A TOML file with settings.
    #[arg(long, env = "RINGWARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the database and relative secrets are.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where customers reach it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// Where operators reach it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    operator_listen: Option<SocketAddr>,
    /// Where agents reach it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    agents_listen: Option<SocketAddr>,
    /// Reads the settings, opens the database, and ends.
    #[arg(long)]
    check: bool,
}

pub(super) async fn serve(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let mut settings =
        Settings::load(args.config.as_deref()).map_err(|error| Failure::usage(error.to_string()))?;
    if let Some(dir) = &args.data_dir {
        settings.data_dir.clone_from(dir);
    }
    if let Some(listen) = args.api_listen {
        settings.api.listen = listen;
    }
    if let Some(listen) = args.operator_listen {
        settings.operator.listen = listen;
    }
    if let Some(listen) = args.agents_listen {
        settings.agents.listen = listen;
    }
    log(settings.log_json);
    let failed = |error: &dyn std::error::Error| Failure::local(crate::calls::chain(error));
    let url = settings.database_url();
    let chance = Chance::from_os().map_err(|error| failed(&error))?;
    let store = open_store(&settings, &url, &chance).await.map_err(|error| failed(&error))?;
    if args.check {
        check_certificates(&settings).map_err(|error| failed(&error))?;
        crate::traces::check(&settings.traces).map_err(|error| failed(&error))?;
        println!("settings and database are good: {}", controlplane_store::place(&url));
        return Ok(ExitCode::SUCCESS);
    }
    let app = App::start(&settings, store, Clock::system(), chance).await.map_err(|error| failed(&error))?;
    let mut term = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
    systemd::serves();
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = int.recv() => tracing::info!("SIGINT: stopping"),
    }
    systemd::stops();
    app.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Logs go to stderr; `RINGWARD_LOG` filters them.
fn log(json: bool) {
    let filter = EnvFilter::try_from_env("RINGWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
    }
}
