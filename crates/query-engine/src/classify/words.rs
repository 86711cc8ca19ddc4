//! The engine's messages in the words of SQL: types as they are written there, and nothing of how a planner keeps an expression.

use crate::types::sql_type_named;

/// Where the part of a message begins that is meant for those who write the engine.
const ENDS: [&str; 7] = [
    "This issue was likely caused by a bug",
    "This was likely caused by a bug",
    "Candidate functions:",
    "Did you mean",
    "You might need to add explicit type casts",
    "backtrace:",
    "Backtrace:",
];
/// What the engine writes before its messages, one inside the other.
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
/// What only a planner's own notation has.
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
/// What is said when nothing else can be.
const NOTHING: &str = "a part of the statement is not supported";

/// The message for who wrote the statement, in one line without a point at its end.
pub(super) fn plain(message: &str) -> String {
    let mut text = message;
    for end in ENDS {
        text = text.split(end).next().unwrap_or_default();
    }
    let mut text = text.trim().to_owned();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start().to_owned();
    }
    let text = without_notation(&known(&text).unwrap_or(text));
    let text = with_sql_types(&text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.trim_end_matches(['.', ':', ' ', ',']) {
        "" => NOTHING.to_owned(),
        line => line.to_owned(),
    }
}

/// Messages that are said otherwise.
fn known(text: &str) -> Option<String> {
    if let Some((_, rest)) = text.split_once("No function matches the given name and argument types '") {
        return Some(format!("there is no {}", rest.split('\'').next()?));
    }
    if let Some((_, rest)) = text.split_once("Failed to coerce arguments to satisfy a call to '") {
        let (function, rest) = rest.split_once('\'')?;
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
            "the names after AS, or the columns compared with a subquery, are not as many as its columns".to_owned(),
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
        let parameters = after.starts_with('(').then(|| balanced(after)).flatten();
        match sql_type_named(word, parameters) {
            Some(name) => {
                out += &name;
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

/// What stands between a parenthesis at the start and the one that closes it.
fn balanced(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(&text[1..at]),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}
