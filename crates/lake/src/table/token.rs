//! The name of a change of a table, the same on every attempt.

use std::fmt;

use uuid::Uuid;

/// Names one change on every attempt to commit it, so that a commit whose reply was lost is recognised in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Uuid);

impl Token {
    /// A token for a new change. Keep it with the change: a new token is a new change.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// A token chosen by the caller, for runs that must be repeatable.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Reads the form [`Token`]'s `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// The id of the snapshot that the change adds: the same on every attempt, so that a change cannot be two
    /// snapshots.
    pub(crate) fn snapshot_id(self) -> i64 {
        // Both halves of the UUID folded into 63 bits: Iceberg reads -1 as no snapshot, so that ids are positive.
        let (high, low) = self.0.as_u64_pair();
        ((high ^ low) >> 1).cast_signed().max(1)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}
