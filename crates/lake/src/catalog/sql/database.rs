//! The Iceberg JDBC catalog (V1 tables) on SQLite or Postgres. A commit is one autocommitted
//! `UPDATE … WHERE metadata_location = $base`: no transaction is open whose `COMMIT` could fail unnoticed, and the
//! number of rows that it changed decides which writer won. PyIceberg's `SqlCatalog("causeway", …)`, Trino and Spark
//! read the same two tables.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use service_kit::durable::make_dir;
use sqlx::ConnectOptions as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Row};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::catalog::CatalogError;
use crate::table::TableIdent;

/// The catalog's name inside the database; other programs must use the same one.
pub(crate) const CATALOG_NAME: &str = "causeway";
/// What a path cannot have in an address.
const IN_PATH: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'\\').add(b'`');
/// How long to wait for a connection before the catalog counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are there before any table is known: for lookups, and for homes.
const FIRST_CONNECTIONS: usize = 2;
/// Connections of one process at most: PostgreSQL takes 100 of all processes unless it is configured otherwise.
const MOST_CONNECTIONS: u32 = 16;
/// A connection that was not used for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server may work on one statement. Ours touch one row.
const STATEMENT_TIMEOUT_MS: u64 = 10_000;
/// How long to wait for a reply: the server stops first, so that its answer normally arrives.
const REPLY_TIMEOUT: Duration = Duration::from_millis(STATEMENT_TIMEOUT_MS + 2_000);

const TABLES_DDL: &str = "CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name))";
const NAMESPACES_DDL: &str = "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000),
    PRIMARY KEY (catalog_name, namespace, property_key))";
/// Asks for no rows: fails where the table is of version 0 of the JDBC catalog, which has no such column (Apache
/// Iceberg, `JdbcUtil`).
const TYPED: &str = "SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0";

/// What became of a compare-and-swap.
#[derive(Debug)]
pub(crate) enum SwapReply {
    /// The pointer is at the new location.
    Applied,
    /// The pointer had moved; nothing was changed.
    Lost,
    /// No request left this machine; nothing was changed.
    NotSent(CatalogError),
    /// The request left and no verdict came back. It may have been applied, and may still be.
    Unknown(CatalogError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DatabaseKind {
    Sqlite,
    Postgres,
}

impl DatabaseKind {
    fn of(uri: &str) -> Result<Self, CatalogError> {
        match uri.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            _ => Err(CatalogError::Address { source: "unknown scheme".into() }),
        }
    }
}

/// The catalog's database: its two tables, and a pool of connections as large as the number of tables that are used.
#[derive(Debug)]
pub(crate) struct Database {
    pool: AnyPool,
    /// One for each connection that may be in use: [`FIRST_CONNECTIONS`], and one more for each table that was opened.
    connections: Semaphore,
    tables: AtomicUsize,
    options: AnyConnectOptions,
    kind: DatabaseKind,
    /// The address without credentials, for messages.
    name: String,
}

impl Database {
    /// Connects and makes the catalog's tables when they are absent.
    pub(crate) async fn open(uri: &str) -> Result<Self, CatalogError> {
        sqlx::any::install_default_drivers();
        let kind = DatabaseKind::of(uri)?;
        let uri = if kind == DatabaseKind::Sqlite { prepare_sqlite(uri)? } else { uri.to_owned() };
        let options =
            AnyConnectOptions::from_str(&uri).map_err(|source| CatalogError::Address { source: source.into() })?;
        // sqlx would log slow statements as warnings. The standard error of a command is for its user, and ingest
        // measures its commits itself.
        let options = options.disable_statement_logging();
        let name = public_name(&options);
        let pool = AnyPoolOptions::new()
            .max_connections(MOST_CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            // Settings belong to a session: each new connection of the pool sets them.
            .after_connect(move |connection, _| prepare(connection, kind))
            .connect_lazy_with(options.clone());
        let connections = Semaphore::new(FIRST_CONNECTIONS);
        let catalog = Self { pool, connections, tables: AtomicUsize::new(0), options, kind, name };
        catalog.create_tables().await?;
        Ok(catalog)
    }

    async fn create_tables(&self) -> Result<(), CatalogError> {
        let mut connection = self.connect_patiently().await?;
        for ddl in [TABLES_DDL, NAMESPACES_DDL] {
            // Two processes that start together may both find the table absent. The error of the slower one means that
            // it exists now.
            if connection.execute(ddl).await.is_err() {
                connection.execute(ddl).await.map_err(self.query_error("create its tables"))?;
            }
        }
        // Asks for no rows: a table of another program with this name is found now and not at the first commit.
        let columns = "SELECT catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location
                       FROM iceberg_tables WHERE 1 = 0";
        connection
            .execute(columns)
            .await
            .map_err(self.query_error("find the columns of a catalog in iceberg_tables"))?;
        if connection.execute(TYPED).await.is_err() {
            self.add_type(&mut connection).await?;
        }
        // The tables exist: an error while the connection closes changes nothing.
        let _ = connection.close().await;
        Ok(())
    }

    /// Brings the catalog's tables from version 0 to version 1.
    async fn add_type(&self, connection: &mut AnyConnection) -> Result<(), CatalogError> {
        let alter = "ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)";
        let Err(error) = connection.execute(alter).await else { return Ok(()) };
        // Two processes that start together may both find the column absent. The error of the slower one means that it
        // exists now.
        match connection.execute(TYPED).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.query_error("bring its tables to version 1")(error)),
        }
    }

