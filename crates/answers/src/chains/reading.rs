//! What one detection reads: several queries that share the limits of one, over one state of the tables.

use arrow::array::RecordBatch;
use query_engine::{Answer, AsOf, Asker, Engine, Query, QueryError};
use tokio::time::Instant;

use super::error::ChainsError;
use crate::columns::Columns;

/// The queries of one detection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    engine: &'a Engine,
    asker: &'a Asker,
    deadline: Instant,
}

/// A row about a node.
#[derive(Debug)]
pub(super) struct OfNode<T> {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) row: T,
}

impl<T> OfNode<T> {
    /// A row as `of` reads it; `None` without a cluster or a node.
    fn read(rows: &Columns<'_>, row: usize, of: fn(&Columns<'_>, usize) -> T) -> Option<Self> {
        let cluster = rows.text("cluster", row)?;
        let node = rows.text("node", row)?;
        Some(Self { cluster, node, row: of(rows, row) })
    }
}

impl<'a> Reading<'a> {
    /// The time of one query begins for all of them.
    pub(super) fn begin(engine: &'a Engine, asker: &'a Asker) -> Self {
        Self { engine, asker, deadline: Instant::now() + engine.limits().time }
    }

    /// Most rows of an answer that is made as a whole.
    pub(super) fn rows(&self) -> usize {
        self.engine.limits().rows
    }

    /// Most events looked at.
    pub(super) fn events(&self) -> u64 {
        self.engine.limits().events
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(super) async fn collect(&self, sql: String) -> Result<Vec<RecordBatch>, QueryError> {
        self.query(sql, None).await?.collect().await.map_err(|error| self.whole(error))
    }

    /// The rows of a query about nodes, as `of` reads each; rows without a cluster or a node are left out.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(super) async fn of_nodes<T>(
        &self,
        sql: String,
        of: fn(&Columns<'_>, usize) -> T,
    ) -> Result<Vec<OfNode<T>>, QueryError> {
        let mut found = Vec::new();
        for batch in self.collect(sql).await? {
            let rows = Columns(&batch);
            found.extend((0..batch.num_rows()).filter_map(|row| OfNode::read(&rows, row, of)));
        }
        Ok(found)
    }

    /// Asks, of the table that has this snapshot at it; of tables as they are now when there is none.
    ///
    /// # Errors
    /// As [`Engine::query`]; out of time also when the queries before it used it up.
    pub(super) async fn query(&self, sql: String, snapshot: Option<i64>) -> Result<Answer, QueryError> {
        // Deadline propagation: each query has what those before it left, so that a hundred slices take no longer than
        // one query may.
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.timeout());
        }
        let as_of = snapshot.map(AsOf::Snapshot);
        let query = Query { timeout: Some(left), as_of, asker: Some(self.asker.clone()), ..Query::parse(&sql)? };
        self.engine.query(query).await.map_err(|error| self.whole(error))
    }

    /// Runs CPU-bound work on the blocking pool, within the time that is left.
    ///
    /// # Errors
    /// Out of time, or the work panicked.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChainsError> {
        // A blocking task cannot be aborted: at the deadline it is left behind, and its result is dropped when it ends.
        let done = tokio::time::timeout_at(self.deadline, tokio::task::spawn_blocking(work)).await;
        done.map_err(|_| self.timeout())?.map_err(|_| ChainsError::Ended)
    }

    /// An error in terms of all queries together.
    pub(super) fn whole(&self, error: QueryError) -> QueryError {
        match error {
            // A query reports the time that was left to it, which is no setting; a client can only raise the limit of
            // the whole.
            QueryError::Timeout { .. } => self.timeout(),
            other => other,
        }
    }

    fn timeout(&self) -> QueryError {
        QueryError::Timeout { limit: self.engine.limits().time }
    }
}

#[cfg(test)]
mod tests {
    use lake::{Lake, LakeOptions};
    use query_engine::Limits;

    use super::*;

    #[tokio::test]
    async fn a_query_has_the_time_that_those_before_it_left() {
        let dir = tempfile::tempdir().unwrap();
        let options = LakeOptions {
            catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.path().display()),
            warehouse: dir.path().join("warehouse").display().to_string(),
            s3: None,
        };
        let engine = Engine::new(Lake::open(options).await.unwrap(), Limits::default()).unwrap();
        let asker = Asker { address: std::net::IpAddr::from([127, 0, 0, 1]), user: String::new() };
        let whole = Reading::begin(&engine, &asker);
        assert_eq!(whole.collect("SELECT 1".to_owned()).await.unwrap()[0].num_rows(), 1);
        let late = Reading { deadline: Instant::now(), ..whole };
        let error = late.collect("SELECT 1".to_owned()).await.unwrap_err();
        assert!(matches!(error, QueryError::Timeout { limit } if limit == engine.limits().time), "{error:?}");
    }
}
