//! The control plane dies just before a write that decides: the next process finds out, and decides the same.
//!
//! The write is refused by a trigger, so that the process stops exactly there; then it is killed.

use std::time::Duration;

use fake_pbx::{Ending, Plan, Said};
use serde_json::json;

use crate::fixture::{Call, Fleet, NUMBER, eventually, talks};

/// What dies, the trigger that stops it there, and what must come of it.
struct Death {
    before: &'static str,
    trigger: &'static str,
    reason: &'static str,
    invites: u32,
    rounds: Vec<u64>,
}

#[tokio::test]
async fn killed_before_each_write_that_decides() {
    if cfg!(feature = "postgres-tests") {
        // Triggers are written otherwise there; what the driver does is the same.
        return;
    }
    let deaths = [
        Death {
            before: "a round's end and the next",
            trigger: "CREATE TRIGGER death BEFORE UPDATE ON call WHEN NEW.redial_at IS NOT NULL
                      BEGIN SELECT RAISE(ABORT, 'death'); END",
            reason: "user_busy",
            invites: 2,
            rounds: vec![1, 2],
        },
        Death {
            before: "the next round's first attempt",
            trigger: "CREATE TRIGGER death BEFORE INSERT ON attempt WHEN NEW.round = 2
                      BEGIN SELECT RAISE(ABORT, 'death'); END",
            reason: "user_busy",
            invites: 2,
            rounds: vec![1, 2],
        },
        Death {
            before: "the call's end after its last round",
            trigger: "CREATE TRIGGER death BEFORE UPDATE ON call WHEN NEW.ended_at IS NOT NULL
                      BEGIN SELECT RAISE(ABORT, 'death'); END",
            reason: "user_busy",
            invites: 2,
            rounds: vec![1, 2],
        },
        Death {
            before: "a key",
            trigger: "CREATE TRIGGER death BEFORE UPDATE ON attempt WHEN NEW.heard_key IS NOT NULL
                      BEGIN SELECT RAISE(ABORT, 'death'); END",
            reason: "acknowledged",
            invites: 1,
            rounds: vec![1],
        },
        Death {
            before: "the end of a call whose key is written",
            trigger: "CREATE TRIGGER death BEFORE UPDATE ON call WHEN NEW.ended_at IS NOT NULL
                      BEGIN SELECT RAISE(ABORT, 'death'); END",
            reason: "acknowledged",
            invites: 1,
            rounds: vec![1],
        },
    ];
    for death in deaths {
        let mut fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
            .settings(|settings| settings.reconcile_timeout_ms = 4_000)
            .start()
            .await;
        let acknowledges = death.reason == "acknowledged";
        let press = Plan::of(talks(200)).saying(Duration::from_millis(50), Said::Key('1'));
        fleet.callee(NUMBER, if acknowledges { press } else { Ending::Busy486.into() });
        fleet.database.run(death.trigger).await;
        let request = fleet.call(NUMBER).or_fail().with("acknowledgement", json!({}));
        let redial = json!({"on": ["busy", "answered_no_ack", "interrupted"], "max": 1, "delay_s": 1});
        let id = request.with("redial", redial).place().await.id;
        eventually(&format!("it stops before {}", death.before), async || {
            // The task gives a write up that the database refuses for good.
            fleet.metrics().await.lines().any(|line| line.starts_with("ringward_calls_open 0"))
        })
        .await;
        assert!(Call::again(&fleet, &id).now().await["ended_at"].is_null(), "{}", death.before);
        fleet.kill().await;
        fleet.database.run("DROP TRIGGER death").await;
        fleet.start_again().await;
        let ended = Call::again(&fleet, &id).ends().await;
        let rounds: Vec<_> = ended.attempts().iter().map(|a| a["round"].as_u64().unwrap()).collect();
        let text = format!("before {}: {}", death.before, ended.text());
        assert_eq!(ended.0["reason"], death.reason, "{text}");
        assert_eq!((fleet.seen(NUMBER).invites, rounds), (death.invites, death.rounds), "{text}");
    }
}

/// A task that broke: the scan for open calls without one starts it again.
#[tokio::test]
async fn a_call_whose_task_broke_is_started_again() {
    if cfg!(feature = "postgres-tests") {
        return;
    }
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, talks(20));
    let death = "CREATE TRIGGER death BEFORE INSERT ON attempt BEGIN SELECT RAISE(ABORT, 'death'); END";
    fleet.database.run(death).await;
    let call = fleet.call(NUMBER).place().await;
    eventually("its task gives up", async || {
        fleet.metrics().await.lines().any(|line| line.starts_with("ringward_calls_open 0"))
    })
    .await;
    fleet.database.run("DROP TRIGGER death").await;
    call.ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 1);
    assert!(fleet.metrics().await.contains("ringward_calls_taken_up_total 1\n"));
}
