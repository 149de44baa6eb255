//! What the dialplan does with an answered call: what it records, what it tells by UserEvents, when it hangs up.

use std::fmt;

use crate::call::{Call, snapshot};
use crate::script::{Fault, Said};
use crate::wire::Packet;

/// What the record keeps of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Talk {
    key: Option<char>,
    machine: Option<&'static str>,
    ending: Option<&'static str>,
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, ending) = (self.machine.unwrap_or("-"), self.ending.unwrap_or("-"));
        write!(f, "{}|{machine}|{ending}", self.key.unwrap_or('-'))
    }
}

/// What follows on it.
pub(crate) enum Next {
    GoesOn,
    Ends,
}

impl Call {
    /// Records and tells it, in this order.
    pub(crate) fn say(&self, said: Said) -> Next {
        match said {
            Said::Key(_) | Said::Machine(_) if !self.script.hears_keys => Next::GoesOn,
            Said::Key(key) => {
                self.tell(|dialog, now| dialog.keys.push((key, now)));
                self.note(|talk| talk.key = Some(key));
                if self.plan.has(Fault::DropAtKey) {
                    self.shared.cut_links();
                }
                if !self.plan.has(Fault::NoKeyEvent) {
                    self.user_event("RingwardKey", &[("Key", key.to_string())]);
                }
                // As it is written in the variable: the star is an s, the hash an h.
                let code = match key {
                    '*' => 's',
                    '#' => 'h',
                    digit => digit,
                };
                Self::ends_if(self.variable("RINGWARD_KEYS").is_some_and(|keys| keys.contains(code)))
            }
            Said::Machine(verdict) => {
                let Some(then) = self.variable("RINGWARD_AMD") else { return Next::GoesOn };
                self.note(|talk| talk.machine = Some(verdict));
                let cause = ("Cause", "LONGGREETING-1500-1500".to_owned());
                self.user_event("RingwardMachine", &[("Verdict", verdict.to_owned()), cause]);
                Self::ends_if(verdict == "machine" && then == "hangup")
            }
            Said::Played => {
                self.note(|talk| talk.ending = Some("played"));
                self.user_event("RingwardPlayed", &[]);
                Next::Ends
            }
            Said::NoMedia => {
                self.note(|talk| talk.ending = Some("nomedia"));
                self.user_event("RingwardMedia", &[]);
                Next::Ends
            }
        }
    }

    pub(crate) fn record_up(&self) {
        self.note(|_| ());
    }

    pub(crate) fn user_event(&self, name: &str, headers: &[(&str, String)]) {
        let channel = self.shared.state().channels.get(&self.id).cloned();
        let Some(channel) = channel else { return };
        let packet = Packet::event("UserEvent", "user").extend(snapshot("", &self.id, &channel));
        let packet = packet.add("UserEvent", name).add("Attempt", &self.id);
        self.raise(headers.iter().fold(packet, |packet, (name, value)| packet.add(*name, value)));
    }

    fn note(&self, change: impl FnOnce(&mut Talk)) {
        let talk = {
            let mut state = self.shared.state();
            let Some(channel) = state.channels.get_mut(&self.id) else { return };
            change(&mut channel.talk);
            channel.talk
        };
        self.record(&format!("up|Up|-|-|{}", self.shared.epoch_s()), talk);
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let assigned = |text: &'_ &str| text.split_once('=').is_some_and(|(of, _)| of == name);
        let found = self.action.all("Variable").find(assigned)?;
        found.split_once('=').map(|(_, value)| value)
    }

    fn ends_if(ends: bool) -> Next {
        if ends { Next::Ends } else { Next::GoesOn }
    }
}
