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
    /// Where agents reach every control plane.
    agents: Vec<SocketAddr>,
}

impl Operator {
    /// Takes the first key, with the token that the control plane left in its folder.
    ///
    /// # Errors
    /// It does not give one.
    pub async fn bootstrap(operator: SocketAddr, agents: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        Self::first(operator, vec![agents], folder).await
    }

    async fn first(operator: SocketAddr, agents: Vec<SocketAddr>, folder: &Path) -> anyhow::Result<Self> {
        let mut this = Self::with(format!("http://{operator}"), String::new(), agents)?;
        let token = std::fs::read_to_string(folder.join("bootstrap.token"))?;
        let key = this.post("/admin/v1/bootstrap", &json!({"token": token.trim()})).await?;
        key["secret"].as_str().context("no key")?.clone_into(&mut this.key);
        Ok(this)
    }

    /// The door at this URL, by a key that was made before, of control planes which agents reach there.
    ///
    /// # Errors
    /// The system's.
    pub fn with(url: String, key: String, agents: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build()?;
        Ok(Self { http, url, key, agents })
    }

    /// The same at another control plane of the same database.
    fn at(&self, operator: SocketAddr) -> Self {
        Self { url: format!("http://{operator}"), ..self.clone() }
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
        let urls: Vec<_> = self.agents.iter().map(|door| format!("https://{door}")).collect();
        let body = json!({"urls": urls});
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

/// What several of one database must have, made by the first one.
const SHARED: [&str; 3] = ["agents-ca.pem", "audit-key.der", "secrets.key"];

/// A running `ringward serve`, killed when this is dropped.
pub struct Program {
    program: PathBuf,
    folder: PathBuf,
    doors: [SocketAddr; 3],
    /// PostgreSQL, where it is one of several.
    database_url: Option<String>,
    /// Where agents reach it and those beside it.
    reach: Vec<SocketAddr>,
    child: Option<Child>,
}

impl Program {
    /// Starts it on the SQLite database of a folder.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut this = Self::unopened(program, folder, None)?;
        this.reach.extend([this.agents()]);
        this.start_again().await?;
        Ok(this)
    }

    /// Starts so many on one empty PostgreSQL database, each in a folder of its own below this one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn several(
        program: &Path,
        folder: &Path,
        database_url: &str,
        count: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let one =
            |n: usize| Self::unopened(program, &folder.join(format!("replica-{n}")), Some(database_url));
        let mut all = (1..=count).map(one).collect::<anyhow::Result<Vec<_>>>()?;
        let reach: Vec<_> = all.iter().map(Self::agents).collect();
        let mut first: Option<PathBuf> = None;
        for one in &mut all {
            one.reach.clone_from(&reach);
            for name in first.iter().flat_map(|_| SHARED) {
                std::fs::copy(first.clone().unwrap_or_default().join(name), one.folder.join(name))?;
            }
            one.start_again().await?;
            first.get_or_insert_with(|| one.folder.clone());
        }
        Ok(all)
    }

    fn unopened(program: &Path, folder: &Path, database_url: Option<&str>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.local_addr()
        };
        let doors = [free()?, free()?, free()?];
        Ok(Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            doors,
            database_url: database_url.map(str::to_owned),
            reach: Vec::new(),
            child: None,
        })
    }

    /// The same on what it has left. Says how long it took until it was ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_again(&mut self) -> anyhow::Result<Duration> {
        let log = self.folder.join("ringward.log");
        let open = || std::fs::File::options().create(true).append(true).open(&log);
        let [api, operator, agents] = self.doors;
        let urls: Vec<_> = self.reach.iter().map(|door| format!("\"https://{door}\"")).collect();
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--data-dir"])
            .arg(&self.folder)
            .args(["--api-listen", &api.to_string()])
            .args(["--operator-listen", &operator.to_string()])
            .args(["--agents-listen", &agents.to_string()])
            .env("RINGWARD_AGENTS__URLS", format!("[{}]", urls.join(",")))
            .env_remove("RINGWARD_DATABASE_URL");
        if let Some(url) = &self.database_url {
            command.env("RINGWARD_DATABASE_URL", url).env("RINGWARD_REPLICAS__ENABLED", "true");
        }
        let child = command
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
        let [_, operator, _] = self.doors;
        Operator::first(operator, self.reach.clone(), &self.folder).await
    }

    /// Its operator, by the key of another one on the same database.
    #[must_use]
    pub fn beside(&self, first: &Operator) -> Operator {
        let [_, operator, _] = self.doors;
        first.at(operator)
    }

    fn agents(&self) -> SocketAddr {
        let [_, _, agents] = self.doors;
        agents
    }

    /// Its pid.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.as_ref().and_then(Child::id).context("ringward does not run")
    }
}
