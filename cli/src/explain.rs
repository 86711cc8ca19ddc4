//! `causeway explain` and `causeway stragglers`: which rank is slow, why, and by what evidence; or an honest "none".

use chain_engine::{Reason, text};
use clap::{Args, ValueHint};
use serde::Deserialize;
use serde_json::Value;
use service_kit::run::{Exit, note};

use crate::client::{Client, Completeness};
use crate::error::CliError;
use crate::nodes::cell;
use crate::output::{self, table::TextTable};
use crate::query::talk;

/// A stretch of time and a job.
#[derive(Debug, Clone, Args)]
struct WindowArgs {
    /// Look back this far (`90s`, `5m`, `12h`, `30d`), or from this time on (`2026-04-03 12:00`, UTC where no zone is given;
    /// `today`) [default: 5m]
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
pub(crate) async fn explain(args: &ExplainArgs, client: &Client) -> Result<Exit, CliError> {
    let mut parameters = args.window.parameters();
    parameters.extend(of_nodes(&args.nodes));
    if args.all {
        parameters.push(("all", "true".to_owned()));
    }
    if args.compat {
        parameters.push(("compat", "true".to_owned()));
    }
    if args.json {
        let document: Value = client.get("api/v1/chains", &parameters).await?;
        output::json(&document)?;
        return Ok(finish(said(&document).as_ref(), args.strict));
    }
    let (text, completeness) = client.get_text("api/v1/chains", &parameters).await?;
    output::text(&text)?;
    Ok(finish(completeness.as_ref(), args.strict))
}

/// The parameter that narrows an answer to nodes.
fn of_nodes(nodes: &[String]) -> Option<(&'static str, String)> {
    (!nodes.is_empty()).then(|| ("nodes", nodes.join(",")))
}

/// Runs `stragglers`.
pub(crate) async fn stragglers(args: &StragglersArgs, client: &Client) -> Result<Exit, CliError> {
    let mut parameters = args.window.parameters();
    parameters.extend(of_nodes(&args.nodes));
    let document: Value = client.get("api/v1/stragglers", &parameters).await?;
    if args.json {
        output::json(&document)?;
    } else {
        output::text(&ranked(&document))?;
    }
    Ok(finish(said(&document).as_ref(), args.strict))
}

/// What a document says of its own completeness.
fn said(document: &Value) -> Option<Completeness> {
    Completeness::deserialize(&document["completeness"]).ok()
}

fn finish(completeness: Option<&Completeness>, strict: bool) -> Exit {
    let Some(warning) = talk::incomplete(completeness) else { return Exit::Done };
    note(&warning);
    if strict { Exit::Incomplete } else { Exit::Done }
}

fn ranked(document: &Value) -> String {
    let jobs = document["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    if jobs.is_empty() {
        text += "none: no process with a rank (RANK) that iterates was seen in this window\n";
        let hints = document["hints"].as_array().into_iter().flatten();
        text.extend(hints.map(|hint| format!("{}\n", cell(hint))));
    }
    for job in jobs {
        let nodes = || job["nodes"].as_array().into_iter().flatten().map(cell).collect::<Vec<_>>().join(", ");
        let name = job["job_id"].as_str().map_or_else(|| format!("(unnamed, on {})", nodes()), str::to_owned);
        text += &format!("job {}: {}\n", text::printable(&name), verdict(job));
        let ranking = job["ranking"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !ranking.is_empty() {
            text += &ranks(ranking).render();
        }
    }
    text
}

fn ranks(ranking: &[Value]) -> TextTable {
    let mut table =
        TextTable::new(["rank", "node", "pid", "score", "ratio", "slow", "blamed"]).numbers([0, 2, 3, 4, 5]);
    for rank in ranking {
        let decimal = |key: &str| rank[key].as_f64().map_or_else(String::new, |n| format!("{n:.3}"));
        let slow = format!("{}/{}", cell(&rank["slow_tiles"]), cell(&rank["tiles"]));
        let blamed = if rank["is_blamed"] == Value::Bool(true) { "yes" } else { "no" };
        let [number, node, pid] = ["rank", "node", "pid"].map(|key| cell(&rank[key]));
        table.row([number, node, pid, decimal("score"), decimal("ratio"), slow, blamed.to_owned()]);
    }
    table
}

/// The verdict on a job in one line: who is blamed, an honest `none`, or `unknown` with the reason.
fn verdict(job: &Value) -> String {
    let verdict = &job["verdict"];
    match verdict["verdict"].as_str() {
        Some("chains") => {
            let blamed = job["stragglers"].as_array().into_iter().flatten();
            let ranks = blamed.map(blamed_rank).collect::<Vec<_>>().join(", ");
            let besides = verdict["unexplained"].as_array().into_iter().flatten().map(sentence);
            [format!("slow: {ranks}")].into_iter().chain(besides).collect::<Vec<_>>().join("; ")
        }
        Some("healthy") => {
            let [ranks, iterations] = ["ranks", "iterations"].map(|key| verdict[key].as_u64().unwrap_or(0));
            let least_wait_share = verdict["least_wait_share"].as_f64().unwrap_or(0.0);
            format!("none: {}", text::healthy(ranks, iterations, least_wait_share))
        }
        _ => format!("unknown: {}", sentence(&verdict["reason"])),
    }
}

/// A rank and whose process has its CPU: `rank 3 on vm, whose CPU backup (pid 88) has`.
fn blamed_rank(rank: &Value) -> String {
    let place = format!("rank {} on {}", cell(&rank["rank"]), text::printable(&cell(&rank["node"])));
    let Some(culprit) = rank["culprits"].as_array().and_then(|culprits| culprits.first()) else { return place };
    let name = text::printable(culprit["name"].as_str().unwrap_or("a process"));
    let own = if culprit["is_causeway"] == Value::Bool(true) { " (this is Causeway)" } else { "" };
    format!("{place}, whose CPU {name} (pid {}){own} has", cell(&culprit["pid"]))
}

/// A reason in words; one that only a newer server knows as it is.
fn sentence(reason: &Value) -> String {
    Reason::deserialize(reason).map_or_else(|_| reason.to_string(), |reason| reason.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_judged_in_one_line() {
        let job = |verdict: Value| json!({ "verdict": verdict, "stragglers": [{ "rank": 2, "node": "n1" }] });
        assert_eq!(verdict(&job(json!({ "verdict": "chains" }))), "slow: rank 2 on n1");
        let healthy = json!({ "verdict": "healthy", "ranks": 4, "iterations": 90 });
        assert_eq!(verdict(&job(healthy)), "none: 4 ranks over 90 iterations, none slower than its peers on the CPU");
        let unknown = json!({ "verdict": "unknown", "reason": { "kind": "too_few_ranks", "ranks": 1, "needed": 2 } });
        assert_eq!(verdict(&job(unknown)), "unknown: 1 rank(s) seen and 2 are needed to tell which is the odd one");
        let culprit = json!({ "pid": 88, "name": "causeway", "is_causeway": true });
        let preempted = json!({ "verdict": { "verdict": "chains" },
            "stragglers": [{ "rank": 2, "node": "n1", "culprits": [culprit] }] });
        assert_eq!(verdict(&preempted), "slow: rank 2 on n1, whose CPU causeway (pid 88) (this is Causeway) has");
        let odd = json!({ "verdict": { "verdict": "chains" }, "stragglers": [{ "rank": 2, "node": "n\n1", "culprits": [
            { "pid": 88, "name": "a\u{1b}b" }] }] });
        assert_eq!(verdict(&odd), "slow: rank 2 on n\\n1, whose CPU a\\u{1b}b (pid 88) has");
        let newer = json!({ "verdict": "unknown", "reason": { "kind": "of_tomorrow" } });
        assert_eq!(verdict(&job(newer)), r#"unknown: {"kind":"of_tomorrow"}"#);
        let also = json!({ "kind": "no_scheduler_data", "node": "n2", "rank": 1, "ratio": 1.5 });
        assert_eq!(
            verdict(&job(json!({ "verdict": "chains", "unexplained": [also] }))),
            "slow: rank 2 on n1; rank 1 on n2 is slower (1.5x its peers), and no scheduler events say why"
        );
    }
}
