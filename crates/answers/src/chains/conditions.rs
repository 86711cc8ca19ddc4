//! Conditions on the rows of a window, in SQL.

use event_schema::catalog::Source;
use query_engine::literal::{instant, text};

use crate::completeness::{made_by, made_since};
use crate::window::Window;

/// The condition on the events of a window. The agents' own events belong to no job, and show which process is an
/// agent.
pub(super) fn events_of(window: &Window) -> String {
    let own = Source::ALL.iter().filter(|source| source.is_of_agent()).map(|source| source.number().to_string());
    let own = own.collect::<Vec<_>>().join(", ");
    let job = window.job.as_deref().map(|job| format!(" AND (job_id = {} OR source IN ({own}))", text(job)));
    format!("ts_ns BETWEEN {} AND {}{}", window.from_ns, window.to_ns, job.unwrap_or_default())
}

/// The query for the nodes that landed anything of a window.
pub(super) fn nodes_of(window: &Window) -> String {
    // Rows of skipped offsets and dead letters have an empty node.
    let since = made_since(&instant(window.from_ns));
    let by = made_by(&instant(window.to_ns));
    format!("SELECT DISTINCT cluster, node FROM ops.ledger WHERE node <> '' AND {since} AND {by}")
}
