//! `causeway explain` and `causeway stragglers`: which rank is slow, why, and by what evidence, or that none is.

use answers::chains::Chains;
use answers::completeness::Completeness;
use answers::stragglers::{RankedJob, Stragglers};
use answers::verdict::JobVerdict;
use chain_engine::{StragglerRank, format, text};
use clap::{Args, ValueHint};
use service_kit::run::{Exit, note};

use crate::client::{AskError, Client};
use crate::output::{self, table::TextTable};
use crate::query::talk;

/// A stretch of time and a job.
#[derive(Debug, Clone, Args)]
struct WindowArgs {
    /// Look back this far (`90s`, `5m`, `12h`, `30d`), or from this time on (`2026-04-03 12:00`, UTC where no zone is
    /// given; `today`) [default: 5m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["from", "to"])]
    since: Option<String>,
    /// Beginning of the window, as for --since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// End of the window, as for --since [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only this job
    #[arg(long, value_hint = ValueHint::Other)]
    job: Option<String>,
    /// Wait so long for the window to land, then answer from what has; `0s`: do not wait [default: 5s]
    #[arg(long, value_name = "DURATION")]
    wait: Option<String>,
}

impl WindowArgs {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        // The server has one parameter for both. clap refuses the two flags together, so none is dropped here.
        let from = self.from.clone().or_else(|| self.since.clone()).map(|from| ("since", from));
        let to = self.to.clone().map(|to| ("to", to));
        let job = self.job.clone().map(|job| ("job", job));
        let wait = self.wait.clone().map(|wait| ("wait", wait));
        from.into_iter().chain(to).chain(job).chain(wait).collect()
    }
}

const EXAMPLES: &str = "\
Examples:
  causeway explain --since 5m
  causeway explain --job train-7 --from '2026-04-03 12:00' --to '2026-04-03 13:00'";

/// Explains what slowed the fleet down: causal chains with their evidence
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    window: WindowArgs,
    /// Only chains of these nodes
    #[arg(long, value_delimiter = ',', value_parser = talk::asked_node)]
    nodes: Vec<String>,
    /// Show every chain by itself, also equal ones [default: the ten most severe, equal ones as one]
    #[arg(long)]
    all: bool,
    /// By the rules of the reference tracer (Ingero) instead of ours, each node by itself
    #[arg(long)]
    compat: bool,
    /// Print the server's document as it is
    #[arg(long)]
    json: bool,
    /// Exit with 3 when the answer does not cover everything
    #[arg(long)]
    strict: bool,
}

/// Ranks the ranks of a job by how much slower than their peers they are
#[derive(Debug, Args)]
pub(crate) struct StragglersArgs {
    #[command(flatten)]
    window: WindowArgs,
    /// Only jobs that have ranks on these nodes
    #[arg(long, value_delimiter = ',', value_parser = talk::asked_node)]
    nodes: Vec<String>,
    /// Print the server's document as it is
    #[arg(long)]
    json: bool,
    /// Exit with 3 when the answer does not cover everything
    #[arg(long)]
    strict: bool,
}

/// Runs `explain`.
pub(crate) async fn explain(args: &ExplainArgs, client: &Client) -> Result<Exit, AskError> {
    let mut parameters = args.window.parameters();
    parameters.extend(of_nodes(&args.nodes));
    if args.all {
        parameters.push(("all", "true".to_owned()));
    }
    if args.compat {
        parameters.push(("compat", "true".to_owned()));
    }
    if args.json {
        let document = client.document::<Chains>("api/v1/chains", &parameters).await?;
        output::json(&document.json)?;
        return Ok(finish(document.answer.completeness.as_ref(), args.strict));
    }
    // The text is rendered by the server, which has the same text for every client; its completeness is in a header.
    let (text, completeness) = client.get_text("api/v1/chains", &parameters).await?;
    output::text(&text)?;
    Ok(finish(completeness.as_ref(), args.strict))
}

/// The parameter that narrows an answer to nodes.
fn of_nodes(nodes: &[String]) -> Option<(&'static str, String)> {
    (!nodes.is_empty()).then(|| ("nodes", nodes.join(",")))
}

/// Runs `stragglers`.
pub(crate) async fn stragglers(args: &StragglersArgs, client: &Client) -> Result<Exit, AskError> {
    let mut parameters = args.window.parameters();
    parameters.extend(of_nodes(&args.nodes));
    let document = client.document::<Stragglers>("api/v1/stragglers", &parameters).await?;
    if args.json {
        output::json(&document.json)?;
    } else {
        output::text(&ranked(&document.answer))?;
    }
    Ok(finish(document.answer.completeness.as_ref(), args.strict))
}

fn finish(completeness: Option<&Completeness>, strict: bool) -> Exit {
    // Also where the completeness is not known: `--strict` passes answers only that are known to be complete.
    let Some(warning) = talk::incomplete(completeness) else { return Exit::Done };
    note(&warning);
    if strict { Exit::Incomplete } else { Exit::Done }
}

fn ranked(found: &Stragglers) -> String {
    let mut text = String::new();
    if found.jobs.is_empty() {
        text += "none: no process with a rank (RANK) that iterates was seen in this window\n";
        text.extend(found.hints.iter().map(|hint| format!("{hint}\n")));
    }
    for job in &found.jobs {
        let name = match &job.job_id {
            Some(id) => id.clone(),
            None => format!("(unnamed, on {})", job.nodes.join(", ")),
        };
        text += &format!("job {}: {}\n", format::printable(&name), verdict(job));
        if !job.ranking.is_empty() {
            text += &ranks(&job.ranking).render();
        }
    }
    text
}

