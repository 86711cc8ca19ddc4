//! How complete an answer is: which nodes there are, which fell silent, what was lost on the way, and up to when
//! everything has landed. From `ops.ledger` and the ends of sessions in `silver.nodes`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use query_engine::time::rfc3339;
use query_engine::{Answer, AsOf, Engine, HOUSEKEEPING, QueryError, Scope, UsedSnapshot};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

mod extent;
mod facts;
mod progress;
mod subject;

pub use extent::Extent;
pub use facts::NodeFacts;
pub use progress::{Landing, StillLanding, settle};
pub use subject::Subject;

use facts::{About, read};

/// How far back to look for a node that is asked for by name, days. One that is not found is missing anyway.
const NAMED_DAYS: i64 = 30;
/// How far back to look for any data, step by step until some is found, days.
const LOOK_BACK_DAYS: [i64; 3] = [1, 30, 400];
/// How long what was read from the ledger is used again.
const FRESH: Duration = Duration::from_secs(1);

/// How complete an answer is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Completeness {
    /// Whether the question reads any table that has nodes. Without one all that follows is empty.
    pub about_nodes: bool,
    /// Nodes that have rows in the time the answer is about.
    pub nodes: usize,
    /// These, and the live ones that should have.
    pub nodes_expected: usize,
    /// Of those, the ones that are not missing.
    pub nodes_reporting: usize,
    /// Live nodes that fell silent before the end and whose agent has not ended. Recordings are never missing.
    pub missing: Vec<String>,
    /// Records of the kinds asked about that nodes made in that time and that will never land, those left out on
    /// purpose not counted.
    pub lost_events: i64,
    /// What landed in that time and a limit of the server kept from being looked at.
    pub unread_rows: u64,
    /// Up to when everything of every live node has landed, no later than the end of the time asked about, RFC 3339.
    /// `None` when the answer is about no live node: it is whole then.
    pub complete_to: Option<String>,
    /// Nodes of which something had not landed when the wait ended.
    pub still_landing: Vec<StillLanding>,
    /// The newest commit in the answer, RFC 3339.
    pub as_of: Option<String>,
    /// The snapshot of `silver.events` in the answer, when it reads it; else of its only table.
    pub snapshot_id: Option<i64>,
}

impl Completeness {
    /// Everything that was made is in the answer.
    pub fn is_complete(&self) -> bool {
        let is_here = self.missing.is_empty() && self.still_landing.is_empty();
        is_here && self.lost_events == 0 && self.unread_rows == 0
    }
}

/// A batch that is written so long after its last event shows that the agent did not keep up, microseconds. An agent
/// that keeps up writes a batch `agent.batch_age` after its first event, 250 ms by default.
pub(crate) const BEHIND_US: i64 = 500_000;

/// The condition on the ledger's rows about anything from a time on. A message without rows, which reports an agent's
/// last losses, has no time of its own but that of its landing.
pub(crate) fn made_since(time: &str) -> String {
    // The last term serves partition pruning alone: `ops.ledger` is partitioned by day(ingested_at). Its day of slack
    // is for nodes whose clocks are ahead, of which rows land before the time that they carry.
    format!(
        "(rows > 0 AND last_ts >= {time} OR rows = 0 AND ingested_at >= {time}) AND ingested_at >= {time} - INTERVAL '1 day'"
    )
}

/// The condition on its rows about anything up to a time.
pub(crate) fn made_by(time: &str) -> String {
    format!("(rows > 0 AND first_ts <= {time} OR rows = 0 AND ingested_at <= {time})")
}

/// What an answer's completeness is asked of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The stretch of time.
    pub extent: Extent,
    /// The records and tables.
    pub subject: Subject,
    /// Nodes asked for by name; all when empty. One that is not known is missing.
    pub asked: BTreeSet<String>,
    /// The nodes that the question's own conditions leave; `None` for all. One of these that has no rows is not
    /// missing.
    pub only: Option<BTreeSet<String>>,
}

impl Question {
    /// About events of all nodes.
    pub fn of_events(extent: Extent) -> Self {
        Self { extent, subject: Subject::events(), asked: BTreeSet::new(), only: None }
    }

    /// About these nodes; all when there are none.
    pub fn about(self, asked: BTreeSet<String>) -> Self {
        Self { asked, ..self }
    }

