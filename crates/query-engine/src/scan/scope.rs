//! Restricts a query to some nodes and a time range. The restriction applies to every table of the statement, below
//! everything that the statement counts, joins or sorts.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident, lit};
use lake::TableIdent;

use crate::classify::classify;
use crate::error::QueryError;

/// Columns with the time of a row. The first one that a table has applies.
const TIMES: [&str; 3] = ["ts", MINUTE, "ingested_at"];
const MINUTE: &str = "minute";
const MINUTE_MS: i64 = 60_000;
/// Tables whose rows other tables refer to. A row lands once, when its object is first seen, and stays valid from then
/// on.
const DIMENSIONS: [&str; 4] = ["stacks", "processes", "cgroups", "nodes"];
/// The node of a table's rows.
const NODE: &str = "node";

/// Whether other tables refer to the rows of a table.
pub(crate) fn is_dimension(name: &TableIdent) -> bool {
    name.namespace == "silver" && DIMENSIONS.contains(&name.name.as_str())
}

/// The rows that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only rows of these nodes; of all nodes when empty.
    pub nodes: BTreeSet<String>,
    /// Only rows from this time on, unix milliseconds, and the minute that contains it. Rows that other tables refer to
    /// are wanted whenever they landed.
    pub since_ms: Option<i64>,
}

impl Scope {
    pub fn is_everything(&self) -> bool {
        self.nodes.is_empty() && self.since_ms.is_none()
    }

    /// The wanted rows of a table.
    ///
    /// # Errors
    /// The table has no column of nodes, or of times.
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
            // Refused instead of ignored: the answer would be about all nodes.
            if schema.field_with_name(NODE).is_err() {
                return Err(cannot_narrow(name, "node"));
            }
            conditions.push(ident(NODE).in_list(self.nodes.iter().map(lit).collect(), false));
        }
        // A recent event may refer to a stack or process that landed long before.
        if let Some(since_ms) = self.since_ms.filter(|_| !is_dimension(name)) {
            let Some(time) = TIMES.into_iter().find(|time| schema.field_with_name(time).is_ok()) else {
                return Err(cannot_narrow(name, "time"));
            };
            // Down to the start of the minute, whose aggregate also counts events after the time. `rem_euclid` rounds
            // down before 1970 too.
            let since_ms =
                if time == MINUTE { since_ms.saturating_sub(since_ms.rem_euclid(MINUTE_MS)) } else { since_ms };
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
    // A view, which the planner inlines, so that the conditions reach the scan and prune files like those of the
    // statement.
    Ok(Arc::new(ViewTable::new(rows.build()?, None)))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion::datasource::empty::EmptyTable;

    use super::*;

    #[test]
    fn a_time_before_every_minute_is_the_least_one() {
        let minute = Field::new(MINUTE, DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), false);
        let table = Arc::new(EmptyTable::new(Arc::new(Schema::new(vec![minute]))));
        let scope = Scope { since_ms: Some(i64::MIN), ..Scope::default() };
        let narrowed = scope.narrow(&TableIdent::new("gold", "by_minute"), table).unwrap();
        let plan = narrowed.get_logical_plan().unwrap().display_indent().to_string();
        assert!(plan.contains(&i64::MIN.to_string()), "{plan}");
    }
}
