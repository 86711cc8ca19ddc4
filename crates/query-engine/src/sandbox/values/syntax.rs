//! What a statement says about values before it is planned: literals are exact, `LIKE` has the escape character it
//! names, casts keep their length, and casts and zones have a name of their own. To the planner `x` and a cast of `x`
//! have one name, so that it takes the one for the other in `ORDER BY` and among aggregates; functions that stand for
//! casts keep them apart.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType as ArrowType, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr as Planned, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::parser::Statement;
use sqlparser::ast::{
    BinaryOperator, CastKind, CharacterLength, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, Statement as Sql, TimezoneInfo, TypedString,
    UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::{Span, Token, Tokenizer};

use super::kinds::type_name;
use super::local_times::LocalTime;
use super::text::{LIKE_PATTERN, engine_pattern, fitting};
use super::times::{AT_TIMEZONE, Instant, literal_text, parse_timestamp};
use crate::dialect::Causeway;
use crate::error::{Position, QueryError};

/// The function that stands for a cast until the names are settled.
pub(super) const CAST: &str = "cast_as";
/// Most digits of a decimal literal.
const MAX_DIGITS: usize = 38;
/// Longest CHAR, which pads every value to its length, and longest VARCHAR, as in Trino.
const LONGEST_CHAR: u64 = 65_536;
const LONGEST_VARCHAR: u64 = 2_147_483_646;
/// Most digits of any decimal, before the point or behind it.
const MOST_PLACES: i64 = 76;

/// Refuses two literals side by side, of which the second would silently name the column, and another escape character
/// for code points, which the parser does not support.
///
/// # Errors
/// [`QueryError::Syntax`] or [`QueryError::Unsupported`] with the place of what is refused.
pub(crate) fn check_literals(sql: &str) -> Result<(), QueryError> {
    // A text that cannot be cut into tokens is refused where it is parsed.
    let Ok(tokens) = Tokenizer::new(&Causeway, sql).tokenize_with_location() else { return Ok(()) };
    let mut is_literal_before = false;
    let mut is_unicode_before = false;
    for token in tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))) {
        let at = Some(Position { line: token.span.start.line, column: token.span.start.column });
        if is_unicode_before && matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case("uescape"))
        {
            let message = "UESCAPE: write the escapes of U&'…' with a backslash".to_owned();
            return Err(QueryError::Unsupported { message, at });
        }
        is_unicode_before = matches!(token.token, Token::UnicodeStringLiteral(_));
        // `5 rank` has a word as its alias, which is common; a quoted text is more often a missing operator.
        let is_text = matches!(
            token.token,
            Token::SingleQuotedString(_)
                | Token::EscapedStringLiteral(_)
                | Token::NationalStringLiteral(_)
                | Token::UnicodeStringLiteral(_)
                | Token::HexStringLiteral(_)
        );
        if is_text && is_literal_before {
            let message =
                format!("unexpected {} after a literal: join texts with ||, name columns with AS", token.token);
            return Err(QueryError::Syntax { message, at });
        }
        is_literal_before = is_text || matches!(token.token, Token::Number(..));
    }
    Ok(())
}

/// Rewrites a statement.
///
/// # Errors
/// A literal or a pattern that is not valid, with its place.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(sql) => rewrite_sql(sql),
        Statement::Explain(explain) => rewrite(&mut explain.statement),
        _ => Ok(()),
    }
}

