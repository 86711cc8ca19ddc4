//! What the reference tracer's rules say of a window: every node's events replayed in order of time, within the limits that hold
//! for our own detection.

use std::collections::BTreeSet;

use chain_engine::Chain;
use chain_engine::compat::{COLUMNS, Replay, SystemPeak};

use super::columns::Columns;
use super::reading::Reading;
use super::slices::Slices;
use super::{DetectError, Detection, LookedAt, Window, apart, by_severity};
use query_engine::literal::instant;
use query_engine::{Asker, Engine};

/// Replays a window by the reference's rules. Stored chains, which those rules gave elsewhere, are left out.
///
/// # Errors
/// As [`super::detect`].
pub async fn compat(engine: &Engine, window: &Window, asker: &Asker) -> Result<Detection, DetectError> {
    let reading = Reading::begin(engine, asker);
    let slices = Slices::of(&reading, window).await?;
    let looked_at = LookedAt::of(&slices, 0, window);
    let window = Window { from_ns: looked_at.from_ns, ..window.clone() };
    let mut replay = Replay::default();
    let mut nodes = note_system(&reading, &window, &mut replay).await?;
    for slice in &slices.slices {
        let of_slice = Window { from_ns: *slice.start(), to_ns: *slice.end(), ..window.clone() };
        let (columns, condition) = (COLUMNS.join(", "), of_slice.condition());
        // Ties are told apart so that every run replays them alike.
        let sql = format!("SELECT {columns} FROM silver.events WHERE {condition} ORDER BY ts_ns, seq");
        let mut events = reading.query(sql, slices.snapshot()).await?;
        while let Some(batch) = events.next().await {
            replay.push(&batch.map_err(|error| reading.whole(error))?)?;
        }
    }
    nodes.extend(replay.nodes().map(str::to_owned));
    let mut chains: Vec<Chain> = apart(&reading, move || replay.finish()).await?;
    chains.sort_by(by_severity);
    Ok(Detection { findings: Vec::new(), chains, nodes, snapshots: slices.snapshots, looked_at })
}

/// Tells the replay the worst of each node's system snapshots; gives the names of the nodes.
async fn note_system(
    reading: &Reading<'_>,
    window: &Window,
    replay: &mut Replay,
) -> Result<BTreeSet<String>, DetectError> {
    let sql = format!(
        "SELECT cluster, node, max(cpu_pct) AS cpu_pct, max(mem_pct) AS mem_pct, min(mem_avail_mb) AS mem_avail_mb, \
         max(swap_mb) AS swap_mb, max(load_avg) AS load_avg FROM silver.system WHERE ts BETWEEN {} AND {} \
         GROUP BY cluster, node",
        instant(window.from_ns),
        instant(window.to_ns),
    );
    let note = |cluster: &str, node: &str, rows: &Columns<'_>, row| {
        let long = |name| rows.long(name, row).unwrap_or(0);
        let double = |name| rows.double(name, row).unwrap_or(0.0);
        let peak = SystemPeak {
            cpu_pct: double("cpu_pct"),
            mem_pct: double("mem_pct"),
            mem_avail_mb: long("mem_avail_mb"),
            swap_mb: long("swap_mb"),
            load_avg: double("load_avg"),
        };
        replay.note_system(cluster, node, peak);
    };
    Ok(reading.each_node(sql, note).await?)
}
