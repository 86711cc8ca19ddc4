//! Reference (Ingero) databases: how one is recognised, and its rows. Neither the schema nor the cells of a file are
//! trusted.

use std::path::{Path, PathBuf};

use event_schema::batch::Value;
use event_schema::wire::NAME_BYTES_MAX;
use futures::TryStreamExt;
use service_kit::run::Drain;
use sqlx::sqlite::SqliteRow;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

mod cells;
mod nodes;
mod tables;
#[cfg(test)]
mod tests;

use crate::snapshot::{ATTEMPTS, Reading, Snapshot, SnapshotError};
use cells::Cell;
pub use cells::Misfit;
pub(crate) use nodes::{Nodes, Session, Survey, event_number};
pub(crate) use tables::{TABLES, Table, event};

/// The newest `user_version` whose tables are known; the reference refuses newer files too.
const USER_VERSION_MAX: i64 = 10;
/// The newest schema whose tables are known, as `schema_info` names it: major and minor number.
const SCHEMA_MAX: (u32, u32) = (0, 10);

/// Most bytes of text a row may have: with what a message has beside it, and packed to no smaller size, it is below the
/// 8 MiB that Kafka takes.
const ROW_BYTES_MAX: usize = 7 << 20;

/// Why a file cannot be imported as a reference database.
#[derive(Debug, thiserror::Error)]
pub enum IngeroError {
    /// The file cannot be read as it stood at one moment, or is no SQLite database.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The thread that took the snapshot ended with a panic.
    #[error("reading {} was abandoned", path.display())]
    Abandoned {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// It is an SQLite database of another program.
    #[error(
        "{} is an SQLite file but not a database that `ingero trace` recorded: it has no {missing}",
        path.display()
    )]
    NotReference {
        /// The file, as it was named.
        path: PathBuf,
        /// Tables and columns that it lacks.
        missing: String,
    },
    /// A view or virtual table has the name of a table.
    #[error(
        "`{table}` of {} is a {kind}: a recording has a table of that name; import the database that the tracer wrote",
        path.display()
    )]
    NotTable {
        /// The file, as it was named.
        path: PathBuf,
        /// The table that a recording has.
        table: &'static str,
        /// What has its name, as `view`.
        kind: String,
    },
    /// A column is an expression over others.
    #[error(
        "column `{column}` of table `{table}` of {} is computed: a recording stores it; import the database that the tracer wrote",
        path.display()
    )]
    Computed {
        /// The file, as it was named.
        path: PathBuf,
        /// The table of the recording.
        table: &'static str,
        /// The column that is an expression.
        column: String,
    },
    /// A newer tracer wrote it, by its `user_version`.
    #[error(
        "{} has user_version {version}; versions from 0 to {USER_VERSION_MAX} are known: update causeway",
        path.display()
    )]
    UnknownUserVersion {
        /// The file, as it was named.
        path: PathBuf,
        /// `PRAGMA user_version`.
        version: i64,
    },
    /// A newer tracer wrote it, by its `schema_info`.
    #[error(
        "{} says that its schema has version {version:?}; versions up to {}.{} are known: update causeway",
        path.display(), SCHEMA_MAX.0, SCHEMA_MAX.1
    )]
    UnknownSchema {
        /// The file, as it was named.
        path: PathBuf,
        /// `schema_info.version`.
        version: String,
    },
    /// Its times are in another unit.
    #[error(
        "{} says that its {what} is {unit:?}: only nanoseconds are read; import the database that the tracer wrote",
        path.display()
    )]
    Unit {
        /// The file, as it was named.
        path: PathBuf,
        /// The key of `schema_info`, in words.
        what: String,
        /// Its value.
        unit: String,
    },
    /// SQLite found it damaged.
    #[error("table `{table}` of {} is damaged ({what}): copy the file again from the node", path.display())]
    Damaged {
        /// The file, as it was named.
        path: PathBuf,
        /// The table that was read or checked.
        table: &'static str,
        /// The message of SQLite.
        what: String,
    },
    /// SQLite could not read it.
    #[error("table `{table}` of {} cannot be read: {what}", path.display())]
    Unreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// The table that was read.
        table: &'static str,
        /// The message of SQLite or of its library.
        what: String,
    },
}

/// An open reference database, read as it stood at one moment.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: SqliteConnection,
    /// How the file is read.
    pub(crate) reading: Reading,
    /// `schema_info.version`, such as `0.9`.
    pub(crate) version: String,
    drain: Drain,
    /// Dropped after the connection.
    _snapshot: Snapshot,
}

/// A row of a reference table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The node the row itself names.
    pub(crate) node: Option<String>,
    /// In the order of [`Table::columns`].
    pub(crate) cells: Vec<Value>,
}