    /// A connection outside the pool, because the pool does not report the cause of a failure. It is tried again for a
    /// while: a server that is starting refuses at first, and so does a new SQLite file while another process switches
    /// it to WAL mode.
    async fn connect_patiently(&self) -> Result<AnyConnection, CatalogError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            match self.try_connect().await {
                Err(source) if is_passing(&source) && Instant::now() < deadline => {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                connected => return connected.map_err(|source| self.connect_error(source)),
            }
        }
    }

    async fn try_connect(&self) -> Result<AnyConnection, sqlx::Error> {
        let connect = async {
            let mut connection = AnyConnection::connect_with(&self.options).await?;
            prepare(&mut connection, self.kind).await?;
            Ok(connection)
        };
        // Without a limit, TCP tries for minutes to reach a host that does not answer.
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// Makes the namespace known to other programs; no error when it exists.
    pub(crate) async fn ensure_namespace(&self, namespace: &str) -> Result<(), CatalogError> {
        // Java's `JdbcCatalog` and PyIceberg mark a namespace without properties with the same key.
        let sql = "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
                   VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(CATALOG_NAME).bind(namespace);
        let mut connection = self.acquire().await?;
        self.in_time("make a namespace", query.execute(&mut *connection)).await?;
        Ok(())
    }

    /// Registers a table. `false`: another process registered it first.
    pub(crate) async fn create(&self, ident: &TableIdent, location: &str) -> Result<bool, CatalogError> {
        let sql = "INSERT INTO iceberg_tables
                   (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)
                   VALUES ($1, $2, $3, $4, 'TABLE') ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(CATALOG_NAME).bind(&ident.namespace).bind(&ident.name).bind(location);
        let mut connection = self.acquire().await?;
        let done = self.in_time("register a table", query.execute(&mut *connection)).await?;
        Ok(done.rows_affected() == 1)
    }

    /// The table's metadata location; `None` when there is no such table.
    pub(crate) async fn location(&self, ident: &TableIdent) -> Result<Option<String>, CatalogError> {
        let mut connection = self.acquire().await?;
        // After an error the state of the session is not known: it does not go back to the pool.
        let found = self.select_location(&mut connection, ident).await;
        if found.is_err() {
            connection.close();
        }
        found
    }

    /// As [`Self::location`], over a connection made for this one question.
    pub(crate) async fn location_over_new_connection(
        &self,
        ident: &TableIdent,
    ) -> Result<Option<String>, CatalogError> {
        let mut connection = self.try_connect().await.map_err(|source| self.connect_error(source))?;
        let found = self.select_location(&mut connection, ident).await;
        if found.is_ok() {
            // The answer has arrived: an error while the connection closes changes nothing.
            let _ = connection.close().await;
        }
        found
    }

    async fn select_location(
        &self,
        connection: &mut AnyConnection,
        ident: &TableIdent,
    ) -> Result<Option<String>, CatalogError> {
        // Rows of a version 0 catalog have no type; views have another one.
        let sql = "SELECT metadata_location FROM iceberg_tables
                   WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3
                   AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)";
        let query = sqlx::query(sql).bind(CATALOG_NAME).bind(&ident.namespace).bind(&ident.name);
        let operation = "look up a table";
        let row = self.in_time(operation, query.fetch_optional(connection)).await?;
        let Some(row) = row else { return Ok(None) };
        row.try_get::<Option<String>, _>(0).map_err(self.query_error(operation))
    }

    /// Every table of the catalog, by name.
    pub(crate) async fn list(&self) -> Result<Vec<TableIdent>, CatalogError> {
        let sql = "SELECT table_namespace, table_name FROM iceberg_tables
                   WHERE catalog_name = $1 AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)
                   ORDER BY table_namespace, table_name";
        let operation = "list its tables";
        let mut connection = self.acquire().await?;
        let query = sqlx::query(sql).bind(CATALOG_NAME);
        let rows = self.in_time(operation, query.fetch_all(&mut *connection)).await?;
        rows.iter().map(ident).collect::<Result<_, _>>().map_err(self.query_error(operation))
    }

    /// Moves the table's pointer from `base` to `next`, if it still is at `base`.
    pub(crate) async fn swap(&self, ident: &TableIdent, base: &str, next: &str) -> SwapReply {
        let mut connection = match self.acquire().await {
            Ok(connection) => connection,
            // No connection, so that no request can have left.
            Err(error) => return SwapReply::NotSent(error),
        };
        // Compare-and-swap in one statement. The database serialises updates of a row, so that of two swaps from one
        // base one matches no row.
        let sql = "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2
                   WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $6";
        let query = sqlx::query(sql)
            .bind(next)
            .bind(base)
            .bind(CATALOG_NAME)
            .bind(&ident.namespace)
            .bind(&ident.name)
            .bind(base);
        let operation = "swap a table's metadata";
        let error = match self.in_time(operation, query.execute(&mut *connection)).await {
            // The pointer has moved, or the table was dropped.
            Ok(done) if done.rows_affected() == 0 => return SwapReply::Lost,
            Ok(_) => return SwapReply::Applied,
            // An error does not prove that nothing was changed: the statement may have been committed before it.
            Err(error) => error,
        };
        // The session may still be working on the swap: no other request may use it.
        connection.close();
        SwapReply::Unknown(error)
    }

    /// The database's own clock as an SQL expression: unix milliseconds, while the statement runs.
    pub(super) fn now_ms(&self) -> &'static str {
        match self.kind {
            // SQLite from 3.42 on.
            DatabaseKind::Sqlite => "CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)",
            // Not `now()`, which is when the transaction began.
            DatabaseKind::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// One more table is used: its commits may run beside those of the others.
    pub(crate) fn add_connection(&self) {
        // Beyond the size of the pool a permit would only move the wait into the pool.
        let tables = self.tables.fetch_add(1, Ordering::Relaxed) + 1;
        if FIRST_CONNECTIONS + tables <= MOST_CONNECTIONS as usize {
            self.connections.add_permits(1);
        }
    }

    pub(super) async fn acquire(&self) -> Result<PooledConnection<'_>, CatalogError> {
        let acquire = async {
            // The permit first: it bounds how many connections the pool opens. One time limit covers both waits.
            let permit = self.connections.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            Ok(PooledConnection { connection: self.pool.acquire().await?, _permit: permit })
        };
        let acquired = tokio::time::timeout(CONNECT_TIMEOUT, acquire).await;
        let acquired = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        acquired.map_err(|source| self.connect_error(source))
    }

    fn connect_error(&self, source: sqlx::Error) -> CatalogError {
        let hint = match self.kind {
            DatabaseKind::Sqlite => "is it an SQLite file, and may this user write to it and its directory?",
            DatabaseKind::Postgres => "is the database running, and are user and password right?",
        };
        CatalogError::Connect { name: self.name.clone(), hint, source: source.into() }
    }

    pub(super) fn query_error(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> CatalogError + use<> {
        let name = self.name.clone();
        move |source| CatalogError::Query { name: name.clone(), operation, source: source.into() }
    }

    /// Waits for the reply to a request, [`REPLY_TIMEOUT`] at most.
    pub(super) async fn in_time<T>(
        &self,
        operation: &'static str,
        reply: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, CatalogError> {
        match tokio::time::timeout(REPLY_TIMEOUT, reply).await {
            Ok(reply) => reply.map_err(self.query_error(operation)),
            // Dropping the request does not stop it on the server: the caller must count it as unknown.
            Err(_) => {
                Err(CatalogError::NoReply { name: self.name.clone(), operation, limit_s: REPLY_TIMEOUT.as_secs() })
            }
        }
    }
}

/// The table that a row of namespace and name stands for.
fn ident(row: &sqlx::any::AnyRow) -> Result<TableIdent, sqlx::Error> {
    Ok(TableIdent::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?))
}

