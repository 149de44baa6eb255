//! The operator's door on this node: a Unix socket in the state directory, which only root may open. One line of
//! JSON asks, one line answers.

use std::{
    fs::{self, Permissions},
    io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use node_agent_core::bans::{Allow, Ban, Order};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{Refused, Ward, by_operator};
use crate::identity::StateDir;

const FILE: &str = "control.sock";
/// Operators at a time.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of one question.
const QUESTION_MAX: u64 = 16 * 1024;
/// Bytes of one answer: a page of bans with long reasons.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;
/// Bans in one answer.
const PAGE: usize = 1000;
/// A question that comes slower is not answered; an answer may wait for a replacement of the table.
const ASK_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    Bans { after: Option<IpNet> },
    Allows { after: Option<IpNet> },
    Ban { net: IpNet, seconds: Option<u32>, author: String, reason: String },
    Lift { net: IpNet, author: String, reason: String },
    Allow { net: IpNet, seconds: Option<u32>, author: String, reason: String },
    Disallow { net: IpNet, author: String, reason: String },
    Why { address: IpAddr },
    Standing,
    Apply,
    Confirm { change: String, author: String },
}

/// A page of bans.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default)]
    answer: Value,
}

/// Opens the door.
///
/// # Errors
/// The system's.
pub(crate) fn listen(state: &StateDir) -> io::Result<UnixListener> {
    let path = state.path(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The directory is 0700: nobody else comes in before the mode is set.
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until dropped.
pub(crate) async fn serve(listener: UnixListener, ward: Ward, node: String) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (ward, node) = (ward.clone(), node.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &ward, &node).await {
                tracing::debug!(%error, "an operator's question broke off");
            }
            drop(permit);
        });
    }
}

async fn answer(mut stream: UnixStream, ward: &Ward, node: &str) -> io::Result<()> {
    let mut line = String::new();
    let mut question = BufReader::new((&mut stream).take(QUESTION_MAX));
    timeout(ASK_WITHIN, question.read_line(&mut line)).await??;
    let reply = match serde_json::from_str::<Ask>(&line) {
        Err(error) => {
            Reply { error: Some(format!("the question is not understood: {error}")), answer: json!(null) }
        }
        Ok(ask) => match timeout(ANSWER_WITHIN, act(ask, ward, node)).await {
            Err(_) => Reply { error: Some("the agent is too busy".to_owned()), answer: json!(null) },
            Ok(Err(refused)) => Reply { error: Some(refused.to_string()), answer: json!(null) },
            Ok(Ok(answer)) => Reply { error: None, answer },
        },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    timeout(ASK_WITHIN, stream.write_all(&text)).await??;
    Ok(())
}

async fn act(ask: Ask, ward: &Ward, node: &str) -> Result<Value, Refused> {
    let by = |author: &str, reason: &str| by_operator(node, author, reason);
    let done = |change: node_agent_core::bans::Change| json!({"lifted": change.lifts, "changed": !change.is_empty()});
    Ok(match ask {
        Ask::Bans { after } => {
            let bans = ward.list().await?.bans;
            json!(page(bans, after, |ban: &Ban| ban.net))
        }
        Ask::Allows { after } => {
            let allows = ward.list().await?.allows;
            json!(page(allows, after, |allow: &Allow| allow.net))
        }
        Ask::Ban { net, seconds, author, reason } => {
            done(ward.ban(Order { net, seconds, by: by(&author, &reason), jail: None }).await?)
        }
        Ask::Lift { net, author, reason } => done(ward.lift(net, by(&author, &reason)).await?),
        Ask::Allow { net, seconds, author, reason } => {
            done(ward.allow(net, seconds, by(&author, &reason)).await?)
        }
        Ask::Disallow { net, author, reason } => {
            ward.disallow(net, by(&author, &reason)).await?;
            json!({})
        }
        Ask::Why { address } => json!({"why": ward.why(address).await?.to_string()}),
        Ask::Standing => standing(ward),
        Ask::Apply => {
            ward.retry().await?;
            standing(ward)
        }
        Ask::Confirm { change, author } => {
            ward.confirm(change, author).await?;
            standing(ward)
        }
    })
}

/// With what is left of a trial's time as of now.
fn standing(ward: &Ward) -> Value {
    let mut standing = ward.standing().borrow().clone();
    let left_ms = standing.ends.as_ref().map(|ends| u64::try_from(ends.left_ms()).unwrap_or(0));
    standing.reverts_in_s = left_ms.map(|ms| ms.div_ceil(1000));
    json!(standing)
}

fn page<T>(all: Vec<T>, after: Option<IpNet>, net: impl Fn(&T) -> IpNet) -> Page<T> {
    let mut left = all.into_iter().filter(|item| after.is_none_or(|after| net(item) > after));
    let items = left.by_ref().take(PAGE).collect();
    Page { items, more: left.next().is_some() }
}

/// Asks the running agent. `Ok(None)`: there is none.
pub(crate) async fn ask<T: DeserializeOwned>(state_dir: &Path, ask: &Ask) -> anyhow::Result<Option<T>> {
    let mut stream = match UnixStream::connect(state_dir.join(FILE)).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let mut text = serde_json::to_vec(ask)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut line = String::new();
    let reading = async { BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line).await };
    timeout(ANSWER_WITHIN + ASK_WITHIN, reading).await??;
    let reply: Reply = serde_json::from_str(&line)?;
    match reply.error {
        Some(error) => anyhow::bail!("{error}"),
        None => Ok(Some(serde_json::from_value(reply.answer)?)),
    }
}
