//! The reference tracer's own rules, for comparison: a node's events are replayed in order of time, with a look at
//! every second, and give a chain for every operation whose tail is long while the host shows a possible cause. The
//! rules count what happened since the beginning of the window and do not check whether it overlaps the slow calls; the
//! rest of this crate does.
//!
//! Replayed are the rules of long tails, of dropped throughput, of the OOM killer, of TCP retransmissions, and of
//! restarted and evicted pods. Those of noisy neighbours and of CUDA graphs rest on what only the tracer itself sees
//! while it runs.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};

use crate::chain::Chain;
use crate::columns::{ColumnError, integer, narrow, required, text};

mod evidence;
mod ops;
mod report;
#[cfg(test)]
mod tests;

pub use evidence::SystemPeak;

use evidence::Evidence;
use ops::Ops;
use report::Reporter;

/// The columns a replay reads; project these, and sort by `ts_ns`.
pub const COLUMNS: [&str; 8] = ["cluster", "node", "ts_ns", "source", "op", "duration_ns", "arg0", "arg1"];

/// Time between two looks, nanoseconds, as in the reference: it runs from the event that took the last look to the next
/// event that takes one.
const LOOK_EVERY_NS: i64 = 1_000_000_000;

/// One event as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    ts_ns: i64,
    source: i32,
    op: i32,
    /// Absent when it was not measured.
    duration_ns: Option<i64>,
    arg0: i64,
    arg1: i64,
}

/// A replay of many nodes, each by itself, as each node's own tracer would see it.
#[derive(Debug, Default)]
pub struct Replay {
    nodes: BTreeMap<(String, String), NodeReplay>,
}

impl Replay {
    /// Adds the worst that a node's system snapshots of the window show.
    pub fn note_system(&mut self, cluster: &str, node: &str, peak: SystemPeak) {
        self.node(cluster, node).evidence.system = Some(peak);
    }

    /// Takes events in order of time; [`COLUMNS`] says which columns are read.
    ///
    /// # Errors
    /// A column is missing, has a type that does not fit, or is null where it must not be; no row of the batch is taken
    /// then.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), ColumnError> {
        let cluster = required(batch, "cluster", text)?;
        let node = required(batch, "node", text)?;
        let ts_ns = required(batch, "ts_ns", integer)?;
        let source = required(batch, "source", integer)?;
        let op = required(batch, "op", integer)?;
        let duration_ns = integer(batch, "duration_ns")?;
        let arg0 = required(batch, "arg0", integer)?;
        let arg1 = required(batch, "arg1", integer)?;
        for row in 0..cluster.len() {
            // Rows are not checked for order: the statement that reads them sorts by `ts_ns`, as a live tracer sees
            // them.
            let event = Event {
                ts_ns: ts_ns.value(row),
                source: narrow(source.value(row)),
                op: narrow(op.value(row)),
                duration_ns: duration_ns.is_valid(row).then(|| duration_ns.value(row)),
                arg0: arg0.value(row),
                arg1: arg1.value(row),
            };
            self.node(cluster.value(row), node.value(row)).observe(event);
        }
        Ok(())
    }

    /// Names of the nodes replayed, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(|(_, node)| node.as_str())
    }

    /// The chains of every node, at most one for each operation.
    pub fn finish(self) -> Vec<Chain> {
        self.nodes.into_iter().flat_map(|((_, node), replay)| replay.finish(&node)).collect()
    }

    fn node(&mut self, cluster: &str, node: &str) -> &mut NodeReplay {
        self.nodes.entry((cluster.to_owned(), node.to_owned())).or_default()
    }
}

/// The replay of one node.
#[derive(Debug, Default)]
struct NodeReplay {
    ops: Ops,
    evidence: Evidence,
    first_ns: Option<i64>,
    now_ns: i64,
    look_after_ns: Option<i64>,
    /// The most severe chain by layer and operation; of equals the first.
    found: BTreeMap<(String, String), Chain>,
}

impl NodeReplay {
    fn observe(&mut self, event: Event) {
        self.ops.observe(&event);
        self.evidence.observe(&event);
        // A row that is out of order does not set the clock back.
        self.now_ns = self.now_ns.max(event.ts_ns);
        self.first_ns.get_or_insert(event.ts_ns);
        let next_ns = event.ts_ns.saturating_add(LOOK_EVERY_NS);
        // The first event only sets the time: nothing is looked at before a second has passed.
        if event.ts_ns > *self.look_after_ns.get_or_insert(next_ns) {
            self.look_after_ns = Some(next_ns);
            self.look(false);
        }
    }

    /// Takes a look over the latest calls of each operation, or over all of them.
    fn look(&mut self, over_all: bool) {
        let stats = self.ops.look(self.now_ns, over_all);
        let reporter = Reporter::new(&self.evidence, self.first_ns.unwrap_or(self.now_ns), self.now_ns);
        for chain in reporter.chains(&stats) {
            // The last step is the symptom, by which chains of later looks are recognised as the same (deduplication).
            let last = chain.timeline.last().map(|step| (step.layer.clone(), step.op.clone()));
            let Some(key) = last else { continue };
            match self.found.get(&key) {
                // The counts grow with every look, so that a later chain of the same severity differs in its figures
                // only.
                Some(known) if known.severity >= chain.severity => {}
                _ => _ = self.found.insert(key, chain),
            }
        }
    }

    fn finish(mut self, node: &str) -> Vec<Chain> {
        // One more look over the latest calls, for the events since the last one, then a look over the whole window: a
        // tail may show in one of the two alone.
        self.look(false);
        self.look(true);
        let mut chains = Vec::with_capacity(self.found.len());
        for chain in self.found.into_values() {
            chains.push(Chain { id: format!("{node}:{}", chain.id), node: node.to_owned(), ..chain });
        }
        chains
    }
}
