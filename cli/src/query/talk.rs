//! What is said beside the rows: how many, from how many nodes, and what is missing.

use crate::client::Completeness;

/// `4 rows from 3 node(s)`; `rows from 3 node(s)` where a form is passed on uncounted.
pub(crate) fn footer(rows: Option<usize>, completeness: Option<&Completeness>) -> String {
    let rows = match rows {
        None => "rows".to_owned(),
        Some(1) => "1 row".to_owned(),
        Some(rows) => format!("{rows} rows"),
    };
    match completeness {
        Some(found) => format!("{rows} from {} node(s)", found.nodes_reporting),
        None => rows,
    }
}

/// What keeps an answer from being complete; `None` when nothing does.
pub(crate) fn incomplete(completeness: Option<&Completeness>) -> Option<String> {
    let Some(found) = completeness else {
        return Some("incomplete: the server could not tell how complete the answer is".to_owned());
    };
    if found.is_complete() {
        return None;
    }
    // A header names some of them only.
    let count = found.nodes_expected.saturating_sub(found.nodes_reporting);
    let more = if u64::try_from(found.missing.len()).is_ok_and(|named| named < count) { ", …" } else { "" };
    let missing = (!found.missing.is_empty())
        .then(|| format!("{count} of {} node(s) missing: {}{more}", found.nodes_expected, found.missing.join(", ")));
    let lost = (found.lost_events != 0).then(|| format!("{} event(s) lost", found.lost_events));
    let unread = (found.unread_rows != 0).then(|| format!("{} row(s) not looked at", found.unread_rows));
    let parts: Vec<String> = [missing, lost, unread].into_iter().flatten().collect();
    Some(format!("incomplete: {}", parts.join("; ")))
}

/// The name of a node, however it is given: the reference's users write `node:port`.
pub(crate) fn node_name(given: &str) -> &str {
    match given.trim().rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => name,
        _ => given.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        let found = Completeness {
            nodes_expected: 3,
            nodes_reporting: 2,
            missing: vec!["n3".to_owned()],
            lost_events: 7,
            unread_rows: 5,
            as_of: None,
        };
        assert_eq!(footer(Some(1), Some(&found)), "1 row from 2 node(s)");
        assert_eq!(footer(None, Some(&found)), "rows from 2 node(s)");
        let warning = incomplete(Some(&found)).unwrap();
        assert_eq!(warning, "incomplete: 1 of 3 node(s) missing: n3; 7 event(s) lost; 5 row(s) not looked at");
        assert_eq!(incomplete(Some(&Completeness::default())), None);
        assert!(incomplete(None).is_some());
    }

    #[test]
    fn a_port_behind_a_node_is_ignored() {
        assert_eq!(["n1:8080", " n1 ", "fe80::1", ":80"].map(node_name), ["n1", "n1", "fe80:", ":80"]);
    }
}
