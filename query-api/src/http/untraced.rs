//! Processes that map a CUDA or NCCL library and are not traced, as their agents report them.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use serde::Serialize;

use query_engine::QueryError;
use query_engine::literal;
use query_engine::time::rfc3339;
use query_engine::{Asker, Engine, Query};

/// An agent reports such a process once a minute while it lives; one reported longer ago has ended.
const WITHIN_MS: i64 = 180_000;
/// Processes listed.
const LISTED_MAX: usize = 1_000;

/// Such a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Untraced {
    pub(super) node: String,
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) reason: String,
    /// When it was reported last, RFC 3339.
    reported: Option<String>,
}

/// Which processes are asked about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About<'a> {
    /// All nodes when absent or empty.
    pub(super) nodes: Option<&'a BTreeSet<String>>,
    /// Those of this job, and those whose job is not known.
    pub(super) job: Option<&'a str>,
}

/// The processes that their newest report from `from_ms` to `to_ms` says not to be traced, by node and number. The query takes a turn
/// of the asker's; without an asker it takes none.
///
/// # Errors
/// The table of processes cannot be read.
pub(super) async fn untraced(
    engine: &Engine,
    (from_ms, to_ms): (i64, i64),
    about: About<'_>,
    asker: Option<&Asker>,
) -> Result<Vec<Untraced>, QueryError> {
    if engine.snapshot("silver", "processes").await?.is_none() {
        return Ok(Vec::new());
    }
    let ns = |ms: i64| ms.saturating_mul(1_000_000);
    let (after_ns, until_ns) = (ns(from_ms.saturating_sub(WITHIN_MS)), ns(to_ms.saturating_add(1)));
    let names: Vec<String> = about.nodes.into_iter().flatten().map(|node| literal::text(node)).collect();
    let of_nodes = if names.is_empty() { String::new() } else { format!("AND node IN ({})", names.join(", ")) };
    let of_job = about.job.map_or_else(String::new, |job| {
        format!("AND coalesce(last_value(job_id ORDER BY ts_ns, seq), {job}) = {job}", job = literal::text(job))
    });
    let sql = format!(
        "SELECT node, pid, CAST(last_value(name ORDER BY ts_ns, seq) AS VARCHAR) AS name, \
         last_value(untraced ORDER BY ts_ns, seq) AS untraced, max(ts_ns) AS ts_ns \
         FROM silver.processes WHERE ts_ns > {after_ns} AND ts_ns < {until_ns} {of_nodes} \
         GROUP BY cluster, node, boot_id, pid HAVING last_value(untraced ORDER BY ts_ns, seq) IS NOT NULL {of_job} \
         ORDER BY node, pid LIMIT {LISTED_MAX}"
    );
    let query = Query { unqueued: asker.is_none(), asker: asker.cloned(), ..Query::housekeeping(&sql)? };
    let batches = engine.query(query).await?.collect().await?;
    let unknown = || QueryError::Internal { message: "silver.processes has other columns than expected".to_owned() };
    let mut list = Vec::new();
    for batch in &batches {
        list.extend(rows(batch).ok_or_else(unknown)?);
    }
    Ok(list)
}

fn rows(batch: &RecordBatch) -> Option<Vec<Untraced>> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_view_opt();
    let (node, name, reason) = (text("node")?, text("name")?, text("untraced")?);
    let pid = batch.column_by_name("pid")?.as_primitive_opt::<Int32Type>()?;
    let ts_ns = batch.column_by_name("ts_ns")?.as_primitive_opt::<Int64Type>()?;
    let row = |row: usize| Untraced {
        node: node.value(row).to_owned(),
        pid: pid.value(row),
        name: name.value(row).to_owned(),
        reason: reason.value(row).to_owned(),
        reported: rfc3339(ts_ns.value(row).div_euclid(1_000_000)),
    };
    Some((0..batch.num_rows()).map(row).collect())
}