fn rewrite_sql(sql: &mut Sql) -> Result<(), QueryError> {
    match sql.visit(&mut Rewriter) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = QueryError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        match expr {
            // The sign belongs to the literal: the least bigint has no positive counterpart, so that its digits alone
            // would not be a bigint.
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => {
                if let Some(negative) = number(inner).map(|(digits, span)| (format!("-{digits}"), span)) {
                    *expr = Expr::Value(ValueWithSpan { value: Value::Number(negative.0, false), span: negative.1 });
                }
            }
            Expr::Cast { kind, expr: inner, data_type, .. } if is_decimal(data_type) => {
                if let Err(error) = keep_digits(inner, kind, data_type) {
                    return ControlFlow::Break(error);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        match rewritten(expr) {
            Ok(Some(new)) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// A decimal is read from the digits of a number, not from the nearest double.
fn keep_digits(inner: &mut Expr, kind: &CastKind, data_type: &DataType) -> Result<(), QueryError> {
    let Some((digits, span)) = signed_number(inner) else { return Ok(()) };
    match plain(&digits) {
        Some(digits) => *inner = text_value(digits, span),
        // Left to the cast itself, which gives NULL.
        None if matches!(kind, CastKind::TryCast | CastKind::SafeCast) => {}
        None => return Err(invalid(format!("{digits} is out of range of {data_type}"), span)),
    }
    Ok(())
}

fn number(expr: &Expr) -> Option<(&str, Span)> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), span }) => Some((digits, *span)),
        _ => None,
    }
}

fn signed_number(expr: &Expr) -> Option<(String, Span)> {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            number(expr).map(|(digits, span)| (format!("-{digits}"), span))
        }
        other => number(other).map(|(digits, span)| (digits.to_owned(), span)),
    }
}

/// The digits of a number without an exponent; `None` when there are more of them than any decimal has.
fn plain(digits: &str) -> Option<String> {
    let Some((mantissa, exponent)) = digits.split_once(['e', 'E']) else { return Some(digits.to_owned()) };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    // An exponent beyond 32 bits is out of range, a negative one too.
    let exponent: i32 = exponent.parse().ok()?;
    // How many of the digits that count stand before the point; negative where zeros stand between.
    let zeros_before = i64::try_from(all.len() - significant.len()).ok()?;
    let before = i64::from(exponent) + i64::try_from(whole.len()).ok()? - zeros_before;
    let length = i64::try_from(significant.len()).ok()?;
    Some(match before {
        // Further behind the point than any decimal has digits.
        _ if significant.is_empty() || before < -MOST_PLACES => "0".to_owned(),
        before if before > MOST_PLACES => return None,
        before if before <= 0 => format!("{sign}0.{}{significant}", zeros(-before)),
        before if before >= length => format!("{sign}{significant}{}", zeros(before - length)),
        before => {
            let (whole, fraction) = significant.split_at(usize::try_from(before).unwrap_or(0));
            format!("{sign}{whole}.{fraction}")
        }
    })
}

fn zeros(count: i64) -> String {
    "0".repeat(usize::try_from(count).unwrap_or(0))
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal(_) | DataType::Numeric(_) | DataType::Dec(_))
}

fn text_value(text: String, span: Span) -> Expr {
    Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span })
}

fn place(span: Span) -> Option<Position> {
    (span.start.line > 0).then_some(Position { line: span.start.line, column: span.start.column })
}

fn invalid(message: String, span: Span) -> QueryError {
    QueryError::Invalid { message, at: place(span) }
}

