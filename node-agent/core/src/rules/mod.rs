//! When an address is banned, and for how long. Findings and moments in, decisions out.
//!
//! ```text
//!   offence ── protected? ──yes──▶ Protected (reported, never banned)
//!      │ no ── banned already? ──yes──▶ Banned (nothing climbs by what was under way)
//!   points: by kind; little for the same account again, since that is a phone with an old password
//!      │        (leaking away over findtime)
//!   under the bar ──▶ Count, or Warn of an old password; a login from there of late raises the bar
//!      │ over it
//!   breaker ──too many bans this minute──▶ Held (points stay, the next offence tries again)
//!      │
//!   Ban for the ladder's next step; steps are forgotten with time
//! ```
//!
//! **Memory** is two arrays of fixed size (`table.rs`): one for what came by UDP, whose source anybody may forge,
//! and one for what a handshake proves. Forged packets fill the first one only. In either one, a newcomer that
//! finds its bucket full takes points from the weakest instead of its place, so that who offends more often than
//! the crowd stays.
//!
//! **Forged sources.** By UDP somebody else's address can be made to look like an attacker's. So such bans are
//! short, bounded per minute by their own breaker, and never touch who is [`Protected`].

mod jail;
mod ladder;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use jail::Breaker;
pub use jail::{InvalidJail, Jail, JailName, RulesSettings};
use ladder::History;
pub use ladder::Remembered;
use table::{Hash, Slot, Table};

use crate::{
    moment::UnixMs,
    offence::{Account, Finding, Kind, Offence, Source, Success},
    protected::{Protected, Protection},
    words::words,
};

const MINUTE_MS: u64 = 60_000;
/// Old passwords are warned of once in this time for each source and jail.
const WARN_EACH_MS: u64 = 3_600_000;
/// So many failures of the same account, one after the other, are worth a warning.
const WARN_AT_REPEATS: u16 = 5;

/// What a login takes from the weakest source in a full bucket to find its place.
const LOGIN_MILLI_POINTS: u32 = 20_000;

words! {
    /// How sure the source address is.
    Proof {
        /// By UDP alone: anybody may have written it.
        Forgeable = "forgeable",
        /// By a handshake.
        Proven = "proven",
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing but counting: points out of the bar's.
    Count {
        /// In thousandths.
        milli_points: u32,
    },
    /// Nothing: it says nothing, or its jail is switched off or unknown.
    Nothing,
    /// Tell the operator that a phone there has an old password.
    Warn {
        /// Where.
        source: Source,
        /// Which account.
        account: Account,
        /// Failures in a row.
        repeats: u16,
    },
    /// It would have been banned, but is protected by this.
    Protected {
        /// Who.
        source: Source,
        /// By what.
        by: Protection,
    },
    /// It is banned already: this was under way, or its ban is not in force yet. Nothing climbs by it.
    Banned {
        /// Who.
        source: Source,
    },
    /// It would have been banned, but this minute had its share of bans.
    Held {
        /// Who.
        source: Source,
        /// Whose breaker tripped.
        proof: Proof,
    },
    /// Ban it.
    Ban(Verdict),
}

/// A ban that the rules want, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// /32 or /64.
    pub net: IpNet,
    /// By which jail.
    pub jail: JailName,
    /// For how long.
    pub seconds: u32,
    /// Which step of the ladder, the first is 1.
    pub step: u8,
    /// How sure the address is.
    pub proof: Proof,
    /// The last offence's kind.
    pub kind: Kind,
    /// Offences in this run.
    pub offences: u32,
    /// At least so many accounts were named; eight at most are told apart.
    pub accounts: u8,
    /// The last account named.
    pub account: Option<Account>,
    /// The jail is a dry run: say it, do not do it.
    pub simulate: bool,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} offences ({} last), ", self.jail, self.offences, self.kind)?;
        write!(f, "{} accounts, {}, step {}", self.accounts, self.proof, self.step)
    }
}

/// All that is remembered of sources.
#[derive(Debug)]
pub struct Rules {
    jails: BTreeMap<JailName, (u8, Arc<Jail>)>,
    protected: Protected,
    hash: Hash,
    forgeable: Table,
    proven: Table,
    history: History,
    forgeable_breaker: Breaker,
    proven_breaker: Breaker,
}

impl Rules {
    /// `seed` must be secret and random: it keeps strangers from choosing the bucket they fall into.
    ///
    /// # Errors
    /// The first jail whose numbers cannot be used.
    pub fn new(settings: &RulesSettings, protected: Protected, seed: [u64; 2]) -> Result<Self, InvalidJail> {
        settings.check()?;
        let jails = settings.jails.iter().zip(0_u8..);
        let jails =
            jails.map(|((name, jail), number)| (name.clone(), (number, Arc::new(jail.clone())))).collect();
        Ok(Self {
            jails,
            protected,
            hash: Hash::seeded(seed),
            forgeable: Table::new(settings.sources_max),
            proven: Table::new(settings.sources_max),
            history: History::new(settings.sources_max),
            forgeable_breaker: Breaker::new(settings.forgeable_bans_per_minute_max),
            proven_breaker: Breaker::new(settings.bans_per_minute_max),
        })
    }

