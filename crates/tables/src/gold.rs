//! Gold: what is asked for most, computed once. Rows are partial aggregates; readers and the compactor merge them.

pub mod chains;
pub mod op_minute;
