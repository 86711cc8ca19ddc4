//! Which jobs have a name here, and when they ran.

use query_engine::literal::instant;
use query_engine::{Query, QueryError};

use crate::answers::Answers;
use crate::columns::Columns;
use crate::window::Window;

/// How far back jobs are looked for, nanoseconds.
const JOBS_BACK_NS: i64 = 30 * 24 * 3_600_000_000_000;
/// Jobs listed, the latest first.
const LISTED_MAX: usize = 1_000;

/// A job and when it ran, unix nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownJob {
    /// Its name (`CAUSEWAY_JOB_ID`).
    pub job: String,
    /// When its first process was reported, or its first event.
    pub first_ns: i64,
    /// When its last process was reported, or its last event.
    pub last_ns: i64,
}

impl Answers {
    /// The jobs whose processes were reported from a month before the end of a window on; where there are none, those
    /// with events in the window.
    ///
    /// # Errors
    /// The lake cannot be read, or not within a few seconds.
    pub async fn known_jobs(&self, window: &Window) -> Result<Vec<KnownJob>, QueryError> {
        let back = instant(window.to_ns.saturating_sub(JOBS_BACK_NS));
        // An agent reports a process when it finds it: a month of these rows is a small scan, where a month of events
        // is not. The times of a job are then those of the reports, and say nothing of its end.
        let met = format!(
            "SELECT job_id, min(ts) AS first_ts, max(ts) AS last_ts FROM silver.processes \
             WHERE job_id IS NOT NULL AND ts >= {back} GROUP BY job_id ORDER BY last_ts DESC LIMIT {LISTED_MAX}"
        );
        let jobs = self.jobs_by(&met).await?;
        if !jobs.is_empty() {
            return Ok(jobs);
        }
        let Window { from_ns, to_ns, .. } = window;
        // Events may carry a job of which no process has landed. Only those of the window are read, because the table
        // is large.
        let seen = format!(
            "SELECT job_id, min(ts) AS first_ts, max(ts) AS last_ts FROM silver.events \
             WHERE job_id IS NOT NULL AND ts_ns BETWEEN {from_ns} AND {to_ns} \
             GROUP BY job_id ORDER BY last_ts DESC LIMIT {LISTED_MAX}"
        );
        self.jobs_by(&seen).await
    }

    async fn jobs_by(&self, sql: &str) -> Result<Vec<KnownJob>, QueryError> {
        let batches = self.engine.query(Query::housekeeping(sql)?).await?.collect().await?;
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| known_job(&Columns(batch), row)));
        Ok(rows.flatten().collect())
    }
}

fn known_job(rows: &Columns<'_>, row: usize) -> Option<KnownJob> {
    Some(KnownJob {
        job: rows.text("job_id", row)?,
        first_ns: rows.time_us("first_ts", row)?.saturating_mul(1_000),
        last_ns: rows.time_us("last_ts", row)?.saturating_mul(1_000),
    })
}