/// What an expression whose parts are rewritten becomes; `None` to leave it.
fn rewritten(expr: &Expr) -> Result<Option<Expr>, QueryError> {
    match expr {
        Expr::Value(ValueWithSpan { value, span }) => literal(value, *span),
        Expr::TypedString(TypedString { data_type: DataType::Timestamp(precision, zone), value, .. }) => {
            let Some(text) = value.clone().into_string() else { return Ok(None) };
            // Parsed here, where the place of the literal is available, and by rules that accept the forms of common
            // tools.
            let instant = parse_timestamp(&text).map_err(|problem| invalid(problem, value.span))?;
            Ok(Some(timestamp(&instant, *precision, *zone, value.span)))
        }
        Expr::Cast { kind, expr, data_type, array: false, format: None } => cast(kind, expr, data_type),
        Expr::AtTimeZone { timestamp, time_zone } => {
            Ok(Some(call(AT_TIMEZONE, vec![timestamp.as_ref().clone(), time_zone.as_ref().clone()])))
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char } => {
            let pattern = Box::new(like_pattern(pattern, escape_char.as_ref())?);
            let expr = expr.clone();
            Ok(Some(Expr::Like { negated: *negated, any: false, expr, pattern, escape_char: None }))
        }
        Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
            let pattern = Box::new(like_pattern(pattern, escape_char.as_ref())?);
            let expr = expr.clone();
            Ok(Some(Expr::ILike { negated: *negated, any: false, expr, pattern, escape_char: None }))
        }
        Expr::SimilarTo { .. } => Err(QueryError::Unsupported {
            message: "SIMILAR TO; use LIKE, or regexp_like with a regular expression".to_owned(),
            at: None,
        }),
        Expr::BinaryOp { left, op, right } => like_operator(left, op, right),
        // `-(-5)`: the inner sign is part of its literal by now. Without both signs it is a positive literal again.
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => match number(inner) {
            Some((digits, span)) if digits.starts_with('-') => {
                let value = Value::Number(digits.trim_start_matches('-').to_owned(), false);
                Ok(Some(literal(&value, span)?.unwrap_or(Expr::Value(ValueWithSpan { value, span }))))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `~~`, `!~~`, `~~*` and `!~~*` are `LIKE` under other names.
fn like_operator(left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Expr>, QueryError> {
    let (negated, ignores_case) = match op {
        BinaryOperator::PGLikeMatch => (false, false),
        BinaryOperator::PGNotLikeMatch => (true, false),
        BinaryOperator::PGILikeMatch => (false, true),
        BinaryOperator::PGNotILikeMatch => (true, true),
        _ => return Ok(None),
    };
    let expr = Box::new(left.clone());
    let pattern = Box::new(like_pattern(right, None)?);
    Ok(Some(if ignores_case {
        Expr::ILike { negated, any: false, expr, pattern, escape_char: None }
    } else {
        Expr::Like { negated, any: false, expr, pattern, escape_char: None }
    }))
}

fn like_pattern(pattern: &Expr, escape: Option<&ValueWithSpan>) -> Result<Expr, QueryError> {
    let escape = match escape {
        None => None,
        Some(ValueWithSpan { value: Value::SingleQuotedString(text), span }) => {
            // One character of any script, not one byte.
            match text.chars().collect::<Vec<_>>()[..] {
                [escape] => Some(escape),
                _ => return Err(invalid(format!("ESCAPE takes one character, not `{text}`"), *span)),
            }
        }
        Some(ValueWithSpan { value, span }) => {
            return Err(invalid(format!("ESCAPE takes a text of one character, not {value}"), *span));
        }
    };
    match pattern {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) => {
            let pattern = engine_pattern(text, escape).map_err(|problem| invalid(problem, *span))?;
            Ok(text_value(pattern, *span))
        }
        other => {
            let escape = text_value(escape.map(String::from).unwrap_or_default(), Span::empty());
            Ok(call(LIKE_PATTERN, vec![other.clone(), escape]))
        }
    }
}

fn literal(value: &Value, span: Span) -> Result<Option<Expr>, QueryError> {
    match value {
        Value::Number(digits, _) => numeric(digits, span),
        Value::HexStringLiteral(digits) => {
            let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            if is_hex {
                return Ok(None);
            }
            Err(invalid(
                format!("X'{digits}' is no binary literal: it takes an even number of hexadecimal digits"),
                span,
            ))
        }
        Value::UnicodeStringLiteral(text) | Value::NationalStringLiteral(text) => {
            Ok(Some(text_value(text.clone(), span)))
        }
        _ => Ok(None),
    }
}

/// A number that neither a bigint nor a double shows as it is written becomes a decimal.
fn numeric(digits: &str, span: Span) -> Result<Option<Expr>, QueryError> {
    // A bigint by itself.
    if digits.parse::<i64>().is_ok() {
        return Ok(None);
    }
    // SQL: a number with an exponent is an approximate number, one without is exact.
    let is_double = digits.contains(['e', 'E']);
    let double: f64 = digits.parse().unwrap_or(f64::NAN);
    if is_double && !double.is_finite() {
        return Err(invalid(format!("{digits} is out of range of double"), span));
    }
    let unsigned = digits.trim_start_matches('-');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let whole = whole.trim_start_matches('0');
    // A double whose shortest text has the same digits has lost none.
    let is_shown = !fraction.is_empty() && shows(double, whole, fraction);
    if is_double || is_shown || unsigned.ends_with('.') || !is_plain(unsigned) {
        return Ok(None);
    }
    let precision = whole.len() + fraction.len();
    if precision > MAX_DIGITS {
        let message = format!(
            "{digits} has {precision} digits, a decimal has at most {MAX_DIGITS}; with an exponent it is a double"
        );
        return Err(invalid(message, span));
    }
    let info = ExactNumberInfo::PrecisionAndScale(precision.max(1) as u64, i64::try_from(fraction.len()).unwrap_or(0));
    Ok(Some(typed(DataType::Decimal(info), digits.to_owned(), span)))
}

fn is_plain(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Whether the double is written with the same digits.
fn shows(double: f64, whole: &str, fraction: &str) -> bool {
    let shortest = double.abs().to_string();
    let (shown_whole, shown_fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    shown_whole.trim_start_matches('0') == whole && shown_fraction == fraction.trim_end_matches('0')
}

fn typed(data_type: DataType, text: String, span: Span) -> Expr {
    let value = ValueWithSpan { value: Value::SingleQuotedString(text), span };
    Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: false })
}

/// A timestamp literal in a unit that holds it.
fn timestamp(instant: &Instant, precision: Option<u64>, declared: TimezoneInfo, span: Span) -> Expr {
    // Nanoseconds by default. Beyond their years microseconds, which reach over the whole calendar.
    let unit = if instant.fits_nanoseconds() || !instant.fits_microseconds() { None } else { Some(6) };
    let precision = precision.or(unit);
    let text = literal_text(&instant.stored());
    let is_zoned = matches!(declared, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz);
    match instant.zone() {
        None if is_zoned => typed(DataType::Timestamp(precision, TimezoneInfo::WithTimeZone), text, span),
        None => typed(DataType::Timestamp(precision, TimezoneInfo::None), text, span),
        Some(zone) => {
            // Written in UTC with its zone beside it, so that the engine does not apply rules of clock changes of its
            // own.
            let utc = typed(DataType::Timestamp(precision, TimezoneInfo::WithTimeZone), text + "Z", span);
            match zone {
                // In UTC already.
                "UTC" | "+00:00" => utc,
                _ => call(AT_TIMEZONE, vec![utc, text_value(zone.to_owned(), span)]),
            }
        }
    }
}

fn cast(kind: &CastKind, expr: &Expr, data_type: &DataType) -> Result<Option<Expr>, QueryError> {
    let is_try = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
    if let (
        DataType::Timestamp(precision, zone),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }),
    ) = (data_type, expr)
        && let Ok(instant) = parse_timestamp(text)
        // A cast with a zone in the text is left to the cast, whose type decides about the zone.
        && instant.zone().is_none()
    {
        return Ok(Some(timestamp(&instant, *precision, *zone, *span)));
    }
    match text_length(data_type)? {
        // The engine ignores the length of a type of texts; a function cuts and pads.
        Some(Length::Fixed { is_char, length }) => {
            let length = ValueWithSpan { value: Value::Number(length.to_string(), false), span: Span::empty() };
            return Ok(Some(call(fitting(is_char, is_try), vec![expr.clone(), Expr::Value(length)])));
        }
        Some(Length::Open) => return Ok(Some(named(kind, expr, &DataType::Varchar(None)))),
        None => {}
    }
    // The cast of a literal needs no name: no column has the same one.
    Ok((!matches!(expr, Expr::Value(_))).then(|| named(kind, expr, data_type)))
}

fn named(kind: &CastKind, expr: &Expr, data_type: &DataType) -> Expr {
    let cast = Expr::Cast {
        kind: kind.clone(),
        expr: Box::new(expr.clone()),
        data_type: data_type.clone(),
        array: false,
        format: None,
    };
    call(CAST, vec![cast])
}

/// How long a text of the type is.
enum Length {
    Open,
    Fixed { is_char: bool, length: u64 },
}

/// The length of a type of texts; `None` for another type.
///
/// # Errors
/// [`QueryError::Invalid`]: the type is longer than such texts are.
fn text_length(data_type: &DataType) -> Result<Option<Length>, QueryError> {
    let (is_char, length) = match data_type {
        DataType::Varchar(length)
        | DataType::CharVarying(length)
        | DataType::CharacterVarying(length)
        | DataType::Nvarchar(length) => (false, length),
        DataType::Char(length) | DataType::Character(length) => (true, length),
        _ => return Ok(None),
    };
    let most = if is_char { LONGEST_CHAR } else { LONGEST_VARCHAR };
    Ok(Some(match length {
        Some(CharacterLength::IntegerLength { length, .. }) if *length > most => {
            let message = format!("{data_type}: such a text has at most {most} characters");
            return Err(QueryError::Invalid { message, at: None });
        }
        Some(CharacterLength::IntegerLength { length, .. }) => Length::Fixed { is_char, length: *length },
        // SQL: CHAR without a length is CHAR(1).
        None if is_char => Length::Fixed { is_char, length: 1 },
        Some(CharacterLength::Max) | None => Length::Open,
    }))
}

/// A call of a function.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The functions that statements are rewritten to.
pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(NamedCast { signature: Signature::any(1, Volatility::Immutable) }))
}

