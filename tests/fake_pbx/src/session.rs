//! One AMI session: greets, logs in, answers.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::pbx::{Channel, Link, Shared};
use crate::script::CoreStatus;
use crate::wire::{Packet, take_actions};
use crate::{call, calls};

/// Blocks that wait for a session's socket; a session that lags further is cut.
const OUT_MAX: usize = 65_536;

/// What an action leads to besides an answer.
enum Next {
    GoOn,
    Cut,
}

pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(shared: Arc<Shared>, stream: S) {
    let (mut reading, writing) = tokio::io::split(stream);
    let (out, outbox) = mpsc::channel(OUT_MAX);
    let cut = Arc::new(Notify::new());
    tokio::spawn(write(shared.clone(), writing, outbox));
    let link = {
        let mut state = shared.state();
        state.next_link += 1;
        state.next_link
    };
    let talking = talk(&shared, &mut reading, link, &out, &cut);
    tokio::select! {
        () = talking => {}
        () = cut.notified() => {}
    }
    shared.state().links.remove(&link);
}

async fn talk<S: AsyncRead + AsyncWrite>(
    shared: &Arc<Shared>,
    reading: &mut ReadHalf<S>,
    link: u64,
    out: &mpsc::Sender<Vec<u8>>,
    cut: &Arc<Notify>,
) {
    thawed(shared).await;
    sleep(shared.script().banner_delay).await;
    let _ = out.send(b"Asterisk Call Manager/11.0.0\r\n".to_vec()).await;
    let (mut buffer, mut open, mut logged_in) = (Vec::new(), Packet::default(), false);
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = reading.read(&mut chunk).await else { return };
        thawed(shared).await;
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        for action in take_actions(&mut buffer, &mut open) {
            if shared.script().keeps_actions {
                shared.state().actions.push(action.clone());
            }
            let name = action.get("Action").unwrap_or_default().to_ascii_lowercase();
            let next = if name == "login" {
                logged_in = login(shared, &action, link, out, cut).await;
                if logged_in { Next::GoOn } else { Next::Cut }
            } else if logged_in {
                answer(shared, &name, &action, out).await
            } else {
                reply(out, Packet::response("Error", &action).add("Message", "Permission denied")).await
            };
            if let Next::Cut = next {
                return;
            }
        }
    }
}

async fn thawed(shared: &Shared) {
    let mut frozen = shared.frozen.subscribe();
    // The sender lives in `shared`: waiting cannot fail.
    let _ = frozen.wait_for(|frozen| !*frozen).await;
}

async fn write<W: AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    mut writing: W,
    mut outbox: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(bytes) = outbox.recv().await {
        thawed(&shared).await;
        let half_lines = shared.script().half_lines;
        let size = if half_lines { 1 } else { bytes.len().max(1) };
        for part in bytes.chunks(size) {
            if writing.write_all(part).await.is_err() || writing.flush().await.is_err() {
                return;
            }
            if half_lines {
                tokio::task::yield_now().await;
            }
        }
    }
    // The peer may be gone already.
    let _ = writing.shutdown().await;
}

async fn reply(out: &mpsc::Sender<Vec<u8>>, packet: Packet) -> Next {
    match out.send(packet.bytes()).await {
        Ok(()) => Next::GoOn,
        Err(_) => Next::Cut,
    }
}

async fn login(
    shared: &Arc<Shared>,
    action: &Packet,
    link: u64,
    out: &mpsc::Sender<Vec<u8>>,
    cut: &Arc<Notify>,
) -> bool {
    let script = shared.script();
    let right =
        action.get("Username") == Some(&script.username) && action.get("Secret") == Some(&script.secret);
    if !right || shared.state().refuses_login {
        reply(out, Packet::response("Error", action).add("Message", "Authentication failed")).await;
        return false;
    }
    let hears = action.get("Events").is_none_or(|mask| !mask.eq_ignore_ascii_case("off"));
    reply(out, Packet::response("Success", action).add("Message", "Authentication accepted")).await;
    let booted = Packet::event("FullyBooted", "system")
        .add("Uptime", 1)
        .add("LastReload", 1)
        .add("Status", "Fully Booted");
    if hears {
        reply(out, booted).await;
    }
    let mut state = shared.state();
    state.logins += 1;
    state.links.insert(link, Link { out: out.clone(), cut: cut.clone(), hears });
    true
}

async fn answer(shared: &Arc<Shared>, name: &str, action: &Packet, out: &mpsc::Sender<Vec<u8>>) -> Next {
    let ok = || Packet::response("Success", action);
    let refuse = |words: &str| Packet::response("Error", action).add("Message", words);
    let packet = match name {
        "ping" => ok().add("Ping", "Pong").add("Timestamp", format!("{}.000000", shared.epoch_s())),
        "logoff" => {
            let _ =
                reply(out, Packet::response("Goodbye", action).add("Message", "Thanks for all the fish."))
                    .await;
            return Next::Cut;
        }
        "corestatus" => match shared.script().core_status {
            CoreStatus::Answers => core_status(shared, ok()),
            CoreStatus::Silent => return Next::GoOn,
            CoreStatus::Refused => refuse("Permission denied"),
        },
        "getvar" => {
            let variable = action.get("Variable").unwrap_or_default();
            let value = shared.state().globals.get(variable).cloned().unwrap_or_default();
            ok().add("Variable", variable).add("Value", value)
        }
        "hangup" => match calls::ask_hangup(shared, action) {
            true => ok().add("Message", "Channel Hungup"),
            false => refuse("No such channel"),
        },
        "status" => return status(shared, action, out).await,
        "dbgettree" => return db_get_tree(shared, action, out).await,
        "dbdel" => match db_del(shared, action) {
            true => ok().add("Message", "Key deleted successfully"),
            false => refuse("Database entry could not be deleted"),
        },
        "coreshowchannels" => return core_show_channels(shared, action, out).await,
        "dbget" => return db_get(shared, action, out).await,
        "originate" => return originate(shared, action, out).await,
        other => refuse(&format!(
            "Invalid/unknown command: {other}. Use Action: ListCommands to show available commands."
        )),
    };
    reply(out, packet).await
}

