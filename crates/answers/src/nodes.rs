//! The nodes that report, and those that fell silent.

use query_engine::QueryError;
use query_engine::time::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answers::Answers;
use crate::completeness::{Completeness, Extent, NodeFacts, Question, Subject};
use crate::untraced::{Untraced, UntracedOf};

/// Every node that landed anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nodes {
    /// By name.
    pub nodes: Vec<Node>,
    /// Processes that map a CUDA or NCCL library and are not traced.
    pub untraced: Vec<Untraced>,
    /// `null` where the ledger cannot be read.
    pub completeness: Option<Completeness>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// The cluster that its newest landing named.
    pub cluster: String,
    /// The version of its agent.
    pub agent: Option<String>,
    /// Whether it goes on reporting.
    pub status: NodeStatus,
    /// Its rows landed soon after they were made; a recording's do not.
    pub live: bool,
    /// Rows that landed.
    pub rows: i64,
    /// Records that its agent made.
    pub emitted: i64,
    /// Records that it made and that will never land.
    pub lost_events: i64,
    /// Records that were left out on purpose.
    pub sampled_out: i64,
    /// Its oldest record in the time looked at, RFC 3339.
    pub first_event: Option<String>,
    /// Its newest record, RFC 3339.
    pub last_event: Option<String>,
    /// When anything of each of its streams landed last, RFC 3339.
    pub last_landed: Option<String>,
    /// Up to when every stream of events of its agent's latest run has landed, RFC 3339.
    pub complete_to: Option<String>,
    /// The end that its agent reported, RFC 3339.
    pub ended_at: Option<String>,
    /// From `complete_to` until now, milliseconds; `null` for a node that makes nothing more.
    pub lag_ms: Option<i64>,
}

/// Whether a node goes on reporting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// It was recorded elsewhere, and imported.
    Recording,
    /// Its agent reported its end.
    Ended,
    /// Nothing of it has landed for two minutes.
    Silent,
    Reporting,
}

impl NodeStatus {
    /// The name in a document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Reporting => "reporting",
        }
    }

    fn of(node: &NodeFacts, extent: &Extent) -> Self {
        match node {
            // First, because the run that a recording holds may have an end of its own.
            node if !node.live => Self::Recording,
            node if node.ended_ms.is_some() => Self::Ended,
            node if node.is_missing_from(extent) => Self::Silent,
            _ => Self::Reporting,
        }
    }
}

impl Node {
    fn of(node: &NodeFacts, extent: &Extent) -> Self {
        // Lag is the age of the low watermark; a node that makes nothing more has none.
        let goes_on = node.live && node.ended_ms.is_none();
        Self {
            node: node.node.clone(),
            cluster: node.cluster.clone(),
            agent: node.agent.clone(),
            status: NodeStatus::of(node, extent),
            live: node.live,
            rows: node.rows,
            emitted: node.emitted,
            lost_events: node.lost_events,
            sampled_out: node.sampled_out,
            first_event: rfc3339(node.first_event_ms),
            last_event: rfc3339(node.last_event_ms),
            last_landed: rfc3339(node.landed_ms),
            complete_to: rfc3339(node.complete_to_ms),
            ended_at: node.ended_ms.and_then(rfc3339),
            // A clock that is ahead puts `complete_to` into the future.
            lag_ms: goes_on.then_some((extent.to_ms - node.complete_to_ms).max(0)),
        }
    }
}

/// Why there is no answer about a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("no node `{name}` has landed anything")]
    Unknown { name: String },
}

impl Answers {
    /// The nodes that landed anything within a day, or else within the last 400 days.
    ///
    /// # Errors
    /// The lake cannot be read, or not within a few seconds.
    pub async fn nodes(&self) -> Result<Nodes, QueryError> {
        let now_ms = self.now_ms();
        let extent = Extent::now(now_ms);
        let facts = self.ledger.nodes(&self.engine, extent).await?;
        let everything = Question { subject: Subject::everything(), ..Question::of_events(extent) };
        // Without snapshots: the answer is made from the ledger alone. The facts were read just now, and mostly come
        // from the cache.
        let completeness = self.ledger.of(&self.engine, &[], &everything, None).await;
        let untraced = self.untraced((now_ms, now_ms), UntracedOf::default(), None).await?;
        Ok(Nodes { nodes: facts.iter().map(|node| Node::of(node, &extent)).collect(), untraced, completeness })
    }

    /// One node.
    ///
    /// # Errors
    /// Nothing has landed of a node of that name, or the lake cannot be read.
    pub async fn node(&self, name: &String) -> Result<Node, NodeError> {
        let extent = Extent::now(self.now_ms());
        let facts = self.ledger.look_back(&self.engine, extent, &[name]).await?;
        let found = facts.iter().find(|node| node.node == *name);
        found.map(|node| Node::of(node, &extent)).ok_or_else(|| NodeError::Unknown { name: name.clone() })
    }
}
