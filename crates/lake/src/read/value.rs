//! A column value as statistics and filters carry it.

use std::cmp::Ordering;
use std::sync::Arc;

use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType};

/// One value of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    String(Arc<str>),
    Binary(Arc<[u8]>),
    /// Microseconds since 1970-01-01 UTC.
    Timestamptz(i64),
}

impl Value {
    /// The value of an Iceberg bound; `None` for types this crate does not write.
    pub(crate) fn from_datum(datum: &Datum) -> Option<Self> {
        Some(match (datum.data_type(), datum.literal()) {
            (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(v)) => Self::Boolean(*v),
            (PrimitiveType::Int, PrimitiveLiteral::Int(v)) => Self::Int(*v),
            (PrimitiveType::Long, PrimitiveLiteral::Long(v)) => Self::Long(*v),
            (PrimitiveType::Float, PrimitiveLiteral::Float(v)) => Self::Float(v.0),
            (PrimitiveType::Double, PrimitiveLiteral::Double(v)) => Self::Double(v.0),
            (PrimitiveType::String, PrimitiveLiteral::String(v)) => Self::String(v.as_str().into()),
            (PrimitiveType::Binary, PrimitiveLiteral::Binary(v)) => Self::Binary(v.as_slice().into()),
            (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(v)) => Self::Timestamptz(*v),
            _ => return None,
        })
    }

    /// Whether bounds of this type are the extreme values themselves.
    pub(crate) fn bounds_are_exact(&self) -> bool {
        // Writers cut long strings and binaries, and leave NaN out of the bounds of floats.
        !matches!(self, Self::String(_) | Self::Binary(_) | Self::Float(_) | Self::Double(_))
    }

    /// The order of two values; `None` when their types do not compare, or one is NaN. Integers compare by value.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            // Widening is exact, so that a bound keeps its place.
            (Self::Float(a), Self::Double(b)) => f64::from(*a).partial_cmp(b),
            (Self::Double(a), Self::Float(b)) => a.partial_cmp(&f64::from(*b)),
            // By UTF-8 bytes, which is the order of code points.
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Binary(a), Self::Binary(b)) => Some(a.cmp(b)),
            (Self::Timestamptz(a), Self::Timestamptz(b)) => Some(a.cmp(b)),
            // A column that was widened has bounds of both types.
            (a, b) => Some(a.integer()?.cmp(&b.integer()?)),
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Int(v) => Some(i64::from(*v)),
            Self::Long(v) => Some(*v),
            _ => None,
        }
    }
}
