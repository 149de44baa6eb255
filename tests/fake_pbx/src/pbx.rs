//! The handle that tests hold, and the state behind it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::script::{Plan, Script};
use crate::session;
use crate::talk::Talk;
use crate::wire::Packet;

/// Connections that wait to be taken.
const BACKLOG: u32 = 1_024;

/// What the carrier saw of one number: the truth that outcomes are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// INVITEs that reached it.
    pub invites: u32,
    /// Times that the phone rang.
    pub rings: u32,
    /// Times that it was answered.
    pub answers: u32,
}

/// A call as the carrier behind an endpoint had it. Moments are of tokio's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    /// Whom it phones.
    pub number: String,
    /// Over which endpoint.
    pub endpoint: String,
    /// Its INVITE.
    pub at: Instant,
    /// The phone rang.
    pub rang_at: Option<Instant>,
    /// It was answered.
    pub answered_at: Option<Instant>,
    /// The carrier's own final answer; `None`: none, or the PBX gave up before.
    pub code: Option<u16>,
    /// What the callee pressed, and when.
    pub keys: Vec<(char, Instant)>,
    /// It was over.
    pub ended_at: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(crate) number: String,
    pub(crate) caller: String,
    pub(crate) state: (&'static str, u8),
    /// Q.850 cause of whoever asked for the end.
    pub(crate) hangup: Option<u16>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) talk: Talk,
    /// Its place among [`State::dialogs`], where those are kept.
    pub(crate) dialog: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) out: mpsc::Sender<Vec<u8>>,
    pub(crate) cut: Arc<Notify>,
    pub(crate) hears: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) plans: HashMap<String, VecDeque<Plan>>,
    pub(crate) actions: Vec<Packet>,
    pub(crate) channels: BTreeMap<String, Channel>,
    pub(crate) db: BTreeMap<(String, String), String>,
    pub(crate) globals: HashMap<String, String>,
    pub(crate) seen: HashMap<String, Seen>,
    pub(crate) dialogs: Vec<Dialog>,
    pub(crate) links: HashMap<u64, Link>,
    pub(crate) next_link: u64,
    pub(crate) next_channel: u32,
    pub(crate) boots: u64,
    pub(crate) refuses_login: bool,
    pub(crate) logins: u64,
    pub(crate) down_endpoints: Vec<String>,
    pub(crate) endpoint_plans: HashMap<String, Plan>,
}

