//! The text form of answers, for terminals. It reads like the reference tracer's.

use std::fmt::Write;

use crate::chain::Chain;
use crate::format::{count, go_duration, printable, rfc3339};
use crate::group::Group;
use crate::verdict::{ChargedLoss, Finding, Verdict};

/// The line above chains: `FLEET CAUSAL CHAINS - 2 chain(s) from 1 node(s)`.
pub fn header(chains: usize, nodes: usize) -> String {
    format!("FLEET CAUSAL CHAINS - {chains} chain(s) from {nodes} node(s)")
}

/// A chain: its headline `[HIGH] [gpu-node-01] [job train] …`, then cause, timeline, fixes and evidence, indented; ends
/// with a newline. Control characters of names are escaped.
pub fn render(chain: &Chain) -> String {
    rendered(chain, &seen(chain))
}

/// Equal chains as one: as [`render`], with how often and when they were seen.
pub fn render_group(group: &Group<'_>) -> String {
    if group.count == 1 {
        return render(group.chain);
    }
    let [first, last] = [group.first_seen_ns, group.last_seen_ns].map(rfc3339);
    rendered(group.chain, &format!("{} times from {first} to {last}; the worst is shown", group.count))
}

fn rendered(chain: &Chain, seen: &str) -> String {
    let job = chain.job_id.as_deref().map_or_else(String::new, |job| format!(" [job {}]", printable(job)));
    let node = printable(&chain.node);
    let summary = printable(&chain.summary);
    let mut text = format!("[{}] [{node}]{job} {summary}\n", chain.severity.name());
    if !chain.root_cause.is_empty() {
        push_line(&mut text, "Root cause", &chain.root_cause);
    }
    if let Some(explanation) = &chain.explanation {
        push_line(&mut text, "Explanation", explanation);
    }
    if let Some(standing) = standing(chain) {
        push_line(&mut text, "Standing", &standing);
    }
    push_line(&mut text, "Seen", seen);
    if !chain.timeline.is_empty() {
        push_line(&mut text, "Timeline", "");
    }
    for step in &chain.timeline {
        let took = step.duration_ns.map_or_else(String::new, |ns| format!(" ({})", go_duration(ns)));
        let at = step.at_ns.map_or_else(String::new, |ns| format!("{} ", rfc3339(ns)));
        push_line(&mut text, &format!("  {at}[{}] {}", step.layer, step.op), &format!("{}{took}", step.detail));
    }
    for fix in &chain.fixes {
        push_line(&mut text, "Fix", fix);
    }
    if !chain.evidence.is_empty() {
        push_line(&mut text, "Evidence", &chain.evidence.join(" "));
    }
    text
}

/// Adds an indented line `label: value`; both are escaped.
fn push_line(text: &mut String, label: &str, value: &str) {
    // No space at the end of a line without a value.
    let gap = if value.is_empty() { "" } else { " " };
    _ = writeln!(text, "  {}:{gap}{}", printable(label), printable(value));
}

fn standing(chain: &Chain) -> Option<String> {
    let parts = [
        chain.confidence.map(|confidence| format!("confidence {confidence:.2}")),
        chain.explained_share.map(|share| format!("{:.0} % explained", share * 100.0)),
        chain
            .iterations_affected
            .zip(chain.iterations_total)
            .map(|(some, all)| format!("{some} of {all} iterations affected")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn seen(chain: &Chain) -> String {
    if chain.last_seen_ns <= chain.first_seen_ns {
        return rfc3339(chain.first_seen_ns);
    }
    format!("{} to {}", rfc3339(chain.first_seen_ns), rfc3339(chain.last_seen_ns))
}

/// A finding: its chains, or one line that says why there are none.
pub fn finding(finding: &Finding) -> String {
    let job = job(finding);
    match &finding.verdict {
        // Slow ranks without a known cause follow the chains: a reader must not take the list for complete.
        Verdict::Chains { chains, .. } => chains.iter().map(render).chain([besides(finding)]).collect(),
        Verdict::Healthy { ranks, iterations, least_wait_share } => {
            format!("none: job {job}: {}\n", healthy(*ranks as u64, *iterations, *least_wait_share))
        }
        Verdict::Unknown { reason } => format!("unknown: job {job}: {reason}\n"),
    }
}

/// Share of its time that even the rank which waits least waits, from which the GPU or the network is said to pace the
/// job. A choice: lower it and jobs with short collectives get the reservation too; raise it and a slow GPU goes
/// without it.
const PACED_ELSEWHERE: f64 = 0.2;

/// [`Verdict::Healthy`] as a sentence, with the reservation where the GPU or the network paces the job.
pub fn healthy(ranks: u64, iterations: u64, least_wait_share: f64) -> String {
    let mut text = format!("{ranks} ranks over {iterations} iterations, none slower than its peers on the CPU");
    if least_wait_share >= PACED_ELSEWHERE {
        _ = write!(
            text,
            "; every rank waits {:.0} % of the time or more, so the GPU or the network paces the job, and whether one of them is \
             slow is not seen",
            least_wait_share * 100.0
        );
    }
    text
}

/// The slow ranks of a finding that no chain blames, a line each. Empty for a finding without chains.
pub fn besides(finding: &Finding) -> String {
    let Verdict::Chains { unexplained, .. } = &finding.verdict else { return String::new() };
    let job = job(finding);
    unexplained.iter().map(|reason| format!("unknown: job {job}: {reason}\n")).collect()
}

/// Heavy losses that are listed one by one.
const LOSSES_SHOWN: usize = 5;

/// What was lost while the job ran, a line each: whether iterations were left out for it. Empty when nothing was.
pub fn losses(finding: &Finding) -> String {
    let job = job(finding);
    let (heavy, light): (Vec<&ChargedLoss>, Vec<&ChargedLoss>) =
        finding.coverage.losses.iter().partition(|loss| loss.is_heavy);
    let mut text: String =
        heavy.iter().take(LOSSES_SHOWN).map(|loss| format!("lost: job {job}: {}\n", charged(loss))).collect();
    if heavy.len() > LOSSES_SHOWN {
        let rest = &heavy[LOSSES_SHOWN..];
        let (events, iterations) = rest.iter().fold((0, 0), |(events, iterations), loss| {
            (events + loss.lost_events, iterations + loss.iterations_not_judged)
        });
        _ = writeln!(
            text,
            "lost: job {job}: {events} more in {}: {} not judged",
            count(rest.len() as u64, "stretch of time"),
            count(iterations, "iteration")
        );
    }
    text.extend(light.iter().map(|loss| format!("lost: job {job}: {}\n", charged(loss))));
    text
}

fn charged(loss: &ChargedLoss) -> String {
    let from = rfc3339(loss.from_ns);
    let to = rfc3339(loss.to_ns);
    let what = format!(
        "{} of {} events ({:.1} %) that {} made from {from} to {to} are missing",
        loss.lost_events,
        loss.made_events,
        loss.share * 100.0,
        printable(&loss.node)
    );
    match loss.iterations_not_judged {
        _ if !loss.is_heavy => format!("{what}: too few to leave an iteration out"),
        0 => format!("{what}: no iteration lies in that time"),
        n => format!("{what}: {} in that time not judged", count(n, "iteration")),
    }
}

fn job(finding: &Finding) -> String {
    match &finding.job_id {
        Some(job) => printable(job).into_owned(),
        // Such a job is identified by its node; see `JobKey`.
        None => format!("(unnamed, on {})", printable(&finding.nodes.join(", "))),
    }
}

#[cfg(test)]
mod tests;
