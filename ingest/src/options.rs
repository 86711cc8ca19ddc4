//! The options of ingest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How ingest behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A batch is landed when it is this old.
    pub commit_interval: Duration,
    /// A table without new rows is committed after this time, so that recovery has little to read again; after twelve
    /// times this while it lies only a thousand messages behind.
    pub idle_commit_interval: Duration,
    /// Memory for messages that were read and have not landed, and for what tables make of them meanwhile: half each.
    pub memory_bytes: u64,
    /// What to do when retention has deleted messages before they were read.
    pub on_gap: OnGap,
    /// What to do when the log is another one than the tables were filled from.
    pub on_new_log: OnNewLog,
    /// How long the tables must not move on a log that is gone until no other process lands anything of it any more,
    /// and the log that took its place is read. Zero: no other process reads the log.
    pub former_owner: Duration,
    /// How long landing what was read may take once ingest is to end.
    pub drain_limit: Duration,
    /// Messages of a partition after which what was seen of it is kept again, so that recovery reads no more of the
    /// ledger.
    pub checkpoint_every: u32,
    /// When ingest ends by itself.
    pub until: Until,
}

/// What to do when the log no longer holds what the tables expect next. A log that the tables have never seen may begin
/// anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// End with an error that names the offsets.
    #[default]
    Stop,
    /// Go on with the oldest message, and record in every table what is missing.
    Record,
}

/// What to do when the log under a name is another one than the tables were filled from: the topic was deleted and made
/// anew, or truncated and written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNewLog {
    /// End with an error that names both identities. Nothing of the other log has landed.
    #[default]
    Stop,
    /// Keep what has landed, and read the other log from its oldest message on under a name of its own: `topic@2`,
    /// `topic@3`.
    Follow,
}

/// When ingest ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is drained.
    Drained,
    /// When it has landed what the log held when it began to read.
    CaughtUp,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(1),
            idle_commit_interval: Duration::from_secs(10),
            memory_bytes: 256 << 20,
            on_gap: OnGap::Stop,
            on_new_log: OnNewLog::Stop,
            former_owner: Duration::ZERO,
            // Below the 30 s after which Kubernetes kills a pod (`terminationGracePeriodSeconds`).
            drain_limit: Duration::from_secs(25),
            checkpoint_every: 1 << 16,
            until: Until::Drained,
        }
    }
}
