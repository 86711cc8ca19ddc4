//! Gold: the aggregates queried most, computed once. Rows of `op_minute` are partial aggregates, which readers and the
//! compactor merge; rows of `chains` are as reported.

pub mod chains;
pub mod op_minute;
