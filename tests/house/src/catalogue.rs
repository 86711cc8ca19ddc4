//! What the event catalogue alone writes down: names and numbers of operations, and names of topics. Other crates name them
//! by `event_schema::catalog::Op` and `event_schema::topics`, so that the compiler finds every use.

use event_schema::catalog::Op;
use event_schema::topics;

use crate::tree::File;

#[cfg(test)]
mod tests;

/// Where the catalogue is.
const CATALOGUE: &str = "crates/event-schema/";
/// Functions of CUDA and NCCL and tracepoints of the kernel are named here, some as the operation that they are recorded as.
const SYMBOLS: &str = "bpf/src/probes/";
/// What stands between the name of a column and its value, in Rust and in SQL.
const SIGNS: [&str; 7] = ["==", "!=", "<>", "=", ":", "IN (", "in ("];

/// Lines of Rust, tests apart, that write a name or a number of an operation or a name of a topic.
pub fn retyped(files: &[File]) -> Vec<String> {
    let sources = files.iter().filter(|file| is_production(&file.path) && !file.path.starts_with(CATALOGUE));
    sources.flat_map(of_file).collect()
}

fn is_production(path: &str) -> bool {
    path.ends_with(".rs") && !path.contains("tests/") && !path.ends_with("tests.rs")
}

fn of_file(file: &File) -> Vec<String> {
    let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    for (line, number) in code.lines().zip(1..) {
        let at = format!("{}:{number}", file.path);
        let op = Op::ALL.iter().find(|op| line.contains(&format!("\"{}\"", op.name())));
        if let Some(op) = op.filter(|_| !file.path.starts_with(SYMBOLS)) {
            found.push(format!("{at} writes the name of {op:?}: use Op::{op:?}.name()"));
        }
        if ["source", "op"].iter().any(|column| has_number(line, column)) {
            found.push(format!("{at} writes the number of a source or of an operation: use Op::number"));
        }
        if let Some(topic) = topics::READ.into_iter().chain([topics::DEAD_LETTERS]).find(|topic| line.contains(topic)) {
            // Documentation may name a topic.
            if !line.trim_start().starts_with("//") {
                found.push(format!("{at} writes the name of the topic {topic}: use event_schema::topics"));
            }
        }
    }
    found
}

/// Whether a line gives the column a number, or compares it with one.
fn has_number(line: &str, column: &str) -> bool {
    line.match_indices(column).any(|(at, _)| {
        let is_word = !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let rest = line[at + column.len()..].trim_start();
        let value = SIGNS.iter().find_map(|sign| rest.strip_prefix(sign)).map(str::trim_start);
        is_word && value.is_some_and(|value| value.starts_with(|first: char| first.is_ascii_digit()))
    })
}
