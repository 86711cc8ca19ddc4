//! Chains as text, in the form of the reference tracer.

use chain_engine::{Verdict, format, group, text};

use super::Explanation;
use super::detection::{Detection, LookedAt};
use crate::untraced::Untraced;

/// Groups of equal chains that the text form shows unless all are asked for.
const GROUPS_SHOWN: usize = 10;
/// Processes without probes that the text form names.
const UNTRACED_SHOWN: usize = 10;

/// The text of what was found; with `all`, every chain by itself.
pub(super) fn of(found: &Explanation, all: bool) -> String {
    let Explanation { detection, untraced, hints, .. } = found;
    let chains = &detection.chains;
    let mut out = format!("{}\n\n", text::header(chains.len(), detection.nodes.len()));
    let LookedAt { from_ns, to_ns, events, unread } = detection.looked_at;
    if unread > 0 {
        let from = format::rfc3339(from_ns);
        let to = format::rfc3339(to_ns);
        out += &format!(
            "incomplete: looked at {events} events from {from} to {to}, and not at {unread} rows of the window: narrow it\n\n"
        );
    }
    if all {
        out.extend(chains.iter().map(|chain| format!("{}\n", text::render(chain))));
    } else {
        out += &grouped(detection);
    }
    // Findings with chains were printed above; each of the others gives the reason why it has none.
    let silent = detection.findings.iter().filter(|finding| !matches!(finding.verdict, Verdict::Chains { .. }));
    out.extend(silent.map(text::finding));
    out.extend(detection.findings.iter().map(text::besides));
    out.extend(detection.findings.iter().map(text::losses));
    match untraced {
        Some(untraced) => {
            out.extend(untraced.iter().take(UNTRACED_SHOWN).map(not_traced));
            if untraced.len() > UNTRACED_SHOWN {
                let more = untraced.len() - UNTRACED_SHOWN;
                out += &format!("and {more} more process(es) not traced: `causeway nodes`\n");
            }
        }
        None => out += "which processes are not traced is unknown: silver.processes could not be read\n",
    }
    out.extend(hints.iter().map(|hint| format!("{hint}\n")));
    out
}

/// Such a process may be the slow one: no call of it was recorded.
fn not_traced(process: &Untraced) -> String {
    let Untraced { node, pid, name, reason, .. } = process;
    // Names come from other hosts: control characters could move the cursor or recolour a terminal (CWE-150).
    let [node, name, reason] = [node, name, reason].map(|text| format::printable(text));
    format!("not traced: {name} (pid {pid}) on {node}, because {reason}\n")
}

/// Equal chains once, with how often they were seen; the most severe.
fn grouped(detection: &Detection) -> String {
    let groups = group::groups(&detection.chains);
    let shown = groups.iter().take(GROUPS_SHOWN);
    let mut out: String = shown.map(|group| format!("{}\n", text::render_group(group))).collect();
    if groups.len() > GROUPS_SHOWN {
        let rest = &groups[GROUPS_SHOWN..];
        let chains: usize = rest.iter().map(|group| group.count).sum();
        out += &format!("and {} more of {} kind(s): --all shows every one\n\n", chains, rest.len());
    } else if groups.len() < detection.chains.len() {
        out += &format!("{} chain(s) of {} kind(s): --all shows every one\n\n", detection.chains.len(), groups.len());
    }
    out
}
