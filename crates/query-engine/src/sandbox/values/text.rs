//! Texts: the pattern language of `LIKE`, and casts to texts of a length.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::kinds::is_text;

/// The escape character of the engine's patterns, which always applies there.
const ENGINE_ESCAPE: char = '\\';

/// The function that turns patterns of a statement into patterns of the engine.
pub(super) const LIKE_PATTERN: &str = "like_pattern";

/// A pattern with the escape character of its statement as one with the engine's. Without an escape character `%` and
/// `_` are wildcards wherever they stand and every other character is itself, as in Trino. With one, the character
/// behind it is itself, as in PostgreSQL; Trino takes only wildcards and the escape character there.
///
/// # Errors
/// The escape character stands at the end.
pub(super) fn engine_pattern(pattern: &str, escape: Option<char>) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 2);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = if Some(c) == escape {
            let Some(literal) = chars.next() else {
                return Err(format!("LIKE pattern `{pattern}` ends in its escape character `{c}`"));
            };
            Some(literal)
        } else {
            // `None` stands for a wildcard.
            (c != '%' && c != '_').then_some(c)
        };
        match literal {
            Some(literal) => {
                // What the engine would read as a wildcard or an escape must be escaped to be itself.
                if matches!(literal, '%' | '_' | ENGINE_ESCAPE) {
                    out.push(ENGINE_ESCAPE);
                }
                out.push(literal);
            }
            None => out.push(c),
        }
    }
    Ok(out)
}

/// The functions that statements are rewritten to.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::uniform(2, vec![DataType::Utf8View], Volatility::Immutable);
    let mut all: Vec<Arc<ScalarUDF>> = [Rule::Varchar, Rule::TryVarchar].map(fitted).into();
    all.push(Arc::new(ScalarUDF::new_from_impl(LikePattern { signature })));
    all
}

/// Those of them that make a text longer than it was.
pub(crate) fn padding() -> [Arc<ScalarUDF>; 2] {
    [Rule::Char, Rule::TryChar].map(fitted)
}

fn fitted(rule: Rule) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Fitted { rule, signature: Signature::any(2, Volatility::Immutable) }))
}

/// [`engine_pattern`] for patterns that are not written in the statement. An empty escape text stands for none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LikePattern {
    signature: Signature,
}

impl ScalarUDFImpl for LikePattern {
    fn name(&self) -> &str {
        LIKE_PATTERN
    }

    /// As it is written in the statement.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|pattern| pattern.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = matches!(args.args.first(), Some(ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [patterns, escapes] = &columns[..] else {
            return exec_err!("{LIKE_PATTERN} takes a pattern and an escape character");
        };
        let pairs = patterns.as_string_view().iter().zip(escapes.as_string_view());
        let translated = pairs.map(|pair| match pair {
            // A pattern of NULL gives NULL, as LIKE itself does.
            (Some(pattern), Some(escape)) => match engine_pattern(pattern, escape.chars().next()) {
                Ok(pattern) => Ok(Some(pattern)),
                Err(problem) => exec_err!("{problem}"),
            },
            _ => Ok(None),
        });
        answer(Arc::new(translated.collect::<Result<StringViewArray>>()?), is_constant)
    }
}

/// A column, or its only value where the arguments were constants.
pub(super) fn answer(array: ArrayRef, is_constant: bool) -> Result<ColumnarValue> {
    if is_constant && !array.is_empty() {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// To what a text is fitted, and what happens to a value of another type that is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    Varchar,
    TryVarchar,
    Char,
    TryChar,
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::Varchar => "cast_varchar",
            Self::TryVarchar => "try_cast_varchar",
            Self::Char => "cast_char",
            Self::TryChar => "try_cast_char",
        }
    }

    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Varchar => ("CAST", "varchar"),
            Self::TryVarchar => ("TRY_CAST", "varchar"),
            Self::Char => ("CAST", "char"),
            Self::TryChar => ("TRY_CAST", "char"),
        }
    }
}

/// The name of the function that casts to a text of a length.
pub(super) fn fitting(is_char: bool, is_try: bool) -> &'static str {
    match (is_char, is_try) {
        (false, false) => Rule::Varchar,
        (false, true) => Rule::TryVarchar,
        (true, false) => Rule::Char,
        (true, true) => Rule::TryChar,
    }
    .name()
}

/// A value as a text of at most, or exactly, so many characters. A text is cut; another value must fit, since half of a
/// number is another number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fitted {
    rule: Rule,
    signature: Signature,
}

impl Fitted {
    fn fit(&self, text: &str, length: usize, is_text: bool) -> Result<Option<String>> {
        // SQL counts characters, not bytes.
        let characters = text.chars().count();
        if characters > length && !is_text {
            if matches!(self.rule, Rule::TryVarchar | Rule::TryChar) {
                return Ok(None);
            }
            return exec_err!("`{text}` does not fit {}({length})", self.rule.sql().1);
        }
        // SQL: an explicit cast cuts a text that is too long, without an error.
        let mut fitted: String = text.chars().take(length).collect();
        // CHAR(n) pads with spaces to its length.
        if matches!(self.rule, Rule::Char | Rule::TryChar) {
            fitted.extend(std::iter::repeat_n(' ', length.saturating_sub(characters)));
        }
        Ok(Some(fitted))
    }
}

impl ScalarUDFImpl for Fitted {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [value, Expr::Literal(length, _)] = args else {
            return exec_err!("{} takes a value and a length", self.name());
        };
        let (cast, to) = self.rule.sql();
        Ok(format!("{cast}({} AS {to}({length}))", value.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, ColumnarValue::Scalar(ScalarValue::Int64(Some(length)))] = &args.args[..] else {
            return exec_err!("{} takes a value and a length", self.name());
        };
        // The parser accepts no sign in a length.
        let length = usize::try_from(*length).unwrap_or(0);
        let is_constant = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_constant { 1 } else { args.number_rows })?;
        let is_text = is_text(values.data_type());
        // TRY_CAST gives NULL where the value cannot be a text at all.
        let safe = matches!(self.rule, Rule::TryVarchar | Rule::TryChar);
        let texts = cast_with_options(&values, &DataType::Utf8View, &CastOptions { safe, ..CastOptions::default() })?;
        let fitted = texts.as_string_view().iter().map(|text| match text {
            Some(text) => self.fit(text, length, is_text),
            None => Ok(None),
        });
        answer(Arc::new(fitted.collect::<Result<StringViewArray>>()?), is_constant)
    }
}
