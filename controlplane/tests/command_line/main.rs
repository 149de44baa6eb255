//! The program as a person meets it: what it says when something is wrong, and with which exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod audit;
mod customers;
mod first_try;
mod restoring;
mod watching;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;

fn ringward() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringward"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGWARD_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(ringward().args(arguments).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A server on free ports; ended when dropped.
struct Server {
    child: Child,
    api: String,
    operator: String,
    data: TempDir,
    /// What it logs.
    log: Arc<Mutex<String>>,
}

impl Server {
    fn start() -> Self {
        Self::logging("info")
    }

    fn logging(level: &str) -> Self {
        let data = TempDir::new().unwrap();
        let mut child = ringward()
            .env("RINGWARD_LOG", level)
            .args(["serve", "--api-listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0"])
            .args(["--agents-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let log = Arc::new(Mutex::new(String::new()));
        let door = |line: &str, name: &str| {
            let address = line.split_once(name)?.1.split_whitespace().next()?;
            Some(format!("http://{address}"))
        };
        let mut doors = None;
        for line in lines.by_ref() {
            doors = door(&line, " api=").zip(door(&line, " operator="));
            log.lock().unwrap().push_str(&(line + "\n"));
            if doors.is_some() {
                break;
            }
        }
        let (api, operator) = doors.expect("the server says where it listens");
        let logged = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| logged.lock().unwrap().push_str(&(line + "\n"))));
        Self { child, api, operator, data, log }
    }

    fn ask(&self, key: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = ringward();
        command.env("RINGWARD_OPERATOR_URL", &self.operator).env("RINGWARD_OPERATOR_KEY", key);
        command.env("RINGWARD_DATA_DIR", self.data.path());
        told(command.args(arguments).output().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_the_setting_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = TempDir::new().unwrap();
    let (code, _, stderr) = told(
        ringward()
            .args(["serve", "--api-listen", &address, "--operator-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .output()
            .unwrap(),
    );
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&address) && stderr.contains("RINGWARD_API__LISTEN"), "{stderr}");
}

#[test]
fn a_database_that_cannot_be_is_named() {
    for (folder, named) in
        [(Path::new("/dev/null/x"), "/dev/null/x"), (Path::new("/proc/ringward"), "/proc/ringward")]
    {
        let (code, _, stderr) =
            told(ringward().args(["serve", "--check", "--data-dir"]).arg(folder).output().unwrap());
        assert_eq!(code, Some(1));
        assert!(stderr.contains(named), "{stderr}");
    }
    let (code, _, stderr) = told(
        ringward().args(["serve", "--check"]).env("RINGWARD_DATABASE_URL", "mysql://x").output().unwrap(),
    );
    assert_eq!(code, Some(1));
    assert!(stderr.contains("sqlite://") && stderr.contains("postgres://"), "{stderr}");
}

#[test]
fn settings_that_are_wrong_are_named_with_their_place() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ringward.toml");
    std::fs::write(&file, "[api]\nlisten = \"127.0.0.1:1\"\nlisten_all = true\n").unwrap();
    let (code, _, stderr) =
        told(ringward().args(["serve", "--check", "--config"]).arg(&file).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(stderr.contains("listen_all") && stderr.contains("ringward.toml"), "{stderr}");
    let tls = "[api]\nlisten = \"127.0.0.1:1\"\ntls = { certificate_file = \"/nowhere.pem\", key_file = \"/nowhere.key\" }\n";
    std::fs::write(&file, tls).unwrap();
    let check = ["serve", "--check", "--data-dir"];
    let asked = ringward().args(check).arg(folder.path()).arg("--config").arg(&file).output().unwrap();
    let (code, _, stderr) = told(asked);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("customers' door") && stderr.contains("/nowhere.pem"), "{stderr}");
    let (code, _, stderr) = run(&["serve", "--check", "--config", "/nowhere.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nowhere.toml: not found"), "{stderr}");
}

/// The URL may hold a password: the place is named without it.
#[test]
fn a_check_names_the_database_and_not_its_url() {
    let data = TempDir::new().unwrap();
    let (code, stdout, stderr) =
        told(ringward().args(["serve", "--check", "--data-dir"]).arg(data.path()).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("sqlite file /") && !stdout.contains("://"), "{stdout}");
}

#[test]
fn nobody_there_is_3_and_says_what_to_do() {
    let (code, _, stderr) = run(&["status", "--operator-url", "http://127.0.0.1:1"]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("ringward serve") && stderr.contains("RINGWARD_OPERATOR_URL"), "{stderr}");
}

/// A door behind a TLS proxy, whose certificate the system trusts or does not.
#[test]
fn a_door_behind_tls_is_asked_if_its_certificate_is_trusted() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = TempDir::new().unwrap();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = BufReader::new(rustls::StreamOwned::new(connection, stream));
            let mut line = String::new();
            while tls.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"data\":[]}";
            tls.get_mut().write_all(answer.as_bytes()).ok();
            tls.get_mut().conn.send_close_notify();
            tls.get_mut().flush().ok();
        }
    });
    let list = ["node", "list", "--operator-url", &url, "--operator-key", "k"];
    let (code, stdout, stderr) = told(ringward().args(list).env("SSL_CERT_FILE", &trusted).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("No node is declared"), "{stdout}");
    let (code, _, stderr) = told(ringward().args(list).env_remove("SSL_CERT_FILE").output().unwrap());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("certificate"), "{stderr}");
}

