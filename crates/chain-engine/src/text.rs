//! The text form of answers, for terminals. It reads like the reference tracer's.

use std::borrow::Cow;
use std::fmt::Write;

use crate::chain::Chain;
use crate::group::Group;
use crate::verdict::{ChargedLoss, Finding, Verdict};

/// The line above chains: `FLEET CAUSAL CHAINS - 2 chain(s) from 1 node(s)`.
pub fn header(chains: usize, nodes: usize) -> String {
    format!("FLEET CAUSAL CHAINS - {chains} chain(s) from {nodes} node(s)")
}

/// A chain: its headline `[HIGH] [gpu-node-01] [job train] …`, then cause, timeline, fixes and evidence, indented; ends with a
/// newline. Control characters of names are escaped.
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
    let mut line = |label: &str, value: &str| {
        let gap = if value.is_empty() { "" } else { " " };
        _ = writeln!(text, "  {}:{gap}{}", printable(label), printable(value));
    };
    if !chain.root_cause.is_empty() {
        line("Root cause", &chain.root_cause);
    }
    if let Some(explanation) = &chain.explanation {
        line("Explanation", explanation);
    }
    if let Some(standing) = standing(chain) {
        line("Standing", &standing);
    }
    line("Seen", seen);
    if !chain.timeline.is_empty() {
        line("Timeline", "");
    }
    for step in &chain.timeline {
        let took = step.duration_ns.map_or_else(String::new, |ns| format!(" ({})", go_duration(ns)));
        let at = step.at_ns.map_or_else(String::new, |ns| format!("{} ", rfc3339(ns)));
        line(&format!("  {at}[{}] {}", step.layer, step.op), &format!("{}{took}", step.detail));
    }
    chain.fixes.iter().for_each(|fix| line("Fix", fix));
    if !chain.evidence.is_empty() {
        line("Evidence", &chain.evidence.join(" "));
    }
    text
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

/// Text with its control characters escaped, so that a name cannot break a line or move the cursor.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        return Cow::Owned(text.chars().flat_map(escaped).collect());
    }
    Cow::Borrowed(text)
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let plain = (!c.is_control()).then_some(c);
    let escape = c.is_control().then(|| c.escape_default());
    plain.into_iter().chain(escape.into_iter().flatten())
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
        Verdict::Chains { chains, .. } => chains.iter().map(render).chain([besides(finding)]).collect(),
        Verdict::Healthy { ranks, iterations, least_wait_share } => {
            format!("none: job {job}: {}\n", healthy(*ranks as u64, *iterations, *least_wait_share))
        }
        Verdict::Unknown { reason } => format!("unknown: job {job}: {reason}\n"),
    }
}

/// Of a time that long no rank's CPU is what the job waits for.
const PACED_ELSEWHERE: f64 = 0.2;

/// What [`Verdict::Healthy`] says, and what it cannot say.
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

/// What is to be said of a finding besides its chains, a line each: the slow ranks that no chain blames. Empty without chains.
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
        None => format!("(unnamed, on {})", printable(&finding.nodes.join(", "))),
    }
}

/// `1 wait`, `2 waits`; the first word of several takes the ending.
pub(crate) fn count(n: u64, what: &str) -> String {
    let (noun, rest) = what.split_once(" of ").map_or((what, String::new()), |(noun, of)| (noun, format!(" of {of}")));
    let ending = match noun {
        _ if n == 1 => "",
        noun if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{n} {noun}{ending}{rest}")
}

/// A duration as Go writes it: `734.136µs`, `1.052216ms`, `1m2.5s`.
pub fn go_duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let body = match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(ns, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(ns, 6)),
        _ => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{}s", decimal(rest, 9)),
                (0, m) => format!("{m}m{}s", decimal(rest, 9)),
                (h, m) => format!("{h}h{m}m{}s", decimal(rest, 9)),
            }
        }
    };
    format!("{sign}{body}")
}

/// `value / 10^digits` without trailing zeros.
fn decimal(value: u64, digits: u32) -> String {
    let unit = 10_u64.pow(digits);
    let width = digits as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Unix nanoseconds as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(ns: i64) -> String {
    let (days, of_day_ms) = (ns.div_euclid(86_400_000_000_000), ns.rem_euclid(86_400_000_000_000) / 1_000_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (of_day_ms / 3_600_000, of_day_ms / 60_000 % 60);
    let (second, ms) = (of_day_ms / 1_000 % 60, of_day_ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar: counts from 1 March of year 0, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
