//! What stands between a statement and the process: bounds on the text, the plan, the memory, the threads and the time
//! of a statement, and rewrites that make values exact where DataFusion would be silently wrong.

pub(crate) mod allocation;
pub(crate) mod cancellation;
pub(crate) mod clauses;
pub(crate) mod complexity;
pub(crate) mod functions;
pub(crate) mod limits;
pub(crate) mod permits;
pub(crate) mod phase;
pub(crate) mod rules;
pub(crate) mod subqueries;
pub(crate) mod tuples;
pub(crate) mod unions;
pub(crate) mod values;
pub(crate) mod wrapped;