#[test]
fn words_that_are_wrong_are_2() {
    assert_eq!(run(&["stauts"]).0, Some(2));
    assert_eq!(run(&["status", "--operator-url", "ftp://x"]).0, Some(2));
}

#[test]
fn from_the_first_key_to_a_fleet_that_contradicts_itself() {
    let server = Server::start();
    let (code, _, stderr) = server.ask("", &["status"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("ringward bootstrap"), "{stderr}");

    let (code, stdout, stderr) = server.ask("", &["bootstrap", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let key =
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["secret"].as_str().unwrap().to_owned();
    let (code, _, stderr) = server.ask("", &["bootstrap"]);
    assert_eq!(code, Some(6), "{stderr}");
    assert!(stderr.contains("ringward bootstrap --force"), "{stderr}");
    // Whoever holds the data directory is never locked out; nobody else gets in.
    let (code, stdout, stderr) = server.ask("", &["bootstrap", "--force", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("rw_op_"), "{stdout}");
    let elsewhere = TempDir::new().unwrap().path().display().to_string();
    let (code, _, stderr) = server.ask("", &["bootstrap", "--force", "--data-dir", &elsewhere]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&elsewhere) && stderr.contains("--data-dir"), "{stderr}");

    let (code, stdout, _) = server.ask(&key, &["node", "list"]);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "No node is declared. Next: ringward apply -f fleet.toml\n")
    );

    let folder = TempDir::new().unwrap();
    let file = folder.path().join("fleet.toml");
    let path = file.display().to_string();
    std::fs::write(&file, "[[node]]\nname = \"waw-1\"\n\n[[carrier]]\nname = \"acme\"\n\n[[trunk]]\nname = \"t\"\nnode = \"waw-2\"\ncarrier = \"acme\"\nendpoint = \"e\"\n").unwrap();
    let (code, _, stderr) = server.ask(&key, &["apply", "-f", &path]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("waw-2") && stderr.contains("did you mean") && stderr.contains("line 9"),
        "{stderr}"
    );

    std::fs::write(&file, "[[node]]\nname = \"waw-1\"\n").unwrap();
    let (code, stdout, _) = server.ask(&key, &["diff", "-f", &path]);
    assert_eq!((code, stdout.as_str()), (Some(1), "+ node waw-1\n"));
    assert_eq!(server.ask(&key, &["apply", "-f", &path]).0, Some(0));
    assert_eq!(server.ask(&key, &["diff", "-f", &path]).0, Some(0));

    let (code, _, stderr) = server.ask(&key, &["call", "place", "+48221234567"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("No destination is open yet"), "{stderr}");
    assert_eq!(server.ask(&key, &["policy", "set", "--open", "PL"]).0, Some(0));
    let (code, _, stderr) = server.ask(&key, &["call", "place", "0048221234567"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("to:") && stderr.contains("E.164"), "{stderr}");
    let said = [
        "call",
        "place",
        "+48221234567",
        "--text",
        "Down",
        "--language",
        "tlh",
        "--acknowledge",
        "--no-wait",
    ];
    let (code, _, stderr) = server.ask(&key, &said);
    assert_eq!(code, Some(1));
    // Where espeak-ng is not installed, that is told first.
    let no_engine = stderr.contains("message.text") && stderr.contains("speech engine");
    assert!(stderr.contains("message.language") || no_engine, "{stderr}");
    let (code, _, stderr) =
        server.ask(&key, &["call", "place", "+48221234567", "--text", "a", "--audio", "builtin:beep"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cannot be used with"), "{stderr}");
    let (code, _, _) = server.ask(&key, &["call", "show", "call_../../etc"]);
    assert_eq!(code, Some(5));
    let (code, stdout, _) = server.ask(&key, &["route", "explain", "+48221234567"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("no_route"), "{stdout}");
}

#[test]
fn bans_are_made_explained_listed_imported_and_lifted() {
    let server = Server::start();
    let (_, stdout, _) = server.ask("", &["bootstrap", "--json"]);
    let key =
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["secret"].as_str().unwrap().to_owned();
    let ask = |arguments: &[&str]| server.ask(&key, arguments);
    let (code, stdout, _) = ask(&["ban", "list"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "Nobody is banned.\n"));
    let add = ["ban", "add", "203.0.113.9", "--for", "12h", "--reason", "scans"];
    let (code, stdout, stderr) = ask(&add);
    assert_eq!((code, stdout.as_str()), (Some(0), "203.0.113.9/32 is banned on every node.\n"), "{stderr}");
    assert!(ask(&add[..3]).1.contains("is banned on every node."), "for ever is longer");
    assert!(ask(&add).1.contains("(it was, for at least as long)"));
    let (code, stdout, _) = ask(&["ban", "why", "203.0.113.9"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("203.0.113.9 is banned\n  ban 203.0.113.9/32 by operator key_"), "{stdout}");
    // What is refused for safety has a code of its own.
    let (code, _, stderr) = ask(&["ban", "add", "0.0.0.0/0"]);
    assert_eq!(code, Some(6));
    assert!(stderr.contains("0.0.0.0/0 is everything"), "{stderr}");
    assert_eq!(ask(&["ban", "add", "203.0.113.9", "--for", "soon"]).0, Some(2));
    assert_eq!(ask(&["ban", "remove", "203.0.113.10"]).0, Some(5));

    let list = server.data.path().join("scanners.txt");
    std::fs::write(&list, "# scanners\n198.51.100.1\n198.51.100.64/26\n127.0.0.1\n").unwrap();
    let path = list.display().to_string();
    let (code, stdout, stderr) = ask(&["ban", "import", &path, "--for", "1d"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.starts_with("2 taken from scanners.txt, 2 of them new or longer; 1 lines"), "{stdout}");
    assert!(stdout.contains("line 4: 127.0.0.1/32 touches"), "{stdout}");
    let (_, stdout, _) = ask(&["ban", "export", "--source", "scanners.txt"]);
    assert_eq!(stdout, "198.51.100.1\n198.51.100.64/26\n");
    let (_, stdout, _) = ask(&["ban", "list", "--source", "scanners.txt", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);

    let (code, stdout, _) = ask(&["allow", "add", "198.51.100.0/24", "--reason", "an office"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("198.51.100.0/24 is never banned from now on; 2 bans were lifted"), "{stdout}");
    let (code, stdout, _) = ask(&["ban", "why", "198.51.100.1"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("an operator allows it") && stdout.contains("an office"), "{stdout}");
    assert!(ask(&["allow", "list"]).1.contains("198.51.100.0/24"));
    assert_eq!(ask(&["allow", "remove", "198.51.100.0/24"]).0, Some(0));
    assert_eq!(ask(&["ban", "remove", "203.0.113.9", "--reason", "done"]).0, Some(0));
    assert_eq!(ask(&["ban", "list"]).1, "Nobody is banned.\n");
}

/// All that a server says at its most talkative, while secrets are made, shown, used and ended.
#[test]
fn logs_hold_no_secret() {
    let server = Server::logging("debug");
    let token = std::fs::read_to_string(server.data.path().join("bootstrap.token")).unwrap();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let secret = |text: &str| json(text)["secret"].as_str().unwrap().to_owned();
    let operator = secret(&server.ask("", &["bootstrap", "--json"]).1);
    let made = server.ask(&operator, &["key", "create", "--name", "pager", "--json"]).1;
    let id = json(&made)["id"].as_str().unwrap().to_owned();
    let customer = secret(&made);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (endpoint, callback) = runtime.block_on(async {
        let url = format!("{}/v1/webhook_endpoints", server.api);
        let body = serde_json::json!({"url": "https://hooks.example.com/"}).to_string();
        let request =
            client.post(url).bearer_auth(&customer).header("content-type", "application/json").body(body);
        let made = request.send().await.unwrap().text().await.unwrap();
        let url = format!("{}/v1/callback_secret", server.api);
        let shown = client.get(&url).bearer_auth(&customer).send().await.unwrap().text().await.unwrap();
        // Refused ones as well.
        client.get(&url).bearer_auth(&operator).send().await.unwrap();
        client.get(&url).bearer_auth(&customer[..60]).send().await.unwrap();
        (secret(&made), secret(&shown))
    });
    let rotated = secret(&server.ask(&operator, &["key", "rotate", &id, "--json"]).1);
    assert_eq!(server.ask(&operator, &["key", "revoke", &id]).0, Some(0));
    let log = server.log.lock().unwrap().clone();
    assert!(log.contains("answered"), "it was not talkative: {log}");
    let file = std::fs::read_to_string(server.data.path().join("secrets.key")).unwrap();
    for secret in [&token, &operator, &customer, &rotated, &endpoint, &callback, &file] {
        // Any part that is more than what a key is recognised by.
        let body = secret.trim().rsplit('_').next().unwrap();
        let parts = (0..body.len() - 16).step_by(4).map(|at| &body[at..at + 16]);
        assert!(parts.into_iter().all(|part| !log.contains(part)), "a secret is in the log");
    }
}
