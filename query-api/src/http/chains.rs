//! `GET /api/v1/chains` and `/api/v1/stragglers`: who is slow, why, and by what evidence.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query as UrlQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use chain_engine::{Finding, StragglerRank, Verdict, group, text};
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::config::HumanDuration;

use super::App;
use super::problem::Problem;
use super::sql::completeness_header;
use super::untraced::{About, Untraced, untraced};
use crate::completeness::{Completeness, Extent, Landing, Question, settle};
use crate::detect::{DetectError, Detection, LookedAt, Window, compat, detect};
use crate::time::parse_time;
use query_engine::Asker;
use query_engine::time::rfc3339;

mod hints;

/// How far back to look when the request does not say.
const DEFAULT_SINCE: &str = "5m";

/// How long it is waited for a window to land when the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// Longest wait that may be asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Groups of equal chains that the text form shows unless all are asked for.
const GROUPS_SHOWN: usize = 10;
/// Processes without probes that the text form names.
const UNTRACED_SHOWN: usize = 10;

/// The parameters of both routes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// Start: RFC 3339, or a duration back from now. `from` is another name for it.
    since: Option<String>,
    from: Option<String>,
    /// End; now when absent.
    to: Option<String>,
    job: Option<String>,
    /// Only what concerns these nodes: names, separated by commas.
    nodes: Option<String>,
    /// `json` or `text`.
    format: Option<String>,
    /// Longest time to wait until the window has landed: a duration; `0s` for none.
    wait: Option<String>,
    /// `true`: the text form shows every chain by itself.
    #[serde(default)]
    all: bool,
    /// `true`: by the reference tracer's rules instead of ours.
    #[serde(default)]
    compat: bool,
}

impl Parameters {
    fn window(&self, now_ms: i64) -> Result<Window, Problem> {
        let from = match (&self.since, &self.from) {
            (Some(_), Some(_)) => return Err(Problem::bad_request("give `since` or `from`, not both")),
            (Some(from), None) | (None, Some(from)) => from.as_str(),
            (None, None) => DEFAULT_SINCE,
        };
        let to_ms = match &self.to {
            Some(to) => parse_time(to, now_ms).map_err(Problem::bad_request)?,
            None => now_ms,
        };
        // A duration that nobody gave is one back from the window's end.
        let back_from = if self.since.is_none() && self.from.is_none() { to_ms } else { now_ms };
        let from_ms = parse_time(from, back_from).map_err(Problem::bad_request)?;
        if from_ms > to_ms {
            return Err(Problem::bad_request("the window ends before it begins"));
        }
        // Nothing was traced before 1970, and times before 1678 do not fit nanoseconds.
        let ns = |ms: i64| ms.max(0).saturating_mul(1_000_000);
        // The last millisecond belongs to the window.
        let to_ns = ns(to_ms).saturating_add(999_999);
        Ok(Window { from_ns: ns(from_ms), to_ns, job: self.job.clone().filter(|job| !job.is_empty()) })
    }

    /// The stretch of time asked about; everything when the request names none.
    pub(super) fn extent(&self, now_ms: i64) -> Result<Extent, Problem> {
        let names_one = self.since.is_some() || self.from.is_some() || self.to.is_some();
        Ok(if names_one { extent(&self.window(now_ms)?, now_ms) } else { Extent::now(now_ms) })
    }

