//! The headings of an answer's columns: as written in the statement, not as the engine names its expressions. Two
//! columns may have the same heading, which the engine does not allow for its own columns.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{Result, plan_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::sql::parser::Statement;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, OrderBy, Query, Select, SelectItem, SetExpr,
    Statement as Sql, VisitMut, VisitorMut, visit_expressions_mut,
};

use crate::sandbox::functions::as_is;
use crate::statement;

/// Longest heading made of an expression, characters.
const MAX_CHARS: usize = 64;

/// The headings that are known from the text: those before the first `*`, and those after the last one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headings {
    first: Vec<String>,
    last: Vec<String>,
}

impl Headings {
    /// Those of a query; none of another statement.
    pub(crate) fn of(statement: &Statement) -> Self {
        let Some(select) = query(statement).and_then(|query| first_select(&query.body)) else {
            return Self::default();
        };
        let headings: Vec<Option<String>> = select.projection.iter().map(heading).collect();
        // A `*` is a number of columns that only the planner determines, so headings are counted from both ends.
        let first = headings.iter().map_while(Clone::clone).collect::<Vec<_>>();
        let mut last: Vec<String> = match first.len() == headings.len() {
            true => Vec::new(),
            false => headings.into_iter().rev().map_while(|heading| heading).collect(),
        };
        last.reverse();
        Self { first, last }
    }

    /// The same columns under these headings.
    pub(crate) fn over(&self, schema: &SchemaRef) -> SchemaRef {
        let after = schema.fields().len().saturating_sub(self.last.len());
        let fields = schema.fields().iter().enumerate().map(|(at, field)| {
            // `after` is the index of the first column behind the last `*`. Before it the subtraction has no result.
            let from_last = at.checked_sub(after).and_then(|at| self.last.get(at));
            match self.first.get(at).or(from_last) {
                Some(heading) if heading != field.name() => Arc::new(field.as_ref().clone().with_name(heading)),
                _ => Arc::clone(field),
            }
        });
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
    }
}

/// Gives every column of the answer, and every aggregate, a distinct name where two could have the same name in the
/// engine. The headings of the answer do not change.
///
/// # Errors
/// ORDER BY names a heading that two different columns have.
pub(crate) fn with_distinct_names(mut statement: Statement) -> Result<Statement> {
    if let Statement::Statement(sql) = &mut statement
        && let Sql::Query(query) = sql.as_mut()
    {
        match query.body.as_mut() {
            SetExpr::Select(select) => name_ordered(select, &mut query.order_by)?,
            other => name_selects(other),
        }
        // This visitor never breaks.
        let _ = query.visit(&mut Aggregates::default());
    }
    Ok(statement)
}

/// Renames columns. ORDER BY may refer to a column of the answer by its heading, so that such references follow the new
/// names.
fn name_ordered(select: &mut Select, order_by: &mut Option<OrderBy>) -> Result<()> {
    let ambiguous = ambiguous_headings(select);
    let renamed = name_items(select, true);
    let visited = visit_expressions_mut(order_by, |expr| {
        let Expr::Identifier(name) = expr else { return ControlFlow::Continue(()) };
        if ambiguous.contains(&normal(name)) {
            return ControlFlow::Break(name.clone());
        }
        if let Some(new) = renamed.get(&normal(name)) {
            *name = new.clone();
        }
        ControlFlow::Continue(())
    });
    match visited {
        ControlFlow::Break(name) => plan_err!("ORDER BY {name} is ambiguous: two columns of the answer have this name"),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The names of columns that two different expressions have.
fn ambiguous_headings(select: &Select) -> BTreeSet<String> {
    let mut first = BTreeMap::new();
    let mut ambiguous = BTreeSet::new();
    for item in &select.projection {
        let (SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr)) = item else { continue };
        let Some(name) = heading(item) else { continue };
        // The same expression twice is not ambiguous: it sorts the same by either column.
        if first.entry(name.clone()).or_insert(expr) != &expr {
            ambiguous.insert(name);
        }
    }
    ambiguous
}

/// Makes the arguments of an aggregate part of the name that the engine gives the aggregate. That name by itself omits
/// parentheses and casts.
#[derive(Default)]
struct Aggregates {
    known: Vec<String>,
    names: BTreeSet<String>,
}

impl Aggregates {
    fn wrap(&mut self, expr: &mut Expr) {
        if matches!(
            expr,
            Expr::Identifier(_)
                | Expr::CompoundIdentifier(_)
                | Expr::Value(_)
                | Expr::UnaryOp { .. }
                | Expr::TypedString(_)
        ) {
            return;
        }
        let text = expr.to_string();
        // Equal arguments get equal numbers, so that an aggregate written twice stays one aggregate for the engine.
        let number = self.known.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.known.push(text);
            self.known.len() - 1
        });
        // The call is parsed with a placeholder as its first argument; the argument of the aggregate takes that place.
        if let Some(mut wrapped) = call(&format!("{}(1, {number})", as_is::NAME))
            && let Expr::Function(function) = &mut wrapped
            && let FunctionArguments::List(list) = &mut function.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))) = list.args.first_mut()
        {
            std::mem::swap(inner, expr);
            *expr = wrapped;
        }
    }
}