impl State {
    /// Writes down what happened to a channel's call, now.
    pub(crate) fn note(&mut self, channel: &Channel, change: impl FnOnce(&mut Dialog, Instant)) {
        if let Some(dialog) = channel.dialog.and_then(|at| self.dialogs.get_mut(at)) {
            change(dialog, Instant::now());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) script: Mutex<Script>,
    state: Mutex<State>,
    pub(crate) frozen: watch::Sender<bool>,
    pub(crate) started: Instant,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self) -> Script {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends to every session that hears events; one that does not read is cut, as Asterisk does.
    pub(crate) fn raise(&self, packet: &Packet) {
        self.write_to_listeners(&packet.bytes());
    }

    pub(crate) fn write_to_listeners(&self, bytes: &[u8]) {
        for link in self.state().links.values().filter(|link| link.hears) {
            if link.out.try_send(bytes.to_vec()).is_err() {
                link.cut.notify_one();
            }
        }
    }

    pub(crate) fn cut_links(&self) {
        let links = std::mem::take(&mut self.state().links);
        links.values().for_each(|link| link.cut.notify_one());
    }

    /// Seconds as a PBX's clock would show them; moves with tokio's time.
    pub(crate) fn epoch_s(&self) -> u64 {
        1_790_000_000 + self.started.elapsed().as_secs()
    }
}

/// One scripted PBX in this process. Dropping it closes its port and cuts its links.
#[derive(Debug)]
pub struct FakePbx {
    address: SocketAddr,
    /// Shares the port with what listens there, and keeps it while nothing does: a bound port is given to nobody who asks for
    /// any, and no other PBX answers in this one's place.
    _reserved: Option<TcpSocket>,
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl FakePbx {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The system's, if no port can be had.
    pub async fn start(script: Script) -> std::io::Result<Self> {
        let mut pbx = Self::without_port(script);
        let reserved = TcpSocket::new_v4()?;
        reserved.set_reuseport(true)?;
        reserved.bind(pbx.address)?;
        pbx.address = reserved.local_addr()?;
        pbx._reserved = Some(reserved);
        pbx.open_port().await?;
        Ok(pbx)
    }

    /// One that listens nowhere: its sessions are those of [`Self::serve`]. For fleets of thousands.
    #[must_use]
    pub fn without_port(script: Script) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            state: Mutex::default(),
            frozen: watch::Sender::new(false),
            started: Instant::now(),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { address, _reserved: None, shared, listener: Mutex::new(None) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves a stream that the test brings, such as one within TLS.
    pub fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(&self, stream: S) {
        tokio::spawn(session::serve(self.shared.clone(), stream));
    }

    /// From now on calls to this number go so.
    pub fn set_ending(&self, number: &str, plan: impl Into<Plan>) {
        self.set_endings(number, [plan.into()]);
    }

    /// Calls to this number go so, one after the other; the last plan stays.
    pub fn set_endings(&self, number: &str, plans: impl IntoIterator<Item = Plan>) {
        self.shared.state().plans.insert(number.to_owned(), plans.into_iter().collect());
    }

    /// From now on calls over this endpoint go so, where the number has no plan of its own.
    pub fn set_endpoint_ending(&self, endpoint: &str, plan: impl Into<Plan>) {
        self.shared.state().endpoint_plans.insert(endpoint.to_owned(), plan.into());
    }

    /// For numbers and endpoints without a plan of their own.
    pub fn set_default(&self, plan: impl Into<Plan>) {
        self.change_script(|script| script.default = plan.into());
    }

    /// Changes anything of the script.
    pub fn change_script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.script.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Calls over this endpoint find its contact down (or up again), whatever the number.
    pub fn set_endpoint_down(&self, endpoint: &str, down: bool) {
        let endpoints = &mut self.shared.state().down_endpoints;
        endpoints.retain(|other| other != endpoint);
        if down {
            endpoints.push(endpoint.to_owned());
        }
    }

    /// Every action that came, of all sessions, logins included, as Asterisk would have read them.
    #[must_use]
    pub fn actions(&self) -> Vec<Packet> {
        self.shared.state().actions.clone()
    }

    /// How many actions of that name came.
    #[must_use]
    pub fn count_actions(&self, name: &str) -> usize {
        self.shared.state().actions.iter().filter(|action| action.get("Action") == Some(name)).count()
    }

    /// What the carrier saw of that number.
    #[must_use]
    pub fn seen(&self, number: &str) -> Seen {
        self.shared.state().seen.get(number).copied().unwrap_or_default()
    }

    /// What the carrier saw of all numbers.
    #[must_use]
    pub fn seen_in_all(&self) -> Seen {
        self.shared.state().seen.values().fold(Seen::default(), |sum, seen| Seen {
            invites: sum.invites + seen.invites,
            rings: sum.rings + seen.rings,
            answers: sum.answers + seen.answers,
        })
    }

    /// Every call that reached a carrier, in the order of its coming, where [`Script::keeps_dialogs`] says so.
    #[must_use]
    pub fn dialogs(&self) -> Vec<Dialog> {
        self.shared.state().dialogs.clone()
    }

    /// Ids of the channels that live.
    #[must_use]
    pub fn live_channels(&self) -> Vec<String> {
        self.shared.state().channels.keys().cloned().collect()
    }

    /// One value of AstDB.
    #[must_use]
    pub fn db(&self, family: &str, key: &str) -> Option<String> {
        self.shared.state().db.get(&(family.to_owned(), key.to_owned())).cloned()
    }

    /// Writes AstDB (`None` deletes).
    pub fn set_db(&self, family: &str, key: &str, value: Option<&str>) {
        let key = (family.to_owned(), key.to_owned());
        let mut state = self.shared.state();
        match value {
            Some(value) => state.db.insert(key, value.to_owned()),
            None => state.db.remove(&key),
        };
    }

    /// Sets a global variable for Getvar.
    pub fn set_global(&self, name: &str, value: &str) {
        self.shared.state().globals.insert(name.to_owned(), value.to_owned());
    }

    /// Sessions that are logged in.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.state().links.len()
    }

    /// Logins that succeeded so far.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.shared.state().logins
    }

    /// Logins are refused (or taken again), whatever the secret.
    pub fn refuse_login(&self, refuses: bool) {
        self.shared.state().refuses_login = refuses;
    }

    /// Neither reads nor writes, and greets nobody, until unfrozen; calls go on.
    pub fn freeze(&self, frozen: bool) {
        self.shared.frozen.send_replace(frozen);
    }

    /// Cuts every session; calls go on.
    pub fn cut_links(&self) {
        self.shared.cut_links();
    }

    /// As `kill -9` and a new start: calls are gone without a record, AstDB stays, the incarnation is new.
    pub fn restart(&self) {
        self.cut_links();
        let mut state = self.shared.state();
        state.boots += 1;
        let channels = std::mem::take(&mut state.channels);
        for channel in channels.values() {
            state.note(channel, |dialog, now| dialog.ended_at = Some(now));
            channel.changed.notify_one();
        }
    }

    /// Connections are refused from now on; sessions stay.
    pub fn close_port(&self) {
        if let Some(listening) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() {
            listening.abort();
        }
    }

    /// Listens on its old port again.
    ///
    /// # Errors
    /// The system's.
    #[allow(clippy::unused_async, reason = "it needs a runtime")]
    pub async fn open_port(&self) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        let listener = socket.listen(BACKLOG)?;
        let listening = tokio::spawn(listen(listener, self.shared.clone()));
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
        Ok(())
    }

    /// Writes these very bytes to every session that hears events, whatever they are.
    pub fn inject(&self, bytes: &[u8]) {
        self.shared.write_to_listeners(bytes);
    }

    /// Raises so many well-formed events of a channel of nobody's.
    pub fn flood(&self, events: u32) {
        let burst: Vec<u8> = (0..events)
            .flat_map(|n| {
                Packet::event("DeviceStateChange", "call").add("Device", n).add("State", "INUSE").bytes()
            })
            .collect();
        self.inject(&burst);
    }
}

impl Drop for FakePbx {
    fn drop(&mut self) {
        self.close_port();
        self.cut_links();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Nagle would merge what a test wants apart; a failure to turn it off is harmless.
        let _ = stream.set_nodelay(true);
        tokio::spawn(session::serve(shared.clone(), stream));
    }
}
