//! Whether a query is being planned or is running.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a query is being planned or is running. The planner replaces a constant expression by its value (constant
/// folding), which every batch then repeats for each of its rows. A part of a query may run while the rest is planned.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    // A count, not a flag: several parts may run at once, and the end of one must not end the phase of the others.
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
        // Also when the part failed or was cancelled (RAII): the rest of the query is still being planned.
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