/// What was read of a row.
#[derive(Debug)]
pub(crate) struct Read {
    /// How a message names the row: its number in the table and its first cell.
    pub(crate) name: String,
    /// The row, or the cell because of which it is refused.
    pub(crate) row: Result<Row, Misfit>,
    /// Cells that the row has as NULL because they do not fit.
    pub(crate) nulled: Vec<Misfit>,
}

impl Database {
    /// Opens a file and checks that it is a recording.
    ///
    /// # Errors
    /// The file is no recording, is damaged, or is of a version or in units that are not known.
    pub(crate) async fn open(path: &Path, drain: &Drain) -> Result<Self, IngeroError> {
        let (snapshot, connection) = opened(path, drain).await?;
        let mut database = Self {
            path: path.to_owned(),
            connection,
            reading: snapshot.reading,
            version: String::new(),
            drain: drain.clone(),
            _snapshot: snapshot,
        };
        // Before anything is read: a view or an expression in the schema is SQL of an untrusted file.
        database.distrust().await.map_err(|source| of_sqlite(path, "sqlite_schema", &source))?;
        let user_version: i64 = database.scalar("sqlite_schema", "PRAGMA user_version").await?.unwrap_or(0);
        if !(0..=USER_VERSION_MAX).contains(&user_version) {
            return Err(IngeroError::UnknownUserVersion { path: path.to_owned(), version: user_version });
        }
        // Before `schema_info` is read: it may be a view, or absent.
        database.check_tables().await?;
        database.check_units().await?;
        database.version = database.known_version().await?;
        Ok(database)
    }

