//! What a reply to a commit means: pure, without I/O, clock or randomness. The model checker runs these very functions.

use event_schema::position::TopicPartition;
use uuid::Uuid;

use crate::table::Token;
use crate::table::positions::HeadFacts;

/// The part of an attempt that is the same for every action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The table that the change was made for.
    pub table: Uuid,
    /// The highest sequence number this process has seen of the table.
    pub seen_sequence: i64,
    /// The same on every attempt of one change.
    pub token: Token,
}

/// Why a writer must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    #[error("the table was replaced: expected uuid {expected}, found {found}; restart to write to the new table")]
    TableReplaced { expected: Uuid, found: Uuid },
    #[error("the table is gone from the catalog; restart to make it again")]
    TableDropped,
    #[error(
        "the table went back from sequence number {seen} to {found}: restored from a backup or a stale replica; restart to land again what it lost"
    )]
    WentBack { seen: i64, found: i64 },
    #[error(
        "the table has rows but not all of its causeway.offset properties: another program removed them; restore them before going on"
    )]
    OffsetsMissing,
    #[error("the batch starts at {at}:{start} but the table expects offset {expected}: {missing} offsets would be lost", missing = start - expected)]
    Gap { at: TopicPartition, expected: i64, start: i64 },
    #[error("the table was altered under its writer: {0}; restart to check it again")]
    Altered(String),
    #[error("the request is malformed: {0}")]
    Request(String),
}

/// What came back from a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    Applied,
    /// The table had moved: nothing was changed.
    Lost,
    /// The request never left.
    NotSent,
    /// The request left, and no reply came back.
    Unknown,
}

/// What a reply means, given the head read after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The change is in the table.
    Committed,
    /// The change is not in the head: it may be committed, if it is still valid there. After [`Reply::Unknown`] it must
    /// be sent again and not given up: the lost request may be applied still, and of two commits from one base one must
    /// fail.
    Open,
    /// The table is not the one that the change was made for.
    Stop(StopReason),
}

/// Says what a reply means. `head` was read after the reply (for [`Reply::Applied`] it does not matter).
///
/// The token only identifies the commit. The check of the action and the swap ensure that nothing lands twice.
pub fn resolve(reply: Reply, head: &HeadFacts, attempt: &Attempt) -> Resolved {
    // A token counts only in the table that the change was made for.
    let is_ours = head.table == attempt.table && head.tokens.contains(&attempt.token);
    if reply == Reply::Applied || is_ours {
        return Resolved::Committed;
    }
    // Before the sequence numbers: those of another table cannot be compared.
    if head.table != attempt.table {
        return Resolved::Stop(StopReason::TableReplaced { expected: attempt.table, found: head.table });
    }
    // In one table they never fall (Iceberg spec, "Sequence Numbers"). An older copy has older offsets: rows would land
    // twice.
    if head.sequence < attempt.seen_sequence {
        return Resolved::Stop(StopReason::WentBack { seen: attempt.seen_sequence, found: head.sequence });
    }
    Resolved::Open
}
