//! The story that the demo tells, step by step; a step that does not hold ends it.
use crate::output;
use anyhow::{Context as _, bail, ensure};
use lab::shapes::Shape;
use lab::{Agent, Behaviour, ControlPlane, Lab, Pbx, Volley, numbers};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest call of the story: a silent carrier is left after 6.4 s (Timer B).
const CALL_WITHIN: Duration = Duration::from_secs(40);
/// No packet for so long: the carriers have seen all of it.
const QUIET: Duration = Duration::from_millis(500);
/// Rounds of calls after which a mended carrier's trunk must serve again: its back-off is 5 to 12 s.
const BACK_AFTER_MAX: u16 = 20;
/// How much of a join token is shown: it is of no use to anybody, and long.
const TOKEN_SHOWN: usize = 24;

/// What is told, on what.
pub(crate) struct Story<'a> {
    lab: &'a Lab,
    plane: &'a ControlPlane,
    /// Every call of the story, as it ended.
    calls: Vec<Value>,
    step: u32,
}

impl<'a> Story<'a> {
    pub(crate) fn new(lab: &'a Lab, plane: &'a ControlPlane) -> Self {
        Story { lab, plane, calls: Vec::new(), step: 0 }
    }

    /// Tells all of it.
    pub(crate) fn tell(&mut self) -> anyhow::Result<()> {
        self.title("A fleet is declared: two PBXes, two carriers, a trunk from each PBX to each carrier");
        self.plane.declare(&self.lab.fleet_toml())?;
        output::line("$ ringward apply -f /run/ringward-lab/fleet.toml");

        self.title("Each PBX joins with one command; its AMI listens on its own loopback only");
        for agent in self.lab.pbxes().iter().filter_map(Pbx::agent) {
            self.join(&agent)?;
        }
        self.plane.wait_for_nodes()?;
        let all = |of: Result<Vec<Value>, lab::LabError>, state: &str| {
            of.is_ok_and(|of| of.iter().all(|one| one["state"] == state))
        };
        lab::wait_until("nodes and trunks to be well", CALL_WITHIN, "`ringward status`", || {
            all(self.plane.nodes(), "alive") && all(self.plane.trunks(), "healthy")
        })?;
        self.show(&["node", "list"])?;
        self.show(&["trunk", "list"])?;

        self.title("Four calls, spread over the trunks");
        let calls = self.place(
            &[(numbers::ANSWER, 1), (numbers::ANSWER, 2), (numbers::ANSWER, 3), (numbers::ANSWER, 4)],
            &json!({}),
        )?;
        let mut trunks: Vec<_> = calls.iter().map(|call| word(&call["attempts"][0], "trunk")).collect();
        trunks.sort();
        trunks.dedup();
        ensure!(trunks.len() == 4, "four calls used {trunks:?}");
        self.all(&calls, "completed", "played")?;

        self.title("A busy callee, and one who declines: nobody dials them again");
        let calls = self.place(&[(numbers::BUSY, 5), (numbers::DECLINED, 6)], &json!({}))?;
        ensure!(
            calls.iter().all(|call| attempts(call) == 1),
            "a callee who had answered for himself was dialled again"
        );

        self.title("A text is spoken. One callee presses 1; one says nothing, and is dialled again");
        let asked = json!({
            "message": {"text": "The database is down. Press 1."}, "acknowledgement": {"timeout_s": 1},
            "redial": {"on": ["answered_no_ack"], "max": 1, "delay_s": 1},
        });
        let calls = self.place(&[(numbers::PRESS, 7), (numbers::MUTE, 8)], &asked)?;
        let acknowledged = calls[0]["reason"] == "acknowledged" && calls[0]["acknowledgement"]["key"] == "1";
        ensure!(acknowledged && attempts(&calls[0]) == 1, "the key was not heard: {}", calls[0]);
        let twice = calls[1]["reason"] == "answered_no_ack" && attempts(&calls[1]) == 2;
        ensure!(twice, "who said nothing was not dialled again, once: {}", calls[1]);

        self.title(
            "Carrier a answers 503 to everything: each call goes by the other PBX and the other carrier",
        );
        self.behave("a", Behaviour::Code(503))?;
        let wanted: Vec<_> = (10..14).map(|n| (numbers::ANSWER, n)).collect();
        let calls = self.place(&wanted, &json!({}))?;
        self.all(&calls, "completed", "played")?;
        let failed_over = calls.iter().filter(|call| attempts(call) == 2).count();
        ensure!(failed_over > 0, "no call met carrier a");
        for call in calls.iter().filter(|call| attempts(call) == 2) {
            let (first, second) = (&call["attempts"][0], &call["attempts"][1]);
            ensure!(
                first["node"] != second["node"] && first["carrier"] != second["carrier"],
                "not elsewhere: {call}"
            );
        }

        self.title("Carrier a falls silent: did it ring? The customer chose what follows");
        self.behave("a", Behaviour::Silent)?;
        // All at once, so that each choice meets the silence before it is known.
        let fail: Vec<_> = (20..24).map(|n| numbers::number(numbers::ANSWER, n)).collect();
        let retry: Vec<_> = (24..28).map(|n| numbers::number(numbers::ANSWER, n)).collect();
        let failing = self.start(&fail, &json!({"on_unknown": "fail"}))?;
        let retrying = self.start(&retry, &json!({"on_unknown": "retry"}))?;
        output::line("on_unknown = fail");
        let calls = self.finish(&failing, true)?;
        let unknown = calls.iter().filter(|call| call["reason"] == "outcome_unknown").count();
        let once = calls.iter().all(|call| attempts(call) == 1);
        ensure!(once && unknown > 0, "`fail` must not dial twice, and must say so");
        output::line("on_unknown = retry");
        let calls = self.finish(&retrying, true)?;
        self.all(&calls, "completed", "played")?;

        self.title("Its trunks have tripped: no later call is sent there, although OPTIONS are answered");
        let wanted: Vec<_> = (30..34).map(|n| (numbers::ANSWER, n)).collect();
        let calls = self.place(&wanted, &json!({}))?;
        ensure!(calls.iter().all(|call| attempts(call) == 1), "a call met the silent carrier");
        self.show(&["trunk", "list"])?;
        self.show(&["trunk", "why", "a-pbx-2"])?;
        self.behave("a", Behaviour::Normal)?;

        self.title("A caller over carrier a forges AMI events by SIP: counted on the node, not believed");
        self.forge()?;

        self.title("pbx-1 is switched off: calls go by pbx-2");
        let pbx = self.lab.pbx("pbx-1")?;
        pbx.stop()?;
        // What is sent before that is known may be lost, and is dialled again: on a busy machine that would be another story.
        let is_known = || self.plane.nodes().is_ok_and(|nodes| nodes.iter().any(|node| node["up"] == false));
        lab::wait_until(
            "the end of pbx-1 to be known",
            Duration::from_secs(5),
            "`ringward node list`",
            is_known,
        )?;
        let calls = self.place(&[(numbers::ANSWER, 40), (numbers::ANSWER, 41)], &json!({}))?;
        self.all(&calls, "completed", "played")?;
        ensure!(calls.iter().all(|call| call["attempts"][0]["node"] == "pbx-2"), "a dead PBX was used");
        self.show(&["status"])?;
        pbx.start()?;

        self.title(
            "Carrier a works again: probation lets calls in, a few at a time, and nobody had to do anything",
        );
        self.back("a-pbx-2")?;
        self.show(&["trunk", "why", "a-pbx-2"])?;

        self.title("What the carriers saw, against what the API says");
        self.compare()
    }

