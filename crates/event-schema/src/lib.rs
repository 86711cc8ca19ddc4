//! The one definition of an event: what sources, operations and fields exist ([`catalog`], [`kind`]), who made a record
//! and when ([`identity`], [`stream`], [`clock`]), what was lost on the way ([`loss`]), how rows travel ([`batch`],
//! [`codec`], [`wire`]) and where a message lies in the log ([`position`]).
//!
//! Pure: no tokio, no I/O, no clock, no environment, no logging. Everything generated from here (the probes' C header,
//! the event reference) comes out of [`generate`]. Start reading at [`kind`], then [`wire`].
#![forbid(unsafe_code)]
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

pub mod batch;
pub mod catalog;
pub mod clock;
pub mod codec;
pub mod generate;
pub mod identity;
pub mod kind;
pub mod loss;
pub mod position;
pub mod sketch;
pub mod stream;
pub mod topics;
pub mod wire;
