//! The ranking behind the chains: which ranks are slower than their peers, by how much, and whether one is blamed.

use chain_engine::{Coverage, Finding, StragglerRank};
use query_engine::Asker;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answers::Answers;
use crate::chains::{ChainsError, Extract, Rules};
use crate::completeness::Completeness;
use crate::verdict::JobVerdict;
use crate::window::{AnsweredWindow, Asked};

/// The ranks of every job in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stragglers {
    /// The window as it was understood.
    pub window: AnsweredWindow,
    /// The part of it that was looked at.
    pub looked_at: Extract,
    /// What was looked at, what data there is, and the command that shows it; where no job was found.
    pub hints: Vec<String>,
    /// One per run of a job.
    pub jobs: Vec<RankedJob>,
    /// `null` where the ledger cannot be read.
    pub completeness: Option<Completeness>,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RankedJob {
    /// Cluster of all its nodes.
    pub cluster: String,
    /// `null` for ranks whose job has no name.
    pub job_id: Option<String>,
    /// Nodes the ranks run on, sorted.
    pub nodes: Vec<String>,
    /// Chains, healthy, or unknown.
    pub verdict: JobVerdict,
    /// The ranks that are blamed.
    pub stragglers: Vec<StragglerRank>,
    /// Every rank, the one that costs most first.
    pub ranking: Vec<StragglerRank>,
    /// What the finding did not see.
    pub coverage: Coverage,
}

impl From<Finding> for RankedJob {
    fn from(finding: Finding) -> Self {
        let Finding { cluster, job_id, nodes, first_ns: _, last_ns: _, verdict, ranking, coverage } = finding;
        let stragglers = ranking.iter().filter(|rank| rank.is_blamed).cloned().collect();
        Self { cluster, job_id, nodes, verdict: verdict.into(), stragglers, ranking, coverage }
    }
}

impl Answers {
    /// The ranking of every job in a window, after it has landed or the wait is over. Its queries take the permits of
    /// the asker.
    ///
    /// # Errors
    /// The lake cannot be read, or a limit of the query engine was met.
    pub async fn stragglers(&self, asked: &Asked, asker: &Asker) -> Result<Stragglers, ChainsError> {
        let now_ms = self.now_ms();
        // The reference's rules look at each node by itself: a ranking of ranks exists by ours only.
        let looked = self.look(asked, Rules::Ours, asker).await?;
        let is_empty = looked.detection.findings.is_empty();
        let hints = if is_empty { self.hints(asked, "stragglers").await } else { Vec::new() };
        let completeness = self.completeness_of_look(&looked, asked, now_ms).await;
        Ok(Stragglers {
            window: (&asked.window).into(),
            looked_at: looked.detection.looked_at.into(),
            hints,
            jobs: looked.detection.findings.into_iter().map(RankedJob::from).collect(),
            completeness,
        })
    }
}
