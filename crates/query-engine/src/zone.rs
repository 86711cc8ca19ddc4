//! The time zone of a session, which applies to times without a zone. Times of the lake are in UTC and remain so; times
//! that a statement writes without a zone, and `current_timestamp`, are in the zone of the session.

use std::sync::Arc;

use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::DataType::{self, Timestamp};
use datafusion::arrow::datatypes::TimeUnit;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, TryCast};
use datafusion::optimizer::AnalyzerRule;

use crate::sandbox::values::LocalTimes;

/// The zone of the lake's times. Not "UTC": the types of their columns have this text, and comparing times with two
/// texts for one zone would need a cast.
pub(crate) const LAKE_ZONE: &str = "+00:00";

/// A time zone by its name in the IANA database, or an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(Arc<str>);

impl Default for Zone {
    fn default() -> Self {
        Self(LAKE_ZONE.into())
    }
}

impl Zone {
    /// `None` when there is no such zone.
    pub fn parse(name: &str) -> Option<Self> {
        // All names of UTC become one text: see [`LAKE_ZONE`].
        if ["UTC", "Z", "GMT", "Etc/UTC", "Etc/GMT", "Etc/UCT", "UCT"].contains(&name) {
            return Some(Self::default());
        }
        let offset = java_offset(name);
        let name = offset.as_deref().unwrap_or(name);
        if name == LAKE_ZONE {
            return Some(Self::default());
        }
        name.parse::<Tz>().ok().map(|_| Self(name.into()))
    }

    /// Makes this the zone of a session.
    ///
    /// # Errors
    /// Never: a function is registered again under its own name.
    pub(crate) fn set(&self, state: &mut SessionState) -> Result<()> {
        // The template of sessions has the zone of the lake.
        if *self != Self::default() {
            self.apply(state)?;
        }
        // After `WithoutZone`, whose casts it replaces too.
        state.add_analyzer_rule(Arc::new(LocalTimes));
        Ok(())
    }

    fn apply(&self, state: &mut SessionState) -> Result<()> {
        let options = state.config_mut().options_mut();
        options.execution.time_zone = Some(self.0.to_string());
        let options = options.clone();
        // `now()` and similar functions hold the configuration that they were registered with, so they are registered
        // anew.
        let functions = state.scalar_functions().values();
        let moved: Vec<_> = functions.filter_map(|function| function.inner().with_updated_config(&options)).collect();
        for function in moved {
            state.register_udf(Arc::new(function))?;
        }
        // Added at the end of the rules: it rewrites casts that type coercion inserts.
        state.add_analyzer_rule(Arc::new(WithoutZone(self.clone())));
        Ok(())
    }
}

/// The offset of a zone id in Java's form (`java.time.ZoneId`): `GMT+01:00`, `UTC-5`.
fn java_offset(name: &str) -> Option<String> {
    // `Etc/GMT+5` is not matched, as its prefix is another: in the IANA database, and in POSIX, its sign is the
    // opposite one.
    let offset = ["GMT", "UTC", "UT"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let (sign, digits) = offset.split_at_checked(1).filter(|(sign, _)| ["+", "-"].contains(sign))?;
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
        Some(_) => return None,
        None if digits.len() == 4 => digits.split_at_checked(2)?,
        None => (digits, "00"),
    };
    let is_hour = (1..=2).contains(&hours.len()) && hours.bytes().all(|digit| digit.is_ascii_digit());
    // `-00:00` is `+00:00`, which has one text.
    let sign = if hours.trim_start_matches('0').is_empty() && minutes == "00" { "+" } else { sign };
    is_hour.then(|| format!("{sign}{hours:0>2}:{minutes}"))
}

/// Reads a value without a zone as a time in the session's zone where the plan casts it to a time of the lake, as in a
/// comparison with a column. Without this rule the engine reads it as a time in the lake's zone.
#[derive(Debug)]
struct WithoutZone(Zone);

impl WithoutZone {
    /// The type between a value without a zone and a time of the lake; `None` for every other cast.
    fn between(&self, from: &DataType, to: &DataType) -> Option<DataType> {
        let is_without_zone = is_date(from)
            || matches!(from, Timestamp(_, None) | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match to {
            Timestamp(unit, Some(zone)) if is_without_zone && zone.as_ref() == LAKE_ZONE => {
                Some(Timestamp(*unit, Some(Arc::clone(&self.0.0))))
            }
            _ => None,
        }
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let types = match &expr {
            Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
                (expr.get_type(schema)?, field.data_type().clone())
            }
            _ => return Ok(Transformed::no(expr)),
        };
        let Some(between) = self.between(&types.0, &types.1) else { return Ok(Transformed::no(expr)) };
        Ok(Transformed::yes(match expr {
            Expr::Cast(cast) => {
                let zoned = zoned(cast.expr, &types.0, between);
                Expr::Cast(Cast::new_from_field(Box::new(zoned), cast.field))
            }
            Expr::TryCast(cast) => {
                let zoned = Expr::TryCast(TryCast::new(cast.expr, between));
                Expr::TryCast(TryCast::new_from_field(Box::new(zoned), cast.field))
            }
            other => other,
        }))
    }
}

