//! How streamed answers ended. An answer that fails while its rows are sent can only end its connection, and one that a
//! limit cut looks whole; a client that named its request (`X-Request-Id`) asks afterwards: `GET /api/v1/queries/{id}`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::InPath;
use crate::wire::{CutAnswer, Problem};

/// Endings kept; the oldest are discarded.
const REMEMBERED: usize = 256;

/// An ending that the rows themselves do not show.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    Failed(Problem),
    Cut(CutAnswer),
}

impl IntoResponse for Ending {
    fn into_response(self) -> Response {
        match self {
            // With the status that the streamed answer could no longer have: its 200 was sent before its rows.
            Self::Failed(problem) => problem.into_response(),
            Self::Cut(cut) => Json(cut).into_response(),
        }
    }
}

/// The last endings, by the name of the request.
#[derive(Debug, Default)]
pub(super) struct Endings(Mutex<VecDeque<(String, Ending)>>);

impl Endings {
    pub(super) fn remember(&self, id: String, ending: Ending) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest in front: of two requests with one name, `find` gives the ending of the later.
        known.truncate(REMEMBERED - 1);
        known.push_front((id, ending));
    }

    fn find(&self, id: &str) -> Option<Ending> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(known, _)| known == id).map(|(_, ending)| ending.clone())
    }
}

/// The problem that ended the answer to a request, or that it was cut; status 404 where no such ending is kept.
#[utoipa::path(
    get,
    path = "/queries/{id}",
    summary = "why the answer to a request broke off, by its X-Request-Id",
    params(("id" = String, Path, description = "What the request had in X-Request-Id")),
    responses(
        (status = 200, description = "Its limit cut the answer", body = CutAnswer),
        Problem,
    ),
)]
pub(super) async fn get(State(app): State<Arc<App>>, InPath(id): InPath<String>) -> Response {
    if let Some(ending) = app.endings.find(&id) {
        return ending.into_response();
    }
    let detail = "no answer to a request of that id broke off or was cut, or it was long ago";
    Problem::not_found(detail, "send the request again").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_endings_are_remembered() {
        let endings = Endings::default();
        for rows in 0..300 {
            endings.remember(rows.to_string(), Ending::Cut(CutAnswer { truncated: true, row_count: rows }));
        }
        assert!(endings.find("43").is_none() && endings.find("44").is_some() && endings.find("299").is_some());
    }
}
