//! Clauses that the parser accepts and the planner ignores or does not support, in the text of a statement: each is
//! rewritten into a form that the planner supports, or refused by name before anything is planned. An ignored clause
//! would give a wrong answer without an error.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use sqlparser::ast::{
    Expr, Fetch, GroupByExpr, LimitClause, NamedWindowExpr, Query, Select, SetExpr, SetOperator, SetQuantifier,
    Spanned, Statement as Sql, TableAliasColumnDef, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType, With, visit_expressions_mut,
};

use crate::error::{Position, QueryError};
use crate::sandbox::tuples;
use crate::sandbox::tuples::Copies;
use crate::statement;

/// Rewrites and refuses the clauses of every query of a statement.
///
/// # Errors
/// [`QueryError::Refused`], [`QueryError::Unsupported`] or [`QueryError::Invalid`], naming the clause.
pub(crate) fn settle(statement: &mut Statement) -> Result<(), QueryError> {
    let outcome = match statement {
        Statement::Statement(sql) => sql.visit(&mut Clauses::default()),
        Statement::Explain(explain) => return settle(&mut explain.statement),
        _ => ControlFlow::Continue(()),
    };
    match outcome {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Clauses {
    copies: Copies,
}

impl VisitorMut for Clauses {
    type Break = Box<QueryError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        continue_if(settle_query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        continue_if(settle_select(select))
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Self::Break> {
        continue_if(check_table(table))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        continue_if(settle_expression(expr, &mut self.copies))
    }
}

fn continue_if(outcome: Result<(), QueryError>) -> ControlFlow<Box<QueryError>> {
    match outcome {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

fn unsupported(message: &str) -> QueryError {
    QueryError::Unsupported { message: message.to_owned(), at: None }
}

/// Refuses the first clause that is present.
fn refuse(clauses: &[(bool, &str)]) -> Result<(), QueryError> {
    match clauses.iter().find(|(is_there, _)| *is_there) {
        Some((_, message)) => Err(unsupported(message)),
        None => Ok(()),
    }
}

fn settle_query(query: &mut Query) -> Result<(), QueryError> {
    // `FOR UPDATE` and `FOR SHARE` announce a write, which this engine never makes.
    if let Some(lock) = query.locks.first() {
        return Err(QueryError::Refused { statement: lock.to_string() });
    }
    refuse(&[
        (query.for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE: ask for another format of the answer instead"),
        (query.settings.is_some(), "SETTINGS after a query"),
        (query.format_clause.is_some(), "FORMAT after a query: ask for another format of the answer instead"),
        (!query.pipe_operators.is_empty(), "the pipe `|>`: write a subquery in FROM instead"),
    ])?;
    check_set_operation(&query.body)?;
    if let Some(with) = &mut query.with {
        name_recursions(with)?;
    }
    write_out_order(query);
    if let Some(fetch) = query.fetch.take() {
        fetch_as_limit(query, fetch)?;
    }
    check_limit(query)
}

/// Refuses `INTERSECT ALL` and `EXCEPT ALL`. SQL counts equal rows there (multiset semantics); the planner would keep
/// or drop all equal rows together.
fn check_set_operation(body: &SetExpr) -> Result<(), QueryError> {
    let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return Ok(()) };
    let counts = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
    if counts && *op != SetOperator::Union {
        let message = format!("{op} ALL: use {op}, or count the rows of each side with GROUP BY and join them");
        return Err(QueryError::Unsupported { message, at: None });
    }
    // The operands of one chain. A query in parentheses is visited by itself.
    check_set_operation(left)?;
    check_set_operation(right)
}

/// `FETCH FIRST n ROWS ONLY` is the standard's `LIMIT n`.
fn fetch_as_limit(query: &mut Query, fetch: Fetch) -> Result<(), QueryError> {
    refuse(&[
        (fetch.percent, "FETCH of a PERCENT: use ntile() or row_number() and count(*) OVER () in a subquery"),
        (fetch.with_ties, "FETCH … WITH TIES: use `QUALIFY rank() OVER (ORDER BY …) <= n` instead"),
    ])?;
    // SQL:2008: `FETCH FIRST ROW ONLY` without a number is one row.
    let count = fetch.quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        None => {
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(count), offset: None, limit_by: Vec::new() });
        }
        // `OFFSET … FETCH …`: only the number of rows is missing.
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(count),
        Some(_) => {
            let message = "LIMIT and FETCH in one query: write one of them".to_owned();
            return Err(QueryError::Invalid { message, at: None });
        }
    }
    Ok(())
}

fn number(digits: &str) -> Expr {
    Expr::Value(ValueWithSpan {
        value: Value::Number(digits.to_owned(), false),
        span: sqlparser::tokenizer::Span::empty(),
    })
}

/// Refuses a limit or an offset that depends on rows: it is needed before a row is read.
fn check_limit(query: &Query) -> Result<(), QueryError> {
    let (limit, offset) = match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
            refuse(&[(
                !limit_by.is_empty(),
                "LIMIT … BY: use `QUALIFY row_number() OVER (PARTITION BY … ORDER BY …) <= n` instead",
            )])?;
            (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
        None => return Ok(()),
    };
    for (clause, expr) in [("LIMIT", limit), ("OFFSET", offset)] {
        if let Some(expr) = expr
            && !is_constant(expr)
        {
            let message = format!("{clause} takes a constant integer, and `{expr}` is not one");
            return Err(QueryError::Invalid { message, at: position(expr) });
        }
    }
    Ok(())
}

fn is_constant(expr: &Expr) -> bool {
    // Arithmetic over literals, which the planner folds. A name or a call anywhere in it is refused.
    use sqlparser::ast::visit_expressions;
    visit_expressions(expr, |part| match part {
        Expr::Value(_) | Expr::UnaryOp { .. } | Expr::BinaryOp { .. } | Expr::Nested(_) | Expr::Cast { .. } => {
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(()),
    })
    .is_continue()
}

fn position(node: &impl Spanned) -> Option<Position> {
    let start = node.span().start;
    (start.line > 0).then_some(Position { line: start.line, column: start.column })
}

/// Gives the first part of a recursion the names of its columns, which the planner would give to the result only.
fn name_recursions(with: &mut With) -> Result<(), QueryError> {
    if !with.recursive {
        return Ok(());
    }
    for cte in &mut with.cte_tables {
        let SetExpr::SetOperation { left, .. } = cte.query.body.as_mut() else { continue };
        if cte.alias.columns.is_empty() {
            continue;
        }
        // The names move to the first part, from whose schema the recursive part takes its columns.
        let columns = std::mem::take(&mut cte.alias.columns);
        // `VALUES` without rows is a placeholder, so that the first part is moved instead of copied.
        let seed = std::mem::replace(
            left.as_mut(),
            SetExpr::Values(sqlparser::ast::Values { explicit_row: false, value_keyword: false, rows: Vec::new() }),
        );
        **left = SetExpr::Query(Box::new(renamed(*query_of(seed)?, columns, "*")?));
    }
    Ok(())
}

/// `SELECT … FROM (query) AS "renamed"(columns)`.
fn renamed(query: Query, columns: Vec<TableAliasColumnDef>, select: &str) -> Result<Query, QueryError> {
    // A parsed template that is filled in: fields of the syntax tree that a new parser adds have the parser's
    // defaults.
    let mut outer = parse_query(&format!("SELECT {select} FROM (SELECT 1) AS \"renamed\"(\"one\")"))?;
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(from) = select.from.first_mut()
        && let TableFactor::Derived { subquery, alias: Some(alias), .. } = &mut from.relation
    {
        **subquery = query;
        alias.columns = columns;
    }
    Ok(outer)
}

fn query_of(body: SetExpr) -> Result<Box<Query>, QueryError> {
    if let SetExpr::Query(query) = body {
        return Ok(query);
    }
    let mut query = parse_query("SELECT 1")?;
    *query.body = body;
    Ok(Box::new(query))
}

/// Parses a query of this module, not of a user.
fn parse_query(sql: &str) -> Result<Query, QueryError> {
    if let Statement::Statement(parsed) = statement::parse(sql)?
        && let Sql::Query(query) = *parsed
    {
        return Ok(*query);
    }
    Err(QueryError::Internal { message: format!("`{sql}` is no query") })
}

fn settle_select(select: &mut Select) -> Result<(), QueryError> {
    refuse(&[
        (select.top.is_some(), "TOP: use LIMIT instead"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW: use CROSS JOIN UNNEST(…) instead"),
        (select.prewhere.is_some(), "PREWHERE: use WHERE instead"),
        (!select.connect_by.is_empty(), "CONNECT BY: use WITH RECURSIVE instead"),
        (!select.cluster_by.is_empty(), "CLUSTER BY"),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!select.sort_by.is_empty(), "SORT BY: use ORDER BY instead"),
        (select.value_table_mode.is_some(), "SELECT AS VALUE and SELECT AS STRUCT"),
        (select.select_modifiers.is_some(), "words between SELECT and its columns"),
        (select.exclude.is_some(), "EXCLUDE after a list of columns: write `* EXCLUDE (…)`"),
    ])?;
    if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
        // `GROUP BY ()` is the empty grouping set of the SQL standard: one total, which exists also over no rows.
        for expr in exprs.iter_mut().filter(|expr| matches!(expr, Expr::Tuple(parts) if parts.is_empty())) {
            *expr = Expr::GroupingSets(vec![Vec::new()]);
        }
    }
    // Before the check below: windows that begin with another one are written out, and only what cannot be is
    // refused.
    write_out_windows(select);
    for window in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &mut window.1
            && spec.window_name.is_some()
        {
            return Err(unsupported("a window that begins with another one: write its PARTITION BY and ORDER BY out"));
        }
        if let NamedWindowExpr::WindowSpec(spec) = &mut window.1
            && let Some(frame) = &mut spec.window_frame
        {
            settle_frame(frame)?;
        }
    }
    Ok(())
}

/// Writes out windows of ORDER BY, whose names belong to the only SELECT of the query.
fn write_out_order(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_ref() {
        let named = named_windows(select);
        // The visitor never breaks.
        let _ = visit_expressions_mut(&mut query.order_by, |expr| write_out(&named, expr));
    }
}

fn write_out_windows(select: &mut Select) {
    let named = named_windows(select);
    let _ = visit_expressions_mut(&mut select.projection, |expr| write_out(&named, expr));
    let _ = visit_expressions_mut(&mut select.qualify, |expr| write_out(&named, expr));
}

fn named_windows(select: &Select) -> HashMap<String, WindowSpec> {
    let named = select.named_window.iter().filter_map(|window| match &window.1 {
        NamedWindowExpr::WindowSpec(spec) => Some((window.0.value.to_lowercase(), spec.clone())),
        // `WINDOW v AS w` adds nothing, and the planner resolves it.
        NamedWindowExpr::NamedWindow(_) => None,
    });
    named.collect()
}

/// `OVER (w ROWS …)` starts from the definition of window w, which the planner ignores.
fn write_out(named: &HashMap<String, WindowSpec>, expr: &mut Expr) -> ControlFlow<()> {
    if let Expr::Function(function) = expr
        && let Some(WindowType::WindowSpec(spec)) = &mut function.over
        && let Some(of) = spec.window_name.as_ref().and_then(|name| named.get(&name.value.to_lowercase()))
        // SQL permits an order and a frame beside the name, not a partition, and no frame in the named window.
        // Everything else keeps the name and is refused later.
        && of.window_name.is_none()
        && of.window_frame.is_none()
        && spec.partition_by.is_empty()
    {
        spec.window_name = None;
        // The window's own order replaces that of the named one. The standard permits only one of the two to have an
        // order.
        spec.partition_by.clone_from(&of.partition_by);
        if spec.order_by.is_empty() {
            spec.order_by.clone_from(&of.order_by);
        }
    }
    ControlFlow::Continue(())
}

fn check_table(table: &TableFactor) -> Result<(), QueryError> {
    const SAMPLE: &str = "TABLESAMPLE: write `WHERE random() < 0.05` for 5 percent of the rows";
    // These clauses would be parsed and ignored: the answer would silently cover other rows than the statement names.
    match table {
        TableFactor::Table {
            sample, version, partitions, with_hints, json_path, index_hints, with_ordinality, ..
        } => refuse(&[
            (sample.is_some(), SAMPLE),
            (version.is_some(), "a version of a table: ask for the whole query `as_of` a time or snapshot instead"),
            (!partitions.is_empty(), "PARTITION of a table: use WHERE instead"),
            (!with_hints.is_empty() || !index_hints.is_empty(), "hints after a table"),
            (json_path.is_some(), "a path after a table"),
            (*with_ordinality, "WITH ORDINALITY: use row_number() OVER () instead"),
        ]),
        TableFactor::Derived { sample, .. } => refuse(&[(sample.is_some(), SAMPLE)]),
        TableFactor::UNNEST { with_ordinality, with_offset, .. } => {
            refuse(&[(*with_ordinality || *with_offset, "UNNEST WITH ORDINALITY or WITH OFFSET")])
        }
        TableFactor::Function { with_ordinality, .. } => {
            refuse(&[(*with_ordinality, "WITH ORDINALITY: use row_number() OVER () instead")])
        }
        TableFactor::NestedJoin { .. } | TableFactor::TableFunction { .. } => Ok(()),
        TableFactor::Pivot { .. } => Err(unsupported("PIVOT: use `count(*) FILTER (WHERE …)` for each column instead")),
        TableFactor::Unpivot { .. } => Err(unsupported("UNPIVOT: use UNION ALL instead")),
        TableFactor::MatchRecognize { .. } => Err(unsupported("MATCH_RECOGNIZE: use lag() and lead() instead")),
        // An allow-list: a kind that a new parser adds is refused until it is reviewed.
        _ => Err(unsupported("this kind of table in FROM: tables, subqueries, functions and UNNEST are")),
    }
}

fn settle_expression(expr: &mut Expr, copies: &mut Copies) -> Result<(), QueryError> {
    tuples::settle(expr, copies)?;
    match expr {
        Expr::InSubquery { expr, subquery, .. } => {
            // `(a, b) IN (SELECT x, y …)`: the planner takes one column in a subquery, so that both sides become one
            // structure. `subqueries::rows` takes them apart again and compares field by field.
            let Some(parts) = tuples::parts(expr) else { return Ok(()) };
            let row = tuples::as_structure(parts);
            let names = (1..=parts.len()).map(|nth| format!("column {nth}")).collect::<Vec<_>>();
            let columns_of = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            let columns = names.into_iter().map(|name| {
                let mut column = TableAliasColumnDef::from_name(name);
                // Quoted, since these names contain a space; without quotes a name could also be one of the user's.
                column.name.quote_style = Some('"');
                column
            });
            // A placeholder for one statement, so that the subquery is moved instead of copied.
            let inner = std::mem::replace(subquery.as_mut(), parse_query("SELECT 1")?);
            **subquery = renamed(inner, columns.collect(), &format!("struct({columns_of})"))?;
            **expr = row;
            Ok(())
        }
        Expr::Function(function) => match &mut function.over {
            // `write_out` has resolved what it could in the projection, QUALIFY and ORDER BY.
            Some(WindowType::WindowSpec(spec)) if spec.window_name.is_some() => {
                Err(unsupported("a window that begins with another one: write its PARTITION BY and ORDER BY out"))
            }
            Some(WindowType::WindowSpec(spec)) => spec.window_frame.as_mut().map_or(Ok(()), settle_frame),
            _ => Ok(()),
        },
        Expr::Collate { .. } => Err(unsupported("COLLATE: texts are ordered by their bytes")),
        _ => Ok(()),
    }
}

/// Removes bounds of a frame that lie beyond every partition. The planner counts rows in 64 bits and would panic in the
/// thread of the query.
fn settle_frame(frame: &mut WindowFrame) -> Result<(), QueryError> {
    let units = frame.units;
    for bound in std::iter::once(&mut frame.start_bound).chain(frame.end_bound.as_mut()) {
        let (WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance)) = bound else { continue };
        let Some(Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. })) = distance.as_deref() else {
            continue;
        };
        // Whole numbers that fit, and fractions below 2^63, which the engine checks itself.
        if digits.parse::<i64>().is_ok() || digits.parse::<f64>().is_ok_and(|n| n < i64::MAX as f64) {
            continue;
        }
        // RANGE is a distance between values and not a count of rows, so that it is not widened silently.
        if units == WindowFrameUnits::Range {
            let message = format!("a RANGE of {digits} is beyond every number: write UNBOUNDED");
            return Err(QueryError::Invalid { message, at: None });
        }
        // Without a number the syntax tree means UNBOUNDED.
        *distance = None;
    }
    Ok(())
}
