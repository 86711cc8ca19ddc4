//! A causal chain: what was slow, what caused it, by what evidence. Chains the engine found and chains the reference
//! tracer stored have the same form, so that both are shown alike. A field that one of them does not have is `None`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Severity, ordered from low to high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    Low,
    Medium,
    High,
}

/// Slowdown of the whole job from which a chain is of high severity: what an iteration takes longer, relative to its
/// time without the fault. A choice: it moves chains between the levels and decides nothing else.
const HIGH_SLOWDOWN: f64 = 0.3;
/// The same for medium severity. A choice.
const MEDIUM_SLOWDOWN: f64 = 0.1;

impl Severity {
    /// The severity of a slowdown of the whole job.
    pub(crate) fn of_slowdown(slowdown: f64) -> Self {
        match slowdown {
            s if s >= HIGH_SLOWDOWN => Self::High,
            s if s >= MEDIUM_SLOWDOWN => Self::Medium,
            _ => Self::Low,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
        }
    }

    /// The severity of that name in any case; `None` for another word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|severity| severity.name().eq_ignore_ascii_case(name))
    }
}

/// The class of a root cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The rank's thread was runnable but not running, because processes outside the job had its CPU.
    CpuPreemption,
    /// One of the reference tracer's rules held; [`Chain::root_cause`] has the cause it names.
    ReferenceRule,
    /// As reported by the tracer the chain was imported from; [`Chain::root_cause`] has its words.
    Reported,
}

impl Cause {
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuPreemption => "cpu-preemption",
            Self::ReferenceRule => "reference-rule",
            Self::Reported => "reported",
        }
    }
}

/// One step from cause to symptom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `HOST`, `CUDA`, `SYSTEM`, ... as sources are named.
    pub layer: String,
    /// Operation, cgroup metric or pod event, by its name in the layer.
    pub op: String,
    /// Counts, times and shares in words.
    pub detail: String,
    /// Unix nanoseconds; `None` where unknown.
    pub at_ns: Option<i64>,
    /// Nanoseconds, of one wait or of all the step sums up; `None` where unknown.
    pub duration_ns: Option<i64>,
}

/// A process that used a CPU while a rank waited for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Culprit {
    /// Process number on the node of the rank.
    pub pid: i32,
    /// The process's own name; `None` where only its threads were seen.
    pub name: Option<String>,
    /// Whether it is a program of Causeway.
    pub is_causeway: bool,
    /// Of the time that the rank waited for CPUs that others had, 0 to 1.
    pub share: f64,
}

/// A causal chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Chain {
    /// The same for the same spell of the same rank, however often and from whatever order of rows it is derived.
    pub id: String,
    /// From the slowdown of the job (found), or as reported.
    pub severity: Severity,
    /// One line, without severity and node.
    pub summary: String,
    /// Class of the root cause.
    pub cause: Cause,
    /// The cause in words.
    pub root_cause: String,
    /// Several sentences with the figures behind the summary.
    pub explanation: Option<String>,
    /// What to do, the most useful first.
    pub fixes: Vec<String>,
    /// Name of the node of the blamed rank, or the one that reported the chain.
    pub node: String,
    /// `None` for a job without a name, and for reported chains.
    pub job_id: Option<String>,
    /// Rank blamed, from 0; `None` for reported chains that name none.
    pub rank: Option<i32>,
    /// Process of the rank blamed, by its number on the node.
    pub pid: Option<i32>,
    /// Its thread that drives the GPU.
    pub tid: Option<i32>,
    /// What was slow. `iteration`: the time of an iteration that was not spent waiting for others.
    pub op: Option<String>,
    /// Median over the peers (found chains) or over all calls (reported ones).
    pub p50_ns: Option<i64>,
    /// 99th percentile of the blamed rank (found) or over all calls (reported).
    pub p99_ns: Option<i64>,
    /// p99 / p50.
    pub ratio: Option<f64>,
    /// 0 to 1; not calibrated.
    pub confidence: Option<f64>,
    /// Share of the slowdown that the cause explains, 0 to 1.
    pub explained_share: Option<f64>,
    /// What the slowdown cost an iteration on average while it lasted, nanoseconds.
    pub cost_per_iteration_ns: Option<i64>,
    /// The processes blamed, the one with the largest share first.
    pub culprits: Vec<Culprit>,
    /// Unix nanoseconds, start of the first iteration affected; of a reported chain, when it was detected.
    pub first_seen_ns: i64,
    /// Unix nanoseconds, end of the last iteration affected; of a reported chain, when it was detected.
    pub last_seen_ns: i64,
    /// Iterations of the slow spells that took longer than the reference by a tenth or more.
    pub iterations_affected: Option<u64>,
    /// Iterations of the rank that were judged.
    pub iterations_total: Option<u64>,
    /// From cause to symptom.
    pub timeline: Vec<Step>,
    /// Event ids, the weightiest first.
    pub evidence: Vec<String>,
}

impl Chain {
    /// A chain as another tracer reported it, with the optional parts empty for the caller to fill.
    pub fn reported(
        id: impl Into<String>,
        node: impl Into<String>,
        severity: Severity,
        summary: impl Into<String>,
        detected_ns: i64,
    ) -> Self {
        Self {
            id: id.into(),
            severity,
            summary: summary.into(),
            cause: Cause::Reported,
            root_cause: String::new(),
            explanation: None,
            fixes: Vec::new(),
            node: node.into(),
            job_id: None,
            rank: None,
            pid: None,
            tid: None,
            op: None,
            p50_ns: None,
            p99_ns: None,
            ratio: None,
            confidence: None,
            explained_share: None,
            cost_per_iteration_ns: None,
            culprits: Vec::new(),
            first_seen_ns: detected_ns,
            last_seen_ns: detected_ns,
            iterations_affected: None,
            iterations_total: None,
            timeline: Vec::new(),
            evidence: Vec::new(),
        }
    }
}

/// FNV-1a over the parts, each ended by a zero byte: stable over versions and machines, which the standard hasher is
/// not.
pub(crate) fn stable_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flat_map(|part| part.iter().copied().chain([0]));
    // Offset basis and prime of FNV-1a for 64 bits.
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