fn is_date(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Date64)
}

/// A value without a zone as a time in a zone. A date becomes its midnight in the zone.
fn zoned(value: Box<Expr>, from: &DataType, to: DataType) -> Expr {
    let value = match &to {
        Timestamp(unit, _) if is_date(from) => Box::new(Expr::Cast(Cast::new(value, Timestamp(*unit, None)))),
        _ => value,
    };
    Expr::Cast(Cast::new(value, to))
}

/// Makes dates that are compared with times the midnights of the session's zone. Without this step the engine drops the
/// zone of the time.
///
/// # Errors
/// Never: a plan whose expressions are replaced by others of their kind stays a plan.
pub(crate) fn dates_as_midnights(plan: LogicalPlan, zone: Option<&str>) -> Result<LogicalPlan> {
    // In UTC nothing is lost with the zone of a time.
    let Some(zone) = zone.filter(|zone| *zone != LAKE_ZONE) else { return Ok(plan) };
    let midnight = Timestamp(TimeUnit::Microsecond, Some(zone.into()));
    plan.transform_up_with_subqueries(|plan| {
        let schema = inputs_schema(&plan);
        plan.map_expressions(|expr| {
            expr.transform_up(|expr| Ok(compared_at_midnight(with_own_zone(expr), &midnight, &schema)))
        })
    })
    .data()
}

/// A comparison with its dates as times of this type.
fn compared_at_midnight(expr: Expr, midnight: &DataType, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_comparison(op) && (is_zoned(&left, schema) || is_zoned(&right, schema)) =>
        {
            let left = Box::new(at_midnight(*left, midnight, schema));
            let right = Box::new(at_midnight(*right, midnight, schema));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_zoned(&expr, schema) => {
            let low = Box::new(at_midnight(*low, midnight, schema));
            let high = Box::new(at_midnight(*high, midnight, schema));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) if is_zoned(&expr, schema) => {
            let list = list.into_iter().map(|entry| at_midnight(entry, midnight, schema)).collect();
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        other => Transformed::no(other),
    }
}

/// A date as a time of this type; every other expression unchanged.
fn at_midnight(expr: Expr, midnight: &DataType, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(kind) if is_date(&kind) => zoned(Box::new(expr), &kind, midnight.clone()),
        _ => expr,
    }
}

fn is_zoned(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(Timestamp(_, Some(_))))
}

/// Keeps the zone that the text of a literal names, which the engine drops: `TIMESTAMP '2026-03-01 12:00:00+02:00'`.
fn with_own_zone(expr: Expr) -> Expr {
    let Expr::Cast(Cast { expr: literal, field }) = expr else { return expr };
    match (literal.as_ref(), field.data_type()) {
        (Expr::Literal(ScalarValue::Utf8(Some(text)), _), Timestamp(unit, None)) if names_a_zone(text) => {
            // The offset in the text determines the instant. The lake's zone only determines how it is shown.
            let absolute = Timestamp(*unit, Some(LAKE_ZONE.into()));
            Expr::Cast(Cast::new(literal, absolute))
        }
        _ => Expr::Cast(Cast { expr: literal, field }),
    }
}

/// A text that is the same instant in whatever zone it is read.
fn names_a_zone(text: &str) -> bool {
    // Read in two zones, a text without a zone gives two instants, and one with a zone gives the same twice.
    instant_in(text, "+00:00").is_some_and(|instant| instant_in(text, "+05:00") == Some(instant))
}

/// The time that a text names when it is read in a zone, unix microseconds.
fn instant_in(text: &str, zone: &str) -> Option<i64> {
    let zone: Tz = zone.parse().ok()?;
    string_to_datetime(&zone, text).ok().map(|time| time.timestamp_micros())
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// The columns that the expressions of a plan read. A scan has no input: its filters read its own columns.
fn inputs_schema(plan: &LogicalPlan) -> DFSchema {
    match plan.inputs().as_slice() {
        [] => plan.schema().as_ref().clone(),
        inputs => merge_schema(inputs),
    }
}

impl AnalyzerRule for WithoutZone {
    fn name(&self) -> &'static str {
        "times_without_zone"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = inputs_schema(&plan);
            plan.map_expressions(|expr| expr.transform_up(|expr| self.rewrite(expr, &schema)))
        })
        .data()
    }
}
