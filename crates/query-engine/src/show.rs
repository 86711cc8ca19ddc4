//! `SHOW` and `DESCRIBE`: the objects that a statement may name, as the rows of a query.

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::parser::Statement;
use sqlparser::ast::{
    ObjectName, ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions, Statement as Sql,
};
use tables::registry;

use crate::error::QueryError;
use crate::names::{CATALOG, DEFAULT_SCHEMA, close_names};
use crate::sandbox::functions;
use crate::types::sql_type;
use crate::{literal, statement, views};

/// Replaces a `SHOW` by the query that answers it, and returns every other statement unchanged. `catalog` and `schema`
/// apply to names without one.
///
/// # Errors
/// [`QueryError::Unsupported`] for another `SHOW`, [`QueryError::Invalid`] for a schema that does not exist,
/// [`QueryError::UnknownCatalog`] for another catalog.
pub(crate) fn as_query(
    statement: Statement,
    catalog: Option<&str>,
    schema: Option<&str>,
) -> Result<Statement, QueryError> {
    let Statement::Statement(sql) = &statement else { return Ok(statement) };
    match sql.as_ref() {
        Sql::ShowCatalogs { show_options, .. } => list("Catalog", vec![CATALOG.to_owned()], show_options),
        Sql::ShowSchemas { show_options, .. } | Sql::ShowDatabases { show_options, .. } => {
            let named = parent(show_options).map(|name| last_part(&name));
            check_catalog(named.as_deref().or(catalog))?;
            list("Schema", schemas(), show_options)
        }
        Sql::ShowTables { show_options, .. } | Sql::ShowViews { show_options, .. } => {
            let named = parent(show_options);
            let of = named.as_ref().and_then(catalog_of);
            check_catalog(of.as_deref().or(catalog))?;
            let named = named.map(|name| last_part(&name));
            let schema = named.as_deref().or(schema).unwrap_or(DEFAULT_SCHEMA);
            list("Table", tables_of(schema)?, show_options)
        }
        Sql::ShowColumns { show_options, .. } => match (parent(show_options), &show_options.filter_position) {
            // DataFusion plans DESCRIBE itself, with the schema of the table; `description` makes the rows.
            (Some(table), None) => statement::parse(&format!("DESCRIBE {table}")),
            (Some(table), Some(_)) => Err(unsupported(&format!("SHOW COLUMNS with a filter: write DESCRIBE {table}"))),
            (None, _) => Err(unsupported("SHOW COLUMNS without a table: write SHOW COLUMNS FROM a table")),
        },
        Sql::ShowFunctions { filter } => {
            let names = functions::names();
            rows("Function", names, filter.as_ref())
        }
        // By text, because sqlparser has a variant for each SHOW of each dialect. A variant that is new in a later
        // version is refused as well.
        sql if sql.to_string().starts_with("SHOW") => {
            let message = format!("{sql}: use SHOW CATALOGS, SCHEMAS, TABLES, COLUMNS or FUNCTIONS");
            Err(unsupported(&message))
        }
        _ => Ok(statement),
    }
}

fn unsupported(message: &str) -> QueryError {
    QueryError::Unsupported { message: message.to_owned(), at: None }
}

fn schemas() -> Vec<String> {
    let mut names: Vec<String> = registry::all().iter().map(|table| table.def.name.namespace.to_owned()).collect();
    // The schema of the views has no table in the registry.
    names.push(DEFAULT_SCHEMA.to_owned());
    names.sort_unstable();
    names.dedup();
    names
}

fn tables_of(schema: &str) -> Result<Vec<String>, QueryError> {
    let schema = schema.to_lowercase();
    if schema == DEFAULT_SCHEMA {
        let views = views::VIEWS.iter().map(|view| view.name).chain(views::CONSTANTS.iter().map(|(name, _)| *name));
        return Ok(views.map(str::to_owned).collect());
    }
    let of_schema = registry::all().iter().filter(|table| table.def.name.namespace == schema);
    let names: Vec<String> = of_schema.map(|table| table.def.name.name.to_owned()).collect();
    // A schema exists because the registry has tables in it, also before any of them has been created in the catalog.
    if names.is_empty() {
        let known = schemas();
        let close = close_names(&schema, known.iter().map(String::as_str));
        let close = if close.is_empty() { known } else { close };
        let message = format!("schema `{schema}` does not exist: there are {}", close.join(", "));
        return Err(QueryError::Invalid { message, at: None });
    }
    Ok(names)
}

fn parent(options: &ShowStatementOptions) -> Option<ObjectName> {
    options.show_in.as_ref().and_then(|within| within.parent_name.clone())
}

/// The catalog in the name of a schema; `None` when the name has no catalog.
fn catalog_of(name: &ObjectName) -> Option<String> {
    match &name.0[..] {
        // `catalog.schema`; a single part is a schema.
        [catalog, _] => catalog.as_ident().map(|ident| ident.value.clone()),
        _ => None,
    }
}

fn check_catalog(name: Option<&str>) -> Result<(), QueryError> {
    match name {
        Some(name) if !name.eq_ignore_ascii_case(CATALOG) => {
            Err(QueryError::UnknownCatalog { name: name.to_owned(), at: None })
        }
        _ => Ok(()),
    }
}

fn last_part(name: &ObjectName) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(|ident| ident.value.clone()).unwrap_or_default()
}

fn list(heading: &str, names: Vec<String>, options: &ShowStatementOptions) -> Result<Statement, QueryError> {
    if options.starts_with.is_some() || options.limit.is_some() {
        return Err(unsupported("STARTS WITH and LIMIT of a SHOW: use LIKE"));
    }
    let filter = options.filter_position.as_ref().map(|position| match position {
        ShowStatementFilterPosition::Infix(filter) | ShowStatementFilterPosition::Suffix(filter) => filter,
    });
    rows(heading, names, filter)
}

fn rows(heading: &str, names: Vec<String>, filter: Option<&ShowStatementFilter>) -> Result<Statement, QueryError> {
    let condition = match filter {
        None => String::new(),
        Some(ShowStatementFilter::Like(pattern)) => format!(" WHERE \"{heading}\" LIKE {}", literal::text(pattern)),
        Some(ShowStatementFilter::ILike(pattern)) => format!(" WHERE \"{heading}\" ILIKE {}", literal::text(pattern)),
        Some(other) => return Err(unsupported(&format!("SHOW … {other}: use LIKE"))),
    };
    // `VALUES` needs at least one row, and each of these lists has one: a schema without tables was refused.
    let values = names.iter().map(|name| format!("({})", literal::text(name))).collect::<Vec<_>>().join(", ");
    statement::parse(&format!(
        "SELECT \"{heading}\" FROM (VALUES {values}) AS shown(\"{heading}\"){condition} ORDER BY 1"
    ))
}

/// The columns of a table, with the SQL names of their types.
///
/// # Errors
/// The columns and the rows in this function disagree, which is a bug.
pub(crate) fn description(schema: &Schema) -> Result<LogicalPlan> {
    let fields = schema.fields().iter().map(|field| {
        let extra = if field.is_nullable() { "" } else { "not null" };
        vec![lit(field.name().as_str()), lit(sql_type(field.data_type()).text), lit(extra)]
    });
    let rows = LogicalPlanBuilder::values(fields.collect())?;
    // The columns of Trino's DESCRIBE, without its `Comment`.
    let headings = ["Column", "Type", "Extra"];
    let columns = rows.schema().columns().into_iter().zip(headings);
    let columns = columns.map(|(column, heading)| datafusion::logical_expr::Expr::Column(column).alias(heading));
    rows.project(columns.collect::<Vec<_>>())?.build()
}
