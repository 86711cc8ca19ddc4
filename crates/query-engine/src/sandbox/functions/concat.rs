//! The operator `||` between texts as a function, so that its result is guarded like that of every function that makes
//! long texts.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use sqlparser::ast::BinaryOperator;

use super::guard::{Growth, guarded};
use crate::sandbox::phase::Phase;
use crate::types::sql_type_name;

/// Plans `||` as a call of the guarded function. It comes after the planner that takes it for an operator of lists: the
/// first planner that returns a plan wins.
#[derive(Debug)]
pub(crate) struct ConcatPlanner {
    function: Arc<ScalarUDF>,
}

impl ConcatPlanner {
    pub(crate) fn new(pool: &Arc<dyn MemoryPool>, phase: &Arc<Phase>) -> Self {
        let concat = Concat { signature: Signature::user_defined(Volatility::Immutable) };
        Self { function: guarded(Arc::new(ScalarUDF::new_from_impl(concat)), Growth::Sum, pool, phase) }
    }
}

impl ExprPlanner for ConcatPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        if let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
            // Refused here, by the SQL names of both types; the error of the engine has its own names for them.
            && BinaryTypeCoercer::new(&left, &Operator::StringConcat, &right).get_input_types().is_err()
        {
            return plan_err!(
                "|| joins texts or lists, not {} and {}; cast one of them to VARCHAR",
                sql_type_name(&left),
                sql_type_name(&right)
            );
        }
        let args = vec![expr.left, expr.right];
        let call = ScalarFunction { func: Arc::clone(&self.function), args };
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    signature: Signature,
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        "||"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] => BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type(),
            _ => exec_err!("|| takes two operands"),
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [left, right] => {
                let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
                Ok(vec![left, right])
            }
            _ => exec_err!("|| takes two operands"),
        }
    }

    /// As the engine's own operator: null with anything is null.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // Constants alone are one row, which goes back as a scalar and so fits a batch of any length.
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let fields = columns.iter().map(|column| Field::new("", column.data_type().clone(), true));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
        let left = Arc::new(Column::new("", 0));
        let right = Arc::new(Column::new("", 1));
        // The engine's own operator, so that types and NULL are treated as without the guard.
        let joined = BinaryExpr::new(left, Operator::StringConcat, right).evaluate(&batch)?;
        match joined {
            ColumnarValue::Array(array) if constant => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            joined => Ok(joined),
        }
    }
}
