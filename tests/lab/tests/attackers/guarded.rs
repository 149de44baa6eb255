//! A fleet whose agents ban, with its rules in force, and the honest traffic that must go on.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{Agent, Hardening, Pbx, Plan, numbers, pause};
use serde_json::json;

use crate::fixture::{Fleet, end, full, over_links};

/// Between two calls.
const CALL_EVERY: Duration = Duration::from_millis(400);

pub(crate) struct Guarded {
    pub(crate) fleet: Fleet,
    /// What stands for sshd on each PBX.
    _sshd: Vec<TcpListener>,
}

impl Guarded {
    /// Two PBXes with agents, two carriers, and a trunk for every pair: a node protects those carriers that it has trunks to.
    pub(crate) fn up(hardening: Hardening) -> Self {
        lab::install_attackers().unwrap();
        let fleet = Fleet::up(Plan { hardening, ..over_links(full()) });
        let confirm = |pbx: &Pbx| fleet.lab.confirm_rules(pbx, &pbx.agent().unwrap()).unwrap();
        let sshd = fleet.lab.pbxes().iter().map(confirm).collect();
        Self { fleet, _sshd: sshd }
    }

    pub(crate) fn pbx(&self) -> &Pbx {
        self.fleet.lab.pbx("pbx-1").unwrap()
    }

    pub(crate) fn agent(&self) -> Agent {
        self.pbx().agent().unwrap()
    }

    /// Who must never be cut off from the first PBX: both addresses of each carrier, control plane, operator, itself, phone.
    pub(crate) fn who_matters(&self) -> BTreeSet<Ipv4Addr> {
        let lab = &self.fleet.lab;
        let carriers =
            lab.carriers().iter().flat_map(|carrier| [carrier.address(), carrier.second_address()]);
        let own = self.pbx().address();
        carriers.chain([lab.root_address(), lab.operator_address(), own, lab.phone().address()]).collect()
    }

    /// Banned on either PBX.
    pub(crate) fn banned(&self) -> BTreeSet<Ipv4Addr> {
        self.fleet.lab.pbxes().iter().flat_map(|pbx| pbx.banned().unwrap()).collect()
    }

    /// Places calls for as long as `work` takes, over both PBXes; each of them is answered and heard to its end.
    pub(crate) fn while_calls_go_on<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        let before: u32 = ["a", "b"].map(|carrier| self.fleet.seen(carrier).total().answers).iter().sum();
        let (done, placed) = std::thread::scope(|scope| {
            let placing = scope.spawn(|| {
                let mut placed = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let to = numbers::number(numbers::ANSWER, u16::try_from(placed.len()).unwrap());
                    placed.push(self.fleet.place(&to, json!({})));
                    pause(CALL_EVERY);
                }
                placed
            });
            // Also when it panics: the scope waits for the thread.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            over.store(true, Ordering::SeqCst);
            (done, placing.join().unwrap())
        });
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let calls: Vec<_> = placed.iter().map(|id| self.fleet.ended(id)).collect();
        for call in &calls {
            assert_eq!(end(call), "completed/played/answered", "{call}\n{}", self.fleet.log_tail());
        }
        let after: u32 = ["a", "b"].map(|carrier| self.fleet.seen(carrier).total().answers).iter().sum();
        assert_eq!((after - before) as usize, calls.len(), "each call at one carrier, once");
        println!("{} calls meanwhile, all answered", calls.len());
        done
    }
}
