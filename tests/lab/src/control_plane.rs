//! The real control plane beside the lab: the program `ringward`, started and killed as a process, and
//! used through its doors.
use crate::setup::Doors;
use crate::{Agent, Lab, LabError, Pbx, Setup, Signal, clock, leaks, process, program, replicas};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// From the start to the first answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running `ringward serve`.
#[derive(Debug)]
pub struct ControlPlane {
    setup: Setup,
    doors: Doors,
    operator_key: String,
    customer_key: String,
    http: ureq::Agent,
}

impl ControlPlane {
    /// Starts one with an empty SQLite database in `folder`, makes the keys, and applies `fleet_toml`.
    ///
    /// # Errors
    /// The program is not built, does not get ready, or refuses the fleet.
    pub fn start(folder: &Path, fleet_toml: &str) -> Result<Self, LabError> {
        Self::start_on(folder, None, fleet_toml)
    }

    /// The same on a database of the caller's.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(folder: &Path, database_url: Option<String>, fleet_toml: &str) -> Result<Self, LabError> {
        let setup = Setup::new(folder);
        let plane = Self::open(match database_url {
            Some(url) => setup.database(url),
            None => setup,
        })?;
        plane.apply(fleet_toml)?;
        Ok(plane)
    }

    /// Starts one for a lab: applies its fleet and, where it has agents, joins and starts them.
    ///
    /// # Errors
    /// As [`Self::start`], or a node does not join.
    pub fn start_for(lab: &Lab, folder: &Path) -> Result<Self, LabError> {
        Self::start_with(lab, Setup::new(folder))
    }

    /// The same, set up otherwise.
    ///
    /// # Errors
    /// As [`Self::start_for`].
    pub fn start_with(lab: &Lab, setup: Setup) -> Result<Self, LabError> {
        let plane = Self::open(setup.agents_at(lab.root_address()))?;
        plane.declare(&lab.fleet_toml())?;
        for agent in lab.pbxes().iter().filter_map(Pbx::agent) {
            plane.join(&agent)?;
            agent.start()?;
        }
        plane.wait_for_nodes()?;
        Ok(plane)
    }

    /// Starts one with empty database and makes the keys.
    ///
    /// # Errors
    /// The program is not built, or does not get ready.
    pub fn open(setup: Setup) -> Result<Self, LabError> {
        let mut plane = Self::unopened(setup)?;
        plane.boot()?;
        Ok(plane)
    }

    /// Starts several on one empty database, where agents reach each; all have the keys of the first one.
    pub(crate) fn several(setups: Vec<Setup>) -> Result<Vec<Self>, LabError> {
        let mut planes = setups.into_iter().map(Self::unopened).collect::<Result<Vec<_>, _>>()?;
        let reach: Vec<_> = planes.iter().map(|plane| plane.doors.agents).collect();
        planes.iter_mut().for_each(|plane| plane.setup.agents_reach.clone_from(&reach));
        let Some((first, others)) = planes.split_first_mut() else { return Ok(planes) };
        first.boot()?;
        for other in others {
            replicas::share_files(&first.setup.folder, &other.setup.folder)?;
            other.operator_key.clone_from(&first.operator_key);
            other.customer_key.clone_from(&first.customer_key);
            other.start_again()?;
        }
        Ok(planes)
    }

    fn unopened(setup: Setup) -> Result<Self, LabError> {
        fs::create_dir_all(&setup.folder).map_err(LabError::file("create", &setup.folder))?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Ok(Self {
            doors: setup.doors()?,
            setup,
            operator_key: String::new(),
            customer_key: String::new(),
            http: config.into(),
        })
    }

    /// Its first start: makes the keys.
    fn boot(&mut self) -> Result<(), LabError> {
        self.start_again()?;
        let token = self.setup.folder.join("bootstrap.token");
        let token = fs::read_to_string(&token).map_err(LabError::file("read", &token))?;
        let proof = json!({"token": token.trim()});
        let boot = self.ask("POST", self.doors.operator, "", "/admin/v1/bootstrap", Some(&proof))?;
        self.operator_key = secret(&boot)?;
        let key = self.admin("POST", "/admin/v1/keys", Some(&json!({"name": "lab"})))?;
        self.customer_key = secret(&key)?;
        Ok(())
    }

    /// Joins a node with a new token.
    ///
    /// # Errors
    /// No token, or the agent was not let in.
    pub fn join(&self, agent: &Agent) -> Result<(), LabError> {
        let said = agent.join(&[&self.token(agent.node())?])?;
        if said.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        Err(LabError::Machine(format!("{} did not join: {words}", agent.node())))
    }

    /// A new join token of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn token(&self, node: &str) -> Result<String, LabError> {
        let answer = self.admin("POST", &format!("/admin/v1/nodes/{node}/token"), Some(&json!({})))?;
        let token = answer["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| LabError::Machine(format!("no token in {answer}")))
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.setup.log()
    }

    /// The customers' door, as a URL.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.doors.api)
    }

    /// The operators' door, as a URL.
    #[must_use]
    pub fn operator_url(&self) -> String {
        format!("http://{}", self.doors.operator)
    }

    /// Where agents dial it.
    #[must_use]
    pub fn agents_door(&self) -> SocketAddr {
        self.doors.agents
    }

    /// A customer's key.
    #[must_use]
    pub fn customer_key(&self) -> &str {
        &self.customer_key
    }

    /// An operator's key.
    #[must_use]
    pub fn operator_key(&self) -> &str {
        &self.operator_key
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        process::signal(&self.setup.name, signal)?;
        if signal == Signal::Kill {
            clock::wait_until("ringward to end", Duration::from_secs(5), "see /proc", || {
                process::alive(&self.setup.name).is_none()
            })?;
        }
        Ok(())
    }

    /// Ends it in order, for good or until [`Self::start_again`].
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<(), LabError> {
        process::end(&self.setup.name)
    }

    /// Its pid, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        process::alive(&self.setup.name)
    }

    /// The folder with its database.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }

    /// Starts the program again on the same database.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start_again(&self) -> Result<(), LabError> {
        self.setup.spawn(self.doors)?;
        let ready = || matches!(self.raw("GET", self.doors.operator, "", "/readyz", None), Ok((200, _)));
        clock::wait_until("ringward to be ready", READY_WITHIN, &self.hint(), ready).map(|_| ())
    }

    /// Applies a fleet file and waits until every node of it was looked at.
    ///
    /// # Errors
    /// The file is refused, or a node does not come up.
    pub fn apply(&self, fleet_toml: &str) -> Result<(), LabError> {
        self.declare(fleet_toml)?;
        let known = || self.trunks().is_ok_and(|trunks| trunks.iter().all(|trunk| trunk["checked"] == true));
        clock::wait_until("every trunk to be looked at", READY_WITHIN, &self.hint(), known).map(|_| ())
    }

    /// Applies a fleet file.
    ///
    /// # Errors
    /// The file is refused.
    pub fn declare(&self, fleet_toml: &str) -> Result<(), LabError> {
        let url = format!("{}/admin/v1/fleet?prune=true", self.operator_url());
        let request = self.http.post(&url).header("Authorization", format!("Bearer {}", self.operator_key));
        let mut response = request.send(fleet_toml).map_err(|error| broken(&url, &error))?;
        if response.status().as_u16() != 200 {
            let body = response.body_mut().read_to_string().unwrap_or_default();
            return Err(LabError::Machine(format!("the fleet was refused: {body}")));
        }
        Ok(())
    }

    /// Waits until every node is alive and every trunk was looked at.
    ///
    /// # Errors
    /// One is not in time.
    pub fn wait_for_nodes(&self) -> Result<Duration, LabError> {
        let alive = || self.nodes().is_ok_and(|nodes| nodes.iter().all(|node| node["up"] == true));
        let known = || self.trunks().is_ok_and(|trunks| trunks.iter().all(|trunk| trunk["checked"] == true));
        clock::wait_until("every node to be alive", READY_WITHIN, &self.hint(), || alive() && known())
    }

    fn hint(&self) -> String {
        format!("see {}", self.log().display())
    }

    /// The trunks as operators see them.
    ///
    /// # Errors
    /// No answer.
    pub fn trunks(&self) -> Result<Vec<Value>, LabError> {
        let list = self.admin("GET", "/admin/v1/trunks", None)?;
        Ok(list["data"].as_array().cloned().unwrap_or_default())
    }

    /// The nodes as operators see them.
    ///
    /// # Errors
    /// No answer.
    pub fn nodes(&self) -> Result<Vec<Value>, LabError> {
        let list = self.admin("GET", "/admin/v1/nodes", None)?;
        Ok(list["data"].as_array().cloned().unwrap_or_default())
    }

    /// A node's agent as operators see it: its link, what it saw, its last facts.
    ///
    /// # Errors
    /// No answer, or no such node.
    pub fn agent(&self, node: &str) -> Result<Value, LabError> {
        self.admin("GET", &format!("/admin/v1/nodes/{node}/agent"), None)
    }

    /// Asks the operators' door; any status but 2xx is an error.
    ///
    /// # Errors
    /// No answer, or a problem.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, LabError> {
        self.ask(method, self.doors.operator, &self.operator_key, path, body)
    }

    /// Asks the customers' door.
    ///
    /// # Errors
    /// No answer, or a problem.
    pub fn customer(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, LabError> {
        self.ask(method, self.doors.api, &self.customer_key, path, body)
    }

    /// Places a call as a customer; gives its id.
    ///
    /// # Errors
    /// It was not accepted.
    pub fn place(&self, body: &Value) -> Result<String, LabError> {
        let call = self.customer("POST", "/v1/calls", Some(body))?;
        call["id"].as_str().map(str::to_owned).ok_or_else(|| LabError::Machine(format!("no id in {call}")))
    }

    /// A call as its customer sees it.
    ///
    /// # Errors
    /// No answer, or no such call.
    pub fn call(&self, id: &str) -> Result<Value, LabError> {
        self.customer("GET", &format!("/v1/calls/{id}"), None)
    }

    /// A call once it has ended.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn ended(&self, id: &str, within: Duration) -> Result<Value, LabError> {
        let mut call = Value::Null;
        let ended = || {
            call = self.call(id).unwrap_or_default();
            call["ended_at"].is_string()
        };
        clock::wait_until(&format!("{id} to end"), within, &format!("see {}", self.log().display()), ended)?;
        Ok(call)
    }

    /// The sum of a metric's series whose text holds every one of `labels`.
    ///
    /// # Errors
    /// No answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64, LabError> {
        let (_, text) = self.raw("GET", self.doors.operator, "", "/metrics", None)?;
        let of = |line: &&str| {
            let series = line.split(' ').next().unwrap_or("");
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        };
        Ok(text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Runs the operators' command line against it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn command_line(&self, arguments: &[&str]) -> Result<Output, LabError> {
        let program = program::program("ringward")?;
        Command::new(&program)
            .args(arguments)
            .env("RINGWARD_OPERATOR_URL", self.operator_url())
            .env("RINGWARD_OPERATOR_KEY", &self.operator_key)
            .output()
            .map_err(|source| LabError::Start {
                what: "run the command line".into(),
                program: program.display().to_string(),
                source,
            })
    }

    fn ask(
        &self,
        method: &str,
        door: SocketAddr,
        key: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, LabError> {
        let (status, text) = self.raw(method, door, key, path, body)?;
        if !(200..300).contains(&status) {
            return Err(LabError::Machine(format!("{method} {path}: {status} {text}")));
        }
        serde_json::from_str(&text)
            .map_err(|error| LabError::Machine(format!("{method} {path}: {error}: {text}")))
    }

    fn raw(
        &self,
        method: &str,
        door: SocketAddr,
        key: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, String), LabError> {
        let url = format!("http://{door}{path}");
        let authorization = format!("Bearer {key}");
        let answer = match (method, body) {
            ("POST" | "PUT", body) => {
                let request = if method == "PUT" { self.http.put(&url) } else { self.http.post(&url) };
                request.header("Authorization", authorization).send_json(body.unwrap_or(&Value::Null))
            }
            _ => self.http.get(&url).header("Authorization", authorization).call(),
        };
        let mut answer = answer.map_err(|error| broken(&url, &error))?;
        let text = answer.body_mut().read_to_string().map_err(|error| broken(&url, &error))?;
        Ok((answer.status().as_u16(), text))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // What cannot be ended here is ended by the next lab's sweep.
        process::end(&self.setup.name).ok();
        leaks::look_through(&self.log(), &[self.operator_key.clone(), self.customer_key.clone()]);
    }
}

fn broken(url: &str, error: &ureq::Error) -> LabError {
    LabError::Machine(format!("{url}: {error}"))
}

fn secret(key: &Value) -> Result<String, LabError> {
    key["secret"].as_str().map(str::to_owned).ok_or_else(|| LabError::Machine(format!("no secret in {key}")))
}
