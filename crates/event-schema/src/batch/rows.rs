//! A builder for the kinds that come in small numbers: values by field name, checked against the catalogue.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};

use crate::kind::RecordKind;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Long(i64),
    Double(f64),
    Text(String),
}

/// Why a row was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("`{}` records have no field `{field}`", kind.name())]
    UnknownField { kind: RecordKind, field: String },
    #[error("field `{field}` of `{}` records cannot hold {value}", kind.name())]
    WrongValue { kind: RecordKind, field: String, value: String },
    #[error("field `{field}` of `{}` records must have a value", kind.name())]
    Missing { kind: RecordKind, field: String },
}

/// Rows of one kind, built column by column.
#[derive(Debug)]
pub struct Rows {
    kind: RecordKind,
    schema: SchemaRef,
    columns: Vec<Vec<Value>>,
}

impl Rows {
    pub fn new(kind: RecordKind) -> Self {
        let schema = kind.wire_schema();
        let columns = vec![Vec::new(); schema.fields().len()];
        Self { kind, schema, columns }
    }

    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a row; fields not named are null. A refused row leaves nothing behind.
    ///
    /// # Errors
    /// When a field is unknown, of another type, or required and absent.
    pub fn push(&mut self, values: impl IntoIterator<Item = (&'static str, Value)>) -> Result<(), RowError> {
        // The row is complete and checked before any column grows: a refusal half-way would leave columns of different
        // lengths.
        let mut row = vec![Value::Null; self.columns.len()];
        for (name, value) in values {
            let at = self
                .schema
                .index_of(name)
                .map_err(|_| RowError::UnknownField { kind: self.kind, field: name.to_owned() })?;
            row[at] = value;
        }
        for (field, value) in self.schema.fields().iter().zip(&row) {
            let kind = self.kind;
            // Refused with its row. Arrow's own check comes in `finish` and would refuse all rows of the batch.
            let is_null = *value == Value::Null;
            if is_null && !field.is_nullable() {
                return Err(RowError::Missing { kind, field: field.name().clone() });
            }
            if !is_null && !fits(field.data_type(), value) {
                return Err(RowError::WrongValue { kind, field: field.name().clone(), value: format!("{value:?}") });
            }
        }
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value);
        }
        Ok(())
    }

    /// The rows so far as one batch; leaves the builder empty.
    ///
    /// # Errors
    /// Not for rows that `push` accepted; an error of Arrow's own check is returned.
    pub fn finish(&mut self) -> Result<RecordBatch, arrow::error::ArrowError> {
        let columns =
            self.schema.fields().iter().zip(&mut self.columns).map(|(f, c)| array(f.data_type(), std::mem::take(c)));
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())
    }
}

fn fits(kind: &DataType, value: &Value) -> bool {
    match (kind, value) {
        // Values are refused and never truncated: a pid that wraps round would be that of another process.
        (DataType::Int32, Value::Long(v)) => i32::try_from(*v).is_ok(),
        (DataType::Int64, Value::Long(_)) => true,
        (DataType::Float32 | DataType::Float64, Value::Double(_) | Value::Long(_)) => true,
        (DataType::Utf8 | DataType::Dictionary(..), Value::Text(_)) => true,
        _ => false,
    }
}

fn long(value: &Value) -> Option<i64> {
    if let Value::Long(v) = value { Some(*v) } else { None }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Double(v) => Some(*v),
        Value::Long(v) => Some(*v as f64),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "narrower than the value, as the field is: the nearest `f32` is stored"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(v) = value { Some(v) } else { None }
}

fn array(kind: &DataType, values: Vec<Value>) -> ArrayRef {
    match kind {
        DataType::Int32 => {
            Arc::new(values.iter().map(|v| long(v).and_then(|v| i32::try_from(v).ok())).collect::<Int32Array>())
        }
        DataType::Int64 => Arc::new(values.iter().map(long).collect::<Int64Array>()),
        DataType::Float32 => Arc::new(values.iter().map(|v| double(v).map(narrow)).collect::<Float32Array>()),
        DataType::Float64 => Arc::new(values.iter().map(double).collect::<Float64Array>()),
        DataType::Dictionary(..) => {
            // Equal words share an entry (interning), as the wire schema has them.
            let mut words = StringDictionaryBuilder::<Int32Type>::new();
            for value in &values {
                words.append_option(text(value));
            }
            Arc::new(words.finish())
        }
        _ => Arc::new(values.iter().map(text).collect::<StringArray>()),
    }
}
