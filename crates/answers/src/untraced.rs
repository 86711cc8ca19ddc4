//! Processes that map a CUDA or NCCL library and are not traced, as their agents report them.

use std::collections::BTreeSet;

use query_engine::time::rfc3339;
use query_engine::{Asker, Query, QueryError, literal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answers::Answers;
use crate::columns::Columns;
use crate::window::Asked;

/// An agent reports such a process once a minute while it lives; one reported longer ago has ended.
const WITHIN_MS: i64 = 180_000;
/// Processes listed.
const LISTED_MAX: usize = 1_000;

/// Such a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Untraced {
    /// Name of its node.
    pub node: String,
    /// Process on the node.
    pub pid: i32,
    /// Its own name, at most 15 bytes.
    pub name: String,
    /// Why it is not traced.
    pub reason: String,
    /// When it was reported last, RFC 3339.
    pub reported: Option<String>,
}

/// Which processes are asked about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UntracedOf<'a> {
    /// All nodes when absent or empty.
    pub(crate) nodes: Option<&'a BTreeSet<String>>,
    /// Those of this job, and those without a known job.
    pub(crate) job: Option<&'a str>,
}

impl Answers {
    /// The processes of a window that are not traced, of the nodes and the job asked about; `None` where that cannot be
    /// read.
    pub(crate) async fn untraced_of(&self, asked: &Asked, asker: &Asker) -> Option<Vec<Untraced>> {
        let of = UntracedOf { nodes: Some(&asked.nodes), job: asked.window.job.as_deref() };
        match self.untraced(asked.window.ms(), of, Some(asker)).await {
            Ok(list) => Some(list),
            Err(error) => {
                tracing::warn!(%error, "which processes are not traced is unknown: silver.processes cannot be read");
                None
            }
        }
    }

    /// The processes whose newest report from `from_ms` to `to_ms` gives a reason why they are not traced, by node and
    /// number. The query takes a permit of the asker's; without an asker it takes none.
    ///
    /// # Errors
    /// The table of processes cannot be read.
    pub(crate) async fn untraced(
        &self,
        (from_ms, to_ms): (i64, i64),
        of: UntracedOf<'_>,
        asker: Option<&Asker>,
    ) -> Result<Vec<Untraced>, QueryError> {
        if self.engine.snapshot("silver", "processes").await?.is_none() {
            return Ok(Vec::new());
        }
        // Three intervals of the reports: one that is late or lost does not end what it reports.
        let after_ns = from_ms.saturating_sub(WITHIN_MS).saturating_mul(1_000_000);
        let until_ns = to_ms.saturating_add(1).saturating_mul(1_000_000);
        let names: Vec<String> = of.nodes.into_iter().flatten().map(|node| literal::text(node)).collect();
        let of_nodes = if names.is_empty() { String::new() } else { format!("AND node IN ({})", names.join(", ")) };
        // A process whose job is null may belong to the one asked about, and is kept.
        let of_job = of.job.map_or_else(String::new, |job| {
            format!("AND coalesce(last_value(job_id ORDER BY ts_ns, seq), {job}) = {job}", job = literal::text(job))
        });
        // The newest report decides: an agent reports a process once more, without a reason, when it is traced after
        // all. A pid is unique within a boot only.
        let sql = format!(
            "SELECT node, pid, CAST(last_value(name ORDER BY ts_ns, seq) AS VARCHAR) AS name, \
             last_value(untraced ORDER BY ts_ns, seq) AS untraced, max(ts_ns) AS ts_ns \
             FROM silver.processes WHERE ts_ns > {after_ns} AND ts_ns < {until_ns} {of_nodes} \
             GROUP BY cluster, node, boot_id, pid HAVING last_value(untraced ORDER BY ts_ns, seq) IS NOT NULL {of_job} \
             ORDER BY node, pid LIMIT {LISTED_MAX}"
        );
        let query = Query { unqueued: asker.is_none(), asker: asker.cloned(), ..Query::housekeeping(&sql)? };
        let batches = self.engine.query(query).await?.collect().await?;
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| untraced_of(&Columns(batch), row)));
        rows.collect::<Option<_>>().ok_or_else(|| QueryError::Internal {
            message: "silver.processes has other columns than this program reads".to_owned(),
        })
    }
}

fn untraced_of(rows: &Columns<'_>, row: usize) -> Option<Untraced> {
    Some(Untraced {
        node: rows.text("node", row)?,
        pid: rows.int("pid", row)?,
        name: rows.text("name", row)?,
        reason: rows.text("untraced", row)?,
        reported: rfc3339(rows.long("ts_ns", row)?.div_euclid(1_000_000)),
    })
}
