//! The footer of an answer: how many rows, from how many nodes, and what is missing.

use answers::completeness::{Completeness, StillLanding};
use chain_engine::format::printable;

/// `4 rows from 3 node(s), complete to 2026-04-03T12:18:43.000Z`; `rows …` where a form is passed on uncounted. Nodes
/// are left out where no table of the statement has them, the time where no node is live.
pub(crate) fn footer(rows: Option<usize>, completeness: Option<&Completeness>) -> String {
    let rows = match rows {
        None => "rows".to_owned(),
        Some(1) => "1 row".to_owned(),
        Some(rows) => format!("{rows} rows"),
    };
    match completeness {
        Some(found) if found.about_nodes => {
            let to = found.complete_to.as_ref().map_or_else(String::new, |to| format!(", complete to {to}"));
            format!("{rows} from {} node(s){to}", found.nodes)
        }
        _ => rows,
    }
}

/// What keeps an answer from being complete; `None` when nothing does.
pub(crate) fn incomplete(completeness: Option<&Completeness>) -> Option<String> {
    let Some(found) = completeness else {
        return Some("incomplete: the server could not determine how complete the answer is".to_owned());
    };
    if found.is_complete() {
        return None;
    }
    // The completeness of a streamed answer is in a header, which names at most 64 nodes: the count is taken from the
    // totals.
    let count = found.nodes_expected.saturating_sub(found.nodes_reporting);
    let more = if found.missing.len() < count { ", …" } else { "" };
    let missing = (!found.missing.is_empty()).then(|| {
        format!("{count} of {} node(s) missing: {}{more}", found.nodes_expected, printable(&found.missing.join(", ")))
    });
    let lost = (found.lost_events != 0).then(|| format!("{} event(s) lost", found.lost_events));
    let unread = (found.unread_rows != 0).then(|| format!("{} row(s) not looked at", found.unread_rows));
    let landing = (!found.still_landing.is_empty()).then(|| {
        let nodes: Vec<String> = found.still_landing.iter().map(landing).collect();
        format!("still landing: {}; ask again, or wait longer with --wait", nodes.join(", "))
    });
    let parts: Vec<String> = [missing, landing, lost, unread].into_iter().flatten().collect();
    Some(format!("incomplete: {}", parts.join("; ")))
}

fn landing(still: &StillLanding) -> String {
    let behind = still.behind_ms as f64 / 1_000.0;
    let to = still.complete_to.as_deref().unwrap_or("nothing yet");
    format!("{} (complete to {to}, {behind:.1} s short)", printable(&still.node))
}

/// The name of a node that is asked for; an empty one would ask for none, or for all of them.
///
/// # Errors
/// There is no name.
pub(crate) fn asked_node(given: &str) -> Result<String, String> {
    match node_name(given) {
        "" => Err("the name of a node cannot be empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// The name of a node in any of its spellings: users of the reference write `node:port`. A name with several colons,
/// such as an IPv6 address, has no port unless it stands in brackets; in brackets any name is taken as it is.
pub(crate) fn node_name(given: &str) -> &str {
    let given = given.trim();
    let bracketed = given.strip_prefix('[').and_then(|rest| rest.rsplit_once(']'));
    if let Some((name, port)) = bracketed.filter(|(name, _)| !name.is_empty())
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
    {
        return name;
    }
    match given.split_once(':') {
        // Split at the first colon: behind it `is_port` refuses further ones, so that `fe80::1` stays a name.
        Some((name, port)) if !name.is_empty() && is_port(port) => name,
        _ => given,
    }
}

fn is_port(text: &str) -> bool {
    // `parse` alone accepts a sign: `+80`.
    text.bytes().all(|digit| digit.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        let found = Completeness {
            about_nodes: true,
            nodes: 2,
            nodes_expected: 3,
            nodes_reporting: 2,
            missing: vec!["n\n3".to_owned()],
            lost_events: 7,
            unread_rows: 5,
            ..Completeness::default()
        };
        assert_eq!(footer(Some(1), Some(&found)), "1 row from 2 node(s)");
        assert_eq!(footer(None, Some(&found)), "rows from 2 node(s)");
        let live = Completeness { complete_to: Some("2026-04-03T12:18:43.000Z".to_owned()), ..found.clone() };
        assert_eq!(footer(Some(4), Some(&live)), "4 rows from 2 node(s), complete to 2026-04-03T12:18:43.000Z");
        let of_no_node = Completeness { about_nodes: false, ..live };
        assert_eq!(footer(Some(1), Some(&of_no_node)), "1 row");
        let warning = incomplete(Some(&found)).unwrap();
        assert_eq!(warning, "incomplete: 1 of 3 node(s) missing: n\\n3; 7 event(s) lost; 5 row(s) not looked at");
        assert_eq!(incomplete(Some(&Completeness::default())), None);
        let to = Some("2026-04-03T12:18:43.000Z".to_owned());
        let still = StillLanding { node: "n\r1".to_owned(), complete_to: to, behind_ms: 7_200 };
        let landing = Completeness { still_landing: vec![still], ..Completeness::default() };
        assert_eq!(
            incomplete(Some(&landing)).unwrap(),
            "incomplete: still landing: n\\r1 (complete to 2026-04-03T12:18:43.000Z, 7.2 s short); ask again, or wait longer \
             with --wait"
        );
        assert!(incomplete(None).is_some());
    }

    #[test]
    fn a_port_behind_a_node_is_ignored() {
        assert_eq!(
            ["n1:8080", " n1 ", ":80", "n1:", "n1:http", "n1:99999"].map(node_name),
            ["n1", "n1", ":80", "n1:", "n1:http", "n1:99999"]
        );
    }

    #[test]
    fn a_name_with_colons_is_a_name() {
        let given = [
            "fe80::1",
            "fe80::1%eth0",
            "2001:db8::8080",
            "[fe80::1]",
            "[fe80::1]:8080",
            "rack:1:9",
            "[rack:7]",
            "[x",
            "[]:80",
        ];
        let names =
            ["fe80::1", "fe80::1%eth0", "2001:db8::8080", "fe80::1", "fe80::1", "rack:1:9", "rack:7", "[x", "[]"];
        assert_eq!(given.map(node_name), names);
    }
}
