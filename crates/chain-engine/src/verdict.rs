//! Results of the engine: chains, healthy, or unknown and why; and the ranking behind it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chain::{Chain, Culprit};
use crate::format::{printable, rfc3339};

/// The result for one run of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Cluster of all its nodes.
    pub cluster: String,
    /// `None` for ranks whose job has no name.
    pub job_id: Option<String>,
    /// Nodes the ranks run on, sorted.
    pub nodes: Vec<String>,
    /// Start of the first iteration looked at, unix nanoseconds; 0 when there were none.
    pub first_ns: i64,
    /// End of the last iteration looked at, unix nanoseconds; 0 when there were none.
    pub last_ns: i64,
    /// Chains, healthy, or unknown.
    pub verdict: Verdict,
    /// Every rank, the one that costs most first.
    pub ranking: Vec<StragglerRank>,
    /// What the finding did not see.
    pub coverage: Coverage,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// A rank is slow and the cause is known; the most severe chain first. `unexplained` has the ranks that are slow
    /// besides, the costliest first.
    Chains { chains: Vec<Chain>, unexplained: Vec<Reason> },
    /// No rank is slow on the CPU. `least_wait_share`: the share of its time that even the rank that waits least waits,
    /// median over the run. Where it is large the GPU or the network paces the job, and a slow GPU of one rank would
    /// not show.
    Healthy { ranks: usize, iterations: u64, least_wait_share: f64 },
    /// Neither can be concluded.
    Unknown { reason: Reason },
}

/// Ranks named in a sentence.
const RANKS_SHOWN: usize = 8;

/// Why a run or a rank cannot be judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Too few ranks to say which is the odd one.
    TooFewRanks { ranks: usize, needed: usize },
    /// Ranks of the job were not seen, and the slow one may be among them.
    RanksMissing { seen: usize, world_size: usize },
    /// Too few iterations.
    TooLittleData { iterations: usize, needed: usize },
    /// Some ranks could not be compared for all of the run: they have too few iterations at the times of their peers'
    /// iterations.
    NotCompared { ranks: Vec<i32>, of: usize },
    /// Two processes were this rank at the same time: several jobs go by one name, or by none.
    SeveralJobs { rank: i32 },
    /// No rank is slow from `from_ns` (unix nanoseconds) on, and the iterations before were discarded to keep memory
    /// bounded.
    Forgotten { iterations: u64, from_ns: i64 },
    /// Rows of a node were lost, late or dropped: of the rank that seems slow, or else of the node with the largest
    /// share. With times: the node lost that share of what it made between them, and too few iterations lie outside.
    Incomplete {
        node: String,
        missing_share: f64,
        /// Unix nanoseconds.
        #[serde(default)]
        from_ns: Option<i64>,
        #[serde(default)]
        to_ns: Option<i64>,
    },
    /// A rank is slow, and its node sent no scheduler events.
    NoSchedulerData { node: String, rank: i32, ratio: f64 },
    /// A rank is slow, and waits for a CPU do not explain it.
    Unexplained { node: String, rank: i32, ratio: f64, shares: Shares },
    /// Every rank waits for a CPU to the same extent: none stands out.
    EveryRankPreempted { share: f64 },
}

/// The parts of a rank's excess time, as shares of it, each at least 0; they need not add up to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Shares {
    /// Runnable while processes outside the job ran.
    pub preempted: f64,
    /// Runnable while processes of the job itself ran.
    pub crowded_by_job: f64,
    /// Runnable while the CPU was idle, or while it is not known what ran.
    pub holder_unknown: f64,
    /// Asleep by its own choice.
    pub asleep: f64,
    /// Blocked uninterruptibly: I/O or kernel locks.
    pub uninterruptible: f64,
    /// In copy calls; overlaps the others.
    pub copying: f64,
    /// Bytes copied relative to the peers' median; 1 when neither copies.
    pub bytes_ratio: f64,
}

/// One rank among its peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StragglerRank {
    /// From 0.
    pub rank: i32,
    /// Name of its node.
    pub node: String,
    /// Its process on the node.
    pub pid: i32,
    /// Its thread that drives the GPU.
    pub tid: i32,
    /// Iterations judged: after the warm-up, outside heavy losses.
    pub iterations: usize,
    /// Median time per iteration not spent waiting for others, nanoseconds.
    pub busy_p50_ns: i64,
    /// Median time per iteration spent waiting for others, nanoseconds. The slow rank waits least.
    pub wait_p50_ns: i64,
    /// Busy time relative to the median of the peers.
    pub ratio: f64,
    /// Stretches of time in which it was slow, of those in which it was compared.
    pub slow_tiles: usize,
    /// Stretches of time in which it was compared with its peers.
    pub tiles: usize,
    /// Share of all its wall time that it was in excess of its peers while slow: what the job would gain at most.
    pub score: f64,
    /// Whether a chain blames it.
    pub is_blamed: bool,
    /// Why no chain blames it although it is slow; `None` for other ranks.
    pub unexplained: Option<Reason>,
    /// The parts of the excess; `None` for a rank without a lasting one.
    pub shares: Option<Shares>,
    /// The processes that had its CPU while it was slow, the one with the largest share first.
    pub culprits: Vec<Culprit>,
    /// Event ids of the waits for a CPU that cost it most while slow.
    pub evidence: Vec<String>,
}

