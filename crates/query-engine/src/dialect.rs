//! The SQL dialect, close to those of Trino and DataFusion. The generic dialect of sqlparser accepts a trailing comma
//! before a keyword as the end of a list, which would make a column named `cluster` unreadable; this one does not.

use std::any::TypeId;

use sqlparser::ast::Expr;
use sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// The dialect of every statement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Causeway;

impl Dialect for Causeway {
    /// The parser compares this id where a dialect has syntax of its own: the syntax of the generic dialect applies.
    fn dialect(&self) -> TypeId {
        GenericDialect {}.dialect()
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        // As in the SQL standard and Trino. The generic dialect also accepts the backquote of MySQL.
        c == '"'
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '$'
    }

    /// Ends the operand of `IS DISTINCT FROM` at `AND` and `OR`. The parser's own rule takes all that follows as the
    /// operand.
    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        // The parser calls this hook before its own rules for infix operators. `parse_keywords` consumes nothing unless
        // all of the keywords match, so that `IS NULL` and every other operator still reach those rules.
        let is_distinct = parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]);
        if !is_distinct && !parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        // sqlparser parses the operand by `parse_expr`, which has the lowest precedence: `a IS DISTINCT FROM b AND c`
        // would compare `a` with `b AND c`.
        let operand = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(operand.map(|operand| {
            let expr = Box::new(expr.clone());
            let operand = Box::new(operand);
            if is_distinct { Expr::IsDistinctFrom(expr, operand) } else { Expr::IsNotDistinctFrom(expr, operand) }
        }))
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_within_after_array_aggregation(&self) -> bool {
        true
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }

    fn supports_left_associative_joins_without_parens(&self) -> bool {
        true
    }

    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }

    fn supports_values_as_table_factor(&self) -> bool {
        true
    }

    fn supports_select_wildcard_except(&self) -> bool {
        true
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    fn supports_select_wildcard_replace(&self) -> bool {
        true
    }

    fn supports_string_escape_constant(&self) -> bool {
        true
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_nested_comments(&self) -> bool {
        true
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }

    fn support_map_literal_syntax(&self) -> bool {
        true
    }

    fn supports_dictionary_syntax(&self) -> bool {
        true
    }

    fn supports_struct_literal(&self) -> bool {
        true
    }

    fn supports_interval_options(&self) -> bool {
        true
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }
}