impl VisitorMut for Aggregates {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.names.is_empty() {
            let all = SessionStateDefaults::default_aggregate_functions();
            self.names = all.iter().flat_map(|f| f.aliases().iter().cloned().chain([f.name().to_owned()])).collect();
        }
        if let Expr::Function(function) = expr
            && self.names.contains(&function.name.to_string().to_lowercase())
            && let FunctionArguments::List(list) = &mut function.args
        {
            for arg in list.args.iter_mut().filter_map(expression_of) {
                self.wrap(arg);
            }
            if let Some(filter) = &mut function.filter {
                self.wrap(filter);
            }
        }
        ControlFlow::Continue(())
    }
}

/// `None` for an argument with a name, and for the `*` of `count(*)`.
fn expression_of(arg: &mut FunctionArg) -> Option<&mut Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The expression of a call that this crate adds to a statement.
fn call(text: &str) -> Option<Expr> {
    let parsed = statement::parse(&format!("SELECT {text}")).ok()?;
    let select = query(&parsed).and_then(|query| first_select(&query.body))?;
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => Some(expr.clone()),
        _ => None,
    }
}

fn name_selects(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            name_items(select, false);
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_selects(left);
            name_selects(right);
        }
        SetExpr::Query(query) => name_selects(&mut query.body),
        _ => {}
    }
}

/// Renames columns; returns the new names of those that ORDER BY may refer to by their old one. Beside a `*`, any name
/// may also be that of a column of the `*`.
fn name_items(select: &mut Select, beside_star: bool) -> BTreeMap<String, Ident> {
    let mut items = select.projection.iter();
    let has_star = items.any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut seen = BTreeSet::new();
    let mut renamed = BTreeMap::new();
    for (nth, item) in select.projection.iter_mut().enumerate() {
        let Some(name) = heading(item) else { continue };
        // The first column of a name may keep it; each later one gets a name by position.
        let is_new = seen.insert(name.clone());
        let alias = Ident::with_quote('"', format!("column {}", nth + 1));
        let expr = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)) if is_new && !has_star => {
                continue;
            }
            SelectItem::ExprWithAlias { .. } if is_new && !(has_star && beside_star) => continue,
            SelectItem::ExprWithAlias { expr, .. } => {
                renamed.entry(name).or_insert_with(|| alias.clone());
                expr.clone()
            }
            SelectItem::UnnamedExpr(expr) => expr.clone(),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    // A name that a column has kept refers to that column.
    renamed.retain(|name, _| !kept(select, name));
    renamed
}

fn kept(select: &Select, name: &str) -> bool {
    select.projection.iter().any(|item| heading(item).as_deref() == Some(name))
}

fn query(statement: &Statement) -> Option<&Query> {
    match statement {
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

/// The part of a query that names its columns.
fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::SetOperation { left, .. } => first_select(left),
        SetExpr::Query(query) => first_select(&query.body),
        _ => None,
    }
}

/// `None` for an item that may stand for any number of columns.
fn heading(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(normal(name)),
        // `e.node` has the heading `node`, as in Trino and PostgreSQL.
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(normal),
        // `unnest` of a structure gives one column for each of its fields.
        SelectItem::UnnamedExpr(Expr::Function(call)) if call.name.to_string().eq_ignore_ascii_case("unnest") => None,
        SelectItem::UnnamedExpr(expr) => Some(shortened(&expr.to_string())),
        _ => None,
    }
}

fn normal(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        // Identifiers without quotes fold to lower case, as in DataFusion and PostgreSQL.
        None => name.value.to_lowercase(),
    }
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Counted in characters: an index in bytes could lie inside a UTF-8 sequence, where slicing panics.
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
