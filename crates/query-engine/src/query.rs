//! One question to the engine.

use std::time::Duration;

use crate::error::QueryError;
use crate::sandbox::permits::Asker;
use crate::scan::scope::Scope;
use crate::statement::Statement;
use crate::zone::Zone;

/// Longest time of a query that another one waits for.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// A statement and how it is run.
#[derive(Debug, Clone)]
pub struct Query {
    /// What is asked; it has passed the limits of its text.
    pub statement: Statement,
    /// Most rows wanted; all of them when absent.
    pub limit: Option<usize>,
    /// Read the tables as they were; as they are when absent.
    pub as_of: Option<AsOf>,
    /// Which rows are wanted.
    pub scope: Scope,
    /// Shorter than the engine's own limit, or ignored.
    pub timeout: Option<Duration>,
    /// Does not wait for a permit: for what an answer needs that already holds one.
    pub unqueued: bool,
    /// The schema of names without one; [`crate::names::DEFAULT_SCHEMA`] when absent.
    pub schema: Option<String>,
    /// The catalog of names without one; [`crate::names::CATALOG`] when absent.
    pub catalog: Option<String>,
    /// The time zone of times without one.
    pub zone: Zone,
    /// The client that asks; queries without one have the share of one client together.
    pub asker: Option<Asker>,
}

/// A state of the tables in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// Every table as it was at this time, unix milliseconds.
    Time(i64),
    /// The table that has this snapshot at it, the others as they were when it was committed.
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

    /// All rows of a statement in our dialect.
    ///
    /// # Errors
    /// As [`Statement::parse`].
    pub fn parse(sql: &str) -> Result<Self, QueryError> {
        Statement::parse(sql).map(Self::of)
    }

    /// A short query of our own that another query waits for.
    ///
    /// # Errors
    /// As [`Statement::parse`].
    pub fn housekeeping(sql: &str) -> Result<Self, QueryError> {
        Ok(Self { unqueued: true, timeout: Some(HOUSEKEEPING), ..Self::parse(sql)? })
    }
}
