//! The verdict on one run of one job, as documents have it.

use std::fmt;

use chain_engine::{Coverage, Finding, Reason, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A finding without its chains and its ranking, which have places of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobFinding {
    /// Cluster of all its nodes.
    pub cluster: String,
    /// `null` for ranks whose job has no name.
    pub job_id: Option<String>,
    /// Nodes the ranks run on, sorted.
    pub nodes: Vec<String>,
    /// Start of the first iteration looked at, unix nanoseconds; 0 when there were none.
    pub first_ns: i64,
    /// End of the last iteration looked at, unix nanoseconds; 0 when there were none.
    pub last_ns: i64,
    /// Chains, healthy, or unknown.
    pub verdict: JobVerdict,
    /// What the finding did not see.
    pub coverage: Coverage,
}

impl From<Finding> for JobFinding {
    fn from(finding: Finding) -> Self {
        let Finding { cluster, job_id, nodes, first_ns, last_ns, verdict, coverage, ranking: _ } = finding;
        Self { cluster, job_id, nodes, first_ns, last_ns, verdict: verdict.into(), coverage }
    }
}

/// The verdict on a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum JobVerdict {
    /// A rank is slow and the cause is known. `unexplained` has the ranks that are slow besides, the costliest first.
    Chains {
        #[schema(value_type = Vec<Reason>)]
        unexplained: Vec<GivenReason>,
    },
    /// No rank is slow on the CPU. `least_wait_share`: the share of its time that even the rank that waits least waits,
    /// median over the run, 0 to 1.
    Healthy { ranks: usize, iterations: u64, least_wait_share: f64 },
    /// No verdict is possible.
    Unknown {
        #[schema(value_type = Reason)]
        reason: GivenReason,
    },
}

impl From<Verdict> for JobVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            // The chains themselves are listed once, in the document, beside those that were stored.
            Verdict::Chains { chains: _, unexplained } => {
                Self::Chains { unexplained: unexplained.into_iter().map(GivenReason::Known).collect() }
            }
            Verdict::Healthy { ranks, iterations, least_wait_share } => {
                Self::Healthy { ranks, iterations, least_wait_share }
            }
            Verdict::Unknown { reason } => Self::Unknown { reason: GivenReason::Known(reason) },
        }
    }
}

/// A reason; one that only a newer server gives is kept as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GivenReason {
    // Forward compatibility: `untagged` takes the first variant that fits, so an unknown reason is a value and no
    // error.
    Known(Reason),
    Newer(serde_json::Value),
}

impl fmt::Display for GivenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(reason) => reason.fmt(f),
            Self::Newer(reason) => reason.fmt(f),
        }
    }
}