    /// The nodes asked for; none stands for all.
    pub(super) fn wanted(&self) -> BTreeSet<String> {
        let names = self.nodes.iter().flat_map(|nodes| nodes.split(',')).map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn wait(&self) -> Result<Duration, Problem> {
        let Some(text) = &self.wait else { return Ok(DEFAULT_WAIT) };
        let wrong = || {
            format!("`{text}` is not a time to wait: give a duration up to {} s, such as 10s", LONGEST_WAIT.as_secs())
        };
        let wait: HumanDuration = text.parse().map_err(|_| Problem::bad_request(wrong()))?;
        if wait.0 <= LONGEST_WAIT { Ok(wait.0) } else { Err(Problem::bad_request(wrong())) }
    }

    /// Leaves out what concerns none of the nodes asked for. The others of a job were its peers all the same.
    fn narrow(&self, detection: &mut Detection) {
        let wanted = self.wanted();
        if wanted.is_empty() {
            return;
        }
        let is_wanted = |node: &String| wanted.contains(node);
        detection.nodes.retain(is_wanted);
        detection.chains.retain(|chain| is_wanted(&chain.node));
        detection.findings.retain(|finding| finding.nodes.iter().any(is_wanted));
    }

    fn wants_text(&self, headers: &HeaderMap) -> Result<bool, Problem> {
        match self.format.as_deref() {
            Some("text") => Ok(true),
            Some("json") => Ok(false),
            Some(other) => {
                Err(Problem::bad_request(format!("`{other}` is no format of chains: give `json` or `text`")))
            }
            None => Ok(headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"))),
        }
    }
}

pub(super) type Given = Result<UrlQuery<Parameters>, QueryRejection>;

fn extent(window: &Window, now_ms: i64) -> Extent {
    Extent::now(now_ms).since(Some(window.from_ns / 1_000_000)).until(window.to_ns / 1_000_000)
}

/// Waits for the window to land, then looks at it. What is still on its way then is said beside the answer; `None` where that
/// cannot be reported.
async fn run(
    app: &App,
    window: &Window,
    parameters: &Parameters,
    asker: &Asker,
) -> Result<(Detection, Option<Landing>), Problem> {
    let wanted = parameters.wanted();
    let most = parameters.wait()?;
    let landing = match settle(&app.engine, &*app.clock, (window.to_ns / 1_000_000, &wanted), most).await {
        Ok(landing) => Some(landing),
        Err(error) => {
            tracing::warn!(%error, "what is still landing is unknown: the ledger cannot be read");
            None
        }
    };
    let mut detection = look(app, window, parameters.compat, asker).await?;
    parameters.narrow(&mut detection);
    Ok((detection, landing))
}

async fn look(app: &App, window: &Window, by_reference: bool, asker: &Asker) -> Result<Detection, Problem> {
    let started = Instant::now();
    let engine = Arc::clone(&app.engine);
    let (window, asker) = (window.clone(), asker.clone());
    // Hours of events are much work: it yields to everything else, as other queries do.
    let work = async move {
        if by_reference { compat(&engine, &window, &asker).await } else { detect(&engine, &window, &asker).await }
    };
    let outcome = app.engine.aside(work).await.ok().flatten().unwrap_or(Err(DetectError::Ended));
    let error = match &outcome {
        Err(DetectError::Query(error)) => Some(error),
        _ => None,
    };
    app.metrics.answered(error, started.elapsed());
    outcome.map_err(|error| match error {
        DetectError::Query(error) => error.into(),
        other => Problem::internal(other.to_string()),
    })
}

/// `GET /api/v1/chains`
pub(super) async fn chains(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    given: Given,
) -> Result<Response, Problem> {
    let UrlQuery(parameters) = given?;
    let asker = Asker::at(peer);
    let now_ms = app.clock.now_ms();
    let window = parameters.window(now_ms)?;
    let is_text = parameters.wants_text(&headers)?;
    let (detection, landing) = run(&app, &window, &parameters, &asker).await?;
    let completeness = completeness(&app, &detection, extent(&window, now_ms), &parameters.wanted(), landing).await;
    let untraced = untraced_of(&app, &window, &parameters, &asker).await;
    let is_empty = detection.chains.is_empty() && detection.findings.is_empty();
    let hints = if is_empty { hints::hints(&app, &window, &parameters, "explain").await } else { Vec::new() };
    if is_text {
        let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        let text = as_text(&detection, parameters.all, untraced.as_deref(), &hints);
        return Ok((plain, completeness_header(&completeness), text).into_response());
    }
    Ok(Json(json!({
        "window": described(&window),
        "looked_at": looked_at(&detection),
        "hints": hints,
        "nodes": detection.nodes,
        "chains": detection.chains,
        "findings": detection.findings.iter().map(verdict).collect::<Vec<_>>(),
        "untraced": untraced,
        "completeness": completeness,
    }))
    .into_response())
}

/// The processes of the window that are not traced, of the nodes and the job asked about; `None` where that cannot be read.
async fn untraced_of(app: &App, window: &Window, parameters: &Parameters, asker: &Asker) -> Option<Vec<Untraced>> {
    let (nodes, job) = (parameters.wanted(), window.job.as_deref());
    let window_ms = (window.from_ns / 1_000_000, window.to_ns / 1_000_000);
    match untraced(&app.engine, window_ms, About { nodes: Some(&nodes), job }, Some(asker)).await {
        Ok(list) => Some(list),
        Err(error) => {
            tracing::warn!(%error, "which processes are not traced is unknown: silver.processes cannot be read");
            None
        }
    }
}

async fn completeness(
    app: &App,
    detection: &Detection,
    extent: Extent,
    wanted: &BTreeSet<String>,
    landing: Option<Landing>,
) -> Option<Completeness> {
    let landing = landing?;
    let question = Question::of_events(extent).about(wanted.clone());
    let found = app.completeness.of(&app.engine, &detection.snapshots, &question, None).await?;
    // One that is missing is said to be that.
    let is_new = |node: &String| !found.missing.contains(node);
    let still_landing = landing.still.into_iter().filter(|still| is_new(&still.node)).collect();
    Some(Completeness { unread_rows: detection.looked_at.unread, still_landing, ..found })
}

fn looked_at(detection: &Detection) -> Value {
    let LookedAt { from_ns, to_ns, events, unread } = detection.looked_at;
    let time = |ns: i64| rfc3339(ns / 1_000_000);
    json!({ "from": time(from_ns), "to": time(to_ns), "events": events, "unread_rows": unread })
}

fn described(window: &Window) -> Value {
    json!({ "from": rfc3339(window.from_ns / 1_000_000), "to": rfc3339(window.to_ns / 1_000_000), "job": window.job })
}

/// A finding without its chains and its ranking, which have places of their own.
fn verdict(finding: &Finding) -> Value {
    let mut value = json!(finding);
    if let Some(object) = value.as_object_mut() {
        object.remove("ranking");
        if let Some(verdict) = object.get_mut("verdict").and_then(Value::as_object_mut) {
            verdict.remove("chains");
        }
    }
    value
}

fn as_text(detection: &Detection, all: bool, untraced: Option<&[Untraced]>, hints: &[String]) -> String {
    let chains = &detection.chains;
    let mut out = format!("{}\n\n", text::header(chains.len(), detection.nodes.len()));
    let LookedAt { from_ns, to_ns, events, unread } = detection.looked_at;
    if unread > 0 {
        let (from, to) = (text::rfc3339(from_ns), text::rfc3339(to_ns));
        out += &format!(
            "incomplete: looked at {events} events from {from} to {to}, and not at {unread} rows of the window: narrow it\n\n"
        );
    }
    if all {
        out.extend(chains.iter().map(|chain| format!("{}\n", text::render(chain))));
    } else {
        out += &grouped(detection);
    }
    // Findings with chains were said above; the others say why there are none.
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
    let [node, name, reason] = [node, name, reason].map(|text| text::printable(text));
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

/// `GET /api/v1/stragglers`: the ranking behind the chains, or why there is none.
pub(super) async fn stragglers(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    given: Given,
) -> Result<Json<Value>, Problem> {
    let UrlQuery(parameters) = given?;
    let now_ms = app.clock.now_ms();
    let window = parameters.window(now_ms)?;
    if parameters.compat {
        return Err(Problem::bad_request("the reference's rules rank nobody: `compat` is for chains"));
    }
    let (detection, landing) = run(&app, &window, &parameters, &Asker::at(peer)).await?;
    let hints = if detection.findings.is_empty() {
        hints::hints(&app, &window, &parameters, "stragglers").await
    } else {
        Vec::new()
    };
    let jobs: Vec<Value> = detection
        .findings
        .iter()
        .map(|finding| {
            let blamed: Vec<&StragglerRank> = finding.ranking.iter().filter(|rank| rank.is_blamed).collect();
            json!({ "cluster": finding.cluster, "job_id": finding.job_id, "nodes": finding.nodes, "verdict": verdict(finding)["verdict"],
                    "stragglers": blamed, "ranking": finding.ranking, "coverage": finding.coverage })
        })
        .collect();
    let completeness = completeness(&app, &detection, extent(&window, now_ms), &parameters.wanted(), landing).await;
    let (window, looked_at) = (described(&window), looked_at(&detection));
    Ok(Json(
        json!({ "window": window, "looked_at": looked_at, "hints": hints, "jobs": jobs, "completeness": completeness }),
    ))
}

#[cfg(test)]
mod tests;
