//! A question narrowed to some nodes and a stretch of time: every table of the statement is, whatever it counts, joins or sorts.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident, lit};
use lake::TableIdent;

use crate::classify::classify;
use crate::error::QueryError;

/// The time of a table's rows is the first of these columns that it has.
const TIMES: [&str; 3] = ["ts", MINUTE, "ingested_at"];
const MINUTE: &str = "minute";
const MINUTE_MS: i64 = 60_000;
/// Tables of what others refer to: a row lands once, when the thing is met first, and holds from then on.
const DIMENSIONS: [&str; 4] = ["stacks", "processes", "cgroups", "nodes"];
/// The node of a table's rows.
const NODE: &str = "node";

/// Whether a table holds what others refer to.
pub(crate) fn is_dimension(name: &TableIdent) -> bool {
    name.namespace == "silver" && DIMENSIONS.contains(&name.name.as_str())
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those of these nodes; of all nodes when empty.
    pub nodes: BTreeSet<String>,
    /// Those from then on, unix milliseconds. Of minutes the one it lies in too; what others refer to is wanted whenever it
    /// landed.
    pub since_ms: Option<i64>,
}

impl Scope {
    pub fn is_everything(&self) -> bool {
        self.nodes.is_empty() && self.since_ms.is_none()
    }

    /// The rows wanted of a table.
    ///
    /// # Errors
    /// The table has no node, or no time, to be narrowed by.
    pub(crate) fn narrow(
        &self,
        name: &TableIdent,
        table: Arc<dyn TableProvider>,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        if self.is_everything() {
            return Ok(table);
        }
        let schema = table.schema();
        let mut conditions: Vec<Expr> = Vec::new();
        if !self.nodes.is_empty() {
            if schema.field_with_name(NODE).is_err() {
                return Err(cannot_narrow(name, "node"));
            }
            conditions.push(ident(NODE).in_list(self.nodes.iter().map(lit).collect(), false));
        }
        if let Some(since_ms) = self.since_ms.filter(|_| !is_dimension(name)) {
            let Some(time) = TIMES.into_iter().find(|time| schema.field_with_name(time).is_ok()) else {
                return Err(cannot_narrow(name, "time"));
            };
            let since_ms = if time == MINUTE { since_ms - since_ms.rem_euclid(MINUTE_MS) } else { since_ms };
            let since = ScalarValue::TimestampMicrosecond(Some(since_ms.saturating_mul(1_000)), Some("+00:00".into()));
            conditions.push(ident(time).gt_eq(lit(since)));
        }
        where_all(name, table, conditions).map_err(|error| classify(&error, 0))
    }
}

fn cannot_narrow(name: &TableIdent, what: &str) -> QueryError {
    let message = format!("`{name}` has no {what} to be narrowed by: leave the option out and write a WHERE");
    QueryError::Invalid { message, at: None }
}

fn where_all(
    name: &TableIdent,
    table: Arc<dyn TableProvider>,
    conditions: Vec<Expr>,
) -> Result<Arc<dyn TableProvider>> {
    let mut rows = LogicalPlanBuilder::scan(name.name.as_str(), provider_as_source(table), None)?;
    for condition in conditions {
        rows = rows.filter(condition)?;
    }
    Ok(Arc::new(ViewTable::new(rows.build()?, None)))
}
