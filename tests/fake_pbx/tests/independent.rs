//! An AMI client by other people finds in the fake what it would find in an Asterisk.

use asterisk_ami::{AmiConnection, Tag, find_tag};
use fake_pbx::{Ending, FakePbx, Script};

fn packet(pairs: &[(&str, &str)]) -> Vec<Tag> {
    pairs.iter().map(|(key, value)| Tag::from(key, value)).collect()
}

#[tokio::test]
async fn it_logs_in_pings_and_originates() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    pbx.set_ending("100", Ending::Busy486);
    let client = AmiConnection::connect(pbx.address()).await.unwrap();
    let mut events = client.events();
    let login = [("Action", "Login"), ("Username", "ringward"), ("Secret", "secret"), ("Events", "call")];
    let answer = client.send(packet(&login)).await.unwrap();
    assert_eq!(find_tag(&answer[0], "Message").unwrap(), "Authentication accepted");
    let answer = client.send(packet(&[("Action", "Ping")])).await.unwrap();
    assert_eq!(find_tag(&answer[0], "Ping").unwrap(), "Pong");
    let originate = [
        ("Action", "Originate"),
        ("ActionID", "7"),
        ("Channel", "PJSIP/100@acme"),
        ("ChannelId", "att_1"),
        ("Context", "out"),
        ("Exten", "s"),
        ("Priority", "1"),
        ("Async", "true"),
        ("Variable", "CHANNEL(hangup_handler_push)=\"end,s,1\""),
    ];
    let answer = client.send(packet(&originate)).await.unwrap();
    assert_eq!(find_tag(&answer[0], "Response").unwrap(), "Success");
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "Hangup") {
        let event = events.recv().await.unwrap().unwrap();
        names.push(find_tag(&event, "Event").unwrap().clone());
    }
    let recorded = [
        "FullyBooted",
        "Newchannel",
        "DialBegin",
        "Newstate",
        "DialState",
        "HangupRequest",
        "DialEnd",
        "OriginateResponse",
        "Hangup",
    ];
    assert_eq!(names, recorded);
    assert_eq!(pbx.seen("100").rings, 1);
    assert_eq!(pbx.db("ringward", "att_1").unwrap(), "2|end|Ringing|486|17|1790000000|-|-|-");
}

#[tokio::test]
async fn it_is_refused_with_a_wrong_secret() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let client = AmiConnection::connect(pbx.address()).await.unwrap();
    let login = [("Action", "Login"), ("Username", "ringward"), ("Secret", "wrong")];
    let answer = client.send(packet(&login)).await.unwrap();
    assert_eq!(find_tag(&answer[0], "Response").unwrap(), "Error");
    assert_eq!(pbx.logins(), 0);
}