    /// Who is protected from now on.
    pub fn protect(&mut self, protected: Protected) {
        self.protected = protected;
    }

    /// Weighs one finding of one jail.
    pub fn weigh(&mut self, jail: &JailName, finding: &Finding, now: UnixMs) -> Decision {
        let Some((number, of)) = self.jails.get(jail) else { return Decision::Nothing };
        let (number, of) = (*number, Arc::clone(of));
        match finding {
            _ if !of.enabled => Decision::Nothing,
            Finding::Offence(offence) => self.offence(jail, number, &of, offence, now),
            Finding::Success(success) => self.success(number, &of, success, now),
            Finding::Neutral | Finding::Nobody(_) => Decision::Nothing,
        }
    }

    /// An operator lifted the ban: nothing of that source is remembered.
    pub fn forget(&mut self, source: Source) {
        self.forgeable.forget(source, &self.hash);
        self.proven.forget(source, &self.hash);
        self.history.forget(source);
    }

    /// Repeaters, for the disk: points are forgotten over a restart, steps are not.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        self.history.all()
    }

    /// Repeaters, back from the disk; no more than there is room for.
    pub fn recall(&mut self, remembered: impl IntoIterator<Item = Remembered>) {
        self.history.recall(remembered);
    }

    /// The bytes that all this takes at most, whoever comes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.forgeable.bytes() + self.proven.bytes() + self.history.bytes_max()
    }

    fn success(&mut self, number: u8, jail: &Jail, success: &Success, now: UnixMs) -> Decision {
        // A login by UDP proves the address as well: its challenge went there and was answered.
        if let Some(slot) =
            self.proven.place(success.source, number, LOGIN_MILLI_POINTS, jail.leak(), now, &self.hash)
        {
            slot.success = Some(now);
            // The phone that had an old password has its new one.
            let account = success.account.as_ref().map(|account| self.hash.account(account));
            if account == slot.last_account {
                slot.repeats = 0;
            }
        }
        Decision::Nothing
    }

    fn offence(
        &mut self,
        name: &JailName,
        number: u8,
        jail: &Jail,
        offence: &Offence,
        now: UnixMs,
    ) -> Decision {
        let source = offence.source;
        if let Some(by) = self.protected.touched_by(&source.net()) {
            return Decision::Protected { source, by: *by };
        }
        if self.history.is_banned(source, now) {
            return Decision::Banned { source };
        }
        let knows_login = self.proven.find(source, number, &self.hash).and_then(|slot| slot.success);
        let knows_login =
            knows_login.is_some_and(|at| now.since_ms(at) < u64::from(jail.success_memory_s) * 1000);
        let proof = if offence.transport.is_forgeable() { Proof::Forgeable } else { Proof::Proven };
        let account = offence.account.as_ref().map(|account| self.hash.account(account));
        let weight = jail.milli_points(offence.kind);
        let (table, breaker) = match proof {
            Proof::Forgeable => (&mut self.forgeable, &mut self.forgeable_breaker),
            Proof::Proven => (&mut self.proven, &mut self.proven_breaker),
        };
        let Some(slot) = table.place(source, number, weight, jail.leak(), now, &self.hash) else {
            return Decision::Count { milli_points: weight };
        };
        slot.take(weight, account, jail, now);
        let bar = jail.bar_milli_points(knows_login);
        if slot.milli_points < bar {
            return warning(slot, offence, now)
                .unwrap_or(Decision::Count { milli_points: slot.milli_points });
        }
        slot.milli_points = bar;
        if !jail.simulate && !breaker.is_free(now) {
            return Decision::Held { source, proof };
        }
        let (step, seconds) = self.history.next(source, jail.ladder(proof), jail.forget_s, now);
        if !jail.simulate {
            breaker.take();
        }
        let verdict = Verdict {
            net: source.net(),
            jail: name.clone(),
            seconds,
            step,
            proof,
            kind: offence.kind,
            offences: slot.offences,
            accounts: slot.accounts_named(),
            account: offence.account.clone(),
            simulate: jail.simulate,
        };
        slot.clear_points();
        Decision::Ban(verdict)
    }
}

fn warning(slot: &mut Slot, offence: &Offence, now: UnixMs) -> Option<Decision> {
    let is_due = slot.warned.is_none_or(|at| now.since_ms(at) >= WARN_EACH_MS);
    if slot.repeats < WARN_AT_REPEATS || !is_due {
        return None;
    }
    slot.warned = Some(now);
    let account = offence.account.clone()?;
    Some(Decision::Warn { source: offence.source, account, repeats: slot.repeats })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod rules_tests;