/// A connection of the pool, back in it when dropped.
pub(super) struct PooledConnection<'a> {
    connection: PoolConnection<Any>,
    _permit: SemaphorePermit<'a>,
}

impl PooledConnection<'_> {
    /// Closes the connection instead of returning it to the pool.
    fn close(self) {
        // Detached, so that the pool may open another connection in its place.
        drop(self.connection.detach());
    }
}

impl Deref for PooledConnection<'_> {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection<'_> {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

/// Whether a connection may succeed a moment later.
fn is_passing(error: &sqlx::Error) -> bool {
    const SQLITE_BUSY: &str = "5";
    match error {
        // Refused or reset: the server is starting.
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == SQLITE_BUSY),
        _ => false,
    }
}

/// Limits and durability of one connection.
fn prepare(connection: &mut AnyConnection, database: DatabaseKind) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        match database {
            // The timeout first: the switch to WAL needs a lock that another process may hold. In WAL mode only FULL
            // flushes the log before a commit is reported (SQLite, "PRAGMA synchronous").
            DatabaseKind::Sqlite => {
                for pragma in ["busy_timeout = 10000", "journal_mode = WAL", "synchronous = FULL"] {
                    connection.execute(format!("PRAGMA {pragma}").as_str()).await?;
                }
            }
            DatabaseKind::Postgres => {
                connection.execute(format!("SET statement_timeout = {STATEMENT_TIMEOUT_MS}").as_str()).await?;
            }
        }
        Ok(())
    })
}