    /// `ringward node token`, and what it prints, run on the node.
    fn join(&self, agent: &Agent) -> anyhow::Result<()> {
        let node = agent.node();
        let said = self.plane.command_line(&["node", "token", node])?;
        let command = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let token = command.rsplit(' ').next().unwrap_or_default();
        ensure!(token.starts_with("rwj_"), "no token: {said:?}");
        output::line(&format!("$ ringward node token {node}"));
        let shown: String = token.chars().take(TOKEN_SHOWN).collect();
        output::line(&format!("{node}# {}{shown}…", command.trim_end_matches(token)));
        let joined = agent.join(&[token])?;
        ensure!(joined.status.success(), "{node} did not join: {joined:?}");
        let words = String::from_utf8_lossy(&joined.stdout).into_owned();
        output::line(words.lines().next().unwrap_or_default());
        agent.start()?;
        Ok(())
    }

    /// Calls that come in over a trunk, whose callers' names hold line breaks and whole AMI events.
    fn forge(&self) -> anyhow::Result<()> {
        let (pbx, carrier) = (self.lab.pbx("pbx-1")?, self.lab.carrier("a")?);
        for shape in Shape::ALL {
            carrier.send_hostile(&Volley::one(shape).invite(), pbx)?;
        }
        let agent = pbx.agent().context("pbx-1 has no agent")?;
        let counted = || agent.metric("ringward_agent_tampered_total").unwrap_or(0.0);
        lab::wait_until("the count to tell", Duration::from_secs(5), "its metrics", || counted() > 0.0)?;
        output::line(&format!(
            "{} INVITEs with encoded line breaks: the agent of pbx-1 counted {} blocks of strangers' text",
            Shape::ALL.len(),
            counted()
        ));
        self.show(&["node", "list"])
    }