    /// Prevents SQL in the schema of the file from running, and begins the transaction in which all of it is read.
    async fn distrust(&mut self) -> Result<(), sqlx::Error> {
        let settings = [
            // The settings for untrusted files of sqlite.org/security.html: the schema calls harmless functions only,
            // the cells of a page are checked, and no part of the file is mapped into memory, where a fault of it would
            // be a signal and no error. CHECK constraints are expressions, which `quick_check` would run.
            "PRAGMA trusted_schema = OFF",
            "PRAGMA cell_size_check = ON",
            "PRAGMA ignore_check_constraints = ON",
            "PRAGMA mmap_size = 0",
            "BEGIN",
            // BEGIN takes no lock: the first read fixes the state that all later ones see. In a copy it also rolls back
            // a journal or recovers a log, which writes: `query_only` comes after it.
            "SELECT 1 FROM sqlite_schema LIMIT 1",
            "PRAGMA query_only = ON",
        ];
        for sql in settings {
            sqlx::query(sql).fetch_all(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn check_tables(&mut self) -> Result<(), IngeroError> {
        let mut missing = Vec::new();
        for table in TABLES {
            let required: Vec<&str> = table.required().collect();
            // Older schemas lack the other tables.
            let is_needed = table.kind == event_schema::kind::RecordKind::Event;
            missing.extend(self.check_table(table.name, &required, is_needed).await?);
        }
        missing.extend(self.check_table("schema_info", &["key", "value"], true).await?);
        let missing = missing.join(", ");
        if missing.is_empty() { Ok(()) } else { Err(IngeroError::NotReference { path: self.path.clone(), missing }) }
    }

    /// What a table lacks; refuses one that is no table, has computed columns or is damaged.
    async fn check_table(
        &mut self,
        table: &'static str,
        required: &[&str],
        is_needed: bool,
    ) -> Result<Vec<String>, IngeroError> {
        // Names of tables are case-insensitive in SQLite, and here they are constants: nothing of the file is put into
        // SQL.
        let sql = format!("SELECT type FROM pragma_table_list WHERE schema = 'main' AND lower(name) = '{table}'");
        match self.scalar::<String>(table, &sql).await?.as_deref() {
            None if is_needed => return Ok(vec![format!("table `{table}`")]),
            None => return Ok(Vec::new()),
            Some("table") => {}
            Some("virtual") => return Err(self.not_table(table, "virtual table")),
            Some(kind) => return Err(self.not_table(table, kind)),
        }
        // Any column, also one that is not read: `quick_check` evaluates the expressions of all.
        if let Some(column) = self.computed_column(table).await? {
            return Err(IngeroError::Computed { path: self.path.clone(), table, column });
        }
        let found = self.columns_of(table).await?;
        let absent = required.iter().filter(|name| !found.iter().any(|found| found.eq_ignore_ascii_case(name)));
        let absent: Vec<String> = absent.map(|column| format!("column `{table}.{column}`")).collect();
        // Reads the whole table once before any row is taken: a damaged page in the middle must not end an import half
        // sent. The first row is `ok` or the first fault.
        let verdict: Option<String> = self.scalar(table, &format!("PRAGMA main.quick_check('{table}')")).await?;
        match verdict {
            Some(what) if what != "ok" => Err(IngeroError::Damaged { path: self.path.clone(), table, what }),
            _ => Ok(absent),
        }
    }

    fn not_table(&self, table: &'static str, kind: &str) -> IngeroError {
        IngeroError::NotTable { path: self.path.clone(), table, kind: kind.to_owned() }
    }

    /// A column of a table that is an expression over others.
    async fn computed_column(&mut self, table: &'static str) -> Result<Option<String>, IngeroError> {
        // `hidden`: 2 is a virtual generated column, 3 a stored one (PRAGMA table_xinfo).
        let sql = format!("SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden IN (2, 3) LIMIT 1");
        self.scalar(table, &sql).await
    }

    async fn check_units(&mut self) -> Result<(), IngeroError> {
        for key in ["timestamp_unit", "duration_unit"] {
            let unit = self.info(key).await?;
            match unit {
                // Times are also checked row by row, but a duration in another unit would pass every check of a cell.
                Some(unit) if !unit.trim_start().to_ascii_lowercase().starts_with("nanosecond") => {
                    return Err(IngeroError::Unit { path: self.path.clone(), what: key.replace('_', " "), unit });
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn known_version(&mut self) -> Result<String, IngeroError> {
        let Some(version) = self.info("version").await? else { return Ok("unknown".to_owned()) };
        let mut numbers = version.trim().split('.').map(str::parse::<u32>);
        let known = match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), None) => Some((major, 0)),
            // A third number is not compared: `0.9.1` has the tables of `0.9`.
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        };
        match known {
            Some(known) if known <= SCHEMA_MAX => Ok(version),
            _ => Err(IngeroError::UnknownSchema { path: self.path.clone(), version }),
        }
    }

    /// The value of `schema_info` under a key.
    async fn info(&mut self, key: &str) -> Result<Option<String>, IngeroError> {
        // Bounded and converted in SQLite: the cell may be of any type and of up to 1 GB.
        let sql = format!("SELECT CAST(substr(value, 1, 100) AS TEXT) FROM schema_info WHERE key = '{key}' LIMIT 1");
        Ok(self.scalar::<Option<String>>("schema_info", &sql).await?.flatten())
    }

    /// The first cell of a query, if it has rows.
    async fn scalar<T>(&mut self, table: &'static str, sql: &str) -> Result<Option<T>, IngeroError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
    {
        let found = sqlx::query_scalar(sql).fetch_optional(&mut self.connection);
        unless_cancelled(&self.drain, &self.path, table, found).await
    }

    /// The names of a table's columns; none when there is no such table.
    async fn columns_of(&mut self, table: &'static str) -> Result<Vec<String>, IngeroError> {
        let names = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)").bind(table);
        unless_cancelled(&self.drain, &self.path, table, names.fetch_all(&mut self.connection)).await
    }

    /// Passes every row of a table to `show`, in a fixed order. A table that the file does not have has no rows.
    ///
    /// # Errors
    /// The table cannot be read, `show` failed, or a signal is to end the import.
    pub(crate) async fn for_each<E: From<IngeroError>>(
        &mut self,
        table: &'static Table,
        mut show: impl FnMut(Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let found = self.columns_of(table.name).await?;
        if found.is_empty() {
            return Ok(());
        }
        // After `columns_of`: the names that an older schema lacks are selected as NULL.
        let sql = table.select(&found);
        let path = &self.path;
        let mut rows = sqlx::query(&sql).fetch(&mut self.connection);
        let mut cancelled = std::pin::pin!(self.drain.cancelled());
        let mut number = 0;
        loop {
            // SQLite sorts the table before it returns the first row, which takes minutes for a large one: the drain is
            // watched during the wait. `biased`: rows that are ready are taken first, and the drain is tested below.
            let row = tokio::select! {
                biased;
                row = rows.try_next() => row.map_err(|source| of_sqlite(path, table.name, &source))?,
                () = &mut cancelled => return Err(interrupted(path).into()),
            };
            let Some(row) = row else { return Ok(()) };
            if self.drain.is_cancelled() {
                return Err(interrupted(path).into());
            }
            number += 1;
            let read = read_row(table, number, &row).map_err(|source| of_sqlite(path, table.name, &source))?;
            show(read)?;
        }
    }

    /// The file, as it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the transaction and closes the file.
    pub(crate) async fn close(self) {
        // Nothing was written: an error on closing loses nothing.
        let _ = self.connection.close().await;
    }
}

/// The answer of SQLite, which may take minutes: it checks whole tables.
async fn unless_cancelled<T>(
    drain: &Drain,
    path: &Path,
    table: &'static str,
    asking: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, IngeroError> {
    tokio::select! {
        answer = asking => answer.map_err(|source| of_sqlite(path, table, &source)),
        () = drain.cancelled() => Err(interrupted(path)),
    }
}

fn interrupted(path: &Path) -> IngeroError {
    SnapshotError::Interrupted { path: path.to_owned() }.into()
}

/// A snapshot of a file, and SQLite's connection to it.
async fn opened(path: &Path, drain: &Drain) -> Result<(Snapshot, SqliteConnection), IngeroError> {
    // A rename between lock and open leaves SQLite with another file than the locked one: both are taken anew.
    for _ in 0..ATTEMPTS {
        let file = path.to_owned();
        let drain = drain.clone();
        // Waits for locks and copies files, for minutes where they are large.
        let taken = tokio::task::spawn_blocking(move || Snapshot::take(&file, &drain)).await;
        let snapshot = taken.map_err(|_| IngeroError::Abandoned { path: path.to_owned() })??;
        let connection = snapshot.options().connect().await;
        let connection = connection.map_err(|source| of_sqlite(path, "sqlite_schema", &source))?;
        if snapshot.is_in_its_place() {
            return Ok((snapshot, connection));
        }
    }
    Err(SnapshotError::Changing { path: path.to_owned() }.into())
}

/// An error with the message of SQLite, without that of the library around it.
fn of_sqlite(path: &Path, table: &'static str, error: &sqlx::Error) -> IngeroError {
    /// `SQLITE_CORRUPT` and `SQLITE_NOTADB`.
    const DAMAGED: [u32; 2] = [11, 26];
    let path = path.to_owned();
    let Some(error) = error.as_database_error() else {
        return IngeroError::Unreadable { path, table, what: error.to_string() };
    };
    let what = error.message().to_owned();
    // SQLite reports extended result codes, whose low byte is the primary code (sqlite.org/rescode.html).
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    match code {
        Some(code) if DAMAGED.contains(&code) => IngeroError::Damaged { path, table, what },
        _ => IngeroError::Unreadable { path, table, what },
    }
}

fn read_row(table: &Table, number: u64, row: &SqliteRow) -> Result<Read, sqlx::Error> {
    let mut cells = Vec::with_capacity(table.columns.len());
    let mut nulled = Vec::new();
    let mut unfit = None;
    let mut name = String::new();
    for (at, column) in table.columns.iter().enumerate() {
        let cell = Cell::read(row, at)?;
        if at == 0 {
            name = format!("row {number} ({} = {})", column.name, cell.shown());
        }
        match column.value(&cell, &mut nulled) {
            Ok(value) => cells.push(value),
            Err(misfit) => unfit = unfit.or(Some(misfit)),
        }
    }
    // Only where every cell fits: `too_large` finds the column by the position of its cell.
    unfit = unfit.or_else(|| too_large(table, &cells));
    // `Table::select` appends the node behind the columns.
    let node = match node_of(&Cell::read(row, table.columns.len())?) {
        Ok(node) => node,
        Err(misfit) => {
            unfit = unfit.or(Some(misfit));
            None
        }
    };
    Ok(Read { name, row: unfit.map_or(Ok(Row { node, cells }), Err), nulled })
}

/// Refuses a row that no message could carry. `cells` are those of the row, or fewer where some do not fit.
fn too_large(table: &Table, cells: &[Value]) -> Option<Misfit> {
    if cells.iter().map(text_bytes).sum::<usize>() <= ROW_BYTES_MAX {
        return None;
    }
    let (at, largest) = cells.iter().map(text_bytes).enumerate().max_by_key(|(_, bytes)| *bytes)?;
    let value = format!("a text of {largest} bytes");
    Some(Misfit { column: table.columns[at].name, value, expected: "at most 7 MiB in all cells of a row" })
}

/// Bytes of the text in a cell; 0 for one that holds no text.
pub(crate) fn text_bytes(cell: &Value) -> usize {
    if let Value::Text(text) = cell { text.len() } else { 0 }
}

/// The node that a cell names; `None` when it is empty.
fn node_of(cell: &Cell) -> Result<Option<String>, Misfit> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Text(node) if node.is_empty() => Ok(None),
        Cell::Text(node) if node.len() <= NAME_BYTES_MAX => Ok(Some(node.clone())),
        // A column of numeric affinity turns a name of digits into an integer (sqlite.org/datatype3.html).
        Cell::Long(node) => Ok(Some(node.to_string())),
        cell => Err(Misfit { column: "node", value: cell.shown(), expected: "a name of at most 256 bytes" }),
    }
}
