//! One request to the engine.

use std::time::Duration;

use crate::error::QueryError;
use crate::sandbox::permits::Asker;
use crate::scan::scope::Scope;
use crate::statement::Statement;
use crate::zone::Zone;

/// Time limit of a query that another query waits for.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// A statement and how it is run.
#[derive(Debug, Clone)]
pub struct Query {
    /// The statement; its text is within the limits.
    pub statement: Statement,
    /// Greatest number of rows of the answer; `None` for all.
    pub limit: Option<usize>,
    /// The past state of the tables that is read; `None` for the current one.
    pub as_of: Option<AsOf>,
    /// The nodes and the time that the answer is restricted to.
    pub scope: Scope,
    /// A time limit of the client. Ignored when it is longer than that of the engine.
    pub timeout: Option<Duration>,
    /// Runs without a permit: for a query that an answer depends on which already holds one.
    pub unqueued: bool,
    /// The schema of names without one; `None` for [`crate::names::DEFAULT_SCHEMA`].
    pub schema: Option<String>,
    /// The catalog of names without one; `None` for [`crate::names::CATALOG`].
    pub catalog: Option<String>,
    /// The time zone of times without one.
    pub zone: Zone,
    /// The client that sent the query. Queries without one share the quota of one client.
    pub asker: Option<Asker>,
}

/// A state of the tables in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// Every table as it was at this time, unix milliseconds.
    Time(i64),
    /// The table that has this snapshot, at it; the other tables as they were when it was committed.
    Snapshot(i64),
}

impl Query {
    /// All rows of a statement, as the tables are now.
    pub fn of(statement: Statement) -> Self {
        Self {
            statement,
            limit: None,
            as_of: None,
            scope: Scope::default(),
            timeout: None,
            unqueued: false,
            schema: None,
            catalog: None,
            zone: Zone::default(),
            asker: None,
        }
    }

    /// All rows of a statement in the dialect of Causeway.
    ///
    /// # Errors
    /// As [`Statement::parse`].
    pub fn parse(sql: &str) -> Result<Self, QueryError> {
        Statement::parse(sql).map(Self::of)
    }

    /// A short internal query that another query waits for.
    ///
    /// # Errors
    /// As [`Statement::parse`].
    pub fn housekeeping(sql: &str) -> Result<Self, QueryError> {
        Ok(Self { unqueued: true, timeout: Some(HOUSEKEEPING), ..Self::parse(sql)? })
    }
}
