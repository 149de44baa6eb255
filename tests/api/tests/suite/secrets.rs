//! What a copy of the database gives away: no key, and no secret that signs.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::{
    fixture::{Fleet, NUMBER, Receiver},
    webhooks::inner,
};

/// Everything that lies in the data directory but the keys of secrets and of the agents' CA.
fn dump(fleet: &Fleet) -> Vec<u8> {
    let read = || {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&fleet.settings.data_dir)? {
            let path = entry?.path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("ringward.db") {
                all.extend(std::fs::read(path)?);
            }
        }
        Ok::<_, std::io::Error>(all)
    };
    // SQLite's last connection removes its log as it goes, maybe between the list and the reading.
    let all = (0..10).find_map(|_| read().ok()).unwrap();
    assert!(all.len() > 10_000);
    all
}

fn holds(dump: &[u8], what: &[u8]) -> bool {
    dump.windows(what.len()).any(|part| part == what)
}

fn bytes(secret: &Value) -> Vec<u8> {
    BASE64.decode(secret.as_str().unwrap().strip_prefix("whsec_").unwrap().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_copy_of_the_database_holds_no_usable_secret() {
    if cfg!(feature = "postgres-tests") {
        return;
    }
    let receiver = Receiver::start().await;
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).settings(inner).start().await;
    let made = fleet.api.post("/v1/webhook_endpoints", &json!({"url": receiver.url()})).await.is(201);
    let path = format!("/v1/webhook_endpoints/{}", made["id"].as_str().unwrap());
    let rotated = fleet.api.post(&format!("{path}/rotate_secret"), &json!({})).await.is(200);
    let callback = fleet.api.get("/v1/callback_secret").await.is(200);
    let secrets = [&made, &rotated, &callback].map(|shown| shown["secret"].clone());
    fleet.call(NUMBER).place().await.ends().await;
    for got in receiver.gets(4).await {
        assert!(
            got.is_signed_with(secrets[0].as_str().unwrap())
                && got.is_signed_with(secrets[1].as_str().unwrap())
        );
    }
    let keys = [fleet.api.key.clone().unwrap(), fleet.operator.key.clone().unwrap()];
    let lists = |dump: &[u8]| {
        for secret in &secrets {
            assert!(
                !holds(dump, &bytes(secret)) && !holds(dump, secret.as_str().unwrap().as_bytes()),
                "{secret}"
            );
        }
        for key in &keys {
            assert!(!holds(dump, key.as_bytes()) && !holds(dump, &key.as_bytes()[20..]), "{}", &key[..14]);
        }
    };
    lists(&dump(&fleet));
    fleet.stop().await;
    lists(&dump(&fleet));
    // As a release left it that sealed nothing: sealed at the next start, and it signs as before.
    let bare = bytes(&secrets[0]).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sql = format!(
        "UPDATE webhook_endpoint SET secret = x'{bare}', previous_secret = NULL, previous_until = NULL"
    );
    fleet.database.run(sql.leak()).await;
    assert!(holds(&dump(&fleet), &bytes(&secrets[0])), "what is looked for would be found");
    fleet.start_again().await;
    assert_eq!(fleet.api.get(&path).await.is(200)["secret"], secrets[0]);
    let rows = fleet.audit().await;
    assert_eq!(rows.iter().filter(|row| row["action"] == "secrets.reseal").count(), 1);
    lists(&dump(&fleet));
    fleet.stop().await;
    lists(&dump(&fleet));
}

#[tokio::test]
async fn secrets_outlive_a_change_of_their_key_and_not_its_loss() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let key = |byte: u8| BASE64.encode(&[byte; 32]);
    let write = |keys: &[u8]| {
        std::fs::write(&file, keys.iter().map(|byte| key(*byte) + "\n").collect::<String>()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
    };
    write(&[1]);
    let named = file.clone();
    let set = move |settings: &mut controlplane::settings::Settings| settings.secrets.key_file = Some(named);
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).settings(set).start().await;
    let made = fleet.api.get("/v1/callback_secret").await.is(200);
    for keys in [&[2, 1][..], &[2], &[3, 2], &[3]] {
        fleet.stop().await;
        write(keys);
        fleet.start_again().await;
        assert_eq!(fleet.api.get("/v1/callback_secret").await.is(200)["secret"], made["secret"], "{keys:?}");
    }
    fleet.stop().await;
    write(&[1]);
    let started = crate::fixture::Plane::start(fleet.settings.clone(), fleet.database.url.clone()).await;
    let Err(refusal) = started else { panic!("it started without the key") };
    assert!(refusal.contains("callback secret") && refusal.contains("keys"), "{refusal}");
    assert!(!refusal.contains(made["secret"].as_str().unwrap()));
}
