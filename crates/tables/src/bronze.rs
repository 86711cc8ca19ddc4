//! Bronze: messages exactly as received.

pub mod messages;
