//! `--watch`: each change once, as NDJSON for programs, until what is watched ends.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::Value;

use super::{Server, ringward};

/// The key of a server's first operator.
fn key(server: &Server) -> String {
    let (code, stdout, stderr) = server.ask("", &["bootstrap", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str::<Value>(&stdout).unwrap()["secret"].as_str().unwrap().to_owned()
}

#[test]
fn a_list_that_is_watched_is_a_line_for_each_change() {
    let server = Server::start();
    let key = key(&server);
    let mut watching = ringward()
        .env("RINGWARD_OPERATOR_URL", &server.operator)
        .env("RINGWARD_OPERATOR_KEY", &key)
        .args(["ban", "list", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut next = || serde_json::from_str::<Value>(&lines.next().expect("a line")).unwrap();
    assert_eq!(next()["data"], serde_json::json!([]));
    for (net, entries) in [("203.0.113.7", 1), ("203.0.113.8", 2)] {
        let (code, _, stderr) = server.ask(&key, &["ban", "add", net]);
        assert_eq!(code, Some(0), "{stderr}");
        // Looks in between, which saw nothing new, said nothing.
        let seen = next();
        assert_eq!(seen["data"].as_array().unwrap().len(), entries, "{seen}");
        assert_eq!(seen["data"][0]["net"], format!("{net}/32"));
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn who_may_not_look_is_told_once_and_not_kept() {
    let server = Server::start();
    let (code, stdout, stderr) = server.ask("rw_op_nonsense", &["status", "--watch"]);
    assert_eq!((code, stdout.as_str()), (Some(4), ""), "{stderr}");
}

#[test]
fn a_notice_is_said_and_ended() {
    let server = Server::start();
    let key = key(&server);
    let (code, stdout, stderr) = server.ask(&key, &["notice", "add", "Calls are slow", "We look into it."]);
    assert_eq!(code, Some(0), "{stderr}");
    let id = stdout.split_whitespace().next().unwrap().to_owned();
    assert!(id.starts_with("ntc_") && stdout.contains("notice end"), "{stdout}");
    let (code, _, stderr) = server.ask(&key, &["notice", "update", &id, "Better."]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, stdout, _) = server.ask(&key, &["notice", "end", &id, "It was a cable."]);
    assert_eq!((code, stdout), (Some(0), format!("{id} is told to be over.\n")));
    let (_, stdout, _) = server.ask(&key, &["notice", "list"]);
    assert!(stdout.contains("Calls are slow"), "{stdout}");
    let (code, _, stderr) = server.ask(&key, &["notice", "end", &id, "x"]);
    assert!(code == Some(6) && stderr.contains("ringward notice add"), "{code:?} {stderr}");
    let (code, stdout, _) = server.ask(&key, &["notice", "remove", &id]);
    assert_eq!((code, stdout), (Some(0), format!("{id} is not shown any more.\n")));
    let (code, ..) = server.ask(&key, &["notice", "remove", &id]);
    assert_eq!(code, Some(5));
}