fn ranks(ranking: &[StragglerRank]) -> TextTable {
    let mut table =
        TextTable::new(["rank", "node", "pid", "score", "ratio", "slow", "blamed"]).numbers([0, 2, 3, 4, 5]);
    for rank in ranking {
        table.row([
            rank.rank.to_string(),
            rank.node.clone(),
            rank.pid.to_string(),
            format!("{:.3}", rank.score),
            format!("{:.3}", rank.ratio),
            format!("{}/{}", rank.slow_tiles, rank.tiles),
            if rank.is_blamed { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}

/// The verdict on a job in one line: the ranks that are blamed, `none`, or `unknown` with the reason.
fn verdict(job: &RankedJob) -> String {
    match &job.verdict {
        JobVerdict::Chains { unexplained } => {
            let ranks = job.stragglers.iter().map(blamed_rank).collect::<Vec<_>>().join(", ");
            // Ranks that are slow as well, but for a reason that the events do not show.
            let besides = unexplained.iter().map(ToString::to_string);
            [format!("slow: {ranks}")].into_iter().chain(besides).collect::<Vec<_>>().join("; ")
        }
        JobVerdict::Healthy { ranks, iterations, least_wait_share } => {
            format!("none: {}", text::healthy(*ranks as u64, *iterations, *least_wait_share))
        }
        JobVerdict::Unknown { reason } => format!("unknown: {reason}"),
    }
}

/// A rank and the process that has its CPU: `rank 3 on vm, whose CPU backup (pid 88) has`.
fn blamed_rank(rank: &StragglerRank) -> String {
    let place = format!("rank {} on {}", rank.rank, format::printable(&rank.node));
    // The one with the largest share of the CPU: the engine sorts them by it.
    let Some(culprit) = rank.culprits.first() else { return place };
    let name = format::printable(culprit.name.as_deref().unwrap_or("a process"));
    let own = if culprit.is_causeway { " (this is Causeway)" } else { "" };
    format!("{place}, whose CPU {name} (pid {}){own} has", culprit.pid)
}

#[cfg(test)]
mod tests {
    use answers::verdict::GivenReason;
    use chain_engine::{Coverage, Culprit, Reason};

    use super::*;

    fn slow_rank(node: &str, culprits: Vec<Culprit>) -> StragglerRank {
        StragglerRank {
            rank: 2,
            node: node.to_owned(),
            pid: 7,
            tid: 7,
            iterations: 90,
            busy_p50_ns: 2_000,
            wait_p50_ns: 10,
            ratio: 2.0,
            slow_tiles: 3,
            tiles: 4,
            score: 0.5,
            is_blamed: true,
            unexplained: None,
            shares: None,
            culprits,
            evidence: Vec::new(),
        }
    }

    fn job(verdict: JobVerdict, rank: StragglerRank) -> RankedJob {
        RankedJob {
            cluster: "c".to_owned(),
            job_id: Some("train".to_owned()),
            nodes: vec![rank.node.clone()],
            verdict,
            stragglers: vec![rank.clone()],
            ranking: vec![rank],
            coverage: Coverage::default(),
        }
    }

    fn judged(given: JobVerdict) -> String {
        verdict(&job(given, slow_rank("n1", Vec::new())))
    }

    fn preempted(node: &str, name: &str, is_causeway: bool) -> String {
        let culprit = Culprit { pid: 88, name: Some(name.to_owned()), is_causeway, share: 1.0 };
        let rank = slow_rank(node, vec![culprit]);
        verdict(&job(JobVerdict::Chains { unexplained: Vec::new() }, rank))
    }

    #[test]
    fn a_job_is_judged_in_one_line() {
        assert_eq!(judged(JobVerdict::Chains { unexplained: Vec::new() }), "slow: rank 2 on n1");
        let healthy = JobVerdict::Healthy { ranks: 4, iterations: 90, least_wait_share: 0.0 };
        assert_eq!(judged(healthy), "none: 4 ranks over 90 iterations, none slower than its peers on the CPU");
        let few = GivenReason::Known(Reason::TooFewRanks { ranks: 1, needed: 2 });
        assert_eq!(
            judged(JobVerdict::Unknown { reason: few }),
            "unknown: 1 rank(s) seen and 2 are needed to say which is the odd one"
        );
        let also = Reason::NoSchedulerData { node: "n2".to_owned(), rank: 1, ratio: 1.5 };
        assert_eq!(
            judged(JobVerdict::Chains { unexplained: vec![GivenReason::Known(also)] }),
            "slow: rank 2 on n1; rank 1 on n2 is slower (1.5x its peers), and no scheduler events say why"
        );
    }

    #[test]
    fn the_process_that_has_the_cpu_is_named_fit_for_a_terminal() {
        assert_eq!(
            preempted("n1", "causeway", true),
            "slow: rank 2 on n1, whose CPU causeway (pid 88) (this is Causeway) has"
        );
        assert_eq!(preempted("n\n1", "a\u{1b}b", false), "slow: rank 2 on n\\n1, whose CPU a\\u{1b}b (pid 88) has");
    }

    #[test]
    fn a_reason_of_a_newer_server_is_shown_as_it_is() {
        let newer = r#"{"verdict":"unknown","reason":{"kind":"of_tomorrow"}}"#;
        assert_eq!(judged(serde_json::from_str(newer).unwrap()), r#"unknown: {"kind":"of_tomorrow"}"#);
    }
}
