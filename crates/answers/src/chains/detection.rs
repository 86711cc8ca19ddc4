//! What was found in a window, in the types of the chain engine.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chain_engine::{Chain, Finding};
use query_engine::UsedSnapshot;

use super::slices::Slices;
use crate::window::Window;

/// What was found in a window.
#[derive(Debug)]
pub struct Detection {
    /// One per run of a job.
    pub findings: Vec<Finding>,
    /// Found and stored chains, the most severe first, then the latest.
    pub chains: Vec<Chain>,
    /// Nodes that have events or chains in the window.
    pub nodes: BTreeSet<String>,
    /// What was read.
    pub snapshots: Vec<UsedSnapshot>,
    /// How much of the window was looked at.
    pub looked_at: LookedAt,
}

/// How much of the window was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAt {
    /// Where looking began, unix nanoseconds: later than the window when it has more events than are looked at.
    pub from_ns: i64,
    /// Unix nanoseconds, inclusive.
    pub to_ns: i64,
    /// Events looked at.
    pub events: u64,
    /// Events and stored chains of the window beyond the limits.
    pub unread: u64,
}

impl LookedAt {
    pub(super) fn of(slices: &Slices, unread_chains: u64, window: &Window) -> Self {
        // No slice: the window has no events, and all of it was looked at.
        let from_ns = slices.slices.first().map_or(window.from_ns, |first| *first.start());
        Self { from_ns, to_ns: window.to_ns, events: slices.events, unread: slices.unread + unread_chains }
    }
}

/// The most severe first, then the latest.
pub(super) fn by_severity(a: &Chain, b: &Chain) -> Ordering {
    // The ids make the order total: chains of equal severity and time come in the same order on every call.
    (b.severity, b.last_seen_ns, &a.id).cmp(&(a.severity, a.last_seen_ns, &b.id))
}

impl Detection {
    /// Leaves out what concerns none of these nodes; nothing when there are none. The others of a job were its peers
    /// all the same.
    pub(super) fn narrow(&mut self, nodes: &BTreeSet<String>) {
        if nodes.is_empty() {
            return;
        }
        self.nodes.retain(|node| nodes.contains(node));
        self.chains.retain(|chain| nodes.contains(&chain.node));
        self.findings.retain(|finding| finding.nodes.iter().any(|node| nodes.contains(node)));
    }
}
