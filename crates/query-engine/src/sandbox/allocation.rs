//! What a planned statement may not contain although every function in it is allowed: types and constants from which
//! the engine would allocate memory at once, before any operator accounts for it. An allocation that fails aborts the
//! process, not the query.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};

/// Most bytes, or elements of all levels of fixed size together, of one value of a type in a cast.
const MAX_FIXED_SIZE: u64 = 256;
/// Most centroids of an approximate percentile; the engine's own choice is 100.
const MAX_CENTROIDS: u64 = 10_000;
/// Longest text between two parts of a `string_agg`, bytes.
const MAX_DELIMITER_BYTES: usize = 1_024;

/// Refuses a plan that would allocate memory that no operator accounts for.
///
/// # Errors
/// A planning error that names what is too large.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| node.apply_expressions(|expr| expr.apply(check_expression)))?;
    Ok(())
}

fn check_expression(expr: &Expr) -> Result<TreeNodeRecursion> {
    match expr {
        // `CAST(NULL AS …)` to a type of fixed size allocates every element of the null value.
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => check_type(field.data_type())?,
        Expr::AggregateFunction(call) => check_aggregate(call.func.name(), &call.params.args)?,
        Expr::WindowFunction(call) => {
            // An aggregate with OVER takes the same arguments.
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                check_aggregate(function.name(), &call.params.args)?;
            }
        }
        _ => {}
    }
    Ok(TreeNodeRecursion::Continue)
}

fn check_type(to: &DataType) -> Result<()> {
    let size = fixed_size(to);
    if size > MAX_FIXED_SIZE {
        return plan_err!(
            "a value of type {to} would have {size} elements or bytes, at most {MAX_FIXED_SIZE} are made"
        );
    }
    Ok(())
}

/// Elements or bytes that one value of the type, or one element of it, takes whatever its content, also when it is
/// null.
fn fixed_size(data_type: &DataType) -> u64 {
    match data_type {
        // Arrow has signed lengths here; a negative one stands for no elements.
        DataType::FixedSizeBinary(bytes) => u64::try_from(*bytes).unwrap_or(0),
        DataType::FixedSizeList(field, elements) => {
            // The product of all levels: lists in lists multiply. It saturates far above the bound.
            u64::try_from(*elements).unwrap_or(0).saturating_mul(fixed_size(field.data_type()))
        }
        DataType::Struct(fields) => fields.iter().map(|f| fixed_size(f.data_type())).fold(0, u64::saturating_add),
        // Their elements may be of such a type.
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::Map(field, _)
        | DataType::RunEndEncoded(_, field) => fixed_size(field.data_type()),
        DataType::Dictionary(_, value) => fixed_size(value),
        DataType::Union(fields, _) => {
            fields.iter().map(|(_, f)| fixed_size(f.data_type())).fold(0, u64::saturating_add)
        }
        // One element: what a value of variable length allocates depends on what it holds.
        _ => 1,
    }
}

fn check_aggregate(name: &str, args: &[Expr]) -> Result<()> {
    match (name, args) {
        // A t-digest reserves room for all of its centroids, and every group has one.
        ("approx_percentile_cont", [_, _, centroids])
        | ("approx_percentile_cont_with_weight", [_, _, _, centroids]) => match integer(centroids) {
            Some(n) if n <= MAX_CENTROIDS => Ok(()),
            _ => plan_err!("{name} takes at most {MAX_CENTROIDS} centroids, as an integer literal"),
        },
        // The delimiter is repeated between every two values; one from a column has no bound while it is planned.
        ("string_agg", [_, delimiter]) => match delimiter {
            Expr::Literal(value, _) if text_bytes(value) <= MAX_DELIMITER_BYTES => Ok(()),
            _ => plan_err!("{name} takes a delimiter of at most {MAX_DELIMITER_BYTES} bytes, as a literal"),
        },
        _ => Ok(()),
    }
}

/// A literal that is a whole number and not negative, inside the casts that the planner puts around it.
fn integer(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::UInt64).ok()? {
            ScalarValue::UInt64(number) => number,
            _ => None,
        },
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => integer(expr),
        Expr::Alias(alias) => integer(&alias.expr),
        _ => None,
    }
}

fn text_bytes(value: &ScalarValue) -> usize {
    value.try_as_str().flatten().map_or(0, str::len)
}
