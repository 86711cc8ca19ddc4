//! Causal chains of a window: who is slow, why, and by what evidence.

use std::collections::BTreeSet;
use std::sync::Arc;

use chain_engine::Chain;
use query_engine::Asker;
use query_engine::time::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answers::Answers;
use crate::completeness::{Completeness, Landing, Question, settle};
use crate::untraced::Untraced;
use crate::verdict::JobFinding;
use crate::window::{AnsweredWindow, Asked};

mod compat;
mod conditions;
mod detect;
mod detection;
mod error;
mod losses;
mod processes;
mod reading;
mod slices;
mod stored;
mod text;

pub use detection::{Detection, LookedAt};
pub use error::ChainsError;

/// Which rules define a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Those of the crate `chain-engine`, which compare the ranks of a job.
    Ours,
    /// Those of the reference tracer, which look at each node by itself.
    Reference,
}

/// The chains of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Chains {
    /// The window as it was understood.
    pub window: AnsweredWindow,
    /// The part of it that was looked at.
    pub looked_at: Extract,
    /// What was looked at, what data there is, and the command that shows it; where nothing was found.
    pub hints: Vec<String>,
    /// Nodes that have events or chains in the window.
    pub nodes: BTreeSet<String>,
    /// Found and stored chains, the most severe first, then the latest.
    pub chains: Vec<Chain>,
    /// One per run of a job.
    pub findings: Vec<JobFinding>,
    /// Processes that map a CUDA or NCCL library and were not traced; `null` where that cannot be read.
    pub untraced: Option<Vec<Untraced>>,
    /// `null` where the ledger cannot be read.
    pub completeness: Option<Completeness>,
}

/// The part of a window that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Extract {
    /// Where looking began, RFC 3339: later than the window when it has more events than are looked at.
    pub from: Option<String>,
    /// RFC 3339, inclusive.
    pub to: Option<String>,
    /// Events looked at.
    pub events: u64,
    /// Events and stored chains of the window beyond the limits.
    pub unread_rows: u64,
}

impl From<LookedAt> for Extract {
    fn from(looked_at: LookedAt) -> Self {
        let LookedAt { from_ns, to_ns, events, unread } = looked_at;
        Self { from: rfc3339(from_ns / 1_000_000), to: rfc3339(to_ns / 1_000_000), events, unread_rows: unread }
    }
}

/// What was found in a window, before it is written down as a document or as text.
#[derive(Debug)]
pub struct Explanation {
    /// The window as it was understood.
    pub window: AnsweredWindow,
    /// Chains and findings, and what they rest on.
    pub detection: Detection,
    /// What was looked at and what data there is; empty where something was found.
    pub hints: Vec<String>,
    /// Processes that map a CUDA or NCCL library and were not traced; `None` where that cannot be read.
    pub untraced: Option<Vec<Untraced>>,
    /// `None` where the ledger cannot be read.
    pub completeness: Option<Completeness>,
}

impl Explanation {
    /// As a document.
    pub fn into_document(self) -> Chains {
        let Self { window, detection, hints, untraced, completeness } = self;
        Chains {
            window,
            looked_at: detection.looked_at.into(),
            hints,
            nodes: detection.nodes,
            chains: detection.chains,
            findings: detection.findings.into_iter().map(JobFinding::from).collect(),
            untraced,
            completeness,
        }
    }

    /// As text in the reference's form: equal chains as one and only the most severe, or with `all` every chain.
    pub fn text(&self, all: bool) -> String {
        text::of(self, all)
    }
}

impl Answers {
    /// The chains of a window, after it has landed or the wait is over. Its queries take the permits of the asker.
    ///
    /// # Errors
    /// The lake cannot be read, or a limit of the query engine was met.
    pub async fn chains(&self, asked: &Asked, rules: Rules, asker: &Asker) -> Result<Explanation, ChainsError> {
        // Read before the wait: completeness is judged at the moment of the question, not at the end of the wait.
        let now_ms = self.now_ms();
        let looked = self.look(asked, rules, asker).await?;
        let completeness = self.completeness_of_look(&looked, asked, now_ms).await;
        let untraced = self.untraced_of(asked, asker).await;
        let detection = looked.detection;
        // A finding without chains (healthy, unknown) is an answer as well: hints are for a window without either.
        let is_empty = detection.chains.is_empty() && detection.findings.is_empty();
        let hints = if is_empty { self.hints(asked, "explain").await } else { Vec::new() };
        Ok(Explanation { window: (&asked.window).into(), detection, hints, untraced, completeness })
    }

    /// Waits for the window to land, then looks at it.
    pub(crate) async fn look(&self, asked: &Asked, rules: Rules, asker: &Asker) -> Result<Looked, ChainsError> {
        let to_ms = asked.window.to_ns / 1_000_000;
        let landing = match settle(&self.engine, &*self.clock, (to_ms, &asked.nodes), asked.wait).await {
            Ok(landing) => Some(landing),
            // The wait is an aid and no condition: the detection runs all the same, and its own queries decide whether
            // there is an answer.
            Err(error) => {
                tracing::warn!(%error, "what is still landing is unknown: the ledger cannot be read");
                None
            }
        };
        let engine = Arc::clone(&self.engine);
        let window = asked.window.clone();
        let asker = asker.clone();
        // Hours of events are much work: it runs on the query threads, which yield to everything else.
        let work = async move {
            match rules {
                Rules::Ours => detect::detect(&engine, &window, &asker).await,
                Rules::Reference => compat::compat(&engine, &window, &asker).await,
            }
        };
        // A panic in the detection ends this answer and not the process: it arrives as a `JoinError`.
        let outcome = self.engine.aside(work).await.ok().flatten().unwrap_or(Err(ChainsError::Ended));
        let mut detection = outcome?;
        // After the detection and not as a condition of its queries: a rank is slow only in comparison with its peers
        // on all nodes.
        detection.narrow(&asked.nodes);
        Ok(Looked { detection, landing })
    }

    pub(crate) async fn completeness_of_look(
        &self,
        looked: &Looked,
        asked: &Asked,
        now_ms: i64,
    ) -> Option<Completeness> {
        // Unknown must not read as complete: an empty `still_landing` would claim that everything has landed.
        let landing = looked.landing.as_ref()?;
        let question = Question::of_events(asked.window.extent(now_ms)).about(asked.nodes.clone());
        let found = self.ledger.of(&self.engine, &looked.detection.snapshots, &question, None).await?;
        // A node that is missing is listed in `missing` only.
        let still_landing = landing.still.iter().filter(|still| !found.missing.contains(&still.node));
        let still_landing = still_landing.cloned().collect();
        Some(Completeness { unread_rows: looked.detection.looked_at.unread, still_landing, ..found })
    }
}

/// What was found in a window, and what had not landed by then; `None` where that cannot be read.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) detection: Detection,
    landing: Option<Landing>,
}
