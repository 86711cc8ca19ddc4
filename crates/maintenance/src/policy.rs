//! What is configured: which files are worth a rewrite, and what a rewrite may take.

use std::path::PathBuf;
use std::time::Duration;

/// Which files are merged, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Size that files are merged to, bytes.
    pub target_bytes: u64,
    /// So many files of one level are merged into one of the next, at least 2. A row is rewritten about as often as the
    /// logarithm to this base of (rows of a target file / rows of a commit).
    pub fan_in: usize,
    /// Files that one commit takes away at most, at least `fan_in`.
    pub files_per_commit: usize,
    /// A day has no more rows to come when it ended so long ago and got no file since.
    pub quiet: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { target_bytes: 128 << 20, fan_in: 8, files_per_commit: 128, quiet: Duration::from_secs(3_600) }
    }
}

impl Policy {
    /// Whether a file of so many bytes is merged no more.
    pub(crate) fn is_full(&self, bytes: u64) -> bool {
        // Two thirds: files that are cut at the target, and two halves of one and a half targets, are full.
        bytes.saturating_mul(3) >= self.target_bytes.saturating_mul(2)
    }

    /// How many files so many bytes become: the nearest number of target sizes, at least one.
    pub(crate) fn files_of(&self, bytes: u64) -> u64 {
        // Rounded to the nearest: rounded up, the last file would often be a small one, and be merged again.
        let target = self.target_bytes.max(1);
        (bytes.saturating_add(target / 2) / target).max(1)
    }
}

/// What one rewrite may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory, bytes; the parts of a file that are being sent come on top ([`objects::PART_BYTES`]).
    pub memory_bytes: usize,
    /// Directory in which sorted runs lie that do not fit into the memory. They are removed at the end.
    pub spill: PathBuf,
    /// Bytes of such runs at most.
    pub spill_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, spill: std::env::temp_dir(), spill_bytes: 16 << 30 }
    }
}
