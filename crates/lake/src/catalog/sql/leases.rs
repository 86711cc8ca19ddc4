//! Leases of work that several processes share: who does a piece of it, and until when. A table of its own in the
//! catalog's database, whose clock alone counts: the clocks of the processes may differ.
//!
//! A lease avoids double work and no more. What is done under it must be right also when two processes do it at the
//! same time: one that was paused goes on until it asks whether it still holds its lease.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Any, Executor, Row};

use super::Database;
use crate::catalog::CatalogError;

const DDL: &str = "CREATE TABLE IF NOT EXISTS causeway_leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    fence BIGINT NOT NULL,
    until_ms BIGINT NOT NULL)";

/// How long a lease that has ended keeps its row, by which its fence rises: a week.
const KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// The right to do a piece of work for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who has it; no two processes have the same name.
    pub holder: String,
    /// Rises each time the lease is taken.
    pub fence: i64,
}

/// The leases of a catalog. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leases {
    database: Arc<Database>,
}

impl Leases {
    pub(crate) async fn open(database: Arc<Database>) -> Result<Self, CatalogError> {
        let mut connection = database.acquire().await?;
        // Two processes that start together may both find the table absent: PostgreSQL does not serialise
        // `IF NOT EXISTS`. The error of the slower one means that the table exists now.
        if connection.execute(DDL).await.is_err() {
            let made = connection.execute(DDL).await;
            made.map_err(database.query_error("make the table causeway_leases"))?;
        }
        let sql = format!("DELETE FROM causeway_leases WHERE until_ms < {} - $1", database.now_ms());
        let query = sqlx::query(&sql).bind(KEPT_MS);
        database.in_time("delete leases that have ended", query.execute(&mut *connection)).await?;
        drop(connection);
        Ok(Self { database })
    }

    /// Takes a lease that is free, has ended, or is the holder's own; `None` while another holder has it.
    ///
    /// # Errors
    /// The catalog did not answer. The same call may be made again: a lease whose reply was lost is the holder's own.
    pub async fn acquire(&self, name: &str, holder: &str, time: Duration) -> Result<Option<Lease>, CatalogError> {
        let now = self.database.now_ms();
        // One statement: of two processes that take a lease at the same time the database lets one in.
        let sql = format!(
            "INSERT INTO causeway_leases (name, holder, fence, until_ms) VALUES ($1, $2, 1, {now} + $3) \
             ON CONFLICT (name) DO UPDATE SET \
             holder = excluded.holder, fence = causeway_leases.fence + 1, until_ms = excluded.until_ms \
             WHERE causeway_leases.until_ms <= {now} OR causeway_leases.holder = excluded.holder \
             RETURNING fence"
        );
        let query = sqlx::query(&sql).bind(name).bind(holder).bind(millis(time));
        let operation = "take a lease";
        let mut connection = self.database.acquire().await?;
        let row = self.database.in_time(operation, query.fetch_optional(&mut *connection)).await?;
        let Some(row) = row else { return Ok(None) };
        let fence: i64 = row.try_get(0).map_err(self.database.query_error(operation))?;
        Ok(Some(Lease { name: name.to_owned(), holder: holder.to_owned(), fence }))
    }

    /// Extends a lease from now on. `false`: it has ended, and may be another holder's; the work must stop.
    ///
    /// # Errors
    /// The catalog did not answer. The same call may be made again.
    pub async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, CatalogError> {
        let now = self.database.now_ms();
        let sql = format!(
            "UPDATE causeway_leases SET until_ms = {now} + $1 \
             WHERE name = $2 AND holder = $3 AND fence = $4 AND until_ms > {now}"
        );
        self.update("extend a lease", sqlx::query(&sql).bind(millis(time)), lease).await
    }

    /// Ends a lease. One that is another holder's by now stays.
    ///
    /// # Errors
    /// The catalog did not answer: the lease ends by itself.
    pub async fn release(&self, lease: &Lease) -> Result<(), CatalogError> {
        // The row stays: the next holder gets a higher fence.
        let sql =
            "UPDATE causeway_leases SET until_ms = $1 WHERE name = $2 AND holder = $3 AND fence = $4 AND until_ms > 0";
        self.update("end a lease", sqlx::query(sql).bind(0_i64), lease).await.map(drop)
    }

    /// Runs a statement whose first value is bound, on the row of a lease; whether there is such a row.
    async fn update(&self, operation: &'static str, query: Query<'_>, lease: &Lease) -> Result<bool, CatalogError> {
        let query = query.bind(lease.name.clone()).bind(lease.holder.clone()).bind(lease.fence);
        let mut connection = self.database.acquire().await?;
        let done = self.database.in_time(operation, query.execute(&mut *connection)).await?;
        Ok(done.rows_affected() == 1)
    }
}

type Query<'q> = sqlx::query::Query<'q, Any, <Any as sqlx::Database>::Arguments<'q>>;

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
