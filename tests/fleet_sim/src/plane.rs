//! A control plane as its operator uses it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use node_agent_protocol::JoinToken;
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Applying a fleet of thousands may take a while.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// From its start to its first answer.
const READY_MAX: Duration = Duration::from_secs(60);

/// The operators' door, with an operator's key.
#[derive(Clone)]
pub struct Operator {
    http: reqwest::Client,
    url: String,
    key: String,
    agents: SocketAddr,
}

impl Operator {
    /// Takes the first key, with the token that the control plane left in its folder.
    ///
    /// # Errors
    /// It does not give one.
    pub async fn bootstrap(operator: SocketAddr, agents: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build()?;
        let mut this = Self { http, url: format!("http://{operator}"), key: String::new(), agents };
        let token = std::fs::read_to_string(folder.join("bootstrap.token"))?;
        let key = this.post("/admin/v1/bootstrap", &json!({"token": token.trim()})).await?;
        key["secret"].as_str().context("no key")?.clone_into(&mut this.key);
        Ok(this)
    }

    /// Where the door is, and the key to it.
    pub(crate) fn door(&self) -> (&str, &str) {
        (&self.url, &self.key)
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let asking = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send();
        Self::answer(path, asking.await?).await
    }

    /// The answer to a JSON body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        Self::answer(path, request.send().await?).await
    }

    async fn answer(path: &str, answer: reqwest::Response) -> anyhow::Result<Value> {
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// As `ringward apply`.
    ///
    /// # Errors
    /// The fleet is refused.
    pub async fn apply(&self, fleet_toml: String) -> anyhow::Result<()> {
        let path = "/admin/v1/fleet";
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.key);
        let request = request.header("content-type", "application/toml").body(fleet_toml);
        Self::answer(path, request.send().await?).await.map(|_| ())
    }

    /// As `ringward node token`.
    ///
    /// # Errors
    /// There is no such node.
    pub async fn token(&self, node: &str) -> anyhow::Result<JoinToken> {
        let body = json!({"urls": [format!("https://{}", self.agents)]});
        let answer = self.post(&format!("/admin/v1/nodes/{node}/token"), &body).await?;
        Ok(answer["token"].as_str().context("no token")?.parse()?)
    }

    /// Every trunk: its name, its state, whether it can be used.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn trunks(&self) -> anyhow::Result<Vec<(String, String, bool)>> {
        let trunks = self.get("/admin/v1/trunks").await?;
        let word = |trunk: &Value, member: &str| trunk[member].as_str().unwrap_or_default().to_owned();
        let trunk = |trunk: &Value| (word(trunk, "name"), word(trunk, "state"), trunk["usable"] == true);
        Ok(trunks["data"].as_array().context("no list of trunks")?.iter().map(trunk).collect())
    }
}

/// A running `ringward serve`, killed when this is dropped.
pub struct Program {
    program: PathBuf,
    folder: PathBuf,
    doors: [SocketAddr; 3],
    child: Option<Child>,
}

impl Program {
    /// Starts it on the SQLite database of a folder.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.local_addr()
        };
        let doors = [free()?, free()?, free()?];
        let mut this = Self { program: program.to_owned(), folder: folder.to_owned(), doors, child: None };
        this.start_again().await?;
        Ok(this)
    }

    /// The same on what it has left. Says how long it took until it was ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_again(&mut self) -> anyhow::Result<Duration> {
        let log = self.folder.join("ringward.log");
        let open = || std::fs::File::options().create(true).append(true).open(&log);
        let [api, operator, agents] = self.doors;
        let began = Instant::now();
        let child = Command::new(&self.program)
            .args(["serve", "--data-dir"])
            .arg(&self.folder)
            .args(["--api-listen", &api.to_string()])
            .args(["--operator-listen", &operator.to_string()])
            .args(["--agents-listen", &agents.to_string()])
            .env("RINGWARD_AGENTS__URLS", format!("[\"https://{agents}\"]"))
            .env_remove("RINGWARD_DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let ready = format!("http://{operator}/readyz");
        while !matches!(http.get(&ready).send().await, Ok(answer) if answer.status().is_success()) {
            if began.elapsed() > READY_MAX {
                bail!("ringward is not ready: see {}", log.display());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed())
    }

    /// Ends it without a goodbye.
    ///
    /// # Errors
    /// The system's.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Its operator, with the first key.
    ///
    /// # Errors
    /// It does not give one.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        let [_, operator, agents] = self.doors;
        Operator::bootstrap(operator, agents, &self.folder).await
    }

    /// Its pid.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.as_ref().and_then(Child::id).context("ringward does not run")
    }
}
