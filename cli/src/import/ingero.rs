//! Reference (Ingero) databases: what one is, and its rows. Opened read-only; nothing is ever written beside the file.

use std::io::Read;
use std::path::{Path, PathBuf};

use event_schema::batch::Value;
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row as _, SqliteConnection, TypeInfo, ValueRef};

mod nodes;
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use nodes::Nodes;
pub(crate) use tables::{TABLES, Table, WrongCell, event};

/// What the first bytes of every SQLite file are.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The newest `user_version` whose tables are known; the reference refuses newer files too.
const USER_VERSION_MAX: i64 = 10;

/// Why a file cannot be imported as a reference database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngeroError {
    #[error("{} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{} is not an SQLite file: expected a database that `ingero trace` recorded (SQLite, with the tables `events` and \
         `schema_info`)",
        path.display()
    )]
    NotSqlite { path: PathBuf },
    #[error(
        "{} is truncated: its header announces {expected} bytes, the file has {found}; copy it again from the node",
        path.display()
    )]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    #[error(
        "{} is an SQLite file but not a database that `ingero trace` recorded: it has no {missing}",
        path.display()
    )]
    NotReference { path: PathBuf, missing: String },
    #[error(
        "{} has user_version {version}; versions up to {USER_VERSION_MAX} are known: update causeway",
        path.display()
    )]
    TooNew { path: PathBuf, version: i64 },
    #[error("table `{table}` of {} cannot be read: the file is damaged or being written", path.display())]
    Damaged {
        path: PathBuf,
        table: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("column `{column}` of row {row} of table `{table}` of {} holds a BLOB: expected a number or text", path.display())]
    Blob { path: PathBuf, table: &'static str, column: &'static str, row: u64 },
}

/// An open reference database, read in one transaction so that a tracer still writing to it changes nothing in between.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: SqliteConnection,
    /// `schema_info.version`, such as `0.9`.
    pub(crate) version: String,
}

/// A row of a reference table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The node the row itself names.
    pub(crate) node: Option<String>,
    /// In the order of [`Table::columns`].
    pub(crate) cells: Vec<Value>,
}

impl Database {
    /// Opens a file and makes sure that it is what it should be.
    pub(crate) async fn open(path: &Path) -> Result<Self, IngeroError> {
        check_header(path)?;
        let damaged = |table| move |source| IngeroError::Damaged { path: path.to_owned(), table, source };
        // Rows may still be in the write-ahead log of a running tracer; an immutable open would not see them.
        let wal = PathBuf::from(format!("{}-wal", path.display()));
        let has_wal = std::fs::metadata(&wal).is_ok_and(|m| m.len() > 0);
        let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(!has_wal);
        let mut connection = options.connect().await.map_err(damaged("sqlite_schema"))?;
        sqlx::query("BEGIN").execute(&mut connection).await.map_err(damaged("sqlite_schema"))?;
        let user_version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .map_err(damaged("sqlite_schema"))?;
        if user_version > USER_VERSION_MAX {
            return Err(IngeroError::TooNew { path: path.to_owned(), version: user_version });
        }
        let mut database = Self { path: path.to_owned(), connection, version: String::new() };
        database.check_tables().await?;
        database.version = sqlx::query_scalar("SELECT value FROM schema_info WHERE key = 'version'")
            .fetch_optional(&mut database.connection)
            .await
            .map_err(damaged("schema_info"))?
            .unwrap_or_else(|| "unknown".to_owned());
        Ok(database)
    }

    async fn check_tables(&mut self) -> Result<(), IngeroError> {
        let mut missing = Vec::new();
        for (table, columns) in [("events", tables::EVENTS_REQUIRED), ("schema_info", &["key", "value"])] {
            let found = self.columns_of(table).await?;
            if found.is_empty() {
                missing.push(format!("table `{table}`"));
                continue;
            }
            let absent = columns.iter().filter(|c| !found.iter().any(|f| f == *c));
            missing.extend(absent.map(|column| format!("column `{table}.{column}`")));
        }
        let missing = missing.join(", ");
        if missing.is_empty() { Ok(()) } else { Err(IngeroError::NotReference { path: self.path.clone(), missing }) }
    }

