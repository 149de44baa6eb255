//! `/v1/limits` and `/v1/usage`: what a customer may have, and has had.

use axum::{
    Json,
    extract::{Query, State as AxumState, rejection::QueryRejection},
};
use controlplane_store::guard::day_of;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{Date, macros::format_description};

use super::{
    State,
    auth::Customer,
    problem::{Code, Problem},
};

/// Most days of one answer.
const DAYS_MAX: i64 = 366;
/// Days where none are asked for.
const DAYS_DEFAULT: i64 = 30;
/// What is counted begins here.
const EPOCH: Date = time::macros::date!(1970 - 01 - 01);

pub(super) async fn limits(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    let (org, key) = (&customer.org, customer.actor.key.as_ref());
    let (limits, open) = (state.rules.limits(org), state.rules.open_max(org));
    let key_limits = key.map(|key| state.rules.key_limits(key)).unwrap_or_default();
    let used = state.store.in_use(org, key, day_of(state.clock.now())).await?;
    let under_way = state.calls.gate.channels(org);
    Ok(Json(json!({
        "object": "limits",
        "requests_per_s": {"max": limits.requests_per_s, "key_max": key_limits.requests_per_s},
        "calls_per_day": {
            "max": limits.calls_per_day, "used": used.org_today,
            "key_max": key_limits.calls_per_day, "key_used": used.key_today,
        },
        "open_calls": {"max": open.org, "used": used.open},
        "open_calls_to_one_number": {"max": open.number},
        "cps": {"max": limits.cps_max},
        "channels": {"max": limits.channels_max, "used": under_way},
        "throttle": state.rules.throttle(org),
    })))
}

/// `?from=2026-11-01&to=2026-11-30`, both days included, in UTC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    from: Option<String>,
    to: Option<String>,
}

fn day(param: &'static str, text: &str) -> Result<i64, Problem> {
    let date = Date::parse(text, format_description!("[year]-[month]-[day]"));
    let wrong = |_| Problem::new(Code::InvalidField, "A day as in 2026-11-24.").param(param);
    Ok((date.map_err(wrong)? - EPOCH).whole_days())
}

pub(super) async fn usage(
    customer: Customer,
    AxumState(state): AxumState<State>,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query?;
    let to = query.to.as_deref().map_or_else(|| Ok(day_of(state.clock.now())), |text| day("to", text))?;
    let from = query.from.as_deref().map_or_else(|| Ok(to - DAYS_DEFAULT + 1), |text| day("from", text))?;
    if from > to || to - from >= DAYS_MAX {
        return Err(
            Problem::new(Code::InvalidField, "At most 366 days, the first not after the last.").param("from")
        );
    }
    let used = state.store.usage(&customer.org, from, to).await?;
    let data: Vec<Value> = used
        .iter()
        .map(|used| {
            let date = EPOCH.checked_add(time::Duration::days(used.day)).map(|date| date.to_string());
            // Begun minutes of the day's talk as a whole: what is billed is the carrier's to say.
            let seconds = used.talk_us.div_euclid(1_000_000);
            json!({
                "day": date, "calls": used.calls, "attempts": used.attempts, "talk_s": seconds,
                "minutes": (seconds + 59) / 60,
            })
        })
        .collect();
    Ok(Json(json!({"object": "list", "data": data, "has_more": false})))
}
