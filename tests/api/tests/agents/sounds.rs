//! Sounds reach a node through its agent, and nobody else.

use std::time::Duration;

use controlplane_core::sound::SoundHash;
use node_agent_protocol::{Capabilities, Capability, Down, Up, audio_path, sounds::Wanted, tls};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    agent::Node,
    identity::{Identity, dial, join},
    link::{Link, hello, observations},
    plane::{Plane, node, until},
};

const NUMBER: &str = "+48221234567";

async fn ended(plane: &Plane, message: &Value) -> Value {
    let (status, call) = plane.post("/admin/v1/calls", &json!({"to": NUMBER, "message": message})).await;
    assert_eq!(status, 201, "{call}");
    let path = format!("/admin/v1/calls/{}", call["id"].as_str().unwrap());
    until("the call to end", async || !plane.get(&path).await["outcome"].is_null()).await;
    plane.get(&path).await
}

/// What the door says to who holds this certificate: the status and what came.
async fn get(identity: &Identity, path: &str) -> (u16, Vec<u8>) {
    let response = &identity.response;
    let config = tls::joined(&response.ca_pem, &response.certificate_pem, &identity.key_pem).unwrap();
    let mut stream = dial(&identity.url, config).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server may close without a goodbye of TLS.
    let _ = stream.read_to_end(&mut answer).await;
    let at = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(at + 4))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoken_text_is_on_the_node_before_its_call_leaves() {
    let plane = Plane::start().await;
    let waw_1 = Node::join(&plane, "waw-1").await.start(&plane).await;
    waw_1.pbx.set_ending(NUMBER, fake_pbx::Ending::answer());
    let call = ended(&plane, &json!({"text": "The mail server is down.", "language": "en"})).await;
    assert_eq!((&call["status"], &call["reason"]), (&json!("completed"), &json!("played")), "{call}");
    let actions = waw_1.pbx.actions();
    let sound = actions.iter().find_map(|action| {
        action.all("Variable").find_map(|line| line.strip_prefix("RINGWARD_AUDIO=").map(str::to_owned))
    });
    let file = waw_1.settings.audio.folder.join(format!("{}.wav", sound.unwrap()));
    assert!(std::fs::metadata(file).unwrap().len() > 16_000, "more than a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_is_given_to_the_node_that_is_asked_to_place_it_and_only_then() {
    let plane = Plane::start().await;
    let waw = join(&plane.token("waw-1").await).await.unwrap();
    let fra = join(&plane.token("fra-1").await).await.unwrap();
    let (mut link, ..) = Link::open(&waw, hello("waw-1")).await;
    let other: SoundHash = "ab".repeat(32).parse().unwrap();
    assert_eq!(get(&waw, &audio_path(&other)).await.0, 404);
    assert_eq!(get(&waw, "/agents/v1/audio/..%2f..%2fetc%2fpasswd").await.0, 404);
    let place = json!({"to": NUMBER, "message": {"text": "Only for waw-1."}});
    plane.post("/admin/v1/calls", &place).await;
    let sound = loop {
        if let Down::PlaceAudio { sound, .. } = link.next().await.unwrap() {
            break sound;
        }
    };
    let (status, wav) = get(&waw, &audio_path(&sound)).await;
    assert_eq!((status, &wav[..4]), (200, b"RIFF".as_slice()));
    // Another node's certificate opens nothing, and neither does this one's once it is placed.
    assert_eq!(get(&fra, &audio_path(&sound)).await.0, 404);
    link.send(&Up::AudioPlaced { sound, ahead: false, error: None }).await;
    let links = plane.links();
    let placed =
        async || links.place_audio(&node("waw-1"), &sound, Wanted::Now, Duration::from_millis(200)).await;
    until("its word to be taken", async || placed().await.is_ok()).await;
    assert_eq!(get(&waw, &audio_path(&sound)).await.0, 404);
    // A sound that nobody asked for is noted nowhere.
    link.send(&Up::AudioPlaced { sound: other, ahead: false, error: None }).await;
    link.send(&Up::Observations(Box::new(observations(1)))).await;
    until("what came before the snapshot", async || plane.agent("waw-1").await["observed_ms_ago"].is_u64())
        .await;
    assert!(
        links.place_audio(&node("waw-1"), &other, Wanted::Now, Duration::from_millis(300)).await.is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_asked_for_nothing_and_its_node_is_passed_over() {
    let plane = Plane::start().await;
    let waw = join(&plane.token("waw-1").await).await.unwrap();
    let mut older = hello("waw-1");
    older.capabilities = Capabilities::of(Capability::USED.into_iter().filter(|c| *c != Capability::Audio));
    let (_link, ..) = Link::open(&waw, older).await;
    let links = plane.links();
    let sound: SoundHash = "ab".repeat(32).parse().unwrap();
    let refused =
        links.place_audio(&node("waw-1"), &sound, Wanted::Now, Duration::from_secs(5)).await.unwrap_err();
    assert!(refused.to_string().contains("update it"), "{refused}");
    let agent = plane.agent("waw-1").await;
    assert!(agent["lacking"].as_array().unwrap().contains(&json!("audio")), "{agent}");
}