/// Makes the database's directory and asks SQLite to make the file.
fn prepare_sqlite(uri: &str) -> Result<String, CatalogError> {
    // `rwc`: read, write, and create the file. An address with options of its own keeps them.
    let (path, options) = uri.split_once('?').unwrap_or((uri, "mode=rwc"));
    if let Some(parent) = sqlite_file(uri).parent() {
        // SQLite flushes the directory that names its files, and none above it.
        make_dir(parent).map_err(|source| CatalogError::Directory { path: parent.display().to_string(), source })?;
    }
    Ok(format!("{path}?{options}"))
}

/// The file that an address names. The address is a URL: what it percent-encodes is decoded, as SQLite's driver does.
/// Before an absolute path there may be two slashes, or three as in SQLAlchemy's addresses.
fn sqlite_file(uri: &str) -> PathBuf {
    let path = uri.split_once('?').map_or(uri, |(path, _)| path);
    let path = path.strip_prefix("sqlite:").unwrap_or(path);
    let path = path.strip_prefix("//").unwrap_or(path);
    PathBuf::from(percent_decode_str(path).decode_utf8_lossy().into_owned())
}

/// The address of an SQLite catalog at a path. Characters that a URL gives a meaning are percent-encoded.
pub fn sqlite_uri(path: &str) -> String {
    format!("sqlite://{}", utf8_percent_encode(path, &IN_PATH))
}

/// A reader makes no catalog: an SQLite file that is not there is a mistyped address.
pub(crate) fn must_exist(uri: &str) -> Result<(), CatalogError> {
    if DatabaseKind::of(uri)? == DatabaseKind::Sqlite && !sqlite_file(uri).exists() {
        return Err(CatalogError::Absent { name: uri.to_owned() });
    }
    Ok(())
}

fn public_name(options: &AnyConnectOptions) -> String {
    // Without user, password and options: libpq's form of an address may carry the password as an option.
    let url = &options.database_url;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_grows_with_the_tables_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let database = Database::open(&sqlite_uri(path.to_str().unwrap())).await.unwrap();
        assert_eq!(database.connections.available_permits(), 2);
        for _ in 0..5 {
            database.add_connection();
        }
        assert_eq!(database.connections.available_permits(), 7);
        let one = database.acquire().await.unwrap();
        assert_eq!(database.connections.available_permits(), 6);
        drop(one);
        for _ in 0..50 {
            database.add_connection();
        }
        assert_eq!(database.connections.available_permits(), 16);
    }

    #[tokio::test]
    async fn a_catalog_of_version_0_is_brought_to_version_1_by_several_processes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let uri = sqlite_uri(dir.path().join("catalog.sqlite").to_str().unwrap());
        let database = Database::open(&uri).await.unwrap();
        let mut connection = database.try_connect().await.unwrap();
        connection.execute("ALTER TABLE iceberg_tables DROP COLUMN iceberg_type").await.unwrap();
        connection.execute(TYPED).await.unwrap_err();
        Database::open(&uri).await.unwrap();
        connection.execute(TYPED).await.unwrap();
        // As a process does that found the column absent before the other one added it.
        database.add_type(&mut connection).await.unwrap();
        connection.execute("DROP TABLE iceberg_tables").await.unwrap();
        let error = database.add_type(&mut connection).await.unwrap_err();
        assert!(error.to_string().contains("bring its tables to version 1"), "{error}");
    }
}
