//! The audit log: listed, exported, proved; and what was done to an export is named.

use std::{fs, thread::sleep, time::Duration};

use crate::{Server, run};

#[test]
#[allow(clippy::disallowed_methods, reason = "no worker is there that this could block")]
fn the_audit_log_is_listed_exported_and_proved() {
    let server = Server::start();
    let (_, stdout, _) = server.ask("", &["bootstrap", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let key = made["secret"].as_str().unwrap();
    let ask = |arguments: &[&str]| server.ask(key, arguments);
    for name in ["one", "two", "three", "four"] {
        assert_eq!(ask(&["key", "create", "--name", name]).0, Some(0));
    }
    // Soon they are sealed.
    let mut verified = ask(&["audit", "verify"]);
    for _ in 0..100 {
        if verified.1.starts_with("whole: 5 rows") {
            break;
        }
        sleep(Duration::from_millis(50));
        verified = ask(&["audit", "verify"]);
    }
    let (code, stdout, stderr) = verified;
    assert!(code == Some(0) && stdout.starts_with("whole: 5 rows"), "{stdout}{stderr}");
    let (code, stdout, _) =
        ask(&["audit", "list", "--action", "key.*", "--outcome", "success", "--limit", "3"]);
    assert!(code == Some(0) && stdout.matches("key.create").count() == 3, "{stdout}");
    assert!(ask(&["audit", "list", "--until", "2020-01-01T00:00:00Z"]).1.contains("Nothing was done"));
    let (code, _, stderr) = ask(&["audit", "list", "--outcome", "perhaps"]);
    assert!(code == Some(1) && stderr.contains("success, denied or failure"), "{stderr}");
    let (code, sheet, _) = ask(&["audit", "export", "--format", "csv"]);
    assert!(code == Some(0) && sheet.starts_with("\"seq\",\"id\""), "{sheet}");

    let (code, export, _) = ask(&["audit", "export"]);
    assert_eq!(code, Some(0));
    let folder = server.data.path();
    let public = fs::read_to_string(folder.join("audit-key.pub")).unwrap();
    let heads = folder.join("audit-head.json");
    let proved = |lines: Vec<&str>| {
        let file = folder.join("export.ndjson");
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        let (file, heads) = (file.to_str().unwrap(), heads.to_str().unwrap());
        run(&["audit", "verify", "--export", file, "--heads", heads, "--public-key", public.trim()])
    };
    let lines: Vec<&str> = export.lines().collect();
    let (code, stdout, stderr) = proved(lines.clone());
    assert!(code == Some(0) && stdout.starts_with("whole: 5 rows"), "{stdout}{stderr}");
    let row = |seq: u8| {
        let member = format!("\"seq\":{seq},");
        let at = lines.iter().position(|line| line.contains(&member)).unwrap();
        let row: serde_json::Value = serde_json::from_str(lines[at]).unwrap();
        (at, row["id"].as_str().unwrap().to_owned())
    };
    let ((third, id), (_, before), (_, after)) = (row(3), row(2), row(4));
    let changed = lines[third].replace("127.0.0.1", "127.0.0.2");
    let mut forged = lines.clone();
    forged[third] = &changed;
    let (code, stdout, _) = proved(forged);
    assert!(code == Some(1) && stdout.contains(&format!("row 3 ({id}) was changed")), "{stdout}");
    let mut torn = lines.clone();
    torn.remove(third);
    let (code, stdout, _) = proved(torn);
    assert!(code == Some(1) && stdout.contains("rows 3 to 3 are missing"), "{stdout}");
    assert!(stdout.contains(&before) && stdout.contains(&after), "{stdout}");
    let (fourth, last) = row(4);
    let mut cut = lines.clone();
    cut.remove(fourth + 1);
    let (code, stdout, _) = proved(cut);
    assert!(code == Some(1) && stdout.contains("the end was cut off: rows 5 to 5"), "{stdout}");
    assert!(stdout.contains(&last), "{stdout}");
}

#[test]
fn a_number_is_erased_by_command() {
    let server = Server::start();
    let (_, stdout, _) = server.ask("", &["bootstrap", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let key = made["secret"].as_str().unwrap();
    let (code, stdout, stderr) = server.ask(key, &["erase", "+48221234567"]);
    assert!(code == Some(0) && stdout.contains("number_"), "{stdout}{stderr}");
    let (_, listed, _) = server.ask(key, &["audit", "list", "--action", "number.erase"]);
    assert!(listed.contains("number_") && !listed.contains("48221234567"), "{listed}");
    assert_eq!(server.ask(key, &["erase", "nobody"]).0, Some(1));
}
