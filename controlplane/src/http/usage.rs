//! `/v1/limits` and `/v1/usage`: what a customer may have, and has had.

use axum::{
    Json,
    extract::{Query, State as AxumState, rejection::QueryRejection},
};
use controlplane_core::throttle::Throttle;
use controlplane_store::guard::day_of;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Date, macros::format_description};

use super::{
    State,
    auth::Customer,
    problem::{Code, Problem},
    shape::ListView,
};

/// Most days of one answer.
const DAYS_MAX: i64 = 366;
/// Days where none are asked for.
const DAYS_DEFAULT: i64 = 30;
/// What is counted begins here.
const EPOCH: Date = time::macros::date!(1970 - 01 - 01);

/// What an organisation may have, and has in use. A bound that is null is none.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Limits")]
pub(super) struct LimitsView {
    #[schemars(extend("const" = "limits"))]
    object: &'static str,
    requests_per_s: RequestsView,
    calls_per_day: DayView,
    /// Accepted and not ended.
    open_calls: OpenView,
    /// Of these to any one number.
    open_calls_to_one_number: NumberView,
    /// Attempts begun in a second; more wait.
    cps: CpsView,
    /// Attempts under way; more wait.
    channels: ChannelsView,
    /// How often one number may be dialled; more wait.
    throttle: Throttle,
}

/// Requests in any one second.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct RequestsView {
    /// Of the organisation.
    max: Option<u32>,
    /// Of the key that asks.
    key_max: Option<u32>,
}

/// Calls accepted today (UTC).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct DayView {
    /// Of the organisation.
    max: Option<u32>,
    used: i64,
    /// Of the key that asks.
    key_max: Option<u32>,
    key_used: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct OpenView {
    max: u32,
    used: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct NumberView {
    max: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct CpsView {
    max: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct ChannelsView {
    max: Option<u32>,
    used: usize,
}

/// What was used on one day (UTC).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DayUsage")]
pub(super) struct UsageView {
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    day: Option<String>,
    calls: i64,
    attempts: i64,
    /// Seconds of talk.
    talk_s: i64,
    /// Begun minutes of the day's talk as a whole.
    minutes: i64,
}

pub(super) async fn limits(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<LimitsView>, Problem> {
    let (org, key) = (&customer.org, customer.actor.key.as_ref());
    let (limits, open) = (state.rules.limits(org), state.rules.open_max(org));
    let key_limits = key.map(|key| state.rules.key_limits(key)).unwrap_or_default();
    let used = state.store.in_use(org, key, day_of(state.clock.now())).await?;
    let under_way = state.calls.gate.channels(org);
    Ok(Json(LimitsView {
        object: "limits",
        requests_per_s: RequestsView { max: limits.requests_per_s, key_max: key_limits.requests_per_s },
        calls_per_day: DayView {
            max: limits.calls_per_day,
            used: used.org_today,
            key_max: key_limits.calls_per_day,
            key_used: used.key_today,
        },
        open_calls: OpenView { max: open.org, used: used.open },
        open_calls_to_one_number: NumberView { max: open.number },
        cps: CpsView { max: limits.cps_max },
        channels: ChannelsView { max: limits.channels_max, used: under_way },
        throttle: state.rules.throttle(org),
    }))
}

/// `?from=2026-11-01&to=2026-11-30`, both days included, in UTC.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    /// The first day, as 2026-11-01; absent: 30 days until `to`.
    #[schemars(extend("format" = "date"))]
    from: Option<String>,
    /// The last day; absent: today.
    #[schemars(extend("format" = "date"))]
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
) -> Result<Json<ListView<UsageView>>, Problem> {
    let Query(query) = query?;
    let to = query.to.as_deref().map_or_else(|| Ok(day_of(state.clock.now())), |text| day("to", text))?;
    let from = query.from.as_deref().map_or_else(|| Ok(to - DAYS_DEFAULT + 1), |text| day("from", text))?;
    if from > to || to - from >= DAYS_MAX {
        return Err(
            Problem::new(Code::InvalidField, "At most 366 days, the first not after the last.").param("from")
        );
    }
    let used = state.store.usage(&customer.org, from, to).await?;
    let data = used
        .iter()
        .map(|used| {
            let date = EPOCH.checked_add(time::Duration::days(used.day)).map(|date| date.to_string());
            // Begun minutes of the day's talk as a whole: what is billed is the carrier's to say.
            let seconds = used.talk_us.div_euclid(1_000_000);
            UsageView {
                day: date,
                calls: used.calls,
                attempts: used.attempts,
                talk_s: seconds,
                minutes: (seconds + 59) / 60,
            }
        })
        .collect();
    Ok(Json(ListView::whole(data)))
}
