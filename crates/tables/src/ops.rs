//! Ops: the lake watching itself.

pub mod dlq;
pub mod ledger;
