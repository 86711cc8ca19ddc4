//! Finds the tables that a statement names, each at one snapshot. All are loaded before planning, so that every
//! reference to a table in one query, also through several views, reads the same rows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::ViewTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use futures::future::try_join_all;
use lake::{HeadError, ReadError, TableIdent, TableSnapshot};
use sqlparser::ast::{ObjectNamePart, Statement as Sql, visit_relations};
use tables::registry;

use crate::classify::classify;
use crate::error::{Position, QueryError};
use crate::names::{CATALOG, DEFAULT_SCHEMA, close_names};
use crate::query::{AsOf, Query};
use crate::sandbox::subqueries;
use crate::scan::narrowing::Scans;
use crate::scan::provider::{LakeTable, with_views};
use crate::scan::readers::Readers;
use crate::scan::scope::Scope;
use crate::session::{Sessions, Tables};
use crate::time::rfc3339;
use crate::{statement, views};

/// A snapshot that an answer was read from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UsedSnapshot {
    /// `namespace.name`.
    pub table: String,
    /// `None` when the table has no snapshot yet.
    pub snapshot_id: Option<i64>,
    /// When it was committed, unix milliseconds.
    pub committed_ms: Option<i64>,
}

impl UsedSnapshot {
    /// The snapshot of a table as it was read.
    pub fn of(snapshot: &TableSnapshot) -> Self {
        Self {
            table: snapshot.ident().to_string(),
            snapshot_id: snapshot.snapshot_id(),
            committed_ms: snapshot.timestamp_ms(),
        }
    }
}

/// A session that sees the tables of one statement.
pub(crate) struct Resolved {
    pub(crate) state: SessionState,
    pub(crate) snapshots: Vec<UsedSnapshot>,
    /// Filled while the statement is planned.
    pub(crate) scans: Arc<Scans>,
}

/// Loads the tables that a statement names.
///
/// # Errors
/// A table does not exist or cannot be read.
pub(crate) async fn resolve(
    readers: &Readers,
    sessions: &Sessions,
    statement: &Statement,
    query: &Query,
) -> Result<Resolved, QueryError> {
    let schema = query.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
    let catalog = query.catalog.as_deref().unwrap_or(CATALOG);
    let names = names(sessions, statement, (catalog, schema))?;
    // A set: a table that is named twice, or also read by a view, is loaded once and so has one snapshot.
    let mut wanted: BTreeSet<TableIdent> = names.iter().filter(|t| t.namespace != DEFAULT_SCHEMA).cloned().collect();
    let mut used_views = Vec::new();
    let mut tables = Tables::new();
    for name in names.iter().filter(|t| t.namespace == DEFAULT_SCHEMA) {
        if let Some(view) = views::find(&name.name) {
            wanted.extend(view.reads.iter().map(|(namespace, name)| TableIdent::new(*namespace, *name)));
            used_views.push(view);
        } else if let Some(constant) = views::constant(&name.name).map_err(|error| classify(&error, 0))? {
            tables.insert((DEFAULT_SCHEMA.to_owned(), name.name.clone()), constant);
        } else {
            return Err(unknown(statement, name));
        }
    }
    // DESCRIBE reads columns and no rows, so that there is nothing to restrict.
    let scope = if is_description(statement) { Scope::default() } else { query.scope.clone() };
    // Ignoring the restriction would give an answer about all nodes to a client that asked about some.
    if wanted.is_empty() && !scope.is_everything() {
        let message = "the statement reads no table whose rows have a node or a time to be narrowed by".to_owned();
        return Err(QueryError::Invalid { message, at: None });
    }
    let mut snapshots = Vec::new();
    let pin = match query.as_of {
        None => Pin::Now,
        Some(AsOf::Time(at_ms)) => Pin::At { at_ms, exactly: None },
        Some(AsOf::Snapshot(id)) => pin(readers, &wanted, id).await?,
    };
    let scans = Arc::new(Scans::default());
    // Concurrently: each load is at least one round trip to the catalog.
    let loads = wanted.iter().map(|table| load(readers, table, &pin, &scans));
    for (table, loaded) in wanted.iter().zip(try_join_all(loads).await?) {
        let (provider, used) = loaded.ok_or_else(|| unknown(statement, table))?;
        // The restriction is part of the table, below joins, aggregates and limits of the statement.
        let provider = scope.narrow(table, provider)?;
        tables.insert((table.namespace.clone(), table.name.clone()), provider);
        snapshots.push(used);
    }
    // An empty answer would read as "nothing happened", where nothing had landed yet. Internal queries (`unqueued`)
    // expect it.
    if let Some(AsOf::Time(at_ms)) = query.as_of
        && !query.unqueued
        && snapshots.iter().all(|used| used.snapshot_id.is_none())
        && has_rows_now(readers, &wanted).await?
    {
        let names: Vec<&str> = snapshots.iter().map(|used| used.table.as_str()).collect();
        let message = format!("nothing had landed in {} by {}: ask for a later time", names.join(" and "), time(at_ms));
        return Err(QueryError::Invalid { message, at: None });
    }
    let mut state = with_used_views(sessions, tables, used_views).await?;
    // After the views are planned, whose SQL names every table with its schema.
    state.config_mut().options_mut().catalog.default_schema = schema.to_owned();
    query.zone.set(&mut state).map_err(|error| classify(&error, 0))?;
    Ok(Resolved { state, snapshots, scans })
}

