//! The changes that can be committed to a table. Each action says whether it may land on a head and what it makes of
//! it; the protocol reads heads, sends, resolves lost replies and repeats.
//!
//! An action describes the next version by updates of the current one, so that offsets, gaps, tokens and attachments
//! are carried on unless it changes them.

mod append;
mod delete_files;
mod evolve;
mod expire;
mod files;
mod pin;
mod properties;
mod remake;
mod replace;
mod roll_back;

use async_trait::async_trait;
use iceberg::spec::DataFile;

pub(crate) use append::{Append, AppendRefusal};
pub use append::{BatchFacts, CommitRequest, Decision, Next, advance, after, decide};
pub use delete_files::DeleteFiles;
pub use evolve::Evolve;
pub use expire::Expire;
pub use files::{NotLive, still_live};
pub use pin::PinSnapshot;
pub use properties::SetProperties;
pub use remake::Remake;
pub use replace::{Replace, RowCount};
pub use roll_back::{Earlier, RollBack, take_back};

use super::base::Base;
use super::change::Change;
use super::outcome::{CommitError, Conflict};

/// A kind of change.
#[async_trait]
pub(crate) trait Action: Send + Sync {
    /// Why it is not to land on a head.
    type Refusal: Send;
    /// What the check read of a head that making the version needs too.
    type Found: Send;

    /// A mistake of the caller that would damage the table.
    fn problem(&self) -> Option<String> {
        None
    }

    /// Data files that the action adds; `None` when it adds none by its nature.
    fn adds(&self) -> Option<&[DataFile]> {
        None
    }

    /// Whether the action may land on this head.
    async fn check(&self, base: &Base<'_>) -> Result<Checked<Self::Found, Self::Refusal>, CommitError>;

    /// Makes the next version from this head.
    async fn apply(&self, base: &Base<'_>, found: Self::Found) -> Result<Change, CommitError>;
}

/// The answer of [`Action::check`].
#[derive(Debug)]
pub(crate) enum Checked<F, R> {
    Valid(F),
    Refused(R),
}

/// Every action but [`Append`]: what maintains a table beside its writers.
#[derive(Debug, Clone)]
pub enum Maintenance {
    /// Puts rewritten files in the place of others.
    Replace(Replace),
    /// Puts rows made anew from their messages in the place of the former ones.
    Remake(Remake),
    /// Takes files away with their rows.
    DeleteFiles(DeleteFiles),
    /// Takes snapshots out of the metadata.
    Expire(Expire),
    /// Keeps a snapshot in the metadata.
    Pin(PinSnapshot),
    /// Sets and removes properties.
    SetProperties(SetProperties),
    /// Brings schema and partition spec to a definition.
    Evolve(Box<Evolve>),
    /// Makes an older snapshot current again, with its offsets.
    RollBack(RollBack),
}

/// The answer of a pure check of a maintenance action.
pub(super) fn checked<F>(valid: Result<F, Conflict>) -> Checked<F, Conflict> {
    match valid {
        Ok(found) => Checked::Valid(found),
        Err(conflict) => Checked::Refused(conflict),
    }
}
