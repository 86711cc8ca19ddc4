//! Hints for a window that holds nothing: what was looked at, what data there is, and the command that shows it.

use std::collections::BTreeSet;

use chain_engine::format::{printable, rfc3339};
use query_engine::QueryError;

use crate::answers::Answers;
use crate::completeness::{Extent, NodeFacts};
use crate::window::{Asked, Window};

/// Nodes and jobs that are named.
const NAMED: usize = 10;

impl Answers {
    /// One sentence each. `command` is what the data can be seen with.
    pub(crate) async fn hints(&self, asked: &Asked, command: &str) -> Vec<String> {
        let Asked { window, nodes, .. } = asked;
        let from = rfc3339(window.from_ns);
        let to = rfc3339(window.to_ns);
        let of_nodes = if nodes.is_empty() { String::new() } else { format!(" of {}", listed(nodes.iter())) };
        let of_job = window.job.as_ref().map_or_else(String::new, |job| format!(" of job {}", printable(job)));
        let mut hints = vec![format!("looked at {from} to {to}: nothing found{of_job}{of_nodes}")];
        // Hints accompany an answer: a lake that cannot be read here costs one sentence and not the answer.
        if let Err(error) = self.more_hints(asked, command, &mut hints).await {
            hints.push(format!("what data there is is unknown: {error}"));
        }
        hints
    }

    async fn more_hints(&self, asked: &Asked, command: &str, hints: &mut Vec<String>) -> Result<(), QueryError> {
        if let Some(job) = &asked.window.job {
            hints.extend(of_jobs(self, &asked.window, job, command).await?);
        }
        hints.extend(of_data(self, &asked.window, &asked.nodes, command).await?);
        Ok(())
    }
}

/// What data there is of the nodes wanted, or of all.
async fn of_data(
    answers: &Answers,
    window: &Window,
    wanted: &BTreeSet<String>,
    command: &str,
) -> Result<Vec<String>, QueryError> {
    let extent = Extent::now(answers.now_ms());
    let names: Vec<&String> = wanted.iter().collect();
    let mut nodes = answers.ledger.look_back(&answers.engine, extent, &names).await?;
    let unknown: Vec<&String> = wanted.iter().filter(|name| !nodes.iter().any(|node| node.node == **name)).collect();
    let mut hints = Vec::new();
    if !unknown.is_empty() {
        let all = answers.ledger.look_back(&answers.engine, extent, &[]).await?;
        let there = if all.is_empty() {
            "nothing has landed from any node".to_owned()
        } else {
            format!("nodes here: {}", listed(all.iter().map(|node| &node.node)))
        };
        hints.push(format!("no node is called {}; {there}", listed(unknown.into_iter())));
    } else if nodes.is_empty() {
        hints.push("nothing has landed yet: `causeway nodes` lists the nodes that report".to_owned());
    }
    // The newest data first. The name makes the order total, so that the same ten are listed each time.
    nodes.sort_by(|a, b| b.last_event_ms.cmp(&a.last_event_ms).then_with(|| a.node.cmp(&b.node)));
    let rest = nodes.len().saturating_sub(NAMED);
    hints.extend(nodes.iter().take(NAMED).map(|node| data_of(node, window, command)));
    if rest > 0 {
        hints.push(format!("and {rest} more node(s): `causeway nodes` lists them"));
    }
    Ok(hints)
}

fn data_of(node: &NodeFacts, window: &Window, command: &str) -> String {
    let NodeFacts { first_event_ms, last_event_ms, .. } = *node;
    let [from, to] = [first_event_ms, last_event_ms].map(|ms| rfc3339(ms.saturating_mul(1_000_000)));
    let name = printable(&node.node);
    let has_data = format!("{name} has data from {from} to {to}");
    // All data lies in the window that was asked for: no other window would show more, and none is suggested.
    let is_inside = first_event_ms >= window.from_ns / 1_000_000 && last_event_ms <= window.to_ns / 1_000_000;
    if is_inside {
        let what = ": no chain, and no process with a rank (RANK) that iterates";
        let what = if window.job.is_some() { "" } else { what };
        return format!("{has_data}, all of it in this window{what}");
    }
    match typed_node(&node.node) {
        Some(name) => format!("{has_data}: causeway {command} --nodes {name} --from {from} --to {to}"),
        // A comma separates names.
        None => format!(
            "{has_data}, and no --nodes can name it, for the comma in its name: causeway {command} --from {from} --to {to}"
        ),
    }
}

/// A node as `--nodes` takes it; `None` where it cannot. What stands behind a colon is a port there, unless brackets
/// say that it is part of the name.
fn typed_node(name: &str) -> Option<String> {
    // `--nodes` separates names by commas and has no escape for one.
    if name.contains(',') {
        return None;
    }
    // The command line would take `rack:7` for a port of the node `rack`. Brackets do no harm where it would not.
    let ends_as_a_port = name.rsplit_once(':').is_some_and(|(_, end)| end.parse::<u16>().is_ok());
    let is_bracketed = ends_as_a_port || name.starts_with('[') || name.trim() != name;
    Some(quoted(&if is_bracketed { format!("[{name}]") } else { name.to_owned() }))
}

/// A character that no shell takes for anything else.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "_-./:@%+=".contains(c)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    // POSIX quoting: nothing is special between single quotes, and a single quote itself ends them, is escaped, and
    // begins them again. A name with control characters is shown escaped and is then another name; but it cannot be
    // typed either.
    format!("'{}'", printable(word).replace('\'', "'\\''"))
}

/// Whether there is such a job at another time, or else which jobs there are.
async fn of_jobs(answers: &Answers, window: &Window, job: &str, command: &str) -> Result<Vec<String>, QueryError> {
    let jobs = answers.known_jobs(window).await?;
    if let Some(found) = jobs.iter().find(|known| known.job == job) {
        let first = rfc3339(found.first_ns);
        let last = rfc3339(found.last_ns);
        return Ok(vec![format!(
            "job {} began between {first} and {last}: causeway {command} --job {} --from {first}",
            printable(job),
            quoted(job)
        )]);
    }
    let there = if jobs.is_empty() {
        "no job has a name here (CAUSEWAY_JOB_ID)".to_owned()
    } else {
        format!("jobs here: {}", listed(jobs.iter().map(|known| &known.job)))
    };
    Ok(vec![format!("no job is called {}; {there}", printable(job))])
}

/// Names, the first ten of them.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = if names.len() > NAMED { ", ..." } else { "" };
    format!("{}{more}", names.take(NAMED).map(|name| printable(name)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_it_must_be_typed() {
        for (name, typed) in [
            ("gpu-node-01", Some("gpu-node-01")),
            ("fe80::1%eth0", Some("fe80::1%eth0")),
            ("fe80::1", Some("'[fe80::1]'")),
            ("rack:7", Some("'[rack:7]'")),
            ("rack:a", Some("rack:a")),
            ("two words", Some("'two words'")),
            ("it's", Some("'it'\\''s'")),
            ("[x]", Some("'[[x]]'")),
            (" x", Some("'[ x]'")),
            ("a,b", None),
        ] {
            assert_eq!(typed_node(name).as_deref(), typed, "{name}");
        }
    }
}