fn core_status(shared: &Shared, ok: Packet) -> Packet {
    let state = shared.state();
    let boots = state.boots;
    ok.add("CoreStartupDate", "2026-11-24")
        .add("CoreStartupTime", format!("{:02}:{:02}:{:02}", boots / 3600 % 24, boots / 60 % 60, boots % 60))
        .add("CoreReloadDate", "2026-11-24")
        .add("CoreReloadTime", "00:00:00")
        .add("CoreCurrentCalls", state.channels.len())
        .add("CoreProcessedCalls", state.next_channel)
}

async fn list(out: &mpsc::Sender<Vec<u8>>, action: &Packet, name: &str, items: Vec<Packet>) -> Next {
    let head =
        Packet::response("Success", action).add("EventList", "start").add("Message", "Result will follow");
    let id = action.get("ActionID").unwrap_or_default();
    let end = Packet::default()
        .add("Event", format!("{name}Complete"))
        .add("ActionID", id)
        .add("EventList", "Complete")
        .add("ListItems", items.len());
    for packet in std::iter::once(head).chain(items).chain([end]) {
        if let Next::Cut = reply(out, packet).await {
            return Next::Cut;
        }
    }
    Next::GoOn
}

async fn status(shared: &Shared, action: &Packet, out: &mpsc::Sender<Vec<u8>>) -> Next {
    let wanted = action.get("Channel").map(str::to_owned);
    let id = action.get("ActionID").unwrap_or_default().to_owned();
    let item = |(uniqueid, channel): (&String, &Channel)| {
        let snapshot = call::snapshot("", uniqueid, channel);
        let head = Packet::default().add("Event", "Status").add("Privilege", "Call").extend(snapshot);
        head.add("Type", "PJSIP").add("Seconds", 0).add("ActionID", &id)
    };
    let items: Vec<Packet> = {
        let state = shared.state();
        let is_wanted = |(id, channel): &(&String, &Channel)| match &wanted {
            Some(wanted) => wanted.eq_ignore_ascii_case(id) || wanted.eq_ignore_ascii_case(&channel.name),
            None => true,
        };
        state.channels.iter().filter(is_wanted).map(item).collect()
    };
    if wanted.is_some() && items.is_empty() {
        return reply(out, Packet::response("Error", action).add("Message", "No such channel")).await;
    }
    list(out, action, "Status", items).await
}

async fn db_get(shared: &Shared, action: &Packet, out: &mpsc::Sender<Vec<u8>>) -> Next {
    let text = |name: &str| action.get(name).unwrap_or_default().to_owned();
    let key = (text("Family"), text("Key"));
    let value = shared.state().db.get(&key).cloned();
    let Some(value) = value else {
        let packet = Packet::response("Error", action).add("Message", "Database entry not found");
        return reply(out, packet).await;
    };
    let item = Packet::default()
        .add("Event", "DBGetResponse")
        .add("Family", key.0)
        .add("Key", key.1)
        .add("Val", value)
        .add("ActionID", text("ActionID"));
    list(out, action, "DBGet", vec![item]).await
}

/// One family, its keys with the family before them, as Asterisk lists them.
async fn db_get_tree(shared: &Shared, action: &Packet, out: &mpsc::Sender<Vec<u8>>) -> Next {
    let family = action.get("Family").unwrap_or_default();
    let id = action.get("ActionID").unwrap_or_default();
    let item = |((family, key), value): (&(String, String), &String)| {
        Packet::default()
            .add("Event", "DBGetTreeResponse")
            .add("Key", format!("/{family}/{key}"))
            .add("Val", value)
            .add("ActionID", id)
    };
    let items: Vec<Packet> = shared.state().db.iter().filter(|((of, _), _)| of == family).map(item).collect();
    list(out, action, "DBGetTree", items).await
}

/// False if there is no such key.
fn db_del(shared: &Shared, action: &Packet) -> bool {
    let text = |name: &str| action.get(name).unwrap_or_default().to_owned();
    shared.state().db.remove(&(text("Family"), text("Key"))).is_some()
}

async fn core_show_channels(shared: &Shared, action: &Packet, out: &mpsc::Sender<Vec<u8>>) -> Next {
    let id = action.get("ActionID").unwrap_or_default();
    let item = |(uniqueid, channel): (&String, &Channel)| {
        let head = Packet::default().add("Event", "CoreShowChannel").add("ActionID", id);
        head.extend(call::snapshot("", uniqueid, channel)).add("Application", "").add("Duration", "00:00:01")
    };
    let items: Vec<Packet> = shared.state().channels.iter().map(item).collect();
    list(out, action, "CoreShowChannels", items).await
}

async fn originate(shared: &Arc<Shared>, action: &Packet, out: &mpsc::Sender<Vec<u8>>) -> Next {
    match calls::originate(shared, action).await {
        calls::Answer::Say(packet, go) => {
            let next = reply(out, packet).await;
            let _ = go.send(());
            next
        }
        calls::Answer::SayAndCut(packet, go) => {
            let _ = reply(out, packet).await;
            let _ = go.send(());
            Next::Cut
        }
        calls::Answer::Nothing => Next::GoOn,
        calls::Answer::Cut => Next::Cut,
    }
}
