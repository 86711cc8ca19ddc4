//! Names of processes, for those that the scheduler's rows name by threads only.

use super::Window;
use super::columns::Columns;
use super::reading::Reading;
use query_engine::QueryError;
use query_engine::literal::instant;

/// Most processes whose names are looked up.
const PROCESSES_MAX: usize = 1 << 16;
/// How long before a window a process may have been met, nanoseconds.
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
    let sql = format!(
        "SELECT cluster, node, pid, last_value(name ORDER BY ts_ns) AS name FROM silver.processes \
         WHERE ts BETWEEN {from} AND {to} GROUP BY cluster, node, pid LIMIT {PROCESSES_MAX}"
    );
    let note = |cluster: &str, node: &str, rows: &Columns<'_>, row| {
        let pid = rows.int("pid", row);
        if let (Some(pid), Some(name)) = (pid, rows.text("name", row)) {
            detector.note_process(cluster, node, pid, &name);
        }
    };
    reading.each_node(sql, note).await.map(drop)
}
