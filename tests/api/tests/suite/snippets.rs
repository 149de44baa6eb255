//! The verification of webhooks as `docs/webhooks.md` shows it, in each language, run on what a real control plane sends.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::{
    fixture::{Fleet, Got, NUMBER, Receiver},
    webhooks::inner,
};

/// A language: its name after the fence, its program, the file's name, and a main that calls the snippet with the words
/// secret, id, timestamp, signature and the body's file, and prints `true` or `false`.
const LANGUAGES: [(&str, &str, &str, &str); 3] = [
    (
        "python",
        "python3",
        "verify.py",
        r#"
import sys
secret, id, at, signature, path = sys.argv[1:]
headers = {"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signature}
print(str(is_ours(secret, headers, open(path, "rb").read())).lower())
"#,
    ),
    (
        "javascript",
        "node",
        "verify.cjs",
        r#"
const [secret, id, at, signature, path] = process.argv.slice(2);
const headers = {"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signature};
console.log(isOurs(secret, headers, require("node:fs").readFileSync(path)));
"#,
    ),
    (
        "ruby",
        "ruby",
        "verify.rb",
        r#"
secret, id, at, signature, path = ARGV
headers = {"webhook-id" => id, "webhook-timestamp" => at, "webhook-signature" => signature}
puts ours?(secret, headers, File.binread(path))
"#,
    ),
];

/// The first block of that language in the document.
fn snippet(language: &str) -> String {
    let text = include_str!("../../../../docs/webhooks.md");
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn says(folder: &Path, (program, file): (&str, &str), secret: &str, got: &Got, body: &[u8]) -> String {
    let header = |name: &str| got.headers[name].to_str().unwrap().to_owned();
    std::fs::write(folder.join("body"), body).unwrap();
    let mut command = Command::new(program);
    command.current_dir(folder).args([file, secret, &got.id(), &header("webhook-timestamp")]);
    let output = command.args([&header("webhook-signature"), "body"]).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn each_snippet_knows_ours_from_others() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(inner).start().await;
    let receiver = Receiver::start().await;
    let body = json!({"url": receiver.url(), "events": ["call.finished"]});
    let endpoint = fleet.api.post("/v1/webhook_endpoints", &body).await.is(201);
    let first = endpoint["secret"].as_str().unwrap().to_owned();
    let path = format!("/v1/webhook_endpoints/{}/rotate_secret", endpoint["id"].as_str().unwrap());
    let second = fleet.api.post(&path, &json!({})).await.is(200)["secret"].as_str().unwrap().to_owned();
    fleet.call(NUMBER).with("metadata", json!({"where": "Łódź"})).place().await.ends().await;
    let got = receiver.gets(1).await.remove(0);
    let folder = tempfile::tempdir().unwrap();
    for (language, program, file, main) in LANGUAGES {
        std::fs::write(folder.path().join(file), snippet(language) + main).unwrap();
        let says =
            |secret: &str, got: &Got, body: &[u8]| says(folder.path(), (program, file), secret, got, body);
        assert_eq!(says(&first, &got, &got.bytes), "true", "{language}: both sign for a day");
        assert_eq!(says(&second, &got, &got.bytes), "true", "{language}");
        let changed = [&got.bytes[..], b" "].concat();
        assert_eq!(says(&second, &got, &changed), "false", "{language}: another body");
        assert_eq!(
            says("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &got, &got.bytes),
            "false",
            "{language}: another secret"
        );
        let mut old = got.clone();
        let at: i64 = old.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        old.headers.insert("webhook-timestamp", (at - 400).to_string().parse().unwrap());
        assert_eq!(says(&second, &old, &got.bytes), "false", "{language}: too old");
    }
}