    /// The names of a table's columns; none when there is no such table.
    async fn columns_of(&mut self, table: &'static str) -> Result<Vec<String>, IngeroError> {
        let names = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)").bind(table);
        names.fetch_all(&mut self.connection).await.map_err(|source| self.damaged(table, source))
    }

    fn damaged(&self, table: &'static str, source: sqlx::Error) -> IngeroError {
        IngeroError::Damaged { path: self.path.clone(), table, source }
    }

    /// Shows every row of a table in a fixed order. A table that the file does not have has no rows.
    pub(crate) async fn for_each<E: From<IngeroError>>(
        &mut self,
        table: &Table,
        mut show: impl FnMut(u64, Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let found = self.columns_of(table.name).await?;
        if found.is_empty() {
            return Ok(());
        }
        let sql = table.select(&found);
        let path = &self.path;
        let damaged = |source| IngeroError::Damaged { path: path.clone(), table: table.name, source };
        let mut rows = sqlx::query(&sql).fetch(&mut self.connection);
        let mut number = 0;
        while let Some(row) = rows.try_next().await.map_err(damaged)? {
            number += 1;
            let row = read_row(table, &row).map_err(|wrong| match wrong {
                Wrong::Blob(column) => IngeroError::Blob { path: path.clone(), table: table.name, column, row: number },
                Wrong::Sqlite(source) => damaged(source),
            })?;
            show(number, row)?;
        }
        Ok(())
    }

    /// All rows of a query of three columns: a node, a number, a number.
    async fn triples(&mut self, table: &'static str, sql: &str) -> Result<Vec<(String, i64, i64)>, IngeroError> {
        let rows = sqlx::query_as(sql).fetch_all(&mut self.connection).await;
        rows.map_err(|source| self.damaged(table, source))
    }

    /// Whether a table has a column.
    async fn has_column(&mut self, table: &'static str, column: &str) -> Result<bool, IngeroError> {
        Ok(self.columns_of(table).await?.iter().any(|c| c == column))
    }

    /// Ends the transaction and lets go of the file.
    pub(crate) async fn close(self) {
        // Nothing was written: an error on closing loses nothing.
        let _ = self.connection.close().await;
    }
}

/// Refuses what is not SQLite or is shorter than it says, with a better message than SQLite's own.
fn check_header(path: &Path) -> Result<(), IngeroError> {
    let unreadable = |source| IngeroError::Unreadable { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?.len();
    let mut header = [0; 100];
    let has_header = file.read_exact(&mut header).is_ok();
    if !has_header || !header.starts_with(MAGIC) {
        return Err(IngeroError::NotSqlite { path: path.to_owned() });
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    // The page count holds only if the writer that set it was the last one (file change counter = version-valid-for).
    let expected = page_bytes * u64::from(word(28));
    if word(24) == word(92) && found < expected {
        return Err(IngeroError::Truncated { path: path.to_owned(), expected, found });
    }
    Ok(())
}

enum Wrong {
    Blob(&'static str),
    Sqlite(sqlx::Error),
}

fn read_row(table: &Table, row: &SqliteRow) -> Result<Row, Wrong> {
    let mut cells = Vec::with_capacity(table.columns.len());
    for (at, (column, _)) in table.columns.iter().enumerate() {
        cells.push(cell(row, at)?.ok_or(Wrong::Blob(column))?);
    }
    let node = match cell(row, table.columns.len())? {
        Some(Value::Text(node)) if !node.is_empty() => Some(node),
        _ => None,
    };
    Ok(Row { node, cells })
}

/// `None` for a BLOB.
fn cell(row: &SqliteRow, at: usize) -> Result<Option<Value>, Wrong> {
    let raw = row.try_get_raw(at).map_err(Wrong::Sqlite)?;
    let kind = raw.type_info().name().to_owned();
    let value = match kind.as_str() {
        "NULL" => Value::Null,
        "INTEGER" => Value::Long(row.try_get_unchecked(at).map_err(Wrong::Sqlite)?),
        "REAL" => Value::Double(row.try_get_unchecked(at).map_err(Wrong::Sqlite)?),
        "TEXT" => Value::Text(row.try_get_unchecked(at).map_err(Wrong::Sqlite)?),
        _ => return Ok(None),
    };
    Ok(Some(value))
}
