//! Customers: each asks for its calls at their time, and asks again with the same `Idempotency-Key` until it is
//! told that the call was accepted.
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lab::{ControlPlane, now, pause, since_1970};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    history::{Asked, Moment},
    load::Wanted,
};

/// Customers side by side, at least and at most: one that waits for a frozen control plane does not hold up the others. A third of them may, for
/// [`ANSWER_MAX`] each.
const CUSTOMERS: (usize, usize) = (16, 512);
/// For an answer; then it is asked for again.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Between two POSTs of a call.
const AGAIN: Duration = Duration::from_millis(200);
/// For an answer, over all POSTs of a call.
const PATIENCE: Duration = Duration::from_secs(60);

/// The customers' doors, one of each control plane: who gets no answer at one asks the next.
pub(crate) struct Door {
    urls: Vec<String>,
    key: String,
    http: ureq::Agent,
}

impl Door {
    pub(crate) fn of(planes: &[ControlPlane]) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_MAX))
            .build();
        Door {
            urls: planes.iter().map(|plane| format!("{}/v1/calls", plane.api_url())).collect(),
            key: format!("Bearer {}", planes.first().map_or("", ControlPlane::customer_key)),
            http: config.into(),
        }
    }

    /// Asks for all calls, `per_second` of them.
    pub(crate) fn ask_for(
        &self,
        calls: &[Wanted],
        start: Instant,
        per_second: f64,
    ) -> anyhow::Result<Vec<Asked>> {
        let customers = ((2.0 * per_second) as usize).clamp(CUSTOMERS.0, CUSTOMERS.1);
        let share = |customer: usize| {
            let own = calls.iter().enumerate().skip(customer).step_by(customers);
            own.map(|(n, wanted)| {
                let at = start + Duration::from_secs_f64(f64::from(u32::try_from(n)?) / per_second);
                pause(at.saturating_duration_since(now()));
                self.ask(n, wanted).map(|asked| (n, asked))
            })
            .collect::<anyhow::Result<Vec<_>>>()
        };
        let mut asked = std::thread::scope(|scope| {
            let asking: Vec<_> =
                (0..customers).map(|customer| scope.spawn(move || share(customer))).collect();
            let mut all = Vec::new();
            for customer in asking {
                all.extend(customer.join().map_err(|_| anyhow::anyhow!("a customer panicked"))??);
            }
            Ok::<_, anyhow::Error>(all)
        })?;
        asked.sort_by_key(|(n, _)| *n);
        Ok(asked.into_iter().map(|(_, asked)| asked).collect())
    }

    fn ask(&self, n: usize, wanted: &Wanted) -> anyhow::Result<Asked> {
        let mut body = json!({
            "to": wanted.number, "message": {"audio_id": "builtin:beep"}, "on_unknown": wanted.on_unknown,
            "ring_timeout_s": wanted.ring_timeout_s, "failover": {"attempts_max": 10},
        });
        if wanted.kind.is_to_press() {
            // Pressed 3 s after the answer, while the message is said or just after.
            body["message"] = json!({"audio_id": "builtin:hello-world", "repeat": 2});
            body["acknowledgement"] = json!({"keys": {"1": "acknowledge"}, "timeout_s": 4});
        }
        if let Some(redial) = &wanted.redial {
            body["redial"] = serde_json::to_value(redial)?;
        }
        let deadline_at = wanted.deadline_after.map(|after| since_1970() + after);
        if let Some(at) = deadline_at {
            body["deadline_at"] = json!(rfc_3339(at)?);
        }
        let mut asked = Asked {
            number: wanted.number.clone(),
            kind: wanted.kind,
            on_unknown: wanted.on_unknown,
            posts: 0,
            id: None,
            canceled: false,
            canceled_at: None,
            redial: wanted.redial.clone(),
            deadline_at,
        };
        let start = now();
        // What would be over before its acceptance is not asked for any more.
        let over = || deadline_at.is_some_and(|at| since_1970() + ANSWER_MAX >= at);
        while start.elapsed() < PATIENCE && !over() {
            let url = self.url(n + asked.posts as usize);
            asked.posts += 1;
            if let Some(id) = self.post(url, wanted, &body)? {
                asked.id = Some(id);
                break;
            }
            pause(AGAIN);
        }
        if let (Some(after), Some(id)) = (wanted.canceled_after, &asked.id) {
            pause(after);
            asked.canceled = true;
            asked.canceled_at = self.cancel(n, id);
        }
        Ok(asked)
    }

    /// Until it is heard, and when that was; `None`: nobody answers for too long, and the call ends otherwise.
    fn cancel(&self, n: usize, id: &str) -> Option<Moment> {
        let start = now();
        let wish = |url: &str| {
            self.http.post(format!("{url}/{id}/cancel")).header("Authorization", &self.key).send_empty()
        };
        for at in n.. {
            if start.elapsed() >= PATIENCE {
                break;
            }
            if wish(self.url(at)).is_ok_and(|answer| answer.status().is_success()) {
                return Some(since_1970());
            }
            pause(AGAIN);
        }
        None
    }

    fn url(&self, n: usize) -> &str {
        self.urls.get(n % self.urls.len().max(1)).map_or("", String::as_str)
    }

    /// One POST; `None`: no answer, or it is to be asked again.
    fn post(&self, url: &str, wanted: &Wanted, body: &Value) -> anyhow::Result<Option<String>> {
        let request = self.http.post(url).header("Authorization", &self.key);
        let request = request.header("Idempotency-Key", &format!("chaos {}", wanted.number));
        let Ok(mut answer) = request.send_json(body) else { return Ok(None) };
        let status = answer.status().as_u16();
        let Ok(text) = answer.body_mut().read_to_string() else { return Ok(None) };
        if status >= 500 {
            return Ok(None);
        }
        if !(200..300).contains(&status) {
            bail!("{} was refused: {status} {text}", wanted.number);
        }
        let call: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(Some(call["id"].as_str().context("no id")?.to_owned()))
    }
}

fn rfc_3339(at: Moment) -> anyhow::Result<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(at.as_nanos().try_into()?)?;
    Ok(at.format(&Rfc3339)?)
}