    fn title(&mut self, text: &str) {
        self.step += 1;
        output::line(&format!("\n{}. {text}", self.step));
    }

    /// Runs the operators' command line and shows what it says.
    fn show(&self, arguments: &[&str]) -> anyhow::Result<()> {
        output::line(&format!("$ ringward {}", arguments.join(" ")));
        let output = self.plane.command_line(arguments)?;
        output::line(String::from_utf8_lossy(&output.stdout).trim_end());
        Ok(())
    }

    fn behave(&self, carrier: &str, behaviour: Behaviour) -> anyhow::Result<()> {
        self.lab.carrier(carrier)?.behave(behaviour).context("change the carrier")
    }

    /// Calls come in, three at a time, until a trunk is healthy.
    fn back(&mut self, trunk: &str) -> anyhow::Result<()> {
        for n in 0..BACK_AFTER_MAX {
            let numbers: Vec<_> =
                (0..3).map(|call| numbers::number(numbers::ANSWER, 100 + 3 * n + call)).collect();
            let ids = self.start(&numbers, &json!({}))?;
            let calls = self.finish(&ids, false)?;
            self.all(&calls, "completed", "played")?;
            if self.plane.trunks()?.iter().any(|t| t["name"] == trunk && t["state"] == "healthy") {
                return Ok(());
            }
        }
        bail!("{trunk} did not come back: {:?}", self.plane.trunks())
    }

    /// Places calls at once, waits for their ends, shows them.
    fn place(&mut self, wanted: &[(u16, u16)], more: &Value) -> anyhow::Result<Vec<Value>> {
        let numbers: Vec<_> = wanted.iter().map(|(behaviour, n)| numbers::number(*behaviour, *n)).collect();
        let ids = self.start(&numbers, more)?;
        self.finish(&ids, true)
    }

    /// Places calls at once.
    fn start(&self, numbers: &[String], more: &Value) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for number in numbers {
            let mut body = json!({"to": number, "message": {"audio_id": "builtin:hello-world"}});
            for (member, value) in more.as_object().into_iter().flatten() {
                body[member] = value.clone();
            }
            ids.push(self.plane.place(&body)?);
        }
        Ok(ids)
    }

    /// Waits for the ends of calls, and shows them where they are to be shown.
    fn finish(&mut self, ids: &[String], shown: bool) -> anyhow::Result<Vec<Value>> {
        let mut calls = Vec::new();
        let mut rows = Vec::new();
        for id in ids {
            let call = self.plane.ended(id, CALL_WITHIN)?;
            let path: Vec<_> = call["attempts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|attempt| format!("{} {}", word(attempt, "trunk"), word(attempt, "reason")))
                .collect();
            rows.push(vec![
                word(&call, "to"),
                word(&call, "status"),
                word(&call, "reason"),
                word(&call, "outcome"),
                path.join(" → "),
            ]);
            calls.push(call);
        }
        if shown {
            output::table(&["TO", "STATUS", "REASON", "OUTCOME", "ATTEMPTS"], &rows);
        }
        self.calls.extend(calls.iter().cloned());
        Ok(calls)
    }

    fn all(&self, calls: &[Value], status: &str, reason: &str) -> anyhow::Result<()> {
        match calls.iter().find(|call| call["status"] != status || call["reason"] != reason) {
            Some(call) => bail!("this call should have ended {status} ({reason}): {call}"),
            None => Ok(()),
        }
    }

    /// INVITEs and answers per carrier against attempts and answered calls of the API.
    fn compare(&self) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        let mut differs = false;
        for carrier in self.lab.carriers() {
            let seen = carrier.seen_when_quiet(QUIET)?.total();
            let of = |answered: bool| {
                let attempts =
                    self.calls.iter().flat_map(|call| call["attempts"].as_array().into_iter().flatten());
                let ours = attempts.filter(|attempt| attempt["carrier"] == carrier.name());
                ours.filter(|attempt| !answered || attempt["reason"] == "answered").count()
            };
            let (sent, answered) = (of(false), of(true));
            differs |= sent != seen.invites as usize || answered != seen.answers as usize;
            rows.push(vec![
                carrier.name().to_owned(),
                seen.invites.to_string(),
                sent.to_string(),
                seen.answers.to_string(),
                answered.to_string(),
            ]);
        }
        output::table(
            &["CARRIER", "INVITES SEEN", "ATTEMPTS SENT", "ANSWERS GIVEN", "ANSWERED IN API"],
            &rows,
        );
        ensure!(!differs, "carriers and API disagree");
        Ok(())
    }
}

fn word(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or("-").to_owned()
}

fn attempts(call: &Value) -> usize {
    call["attempts"].as_array().map_or(0, Vec::len)
}
