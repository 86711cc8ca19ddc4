//! Comparisons of times that are exact. The engine compares two times in the coarser of their units, which makes `12:00:00.5` equal
//! to `12:00:00`, and reads texts and dates as nanoseconds, which end in the year 2262.

use chrono::{NaiveDateTime, Timelike};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use super::floats::compares;
use super::times::{Instant, parse_timestamp};

/// Gives the two sides of a comparison of times one type before the engine does.
#[derive(Debug)]
pub(super) struct ExactInstants;

impl AnalyzerRule for ExactInstants {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let node = |plan: LogicalPlan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let exact = expr.transform_up(|expr| Ok(exact(expr, &schema)))?;
                Ok(if exact.transformed { exact.update_data(|expr| name.restore(expr)) } else { exact })
            })
        };
        plan.transform_up_with_subqueries(node).data()
    }

    fn name(&self) -> &str {
        "exact_instants"
    }
}

fn exact(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => match unified(&left, op, &right, schema) {
            Some(exact) => Transformed::yes(exact),
            None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        Expr::Between(Between { expr, negated, low, high }) => {
            let bounds = (unified(&expr, Operator::GtEq, &low, schema), unified(&expr, Operator::LtEq, &high, schema));
            if bounds.0.is_none() && bounds.1.is_none() {
                return Transformed::no(Expr::Between(Between { expr, negated, low, high }));
            }
            let above = bounds.0.unwrap_or_else(|| expr.as_ref().clone().gt_eq(*low));
            let below = bounds.1.unwrap_or_else(|| expr.lt_eq(*high));
            let both = above.and(below);
            Transformed::yes(if negated { Expr::Not(Box::new(both)) } else { both })
        }
        Expr::InList(mut list) => {
            let Ok(DataType::Timestamp(TimeUnit::Microsecond, zone)) = list.expr.get_type(schema) else {
                return Transformed::no(Expr::InList(list));
            };
            let to = DataType::Timestamp(TimeUnit::Microsecond, zone);
            for element in &mut list.list {
                if written(element).is_some_and(|instant| instant.fits_microseconds()) {
                    *element = cast(element.clone(), to.clone());
                }
            }
            Transformed::yes(Expr::InList(list))
        }
        other => Transformed::no(other),
    }
}

/// The comparison over operands of one type; `None` where the engine's own way is exact.
fn unified(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    let types = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
    match types {
        (DataType::Timestamp(one, zone), DataType::Timestamp(other, _)) if is_finer(&other, &one) => {
            against_finer(left, &one, zone, op, right, &other)
        }
        (DataType::Timestamp(one, _), DataType::Timestamp(other, zone)) if is_finer(&one, &other) => {
            against_finer(right, &other, zone, op.swap()?, left, &one)
        }
        (DataType::Timestamp(TimeUnit::Microsecond, zone), other) if is_day_or_text(&other) => {
            Some(compare(left.clone(), op, in_microseconds(right, &other, zone)?))
        }
        (other, DataType::Timestamp(TimeUnit::Microsecond, zone)) if is_day_or_text(&other) => {
            Some(compare(in_microseconds(left, &other, zone)?, op, right.clone()))
        }
        _ => None,
    }
}

fn is_finer(one: &TimeUnit, other: &TimeUnit) -> bool {
    per_second(one) > per_second(other)
}

fn per_second(unit: &TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn is_day_or_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// A date, or a text that microseconds hold.
fn in_microseconds(expr: &Expr, kind: &DataType, zone: Option<std::sync::Arc<str>>) -> Option<Expr> {
    let holds = *kind == DataType::Date32 || written(expr).is_some_and(|instant| instant.fits_microseconds());
    holds.then(|| cast(expr.clone(), DataType::Timestamp(TimeUnit::Microsecond, zone)))
}

/// A comparison with a time of a finer unit.
fn against_finer(
    coarse: &Expr,
    unit: &TimeUnit,
    zone: Option<std::sync::Arc<str>>,
    op: Operator,
    fine: &Expr,
    finer: &TimeUnit,
) -> Option<Expr> {
    match (written(fine), written(coarse)) {
        // A literal that lies between two values of the column is its floor with another operator.
        (Some(instant), _) => match floor(instant.stored(), unit) {
            Some(floor) if floor != instant.stored() => between_values(coarse, op, &literal(&floor, unit, &instant)),
            _ => None,
        },
        // Beyond the years that nanoseconds hold no digit after the microsecond decides.
        (None, Some(instant)) if !instant.fits_nanoseconds() => None,
        // A constant keeps the column free of casts, by which files are left out.
        _ if fine.column_refs().is_empty() => None,
        _ => {
            let up = cast(coarse.clone(), DataType::Timestamp(*finer, zone));
            Some(compare(up, op, fine.clone()))
        }
    }
}

fn between_values(coarse: &Expr, op: Operator, floor: &Expr) -> Option<Expr> {
    let at_most = coarse.clone().lt_eq(floor.clone());
    let above = coarse.clone().gt(floor.clone());
    match op {
        Operator::Lt | Operator::LtEq => Some(at_most),
        Operator::Gt | Operator::GtEq => Some(above),
        Operator::Eq => Some(at_most.and(above)),
        Operator::NotEq => Some(at_most.or(above)),
        _ => None,
    }
}

fn floor(time: NaiveDateTime, unit: &TimeUnit) -> Option<NaiveDateTime> {
    let step = 1_000_000_000 / per_second(unit);
    time.with_nanosecond(time.nanosecond() / step * step)
}

fn literal(time: &NaiveDateTime, unit: &TimeUnit, of: &Instant) -> Expr {
    let zone = of.zoned.is_some().then(|| "+00:00".into());
    cast(lit(time.format("%Y-%m-%dT%H:%M:%S%.f").to_string()), DataType::Timestamp(*unit, zone))
}

/// The time that is written in the statement.
fn written(expr: &Expr) -> Option<Instant> {
    match expr {
        Expr::Cast(Cast { expr, .. }) => written(expr),
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => parse_timestamp(text).ok(),
        _ => None,
    }
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

fn compare(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}
