//! `source_name(source)` and `op_name(source, op)`: the catalogue of events in SQL. A join with the lookup tables gives
//! the same, but every query over `events` would have to plan and run it.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Int32Array, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use event_schema::catalog::{Source, op_name};

/// Both functions.
pub(super) fn functions() -> [Arc<ScalarUDF>; 2] {
    [source_name(), operation_name()].map(|name| Arc::new(ScalarUDF::new_from_impl(name)))
}

fn source_name() -> Name {
    Name { name: "source_name", signature: numbers(1) }
}

fn operation_name() -> Name {
    Name { name: "op_name", signature: numbers(2) }
}

fn numbers(count: usize) -> Signature {
    Signature::exact(vec![DataType::Int32; count], Volatility::Immutable)
}

/// The name of one number, or of two.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Name {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Name {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let columns: Vec<&Int32Array> =
            columns.iter().filter_map(|column| column.as_primitive_opt::<Int32Type>()).collect();
        // NULL where the catalogue has no such number, as after a left join.
        let names: StringViewArray = match columns[..] {
            [source] => source.iter().map(|source| Source::from_number(source?).map(Source::name)).collect(),
            [source, op] => source.iter().zip(op).map(|(source, op)| op_name(source?, op?)).collect(),
            _ => return exec_err!("{} takes one or two integers", self.name),
        };
        Ok(ColumnarValue::Array(Arc::new(names)))
    }
}
