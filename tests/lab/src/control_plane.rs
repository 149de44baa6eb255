//! The real control plane beside the lab: the program `ringward`, started and killed as a process, and
//! used through its doors.
use crate::{LabError, Signal, clock, process};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The process's name in the lab's pid files.
const NAME: &str = "ringward";
/// From the start to the first answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running `ringward serve`.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    database_url: Option<String>,
    api: String,
    operator: String,
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
        fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let mut plane = Self {
            folder: folder.to_owned(),
            database_url,
            api: format!("127.0.0.1:{}", free_port()?),
            operator: format!("127.0.0.1:{}", free_port()?),
            operator_key: String::new(),
            customer_key: String::new(),
            http: config.into(),
        };
        plane.spawn()?;
        let token = folder.join("bootstrap.token");
        let token = fs::read_to_string(&token).map_err(LabError::file("read", &token))?;
        let proof = json!({"token": token.trim()});
        let boot = plane.ask("POST", &plane.operator, "", "/admin/v1/bootstrap", Some(&proof))?;
        plane.operator_key = secret(&boot)?;
        let key = plane.admin("POST", "/admin/v1/keys", Some(&json!({"name": "lab"})))?;
        plane.customer_key = secret(&key)?;
        plane.apply(fleet_toml)?;
        Ok(plane)
    }

    fn spawn(&self) -> Result<(), LabError> {
        let log = self.log();
        let open =
            || File::options().create(true).append(true).open(&log).map_err(LabError::file("write", &log));
        let mut command = Command::new(binary("ringward")?);
        command
            .args(["serve", "--data-dir"])
            .arg(&self.folder)
            .args(["--api-listen", &self.api, "--operator-listen", &self.operator])
            .args(["--agents-listen", "127.0.0.1:0"])
            .env_remove("RINGWARD_DATABASE_URL")
            .stdin(std::process::Stdio::null())
            .stdout(open()?)
            .stderr(open()?);
        if let Some(url) = &self.database_url {
            command.env("RINGWARD_DATABASE_URL", url);
        }
        process::spawn(NAME, command)?;
        let ready = || matches!(self.raw("GET", &self.operator, "", "/readyz", None), Ok((200, _)));
        clock::wait_until("ringward to be ready", READY_WITHIN, &format!("see {}", log.display()), ready)?;
        Ok(())
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("ringward.log")
    }

    /// The customers' door, as a URL.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// The operators' door, as a URL.
    #[must_use]
    pub fn operator_url(&self) -> String {
        format!("http://{}", self.operator)
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
        process::signal(NAME, signal)?;
        if signal == Signal::Kill {
            clock::wait_until("ringward to end", Duration::from_secs(5), "see /proc", || {
                process::alive(NAME).is_none()
            })?;
        }
        Ok(())
    }

    /// Starts the program again on the same database.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start_again(&self) -> Result<(), LabError> {
        self.spawn()
    }

    /// Applies a fleet file and waits until every node of it was looked at.
    ///
    /// # Errors
    /// The file is refused, or a node does not come up.
    pub fn apply(&self, fleet_toml: &str) -> Result<(), LabError> {
        let url = format!("{}/admin/v1/fleet?prune=true", self.operator_url());
        let request = self.http.post(&url).header("Authorization", format!("Bearer {}", self.operator_key));
        let mut response = request.send(fleet_toml).map_err(|error| broken(&url, &error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = response.body_mut().read_to_string().unwrap_or_default();
            return Err(LabError::Machine(format!("the fleet was refused: {body}")));
        }
        let known = || self.trunks().is_ok_and(|trunks| trunks.iter().all(|trunk| trunk["checked"] == true));
        clock::wait_until(
            "every trunk to be looked at",
            READY_WITHIN,
            &format!("see {}", self.log().display()),
            known,
        )?;
        Ok(())
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

    /// Asks the operators' door; any status but 2xx is an error.
    ///
    /// # Errors
    /// No answer, or a problem.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, LabError> {
        self.ask(method, &self.operator, &self.operator_key, path, body)
    }

    /// Asks the customers' door.
    ///
    /// # Errors
    /// No answer, or a problem.
    pub fn customer(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, LabError> {
        self.ask(method, &self.api, &self.customer_key, path, body)
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
        let (_, text) = self.raw("GET", &self.operator, "", "/metrics", None)?;
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
        let program = binary("ringward")?;
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
        door: &str,
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
        door: &str,
        key: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, String), LabError> {
        let url = format!("http://{door}{path}");
        let authorization = format!("Bearer {key}");
        let answer = match (method, body) {
            ("POST", body) => {
                let request = self.http.post(&url).header("Authorization", authorization);
                request.send_json(body.unwrap_or(&Value::Null))
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
        process::end(NAME).ok();
    }
}

fn broken(url: &str, error: &ureq::Error) -> LabError {
    LabError::Machine(format!("{url}: {error}"))
}

fn secret(key: &Value) -> Result<String, LabError> {
    key["secret"].as_str().map(str::to_owned).ok_or_else(|| LabError::Machine(format!("no secret in {key}")))
}

fn free_port() -> Result<u16, LabError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| LabError::Machine(format!("no free port: {error}")))
}

/// A program of this workspace, beside the one that runs: `cargo build` puts them in one folder, and
/// tests in `deps` below it.
///
/// # Errors
/// It is not built.
pub fn binary(name: &str) -> Result<PathBuf, LabError> {
    let here = std::env::current_exe().map_err(|error| LabError::Machine(format!("where am I: {error}")))?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        LabError::Machine(format!(
            "{name} is not built: run `cargo build -p controlplane` (`cargo lab test` does)"
        ))
    })
}