    /// About the rows of an answer to a statement, which was asked at `now_ms` (unix milliseconds).
    pub fn of_answer(answer: &Answer, scope: Scope, as_of: Option<AsOf>, now_ms: i64) -> Self {
        let extent = match as_of {
            None => Extent::now(now_ms),
            Some(AsOf::Time(at_ms)) => Extent::at(at_ms),
            // Time travel by snapshot: the other tables are read as of its commit, and so the ledger is too.
            Some(AsOf::Snapshot(_)) => {
                let newest = answer.snapshots().iter().filter_map(|used| used.committed_ms).max();
                Extent::at(newest.unwrap_or(now_ms))
            }
        };
        let narrowed = answer.narrowed();
        // Both bounds hold: `since` of the request, and the conditions of the statement as its scans were narrowed by
        // them.
        let extent = extent.since(scope.since_ms).since(narrowed.from_ms);
        Self {
            extent: narrowed.to_ms.map_or(extent, |to_ms| extent.until(to_ms)),
            subject: Subject::of(answer.snapshots()),
            asked: scope.nodes,
            only: narrowed.nodes,
        }
    }

    fn concerns(&self, node: &str) -> bool {
        let is_asked = self.asked.is_empty() || self.asked.contains(node);
        is_asked && self.only.as_ref().is_none_or(|only| only.contains(node))
    }
}

/// What was read last.
#[derive(Debug)]
struct Shared {
    read_at: Instant,
    subject: Subject,
    nodes: Arc<[NodeFacts]>,
}

impl Shared {
    /// Whether it was read a moment ago about the same records.
    fn answers(&self, subject: &Subject) -> bool {
        self.subject == *subject && self.read_at.elapsed() < FRESH
    }
}

/// Reads the ledger: its present state at most once a second for equal questions.
#[derive(Debug, Default)]
pub struct Ledger {
    last: Mutex<Option<Shared>>,
}

impl Ledger {
    /// The facts of each node that landed anything within a day or within the extent. Where there is none, of those
    /// that did within the last 400 days.
    ///
    /// # Errors
    /// The ledger cannot be read, or not within a few seconds.
    pub async fn nodes(&self, engine: &Engine, extent: Extent) -> Result<Arc<[NodeFacts]>, QueryError> {
        let nodes = self.nodes_by(engine, extent, &Subject::everything(), Instant::now() + HOUSEKEEPING).await?;
        if nodes.is_empty() { Ok(self.look_back(engine, extent, &[]).await?.into()) } else { Ok(nodes) }
    }

    /// Nodes of these names, or all when there are none, looked for further and further back until each is found.
    ///
    /// # Errors
    /// As [`Self::nodes`].
    pub async fn look_back(
        &self,
        engine: &Engine,
        extent: Extent,
        names: &[&String],
    ) -> Result<Vec<NodeFacts>, QueryError> {
        let by = Instant::now() + HOUSEKEEPING;
        // The stretch asked about has nothing, so its bounds are dropped.
        let extent = Extent::now(extent.seen_ms);
        let mut nodes = Vec::new();
        // Iterative deepening: most questions end with the first day, and 400 days may be all of the table.
        for days in LOOK_BACK_DAYS {
            let about = if names.is_empty() { About::Recent { days } } else { About::Named { names, days } };
            let reading = timeout_at(by, read(engine, extent, &Subject::everything(), about)).await;
            match reading {
                Ok(found) => nodes = found?,
                // Reports what was found so far; older rows cannot be read within the time limit.
                Err(_) if nodes.is_empty() => return Err(QueryError::Timeout { limit: HOUSEKEEPING }),
                Err(_) => return Ok(nodes),
            }
            if !nodes.is_empty() && names.iter().all(|name| is_known(&nodes, name)) {
                break;
            }
        }
        Ok(nodes)
    }

    async fn nodes_by(
        &self,
        engine: &Engine,
        extent: Extent,
        subject: &Subject,
        by: Instant,
    ) -> Result<Arc<[NodeFacts]>, QueryError> {
        let read = async {
            let recent = About::Recent { days: 1 };
            // Only the question about the present is cached: pages and scripts repeat it, a stretch of time is rarely
            // asked for twice.
            if extent != Extent::now(extent.seen_ms) {
                return Ok(read(engine, extent, subject, recent).await?.into());
            }
            // Held across the read, so that concurrent requests share one query (request coalescing) instead of a cache
            // stampede. The limit below bounds the wait for the lock as well.
            let mut last = self.last.lock().await;
            if let Some(shared) = last.as_ref().filter(|shared| shared.answers(subject)) {
                return Ok(Arc::clone(&shared.nodes));
            }
            let nodes: Arc<[NodeFacts]> = read(engine, extent, subject, recent).await?.into();
            *last = Some(Shared { read_at: Instant::now(), subject: subject.clone(), nodes: Arc::clone(&nodes) });
            Ok(nodes)
        };
        let limit = HOUSEKEEPING;
        timeout_at(by, read).await.unwrap_or(Err(QueryError::Timeout { limit }))
    }

