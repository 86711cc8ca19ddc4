//! What the routes about a window take in their URL.

use answers::window::WrittenWindow;
use axum::extract::Query as UrlQuery;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::wire::Problem;

/// The parameters of a route about a window.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
// Unknown parameters are refused: `?node=` in place of `?nodes=` would otherwise give the chains of all nodes.
pub(super) struct Parameters {
    /// Beginning of the window: RFC 3339, or a duration back from now; 5 minutes before its end when absent.
    since: Option<String>,
    /// Another name for `since`.
    from: Option<String>,
    /// End of the window, as `since`; now when absent.
    to: Option<String>,
    /// Only this job.
    job: Option<String>,
    /// Only what concerns these nodes: names, separated by commas.
    nodes: Option<String>,
    /// `json` or `text`; as `Accept` says when absent.
    format: Option<String>,
    /// Longest time to wait until the window has landed, a duration up to 300 s; `0s` for none, 5 s when absent.
    wait: Option<String>,
    /// The text form shows every chain by itself.
    #[serde(default)]
    pub all: bool,
    /// By the rules of the reference tracer instead of ours.
    #[serde(default)]
    pub compat: bool,
}

/// The parameters as they come in; a URL that cannot be read is a problem.
pub(super) type Given = Result<UrlQuery<Parameters>, QueryRejection>;

impl Parameters {
    /// The window, as it is written.
    pub(super) fn window(&self) -> WrittenWindow {
        WrittenWindow {
            since: self.since.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            job: self.job.clone(),
            nodes: self.nodes.clone(),
            wait: self.wait.clone(),
        }
    }

    /// Whether the answer is wanted as text.
    ///
    /// # Errors
    /// `format` names no form of an answer.
    pub(super) fn wants_text(&self, headers: &HeaderMap) -> Result<bool, Problem> {
        match self.format.as_deref() {
            Some("text") => Ok(true),
            Some("json") => Ok(false),
            Some(other) => {
                Err(Problem::bad_request(format!("`{other}` is no format of chains: give `json` or `text`")))
            }
            // Only two forms, so no weights: text where it comes first, JSON for `*/*` and everything else.
            None => Ok(headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"))),
        }
    }
}
