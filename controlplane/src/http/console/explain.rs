//! Routes, and who would carry a call to a number now, and why.

use askama::Template;
use axum::extract::{Query, State as AxumState, rejection::QueryRejection};
use controlplane_core::selection::{Choice, Considered};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    calls::number,
    page::{Page, Part, Shell},
    session::Visitor,
};
use crate::{
    http::{State, problem::Problem},
    registry::RouteSight,
};

/// Trunks of a route that are shown: the one that is chosen first.
const CONSIDERED_MAX: usize = 100;

/// What would be done.
struct Told {
    sentence: String,
    panic: bool,
    considered: Vec<Considered>,
    /// Those that are not shown.
    more: usize,
}

#[derive(Template)]
#[template(path = "routes.html")]
struct RoutesPage {
    shell: Shell,
    to: String,
    from: String,
    told: Option<Told>,
    routes: Vec<RouteSight>,
}

/// `?to=&from=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExplainQuery {
    to: Option<String>,
    from: Option<String>,
}

/// `GET /routes`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(query) = query?;
    let (to, from) = (number(query.to, "to")?, number(query.from, "from")?);
    let told = to.as_ref().map(|to| {
        let (decision, panic) = state.registry.explain(to, from.as_ref(), Instant::now().into_std());
        let route = decision.route.as_ref().map_or_else(String::new, |prefix| format!(" by route {prefix}"));
        let sentence = match &decision.choice {
            Choice::Trunk(trunk) => format!("It would leave over {trunk}{route}."),
            Choice::Wait { .. } => format!("It would wait{route}: every trunk is at a limit."),
            Choice::NoRoute => "No route takes it.".to_owned(),
            Choice::NothingLeft => format!("No trunk is left{route}."),
            Choice::NothingUsable => format!("No trunk can be used now{route}."),
        };
        let mut considered = decision.considered;
        let more = considered.len().saturating_sub(CONSIDERED_MAX);
        if more > 0 {
            if let Choice::Trunk(chosen) = &decision.choice {
                considered.sort_by_key(|one| one.trunk != *chosen);
            }
            considered.truncate(CONSIDERED_MAX);
        }
        Told { sentence, panic, considered, more }
    });
    Page::of(&RoutesPage {
        shell: Shell::of(&visitor, Part::Routes, "Routes"),
        to: to.map(|to| to.to_string()).unwrap_or_default(),
        from: from.map(|from| from.to_string()).unwrap_or_default(),
        told,
        routes: state.registry.sight().routes,
    })
}
