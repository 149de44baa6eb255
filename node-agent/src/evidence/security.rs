//! Security events, over an AMI session of their own.
//!
//! Its user reads class `security` and may order nothing, so that what strangers write into these events reaches no
//! session that could act on it. A finding keeps kind, address, transport and the account's name; the event itself, and with
//! it `ExpectedResponse`, ends here.

use std::time::Duration;

use node_agent_ami::{
    ActionIds, BackOff, ConnectConfig, DownReason, EventItem, Events, LinkChange, Purpose, Secret, Session,
    Supervisor,
};
use node_agent_core::{
    offence::{once::Once, security_event},
    rules::JailName,
};
use rand::RngCore;
use tokio::time::sleep;

use super::{Intake, metrics::Lost};
use crate::{clock::Chance, settings::Login};

const SOURCE: &str = "security";
/// A secret's file that cannot be read now may be there later.
const SECRET_RETRY: Duration = Duration::from_secs(5);
/// Events that wait for this reader: four seconds of a flood of a thousand each.
const EVENTS_MAX: usize = 4096;
/// How long an event waits for what follows it. Asterisk writes an event and what a stranger made of its tail with one
/// `write` on loopback, and a stranger has no room to end one early in good form: this is short, since a ban waits.
const QUIET: Duration = Duration::from_millis(5);
const FIX: &str = "manager.conf needs the user of [security] with `read = security`, let in from loopback, and its \
                   secret in secret_file; see dialplans/manager_ringward.conf.j2";

/// Listens for as long as the program runs.
pub(crate) async fn listen(jail: JailName, login: Login, ids: ActionIds, chance: Chance, intake: Intake) {
    let secret = loop {
        match login.secret() {
            Ok(secret) => break secret,
            Err(error) => intake.is_down(SOURCE, &error.to_string(), FIX),
        }
        sleep(SECRET_RETRY).await;
    };
    let mut config = ConnectConfig::new(login.address.to_string(), &login.username, Secret::new(secret), ids);
    config.purpose = Purpose::Security;
    config.events = "security".to_owned();
    config.quiet = QUIET;
    config.in_flight_max = 4;
    config.events_max = EVENTS_MAX;
    let mut rng = chance.fork();
    let mut once = Once::new([rng.next_u64(), rng.next_u64()]);
    let mut supervisor = Supervisor::start(config, BackOff::default(), rng);
    let mut change = supervisor.next().await;
    while let Some(now) = change {
        change = match now {
            LinkChange::Down { reason, .. } => {
                intake.is_down(SOURCE, &explain(&reason), FIX);
                supervisor.next().await
            }
            LinkChange::Up { session, events } => {
                intake.is_up(SOURCE, "reads security events");
                read(&jail, &session, events, &mut once, &intake).await;
                supervisor.next().await
            }
        };
    }
}

fn explain(reason: &DownReason) -> String {
    match reason {
        DownReason::WrongSecret(error) => format!("{error}: user or secret differs from manager.conf's"),
        // The kind alone: addresses and counts would make each time another reason.
        DownReason::Unreachable(_) => "AMI cannot be reached: is Asterisk running?".to_owned(),
        DownReason::Lost(_) => "the session was lost".to_owned(),
    }
}

/// Until the session ends. Its handle is held so that it does not end by itself.
async fn read(jail: &JailName, _session: &Session, mut events: Events, once: &mut Once, intake: &Intake) {
    loop {
        let item = events.next().await;
        match &item {
            EventItem::Closed(_) => return,
            EventItem::Lost(lost) => intake.metrics.evidence.lost(jail, Lost::Events, *lost),
            EventItem::Tampered(tampering) => intake.metrics.tampered(tampering.kind),
            EventItem::Event(_) if once.is_repetition(&item, intake.now()) => {
                intake.metrics.evidence.repeated(jail);
                continue;
            }
            EventItem::Event(_) => {}
        }
        intake.bring(jail, security_event::finding(&item)).await;
    }
}
