//! Databases that the reference tracer (`ingero trace`) recorded become messages like an agent's.
//!
//! A program opens a [`Target`] over a [`Destination`], reads each file with [`Recording::survey`] and sends what is
//! new in it with [`Recording::send`]; [`Target::finish`] returns once all of it has arrived. A file is read to its end
//! before anything of it is sent, so that a bad one changes nothing. Rows that have landed already are not sent again:
//! importing twice changes nothing.
//!
//! Nothing here prints, reads arguments or ends the process. Progress is reported to a [`Progress`]; the result of a
//! file is an [`Imported`]. A [`Drain`](service_kit::run::Drain) ends the reading of files and the waiting early;
//! [`Target::open`] reads what has landed to its end. The futures can be spawned.
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

mod compare;
mod destination;
mod digest;
mod error;
mod imported;
mod ingero;
mod kafka;
mod keys;
pub mod landed;
mod packer;
mod progress;
mod recording;
mod settle;
mod snapshot;

pub use compare::{Landed, Sample, Tally};
pub use destination::{Destination, DestinationError, Target};
pub use error::RecordingError;
pub use imported::{Faults, Imported, Misfits};
pub use ingero::{IngeroError, Misfit};
pub use kafka::ToKafka;
pub use packer::PackError;
pub use progress::{Progress, Step};
pub use recording::{Options, Recording};
pub use snapshot::form::FormError;
pub use snapshot::{Reading, SnapshotError, remove_stale};
