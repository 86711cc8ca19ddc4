//! A function of the engine whose calls pass through a wrapper. It keeps the name and the types of the inner function.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// What the calls of a function pass through.
pub(crate) trait Wrapping: Debug + Clone + Eq + Hash + Send + Sync + 'static {
    /// Whether calls may be simplified and ordered as the inner function declares. The result of a simplification is
    /// not wrapped: `concat` becomes another call of `concat`. `concat` also declares that it keeps an order of its
    /// arguments, which it does not.
    const IS_TRANSPARENT: bool;

    /// Calls the function inside.
    fn call(&self, inner: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue>;
}

/// The function, called through the wrapping.
pub(crate) fn wrapped(inner: Arc<ScalarUDF>, wrapping: impl Wrapping) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Wrapped { inner, wrapping }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Wrapped<W> {
    inner: Arc<ScalarUDF>,
    wrapping: W,
}

impl<W: Wrapping> ScalarUDFImpl for Wrapped<W> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.wrapping.call(&self.inner, args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        // The engine replaces functions that depend on the session by a copy; an unwrapped copy would lose its
        // checks.
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        Some(ScalarUDF::new_from_impl(Self { inner, wrapping: self.wrapping.clone() }))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if W::IS_TRANSPARENT { self.inner.simplify(args, info) } else { Ok(ExprSimplifyResult::Original(args)) }
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        // A wrapper turns results into errors or replaces those that are not finite. All others are the same, so that
        // the preimage and the bounds of the inner function remain true.
        self.inner.preimage(args, literal, info)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.inner().evaluate_bounds(input)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        if W::IS_TRANSPARENT { self.inner.inner().output_ordering(inputs) } else { Ok(SortProperties::Unordered) }
    }
}
