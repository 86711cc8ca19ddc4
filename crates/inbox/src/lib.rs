//! The bulk path: objects that are dropped into a bucket become messages of the log.
//!
//! S3 announces an object in an SQS queue. [`Inbox::run`] takes the announcements ([`notice`]), reads each object in
//! ranges, sends its rows to the log ([`landing`]), waits until they have landed, tags the object, and deletes the
//! announcement last. A second landing of the same object adds nothing: its rows have the same identity (ADR 51).
//!
//! - [`config`]: the `[bulk]` section.
//! - `queue`: SQS; the only module that knows the SDK of AWS.
//! - `format`: what objects hold, recognised by their first bytes.
//! - `event`, `packer`: rows of events become messages.
//! - `handler`: how far one object is; `batch`: those that land together.
//! - `poison`: objects that cannot be landed go to a prefix and a queue of their own, with the cause.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]

mod batch;
pub mod config;
mod event;
mod format;
mod handler;
mod heartbeat;
mod inbox;
pub mod landing;
mod metrics;
pub mod notice;
mod packer;
mod poison;
mod queue;
mod retry;
mod source;
pub mod status;
mod temporary;

pub use format::FormatError;
pub use inbox::{Inbox, InboxError, Surroundings};
pub use metrics::Metrics;
pub use packer::PackError;
pub use queue::QueueError;
pub use temporary::Temporary;
