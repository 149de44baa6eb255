//! Originate and Hangup: what is answered, and which call begins.

use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use crate::call::Call;
use crate::pbx::Shared;
use crate::script::{Ending, Fault};
use crate::wire::Packet;

pub(crate) enum Answer {
    /// Write this, then let the call go on.
    Say(Packet, oneshot::Sender<()>),
    /// Write this, let the call go on, and cut the link.
    SayAndCut(Packet, oneshot::Sender<()>),
    Nothing,
    Cut,
}

/// Takes an Originate and says what to answer; the call itself goes on in a task.
pub(crate) async fn originate(shared: &Arc<Shared>, action: &Packet) -> Answer {
    let refuse = |words: &str| {
        let (go, _) = oneshot::channel();
        Answer::Say(Packet::response("Error", action).add("Message", words), go)
    };
    let text = |name: &str| action.get(name).unwrap_or_default().to_owned();
    let channel = text("Channel");
    let Some((number, endpoint)) = channel.strip_prefix("PJSIP/").and_then(|rest| rest.split_once('@'))
    else {
        return refuse("Channel not specified");
    };
    if !action.get("Application").unwrap_or_default().is_empty() {
        return refuse("Originate Access Forbidden: app or data blacklisted");
    }
    let (id, number, endpoint) = (text("ChannelId"), number.to_owned(), endpoint.to_owned());
    let script = shared.script();
    let (plan, boots) = {
        let mut state = shared.state();
        let boots = state.boots;
        let own = state.plans.get_mut(&number);
        let plan =
            own.and_then(|plans| if plans.len() > 1 { plans.pop_front() } else { plans.front().cloned() });
        let plan = plan.or_else(|| script.of_number.and_then(|of| of(&number)));
        let plan = plan.or_else(|| state.endpoint_plans.get(&endpoint).cloned());
        (plan.unwrap_or_else(|| script.default.clone()), boots)
    };
    if let Ending::Rejected(words) = &plan.ending {
        return refuse(words);
    }
    if plan.has(Fault::DropWithoutCall) {
        return Answer::Cut;
    }
    let (go, going) = oneshot::channel();
    let queued = Packet::response("Success", action).add("Message", "Originate successfully queued");
    let answer = if plan.has(Fault::DropAfterQueued) {
        Answer::SayAndCut(queued, go)
    } else if plan.has(Fault::DropBeforeAnswer) {
        let _ = go.send(());
        Answer::Cut
    } else if plan.has(Fault::NeverAnswered) {
        let _ = go.send(());
        Answer::Nothing
    } else if plan.has(Fault::WrongActionId) {
        let stranger = Packet::default().add("ActionID", "0123456789abcdef0123456789abcdef");
        let wrong = Packet::response("Success", &stranger).add("Message", "Originate successfully queued");
        Answer::Say(wrong, go)
    } else {
        Answer::Say(queued, go)
    };
    let early = plan.has(Fault::EventsBeforeResponse);
    let changed = Arc::new(Notify::new());
    let action = action.clone();
    let call = Call { shared: shared.clone(), script, plan, id, action, number, endpoint, changed, boots };
    if early {
        call.begin();
        tokio::spawn(call.go_on(going, true));
    } else {
        tokio::spawn(call.go_on(going, false));
    }
    answer
}

/// `Action: Hangup`. False if there is no such channel.
pub(crate) fn ask_hangup(shared: &Shared, action: &Packet) -> bool {
    let wanted = action.get("Channel").unwrap_or_default();
    let cause = action.get("Cause").and_then(|cause| cause.parse().ok()).filter(|cause| *cause > 0);
    let mut state = shared.state();
    let found = state
        .channels
        .iter_mut()
        .find(|(id, channel)| wanted.eq_ignore_ascii_case(id) || wanted.eq_ignore_ascii_case(&channel.name));
    let Some((_, channel)) = found else { return false };
    channel.hangup = Some(cause.unwrap_or(16));
    channel.changed.notify_one();
    true
}
