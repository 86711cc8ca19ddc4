//! Whether a query is being planned or runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a query is being planned or runs. What a constant expression makes while it is planned becomes a literal, which every
/// batch repeats for each of its rows. A part of a query may run while the rest is planned.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    running: AtomicUsize,
}

impl Phase {
    pub(crate) fn begin_running(&self) {
        self.running.fetch_add(1, Ordering::AcqRel);
    }

    /// Runs a part of the query until the value is dropped.
    pub(crate) fn run_part(self: &Arc<Self>) -> PartRuns {
        self.begin_running();
        PartRuns(Arc::clone(self))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }
}

/// A part of a query that runs.
#[derive(Debug)]
pub(crate) struct PartRuns(Arc<Phase>);

impl Drop for PartRuns {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
