//! The reference tracer's rules over a window: the events of every node are replayed in order of time, within the
//! limits of our own detection.

use std::collections::BTreeSet;

use chain_engine::Chain;
use chain_engine::compat::{COLUMNS, Replay, SystemPeak};
use query_engine::literal::instant;
use query_engine::{Asker, Engine};

use super::conditions::events_of;
use super::detection::{Detection, LookedAt, by_severity};
use super::error::ChainsError;
use super::reading::{OfNode, Reading};
use super::slices::Slices;
use crate::columns::Columns;
use crate::window::Window;

/// Replays a window by the reference's rules. Stored chains, which those rules gave elsewhere, are left out.
///
/// # Errors
/// As [`super::detect::detect`].
pub(super) async fn compat(engine: &Engine, window: &Window, asker: &Asker) -> Result<Detection, ChainsError> {
    let reading = Reading::begin(engine, asker);
    let slices = Slices::of(&reading, window).await?;
    let looked_at = LookedAt::of(&slices, 0, window);
    // From here on the part that is looked at: a system snapshot from before it would be evidence about events that
    // were left out.
    let window = Window { from_ns: looked_at.from_ns, ..window.clone() };
    let mut replay = Replay::default();
    let mut nodes = note_system(&reading, &window, &mut replay).await?;
    for slice in &slices.slices {
        let of_slice = Window { from_ns: *slice.start(), to_ns: *slice.end(), ..window.clone() };
        let columns = COLUMNS.join(", ");
        let condition = events_of(&of_slice);
        // Sorted, unlike for our own rules: a replay depends on the order. Events of one moment are ordered by number,
        // so that every run replays them alike.
        let sql = format!("SELECT {columns} FROM silver.events WHERE {condition} ORDER BY ts_ns, seq");
        let mut events = reading.query(sql, slices.snapshot()).await?;
        while let Some(batch) = events.next().await {
            replay.push(&batch.map_err(|error| reading.whole(error))?)?;
        }
    }
    nodes.extend(replay.nodes().map(str::to_owned));
    let mut chains: Vec<Chain> = reading.apart(move || replay.finish()).await?;
    chains.sort_by(by_severity);
    Ok(Detection { findings: Vec::new(), chains, nodes, snapshots: slices.snapshots, looked_at })
}

/// Passes the worst of each node's system snapshots to the replay; returns the names of the nodes.
async fn note_system(
    reading: &Reading<'_>,
    window: &Window,
    replay: &mut Replay,
) -> Result<BTreeSet<String>, ChainsError> {
    let sql = format!(
        "SELECT cluster, node, max(cpu_pct) AS cpu_pct, max(mem_pct) AS mem_pct, min(mem_avail_mb) AS mem_avail_mb, \
         max(swap_mb) AS swap_mb, max(load_avg) AS load_avg FROM silver.system WHERE ts BETWEEN {} AND {} \
         GROUP BY cluster, node",
        instant(window.from_ns),
        instant(window.to_ns),
    );
    let mut nodes = BTreeSet::new();
    for OfNode { cluster, node, row: peak } in reading.of_nodes(sql, peak).await? {
        replay.note_system(&cluster, &node, peak);
        nodes.insert(node);
    }
    Ok(nodes)
}

fn peak(rows: &Columns<'_>, row: usize) -> SystemPeak {
    SystemPeak {
        // Null where no row has the value: zero is below every threshold of the rules.
        cpu_pct: rows.double("cpu_pct", row).unwrap_or(0.0),
        mem_pct: rows.double("mem_pct", row).unwrap_or(0.0),
        mem_avail_mb: rows.long("mem_avail_mb", row).unwrap_or(0),
        swap_mb: rows.long("swap_mb", row).unwrap_or(0),
        load_avg: rows.double("load_avg", row).unwrap_or(0.0),
    }
}
