//! Names of processes, for those that the scheduler's rows name by threads only.

use query_engine::QueryError;
use query_engine::literal::instant;

use super::reading::{OfNode, Reading};
use crate::columns::Columns;
use crate::window::Window;

/// Most processes whose names are looked up.
const PROCESSES_MAX: usize = 1 << 16;
/// How long before a window a process may have been reported, nanoseconds.
const MET_BEFORE_NS: i64 = 24 * 3_600_000_000_000;

/// Passes the names of the window's processes to the detector.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met.
pub(super) async fn note_processes(
    reading: &Reading<'_>,
    window: &Window,
    detector: &mut chain_engine::Engine,
) -> Result<(), QueryError> {
    let from = instant(window.from_ns.saturating_sub(MET_BEFORE_NS));
    let to = instant(window.to_ns);
    // The last name: exec(2) and `PR_SET_NAME` of prctl(2) change it, and a pid is used again.
    let sql = format!(
        "SELECT cluster, node, pid, last_value(name ORDER BY ts_ns) AS name FROM silver.processes \
         WHERE ts BETWEEN {from} AND {to} GROUP BY cluster, node, pid LIMIT {PROCESSES_MAX}"
    );
    for OfNode { cluster, node, row: process } in reading.of_nodes(sql, process).await? {
        if let (Some(pid), Some(name)) = process {
            detector.note_process(&cluster, &node, pid, &name);
        }
    }
    Ok(())
}

/// Number and name of a process.
fn process(rows: &Columns<'_>, row: usize) -> (Option<i32>, Option<String>) {
    (rows.int("pid", row), rows.text("name", row))
}
