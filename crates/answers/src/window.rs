//! The stretch of time and the nodes that a question is about: as they are written, and what that means.

use std::collections::BTreeSet;
use std::time::Duration;

use query_engine::time::rfc3339;
use serde::{Deserialize, Serialize};
use service_kit::config::HumanDuration;
use utoipa::ToSchema;

use crate::completeness::Extent;
use crate::time::{TimeError, parse_time};

/// How far back to look when a request gives no beginning.
const DEFAULT_SINCE: &str = "5m";
/// How long to wait for a window to land when a request gives no time.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// Longest wait that may be asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Unix nanoseconds, inclusive.
    pub from_ns: i64,
    /// Unix nanoseconds, inclusive.
    pub to_ns: i64,
    /// Only this job.
    pub job: Option<String>,
}

impl Window {
    /// The window in unix milliseconds, both ends inclusive.
    pub fn ms(&self) -> (i64, i64) {
        (self.from_ns / 1_000_000, self.to_ns / 1_000_000)
    }

    /// The stretch of time that an answer from the window is about.
    pub(crate) fn extent(&self, now_ms: i64) -> Extent {
        let (from_ms, to_ms) = self.ms();
        Extent::now(now_ms).since(Some(from_ms)).until(to_ms)
    }
}

/// The window of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnsweredWindow {
    /// Beginning, RFC 3339.
    pub from: Option<String>,
    /// End, RFC 3339, inclusive.
    pub to: Option<String>,
    /// The job that was asked about; `null` for all.
    pub job: Option<String>,
}

impl From<&Window> for AnsweredWindow {
    fn from(window: &Window) -> Self {
        let (from_ms, to_ms) = window.ms();
        Self { from: rfc3339(from_ms), to: rfc3339(to_ms), job: window.job.clone() }
    }
}

/// A window as it is written in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenWindow {
    /// Beginning: a time, or a duration back from now.
    pub since: Option<String>,
    /// Another name for `since`.
    pub from: Option<String>,
    /// End, as `since`; now when absent.
    pub to: Option<String>,
    /// Only this job.
    pub job: Option<String>,
    /// Only what concerns these nodes: names, separated by commas.
    pub nodes: Option<String>,
    /// Longest time to wait until the window has landed: a duration; `0s` for none.
    pub wait: Option<String>,
}

/// Why a window cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("give `since` or `from`, not both")]
    TwoBeginnings,
    #[error("the window ends before it begins")]
    Backwards,
    #[error(transparent)]
    Time(#[from] TimeError),
    #[error("`{text}` is not a time to wait: give a duration up to {} s, such as 10s", LONGEST_WAIT.as_secs())]
    Wait { text: String },
}

/// A question about a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The time and the job asked about.
    pub window: Window,
    /// The nodes asked for; all when empty.
    pub nodes: BTreeSet<String>,
    /// How long the window is waited for to land.
    pub wait: Duration,
}

impl WrittenWindow {
    /// What was written, with defaults for the rest.
    ///
    /// # Errors
    /// A part is malformed; the error names what is accepted.
    pub fn read(&self, now_ms: i64) -> Result<Asked, WindowError> {
        Ok(Asked { window: self.window(now_ms)?, nodes: self.nodes(), wait: self.wait()? })
    }

    /// The stretch of time asked about; everything when none is written.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn extent(&self, now_ms: i64) -> Result<Extent, WindowError> {
        let is_written = self.since.is_some() || self.from.is_some() || self.to.is_some();
        Ok(if is_written { self.window(now_ms)?.extent(now_ms) } else { Extent::now(now_ms) })
    }

    /// The nodes asked for; none stands for all.
    pub fn nodes(&self) -> BTreeSet<String> {
        let names = self.nodes.iter().flat_map(|nodes| nodes.split(',')).map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn window(&self, now_ms: i64) -> Result<Window, WindowError> {
        let from = match (&self.since, &self.from) {
            (Some(_), Some(_)) => return Err(WindowError::TwoBeginnings),
            (Some(from), None) | (None, Some(from)) => Some(from.as_str()),
            (None, None) => None,
        };
        let to_ms = match &self.to {
            Some(to) => parse_time(to, now_ms)?,
            None => now_ms,
        };
        let from_ms = match from {
            Some(from) => parse_time(from, now_ms)?,
            // The default is a duration back from the window's end.
            None => parse_time(DEFAULT_SINCE, to_ms)?,
        };
        // Equal ends are a window of one millisecond.
        if from_ms > to_ms {
            return Err(WindowError::Backwards);
        }
        // The last millisecond belongs to the window.
        let to_ns = nanoseconds(to_ms).saturating_add(999_999);
        // An empty `job=`, as forms send it, asks for no job.
        Ok(Window { from_ns: nanoseconds(from_ms), to_ns, job: self.job.clone().filter(|job| !job.is_empty()) })
    }

    fn wait(&self) -> Result<Duration, WindowError> {
        let Some(text) = &self.wait else { return Ok(DEFAULT_WAIT) };
        let wait = text.parse::<HumanDuration>().ok().filter(|wait| wait.0 <= LONGEST_WAIT);
        wait.map(|wait| wait.0).ok_or_else(|| WindowError::Wait { text: text.clone() })
    }
}

/// Nothing was traced before 1970, and times before 1678 do not fit nanoseconds.
fn nanoseconds(unix_ms: i64) -> i64 {
    unix_ms.max(0).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests;