/// A cast of a plan as a function.
pub(super) fn under_a_name(cast: Cast) -> Planned {
    Planned::ScalarFunction(ScalarFunction { func: function(), args: vec![Planned::Cast(cast)] })
}

/// A cast under a name that contains the cast.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct NamedCast {
    signature: Signature,
}

impl ScalarUDFImpl for NamedCast {
    fn name(&self) -> &str {
        CAST
    }

    fn schema_name(&self, args: &[Planned]) -> Result<String> {
        let (is_try, value, to) = match args {
            [Planned::Cast(Cast { expr, field })] => (false, expr.as_ref(), field.data_type().clone()),
            [Planned::TryCast(cast)] => (true, cast.expr.as_ref(), cast.field.data_type().clone()),
            [other] => match LocalTime::of(other) {
                Some((cast, value)) => (cast.is_try(), value, cast.to()),
                None => return Ok(other.schema_name().to_string()),
            },
            _ => return exec_err!("{CAST} takes one cast"),
        };
        let word = if is_try { "TRY_CAST" } else { "CAST" };
        Ok(format!("{word}({} AS {})", value.schema_name(), type_name(&to)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType> {
        match types {
            [of] => Ok(of.clone()),
            _ => exec_err!("{CAST} takes one cast"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [of] => Ok(Arc::clone(of)),
            _ => exec_err!("{CAST} takes one cast"),
        }
    }

    fn simplify(&self, mut args: Vec<Planned>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match (args.pop(), args.is_empty()) {
            // By now every column has its name. The cast alone is what statistics and other rules of the optimizer
            // read.
            (Some(cast), true) => ExprSimplifyResult::Simplified(cast),
            (last, _) => {
                args.extend(last);
                ExprSimplifyResult::Original(args)
            }
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => exec_err!("{CAST} takes one cast"),
        }
    }
}
