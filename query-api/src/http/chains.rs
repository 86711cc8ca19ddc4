//! `GET /api/v1/chains` and `/api/v1/stragglers`: who is slow, why, and by what evidence.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use answers::chains::{Chains, ChainsError, Rules};
use answers::stragglers::Stragglers;
use axum::Json;
use axum::extract::{ConnectInfo, Query as UrlQuery, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use query_engine::{Asker, QueryError};

use super::App;
use super::headers::completeness_header;
use super::metrics::Tally;
use super::parameters::{Given, Parameters};
use crate::wire::Problem;

/// Chains of a window, as JSON or as text.
#[utoipa::path(
    get,
    path = "/chains",
    summary = "causal chains; ?since=5m, ?from= and ?to=, ?job=, ?nodes=",
    params(Parameters),
    responses(
        (status = 200, description = "The chains, and how complete they are", content(
            (Chains = "application/json"),
            (String = "text/plain"),
        )),
        Problem,
    ),
)]
pub(super) async fn chains(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    given: Given,
) -> Result<Response, Problem> {
    let UrlQuery(parameters) = given?;
    let asked = parameters.window().read(app.answers.now_ms())?;
    // Before the detection: a wrong `format` must not cost up to a minute of work.
    let is_text = parameters.wants_text(&headers)?;
    let rules = if parameters.compat { Rules::Reference } else { Rules::Ours };
    let tally = app.metrics.begin(Instant::now());
    let found = app.answers.chains(&asked, rules, &Asker::at(peer)).await;
    let found = counted(tally, found)?;
    if is_text {
        let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((plain, completeness_header(&found.completeness), found.text(parameters.all)).into_response());
    }
    Ok(Json(found.into_document()).into_response())
}

/// The ranking behind the chains, or why there is none.
#[utoipa::path(
    get,
    path = "/stragglers",
    summary = "slow ranks with their evidence",
    params(Parameters),
    responses(
        (status = 200, description = "Every rank of every job in the window", body = Stragglers),
        Problem,
    ),
)]
pub(super) async fn stragglers(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    given: Given,
) -> Result<Json<Stragglers>, Problem> {
    let UrlQuery(parameters) = given?;
    let asked = parameters.window().read(app.answers.now_ms())?;
    if parameters.compat {
        return Err(Problem::bad_request("the reference's rules have no ranking: `compat` is for chains"));
    }
    let tally = app.metrics.begin(Instant::now());
    let found = app.answers.stragglers(&asked, &Asker::at(peer)).await;
    Ok(Json(counted(tally, found)?))
}

/// Counts an answer in the metrics and passes it on.
fn counted<T>(tally: Tally, answer: Result<T, ChainsError>) -> Result<T, ChainsError> {
    match &answer {
        Ok(_) => tally.end(None),
        Err(ChainsError::Query(error)) => tally.end(Some(error)),
        // The others are faults of ours: their status is 500.
        Err(other) => tally.end(Some(&QueryError::Internal { message: other.to_string() })),
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::super::metrics::tests as metrics;
    use super::*;

    #[test]
    fn a_detection_that_panicked_counts_as_failed() {
        let text = metrics::counted(|tally| {
            assert!(counted(tally, Err::<(), _>(ChainsError::Ended)).is_err());
        });
        assert!(text.contains("queries_total{outcome=\"Failed\"} 1") && !text.contains("Answered"), "{text}");
    }
}
