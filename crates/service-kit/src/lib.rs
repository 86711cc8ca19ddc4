//! What every program of Causeway shares and no user sees: configuration in layers ([`config`]), logs and metrics
//! ([`telemetry`]), the admin port ([`admin`]), start, drain and exit codes ([`run`]), version, completion script and
//! the command line of a service ([`program`]), addresses to listen on ([`listen`]), time ([`clock`]), threads of low
//! priority ([`threads`]), and directories that survive a power cut ([`durable`]).
//!
//! It names no event, no table and no service. Start reading at [`run::service`] and [`config::ConfigSource`].
#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, reason = "it panics where standard error is closed: `service_kit::run::note` does not")]
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

pub mod admin;
pub mod clock;
pub mod config;
pub mod durable;
pub mod listen;
pub mod program;
pub mod run;
pub mod telemetry;
pub mod threads;