/// The tables a statement names, with their schema. Functions used as tables are left to the planner.
fn names(
    sessions: &Sessions,
    statement: &Statement,
    (catalog, schema): (&str, &str),
) -> Result<BTreeSet<TableIdent>, QueryError> {
    let parser = sessions.parser();
    let references = parser.resolve_table_references(statement).map_err(|error| classify(&error, 0))?;
    let mut names = BTreeSet::new();
    for reference in references {
        match &reference {
            // A function in FROM parses like a table: `generate_series(1, 3)`.
            TableReference::Bare { table } if parser.table_functions().contains_key(table.as_ref()) => {}
            other if other.catalog().unwrap_or(catalog) != CATALOG => {
                let name = other.catalog().unwrap_or(catalog).to_owned();
                return Err(QueryError::UnknownCatalog { name, at: place_of(statement, other.table()) });
            }
            other => {
                names.insert(TableIdent::new(other.schema().unwrap_or(schema), other.table()));
            }
        }
    }
    Ok(names)
}

/// The snapshot of each table that is read.
enum Pin {
    Now,
    /// The snapshot that was current at a time, unix milliseconds; for one table exactly the given one.
    At {
        at_ms: i64,
        exactly: Option<Arc<TableSnapshot>>,
    },
}

/// Finds the table that has the snapshot of this id.
async fn pin(readers: &Readers, wanted: &BTreeSet<TableIdent>, id: i64) -> Result<Pin, QueryError> {
    for table in wanted {
        match readers.of(table).snapshot_by_id(id).await {
            // The time of its commit pins the other tables: the state that a reader saw when the snapshot appeared.
            Ok(found) => {
                let at_ms = found.timestamp_ms().unwrap_or(i64::MAX);
                return Ok(Pin::At { at_ms, exactly: Some(Arc::new(found)) });
            }
            // This table does not have it, or has not been created: the next one may.
            Err(ReadError::Head(HeadError::NotFound(_)) | ReadError::NoSnapshot { .. }) => {}
            Err(error) => return Err(QueryError::lake(&error)),
        }
    }
    let tables: Vec<String> = wanted.iter().map(TableIdent::to_string).collect();
    let tables = if tables.is_empty() { "the statement reads no table".to_owned() } else { tables.join(", ") };
    Err(QueryError::Invalid {
        message: format!("no table of the statement has snapshot {id} (any more): {tables}"),
        at: None,
    })
}

type Loaded = (Arc<dyn TableProvider>, UsedSnapshot);

/// A table at one snapshot. A table of the registry that has not been created yet is an empty one; `None` for any other
/// table that does not exist.
async fn load(
    readers: &Readers,
    table: &TableIdent,
    pin: &Pin,
    scans: &Arc<Scans>,
) -> Result<Option<Loaded>, QueryError> {
    let reader = readers.of(table);
    let snapshot = match pin {
        Pin::Now => reader.snapshot().await,
        Pin::At { exactly: Some(found), .. } if found.ident() == table => Ok(Arc::clone(found)),
        Pin::At { at_ms, .. } => reader.snapshot_as_of(*at_ms).await.map(Arc::new),
    };
    match snapshot {
        Ok(snapshot) => {
            let used = UsedSnapshot::of(&snapshot);
            Ok(Some((Arc::new(LakeTable::new(snapshot, scans)), used)))
        }
        Err(ReadError::Head(HeadError::NotFound(_)) | ReadError::NoSnapshot { .. }) => Ok(without_rows(table)),
        // Expired (Iceberg snapshot retention), unlike a time before the first commit: there were rows, and the
        // snapshot with them was removed.
        Err(ReadError::Expired { asked_ms, oldest_ms, .. }) => Err(QueryError::Invalid {
            message: format!(
                "table `{table}` no longer has its state of {}: ask for {} or later, or leave the time out and filter by `ts`",
                time(asked_ms),
                time(oldest_ms)
            ),
            at: None,
        }),
        Err(error) => Err(QueryError::lake(&error)),
    }
}