    /// How complete an answer to the question over these snapshots is; `None` (and a line in the log) when the ledger
    /// cannot be read, or not by then.
    pub async fn of(
        &self,
        engine: &Engine,
        snapshots: &[UsedSnapshot],
        question: &Question,
        by: Option<Instant>,
    ) -> Option<Completeness> {
        match self.find(engine, snapshots, question, by).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(%error, "completeness is unknown: the ledger cannot be read");
                None
            }
        }
    }

    /// As [`Self::of`].
    ///
    /// # Errors
    /// The ledger cannot be read, or not by then.
    pub async fn find(
        &self,
        engine: &Engine,
        snapshots: &[UsedSnapshot],
        question: &Question,
        by: Option<Instant>,
    ) -> Result<Completeness, QueryError> {
        let Question { extent, subject, asked, .. } = question;
        let extent = *extent;
        // Of `SELECT 1` or `bronze.messages` no row has a node: there is nothing to read the ledger for.
        if !subject.has_nodes {
            return Ok(completeness(&[], question, snapshots));
        }
        let soon = Instant::now() + HOUSEKEEPING;
        // Completeness accompanies an answer: it takes a few seconds at most, and never more than the statement has
        // left.
        let by = by.map_or(soon, |by| by.min(soon));
        let mut nodes = self.nodes_by(engine, extent, subject, by).await?.to_vec();
        // A node that ended last week is not in the ledger's last day, but neither is it unknown.
        let names: Vec<&String> = asked.iter().filter(|name| !is_known(&nodes, name)).collect();
        let older = if !names.is_empty() {
            Some(About::Named { names: &names, days: NAMED_DAYS })
        } else if nodes.is_empty() && extent.from_ms.is_none() {
            // Nothing landed within a day: what there is is older.
            Some(About::Recent { days: NAMED_DAYS })
        } else {
            None
        };
        if let Some(about) = older {
            let found = timeout_at(by, read(engine, extent, subject, about)).await;
            nodes.extend(found.unwrap_or(Err(QueryError::Timeout { limit: HOUSEKEEPING }))?);
        }
        Ok(completeness(&nodes, question, snapshots))
    }
}

/// Whether a node of this name has landed anything in the time that was looked at.
fn is_known(nodes: &[NodeFacts], name: &str) -> bool {
    nodes.iter().any(|node| node.node == name)
}

/// Whether an answer about this stretch of time has, or should have, rows of the node.
fn is_expected(node: &NodeFacts, extent: &Extent) -> bool {
    node.has_rows || node.is_missing_from(extent)
}

fn completeness(nodes: &[NodeFacts], question: &Question, snapshots: &[UsedSnapshot]) -> Completeness {
    let Question { extent, subject, asked, .. } = question;
    let known: Vec<&NodeFacts> = nodes.iter().filter(|node| question.concerns(&node.node)).collect();
    // A node of which nothing has ever landed is as missing as one that fell silent.
    let unknown = asked.iter().filter(|name| subject.has_nodes && !is_known(nodes, name));
    let unknown: Vec<String> = unknown.cloned().collect();
    let lost_events = known.iter().map(|node| node.lost_events).sum();
    let expected: Vec<&NodeFacts> = known.into_iter().filter(|node| is_expected(node, extent)).collect();
    let silent = expected.iter().filter(|node| node.is_missing_from(extent)).map(|node| node.node.clone());
    let missing: Vec<String> = silent.chain(unknown.iter().cloned()).collect();
    let nodes_expected = expected.len() + unknown.len();
    // A low watermark over the live nodes. Recordings and ended runs make nothing more and do not hold it back.
    let going_on = expected.iter().filter(|node| node.live && node.ended_ms.is_none());
    let complete_to_ms = going_on.map(|node| node.complete_to_ms).min();
    // One id repeats the answer: as `snapshot` of a statement it pins that table, and the others as of its commit.
    let events = snapshots.iter().find(|used| used.table == "silver.events").or_else(|| snapshots.first());
    Completeness {
        about_nodes: subject.has_nodes,
        nodes: expected.iter().filter(|node| node.has_rows).count(),
        nodes_expected,
        // No underflow: what is missing was taken from the expected and the unknown nodes.
        nodes_reporting: nodes_expected - missing.len(),
        missing,
        lost_events,
        unread_rows: 0,
        // A node may have landed rows from after the end of the stretch, or have a clock that is ahead.
        complete_to: complete_to_ms.and_then(|ms| rfc3339(ms.min(extent.to_ms))),
        still_landing: Vec::new(),
        as_of: snapshots.iter().filter_map(|used| used.committed_ms).max().and_then(rfc3339),
        snapshot_id: events.and_then(|used| used.snapshot_id),
    }
}

#[cfg(test)]
mod tests;
