//! The query engine: a statement in, batches of rows out, over one snapshot of each table.
//!
//! ```text
//! text ─ Statement::parse ─► Statement ─ resolve ─► tables at one snapshot ─ plan ─► execution ─► batches
//! ```
//!
//! The only crate that depends on DataFusion. It has no HTTP and does not interpret rows: a statement comes in parsed
//! ([`Statement`]), rows go out as Arrow batches ([`Answer`]).
//!
//! * [`engine`] is the entry point; `execution` plans and runs one query.
//! * `sandbox` protects the process from a statement, and keeps values exact.
//! * `scan` finds the tables of a statement and reads their files.
//!
//! Start reading at [`Engine::query`].
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

mod classify;
mod dialect;
pub mod engine;
pub mod error;
mod execution;
mod headings;
pub mod literal;
pub mod names;
pub mod query;
mod sandbox;
mod scan;
mod session;
mod show;
mod statement;
pub mod time;
pub mod types;
pub mod views;
mod zone;

pub use engine::{Engine, EngineError};
pub use error::{Position, QueryError};
pub use execution::Answer;
pub use query::{AsOf, HOUSEKEEPING, Query};
pub use sandbox::limits::Limits;
pub use sandbox::permits::Asker;
pub use scan::narrowing::Narrowed;
pub use scan::resolve::UsedSnapshot;
pub use scan::scope::Scope;
pub use statement::Statement;
pub use zone::Zone;