/// The data that the answer rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Coverage {
    /// Rows of the job's ranks.
    pub rows: u64,
    /// Events that its nodes lost before they became rows, while its ranks ran.
    pub lost_events: u64,
    /// Those losses by node and time.
    pub losses: Vec<ChargedLoss>,
    /// Rows not used: late, with impossible times, without a needed duration, or beyond a bound of memory.
    pub left_out_rows: u64,
    /// Iterations discarded to keep memory bounded: the answer is about the later ones.
    pub iterations_forgotten: u64,
    /// Times rows were folded before the watermark to keep memory bounded.
    pub early_folds: u64,
    /// Nodes of which something is missing among the iterations judged, the one with the largest share first.
    pub incomplete_nodes: Vec<IncompleteNode>,
}

/// What a node lost while ranks of the job ran on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChargedLoss {
    /// Name of the node.
    pub node: String,
    /// First moment of the loss, unix nanoseconds.
    pub from_ns: i64,
    /// Last moment of the loss, unix nanoseconds.
    pub to_ns: i64,
    /// Events that never became rows.
    pub lost_events: u64,
    /// Events the node made in that time and meant to keep, those lost included.
    pub made_events: u64,
    /// Of these, the share that is missing, 0 to 1.
    pub share: f64,
    /// Whether the share is so large that iterations which overlap the time were left out.
    pub is_heavy: bool,
    /// Iterations of the job's ranks on the node that were left out for it.
    pub iterations_not_judged: u64,
}

/// A node whose rows are not all there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IncompleteNode {
    /// Name of the node.
    pub node: String,
    /// Share of what should have been rows that was lost or not used.
    pub missing_share: f64,
}

impl Coverage {
    /// Share of a node's rows that is missing.
    pub(crate) fn missing_share_of(&self, node: &str) -> f64 {
        self.incomplete_nodes.iter().find(|known| known.node == node).map_or(0.0, |known| known.missing_share)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewRanks { ranks, needed } => {
                write!(f, "{ranks} rank(s) seen and {needed} are needed to say which is the odd one")
            }
            Self::RanksMissing { seen, world_size } => {
                write!(f, "{seen} of {world_size} ranks seen; a slow one may be among those that were not")
            }
            Self::TooLittleData { iterations, needed } => {
                write!(f, "{iterations} iteration(s) seen and {needed} of every rank are needed")
            }
            Self::NotCompared { ranks, of } => {
                // A sentence has to stay readable for jobs of thousands of ranks; the number of them is given in full.
                let shown = ranks.iter().take(RANKS_SHOWN).map(i32::to_string).collect::<Vec<_>>().join(", ");
                let more = if ranks.len() > RANKS_SHOWN { ", ..." } else { "" };
                write!(
                    f,
                    "{} of {of} ranks have too few iterations beside their peers' to be compared all along: rank {shown}{more}",
                    ranks.len()
                )
            }
            Self::SeveralJobs { rank } => {
                write!(
                    f,
                    "several processes were rank {rank} at the same time: give each job an id of its own \
                     (CAUSEWAY_JOB_ID) to distinguish them"
                )
            }
            Self::Forgotten { iterations, from_ns } => {
                write!(
                    f,
                    "no rank stands out from {} on, and the {iterations} iterations before are more than can be kept: \
                     look at a shorter window",
                    rfc3339(*from_ns)
                )
            }
            Self::Incomplete { node, missing_share, from_ns: Some(from_ns), to_ns: Some(to_ns) } => {
                write!(
                    f,
                    "{:.1} % of the events that {} made from {} to {} are missing, and too few iterations lie outside that time",
                    missing_share * 100.0,
                    printable(node),
                    rfc3339(*from_ns),
                    rfc3339(*to_ns)
                )
            }
            Self::Incomplete { node, missing_share, .. } => {
                write!(f, "{:.1} % of the events of {} are missing", missing_share * 100.0, printable(node))
            }
            Self::NoSchedulerData { node, rank, ratio } => {
                let node = printable(node);
                write!(f, "rank {rank} on {node} is slower ({ratio:.1}x its peers), and no scheduler events say why")
            }
            Self::Unexplained { node, rank, ratio, shares } => {
                let node = printable(node);
                write!(
                    f,
                    "rank {rank} on {node} is slower ({ratio:.1}x its peers) but not explained by preemption: {shares}"
                )
            }
            Self::EveryRankPreempted { share } => {
                write!(f, "every rank is kept from its CPU alike ({:.0} % of the time): none stands out", share * 100.0)
            }
        }
    }
}

/// Bytes copied relative to the peers from which the sentence says so. A choice: it adds words and decides nothing.
const COPIES_MORE: f64 = 1.2;

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.preempted, "waiting for a CPU that others had"),
            (self.crowded_by_job, "waiting for a CPU that its own job had"),
            (self.holder_unknown, "runnable, CPU holder unknown"),
            (self.asleep, "asleep by its own choice"),
            (self.uninterruptible, "in I/O or kernel locks"),
        ];
        for (share, what) in parts {
            write!(f, "{:.0} % {what}, ", (share * 100.0).round())?;
        }
        // Each share is one of the excess over the peers, so that together they may pass 1.
        let rest = (1.0 - parts.iter().map(|(share, _)| share).sum::<f64>()).max(0.0);
        write!(f, "{:.0} % running", (rest * 100.0).round())?;
        if self.bytes_ratio >= COPIES_MORE {
            write!(f, "; it copies {:.1}x the bytes of its peers", self.bytes_ratio)?;
        }
        Ok(())
    }
}
