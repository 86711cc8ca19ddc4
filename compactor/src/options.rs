//! The options of the compactor.

use std::time::Duration;

use maintenance::{Limits, Policy};

/// How the compactor behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which files are merged, and to what.
    pub policy: Policy,
    /// What one rewrite may take. One runs at a time.
    pub limits: Limits,
    /// How long it waits when there is nothing to do.
    pub interval: Duration,
    /// Bytes of data files that are read in an hour at most; `None`: as fast as it can.
    pub bytes_per_hour: Option<u64>,
    /// How long a task is another compactor's when the one that took it is gone.
    pub lease: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            limits: Limits::default(),
            interval: Duration::from_secs(10),
            bytes_per_hour: None,
            lease: Duration::from_secs(60),
        }
    }
}
