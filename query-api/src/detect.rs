//! Causal chains of a window of time: the chain engine run over the window's events, together with the chains that were stored.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chain_engine::{COLUMNS, Chain, ColumnError, Finding, Settings, Verdict};
use event_schema::catalog::Source;

use crate::completeness::{made_by, made_since};
use query_engine::QueryError;
use query_engine::UsedSnapshot;
use query_engine::literal::{instant, text};
use query_engine::{Asker, Engine};

mod columns;
mod compat;
mod losses;
mod processes;
mod reading;
mod slices;
mod stored;

pub use compat::compat;
use reading::Reading;
use slices::Slices;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Unix nanoseconds, inclusive.
    pub from_ns: i64,
    /// Unix nanoseconds, inclusive.
    pub to_ns: i64,
    /// Only this job.
    pub job: Option<String>,
}

/// What was found in a window.
#[derive(Debug)]
pub struct Detection {
    /// One per run of a job.
    pub findings: Vec<Finding>,
    /// Found and stored chains, the most severe first, then the latest.
    pub chains: Vec<Chain>,
    /// Nodes that have events or chains in the window.
    pub nodes: BTreeSet<String>,
    /// What was read.
    pub snapshots: Vec<UsedSnapshot>,
    pub looked_at: LookedAt,
}

/// How much of the window was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAt {
    /// Where looking began, unix nanoseconds: later than the window when it has more events than are looked at.
    pub from_ns: i64,
    /// Unix nanoseconds, inclusive.
    pub to_ns: i64,
    pub events: u64,
    /// Events and stored chains of the window beyond the limits.
    pub unread: u64,
}

impl LookedAt {
    fn of(slices: &Slices, unread_chains: u64, window: &Window) -> Self {
        let from_ns = slices.slices.first().map_or(window.from_ns, |first| *first.start());
        Self { from_ns, to_ns: window.to_ns, events: slices.events, unread: slices.unread + unread_chains }
    }
}

/// Why a window could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("events cannot be given to the chain engine")]
    Columns(#[from] ColumnError),
    #[error("the chain engine ended without an answer; the log has the reason")]
    Ended,
}

/// Runs the chain engine over a window and adds the stored chains of that window, with the turns of the asker.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met: the limits of one query hold for all of it.
pub async fn detect(engine: &Engine, window: &Window, asker: &Asker) -> Result<Detection, DetectError> {
    let reading = Reading::begin(engine, asker);
    let slices = Slices::of(&reading, window).await?;
    let (stored, unread_chains) = stored::stored(&reading, window).await?;
    let looked_at = LookedAt::of(&slices, unread_chains, window);
    let window = Window { from_ns: looked_at.from_ns, ..window.clone() };
    let mut detector = chain_engine::Engine::new(Settings::default());
    for losses::NodeLoss { cluster, node, loss } in losses::losses(&reading, &window).await? {
        detector.note_loss(&cluster, &node, loss);
    }
    processes::note_processes(&reading, &window, &mut detector).await?;
    let mut nodes = reading.each_node(window.nodes(), |_, _, _, _| {}).await?;
    let findings = findings(&reading, &window, &slices, detector).await?;
    let found = findings.iter().flat_map(|finding| match &finding.verdict {
        Verdict::Chains { chains, .. } => chains.as_slice(),
        Verdict::Healthy { .. } | Verdict::Unknown { .. } => &[],
    });
    let mut chains: Vec<Chain> = found.cloned().collect();
    chains.extend(stored);
    chains.sort_by(by_severity);
    nodes.extend(chains.iter().map(|chain| chain.node.clone()));
    nodes.extend(findings.iter().flat_map(|finding| finding.nodes.iter().cloned()));
    Ok(Detection { findings, chains, nodes, snapshots: slices.snapshots, looked_at })
}

/// The most severe first, then the latest.
fn by_severity(a: &Chain, b: &Chain) -> Ordering {
    (b.severity, b.last_seen_ns, &a.id).cmp(&(a.severity, a.last_seen_ns, &b.id))
}

/// Gives the detector the events slice by slice, in order of time, so that it need hold back no more than one slice.
async fn findings(
    reading: &Reading<'_>,
    window: &Window,
    slices: &Slices,
    mut detector: chain_engine::Engine,
) -> Result<Vec<Finding>, DetectError> {
    for slice in &slices.slices {
        let of_slice = Window { from_ns: *slice.start(), to_ns: *slice.end(), ..window.clone() };
        let (columns, condition) = (COLUMNS.join(", "), of_slice.condition());
        let sql = format!("SELECT {columns} FROM silver.events WHERE {condition}");
        let mut events = reading.query(sql, slices.snapshot()).await?;
        while let Some(batch) = events.next().await {
            detector.push(&batch.map_err(|error| reading.whole(error))?)?;
        }
        let until_ns = of_slice.to_ns;
        detector = apart(reading, move || {
            detector.fold(until_ns);
            detector
        })
        .await?;
    }
    apart(reading, move || detector.finish()).await
}

/// Work without a place to wait in, on a thread where it delays nobody.
async fn apart<T: Send + 'static>(
    reading: &Reading<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DetectError> {
    let done = tokio::time::timeout_at(reading.deadline(), tokio::task::spawn_blocking(work)).await;
    done.map_err(|_| reading.timeout())?.map_err(|_| DetectError::Ended)
}

impl Window {
    /// What holds of the events in it, in SQL. The agents' own belong to no job and tell which process is Causeway.
    fn condition(&self) -> String {
        let own = Source::ALL.iter().filter(|source| source.is_of_agent()).map(|source| source.number().to_string());
        let own = own.collect::<Vec<_>>().join(", ");
        let job = self.job.as_deref().map(|job| format!(" AND (job_id = {} OR source IN ({own}))", text(job)));
        format!("ts_ns BETWEEN {} AND {}{}", self.from_ns, self.to_ns, job.unwrap_or_default())
    }

    /// The nodes that landed anything of it.
    fn nodes(&self) -> String {
        let since = made_since(&instant(self.from_ns));
        let by = made_by(&instant(self.to_ns));
        format!("SELECT DISTINCT cluster, node FROM ops.ledger WHERE node <> '' AND {since} AND {by}")
    }
}
