//! Why answers broke off. An answer that fails while its rows are sent can only end its connection; a client that named its request
//! (`X-Request-Id`) asks afterwards for the reason: `GET /api/v1/queries/{id}`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName};

use super::App;
use super::problem::Problem;

/// How a client names its request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name that is remembered.
const MAX_ID_BYTES: usize = 128;
/// Failures remembered; the oldest are forgotten.
const REMEMBERED: usize = 256;

/// The last failures, by the name of the request.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<VecDeque<(String, Problem)>>);

impl Failures {
    pub(super) fn remember(&self, id: String, problem: Problem) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.truncate(REMEMBERED - 1);
        known.push_front((id, problem));
    }

    fn find(&self, id: &str) -> Option<Problem> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(known, _)| known == id).map(|(_, problem)| problem.clone())
    }
}

/// The name the client gave its request.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    (1..=MAX_ID_BYTES).contains(&id.len()).then(|| id.to_owned())
}

/// `GET /api/v1/queries/{id}`: the problem that ended the answer to a request.
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Problem {
    let unknown = || {
        Problem::not_found("no answer to a request of that id broke off, or it was long ago", "send the request again")
    };
    app.failures.find(&id).unwrap_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_failures_are_remembered() {
        let failures = Failures::default();
        for nth in 0..300 {
            failures.remember(nth.to_string(), Problem::bad_request(format!("failure {nth}")));
        }
        assert!(failures.find("43").is_none() && failures.find("44").is_some() && failures.find("299").is_some());
    }
}
