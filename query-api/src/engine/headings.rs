//! The headings of an answer's columns: as they were written, not as the engine names its expressions. Two columns may have one
//! heading, which the engine does not allow its own columns.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Select, SelectItem, SetExpr, Statement as Sql,
    VisitMut, VisitorMut,
};

use super::dialect;
use super::functions::as_is;

/// Longest heading made of an expression, characters.
const MAX_CHARS: usize = 64;

/// The headings that are known from the text: those before the first `*`, and those after the last one.
#[derive(Debug, Clone, Default)]
pub(super) struct Headings {
    first: Vec<String>,
    last: Vec<String>,
}

impl Headings {
    /// Those of a query; none of another statement.
    pub(super) fn of(statement: &Statement) -> Self {
        let Some(select) = query(statement).and_then(|query| first_select(&query.body)) else {
            return Self::default();
        };
        let headings: Vec<Option<String>> = select.projection.iter().map(heading).collect();
        let first = headings.iter().map_while(Clone::clone).collect::<Vec<_>>();
        let mut last: Vec<String> = match first.len() == headings.len() {
            true => Vec::new(),
            false => headings.into_iter().rev().map_while(|heading| heading).collect(),
        };
        last.reverse();
        Self { first, last }
    }

    /// The same columns under these headings.
    pub(super) fn over(&self, schema: &SchemaRef) -> SchemaRef {
        let after = schema.fields().len().saturating_sub(self.last.len());
        let fields = schema.fields().iter().enumerate().map(|(at, field)| {
            let from_last = at.checked_sub(after).and_then(|at| self.last.get(at));
            match self.first.get(at).or(from_last) {
                Some(heading) if heading != field.name() => Arc::new(field.as_ref().clone().with_name(heading)),
                _ => Arc::clone(field),
            }
        });
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
    }
}

/// Gives every column of the answer a name of its own where the engine could take two for one. The answer has its headings all the
/// same.
pub(super) fn with_distinct_names(mut statement: Statement) -> Statement {
    if let Statement::Statement(sql) = &mut statement
        && let Sql::Query(query) = sql.as_mut()
    {
        name_selects(&mut query.body);
        let _ = query.visit(&mut Casts::default());
    }
    statement
}

/// Makes casts part of the names that the engine gives to expressions.
#[derive(Default)]
struct Casts {
    known: Vec<String>,
}

impl VisitorMut for Casts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if !matches!(expr, Expr::Cast { .. }) {
            return ControlFlow::Continue(());
        }
        let text = expr.to_string();
        let number = self.known.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.known.push(text);
            self.known.len() - 1
        });
        if let Some(mut wrapped) = call(&format!("{}(1, {number})", as_is::NAME))
            && let Expr::Function(function) = &mut wrapped
            && let FunctionArguments::List(list) = &mut function.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))) = list.args.first_mut()
        {
            std::mem::swap(inner, expr);
            *expr = wrapped;
        }
        ControlFlow::Continue(())
    }
}

/// A call of ours as an expression.
fn call(text: &str) -> Option<Expr> {
    let parsed = dialect::parse(&format!("SELECT {text}")).ok()?;
    let select = query(&parsed).and_then(|query| first_select(&query.body))?;
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => Some(expr.clone()),
        _ => None,
    }
}

fn name_selects(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => name_items(select),
        SetExpr::SetOperation { left, right, .. } => {
            name_selects(left);
            name_selects(right);
        }
        SetExpr::Query(query) => name_selects(&mut query.body),
        _ => {}
    }
}

fn name_items(select: &mut Select) {
    let is_wild = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let has_star = select.projection.iter().any(is_wild);
    let mut seen = BTreeSet::new();
    for (nth, item) in select.projection.iter_mut().enumerate() {
        let Some(name) = heading(item) else { continue };
        let is_new = seen.insert(name);
        let expr = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)) if is_new && !has_star => {
                continue;
            }
            SelectItem::ExprWithAlias { .. } if is_new => continue,
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("column {}", nth + 1)) };
    }
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

/// `None` for what may be any number of columns.
fn heading(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(normal(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(normal),
        SelectItem::UnnamedExpr(Expr::Function(call)) if call.name.to_string().eq_ignore_ascii_case("unnest") => None,
        SelectItem::UnnamedExpr(expr) => Some(shortened(&expr.to_string())),
        _ => None,
    }
}

fn normal(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