fn is_description(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(sql) if matches!(sql.as_ref(), Sql::ExplainTable { .. }))
}

/// Whether any of the tables has a snapshot now.
async fn has_rows_now(readers: &Readers, tables: &BTreeSet<TableIdent>) -> Result<bool, QueryError> {
    for table in tables {
        let snapshot = readers.snapshot(table).await?;
        if snapshot.is_some_and(|snapshot| snapshot.snapshot_id().is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A time in readable form.
fn time(unix_ms: i64) -> String {
    rfc3339(unix_ms).unwrap_or_else(|| format!("unix time {unix_ms} ms"))
}

fn without_rows(table: &TableIdent) -> Option<Loaded> {
    let known = registry::find(&table.namespace, &table.name)?;
    let provider = EmptyTable::new(with_views(&known.def.arrow_schema()));
    Some((Arc::new(provider), UsedSnapshot { table: table.to_string(), snapshot_id: None, committed_ms: None }))
}

/// Plans the views over the tables that were loaded, then opens the session that sees both.
async fn with_used_views(
    sessions: &Sessions,
    mut tables: Tables,
    used: Vec<&'static views::View>,
) -> Result<SessionState, QueryError> {
    // Twice: views are planned against the tables, then a session is opened that has both.
    let state = sessions.open(tables.clone()).map_err(|error| classify(&error, 0))?;
    if used.is_empty() {
        return Ok(state);
    }
    for view in used {
        let plan = state.statement_to_plan(statement::parse(view.sql)?).await.map_err(|error| classify(&error, 0))?;
        // Each view by itself, so that the plan of a statement holds it in its final form.
        let plan = subqueries::unnest(plan).map_err(|error| classify(&error, 0))?;
        let table: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, Some(view.sql.to_owned())));
        tables.insert((DEFAULT_SCHEMA.to_owned(), view.name.to_owned()), table);
    }
    sessions.open(tables).map_err(|error| classify(&error, 0))
}

fn unknown(statement: &Statement, table: &TableIdent) -> QueryError {
    let in_default = table.namespace == DEFAULT_SCHEMA;
    let name = if in_default { table.name.clone() } else { table.to_string() };
    QueryError::UnknownTable { at: place_of(statement, &table.name), name, close: close_tables(&table.name) }
}

/// Names of tables and views that are near a name that does not exist, at most three.
fn close_tables(name: &str) -> Vec<String> {
    let views = views::VIEWS.iter().map(|view| view.name).chain(views::CONSTANTS.iter().map(|(name, _)| *name));
    let bases: Vec<String> = registry::all().iter().map(|table| table.def.name.to_string()).collect();
    let known = views.map(str::to_owned).chain(bases);
    let known: Vec<(String, String)> =
        known.map(|full| (full.rsplit('.').next().unwrap_or_default().to_owned(), full)).collect();
    let close = close_names(name, known.iter().map(|(short, _)| short.as_str()));
    // Compared without the namespace, so that a correct name in a wrong namespace is suggested as well.
    let full_names = known.iter().filter(|(short, _)| close.contains(short)).map(|(_, full)| full.clone());
    full_names.take(3).collect()
}

/// Where a table's name stands in the statement.
fn place_of(statement: &Statement, table: &str) -> Option<Position> {
    let sql = match statement {
        Statement::Statement(sql) => sql,
        Statement::Explain(explain) => return place_of(&explain.statement, table),
        _ => return None,
    };
    let found = visit_relations(sql, |name| match name.0.last() {
        Some(ObjectNamePart::Identifier(last)) if last.value.eq_ignore_ascii_case(table) => {
            let first = match name.0.first() {
                Some(ObjectNamePart::Identifier(first)) => first,
                _ => last,
            };
            ControlFlow::Break(first.span.start)
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        // sqlparser counts lines from 1; line 0 is the empty span of a name that no text was parsed for.
        ControlFlow::Break(start) if start.line > 0 => Some(Position { line: start.line, column: start.column }),
        _ => None,
    }
}
