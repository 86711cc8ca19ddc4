//! Rewrites the messages of the engine for readers of SQL: types have their SQL names, and the notation of the planner
//! is removed.

use crate::types::sql_type_named;

/// Where the part of a message begins that addresses the developers of the engine.
const ENDS: [&str; 7] = [
    "This issue was likely caused by a bug",
    "This was likely caused by a bug",
    "Candidate functions:",
    "Did you mean",
    "You might need to add explicit type casts",
    "backtrace:",
    "Backtrace:",
];
/// Prefixes that the engine writes before its messages. One error may have several, one per layer that passed it on.
const PREFIXES: [&str; 13] = [
    "This feature is not implemented: ",
    "Error during planning: ",
    "Execution error: ",
    "Internal error: ",
    "Arrow error: ",
    "External error: ",
    "Invalid argument error: ",
    "Compute error: ",
    "Cast error: ",
    "Parser error: ",
    "Optimizer rule '",
    "type_coercion\ncaused by\n",
    "caused by\n",
];
/// Text that only the notation of a planner contains, most of it the output of Rust's `Debug`.
const INSIDES: [&str; 14] = [
    "Ident {",
    "Span(",
    "Signature",
    "Expr {",
    " { ",
    "Internal error",
    "bug report",
    "user-defined coercion",
    "Some(",
    "TypeSignature",
    "Literal(",
    "Column {",
    "Value(",
    "sqltorel",
];
/// The message where nothing readable is left.
const NOTHING: &str = "a part of the statement is not supported";

/// The message for the author of the statement, in one line without a full stop at its end.
pub(super) fn plain(message: &str) -> String {
    let mut text = message;
    for end in ENDS {
        text = text.split(end).next().unwrap_or_default();
    }
    let mut text = text.trim().to_owned();
    // To a fixed point: the order in which layers nest differs from error to error.
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start().to_owned();
    }
    // Types come last, because `known` compares with the engine's text, in which they have Arrow's names.
    let text = without_notation(&known(&text).unwrap_or(text));
    let text = with_sql_types(&text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.trim_end_matches(['.', ':', ' ', ',']) {
        "" => NOTHING.to_owned(),
        line => line.to_owned(),
    }
}

/// The replacement of a message whose text is recognised; `None` for every other message.
fn known(text: &str) -> Option<String> {
    if let Some((_, rest)) = text.split_once("No function matches the given name and argument types '") {
        return Some(format!("there is no {}", rest.split('\'').next()?));
    }
    if let Some((_, rest)) = text.split_once("Failed to coerce arguments to satisfy a call to '") {
        let (function, rest) = rest.split_once('\'')?;
        // DataFusion lists the types only in some of its texts of this error.
        let types = rest.split_once("coercion from ").and_then(|(_, types)| types.split(" to the signature").next());
        return Some(match types {
            Some(types) => format!("function `{function}` does not take ({types})"),
            None => format!("function `{function}` does not take these arguments"),
        });
    }
    if let Some((_, rest)) = text.split_once("Function '") {
        let (function, rest) = rest.split_once('\'')?;
        if rest.contains("coercion") || rest.contains("failed to match any signature") {
            return Some(format!("function `{function}` does not take arguments of these types"));
        }
    }
    if text.starts_with("Projections require unique expression names") {
        return Some("two columns of a subquery have one name: give one of them another with AS".to_owned());
    }
    if text.starts_with("Schema contains duplicate") {
        let message = "two columns, or an aggregate and a column, have one name: give one of them another with AS";
        return Some(message.to_owned());
    }
    if let Some((_, rest)) = text.split_once("While expanding wildcard, column \"") {
        let column = rest.split_once("\" must appear")?.0;
        return Some(format!("column `{column}` is neither in GROUP BY nor inside an aggregate"));
    }
    if text.contains("column alias") && text.starts_with("Source table contains") {
        return Some(
            "the names after AS, or the columns compared with a subquery, differ in number from its columns".to_owned(),
        );
    }
    None
}

/// The text up to the first piece of a planner's notation.
fn without_notation(text: &str) -> String {
    let Some(at) = INSIDES.iter().filter_map(|inside| text.find(inside)).min() else {
        return text.to_owned();
    };
    let before = &text[..at];
    // Cut at the last punctuation before the notation, so that no half of a sentence is left.
    let end = before.rfind([':', ';', ',', '.', '(']).unwrap_or(0);
    let kept = before[..end].trim();
    if kept.is_empty() || kept.contains("ast node") || kept.contains("AST node") {
        return NOTHING.to_owned();
    }
    kept.to_owned()
}

/// The text with SQL's names for the types in it.
fn with_sql_types(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        out += &rest[..start];
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        // `Decimal128(10, 2)` is a type and `Int64(5)` a literal: the parameters belong to the word in both.
        let parameters = after.starts_with('(').then(|| balanced(after)).flatten();
        match sql_type_named(word, parameters) {
            Some(name) => {
                out += &name;
                // The two bytes are the parentheses around the parameters.
                rest = &after[parameters.map_or(0, |inside| inside.len() + 2)..];
            }
            None => {
                out += word;
                rest = after;
            }
        }
    }
    out + rest
}

/// The text between a parenthesis at the start and the one that closes it.
fn balanced(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(&text[1..at]),
            // Cannot underflow: the text starts with `(`, and the match is returned at depth 1.
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}
