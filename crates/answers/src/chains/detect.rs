//! The chain engine run over the events of a window, together with the chains that were stored.

use std::collections::BTreeSet;

use chain_engine::{COLUMNS, Chain, Finding, Settings, Verdict};
use query_engine::{Asker, Engine};

use super::conditions::{events_of, nodes_of};
use super::detection::{Detection, LookedAt, by_severity};
use super::error::ChainsError;
use super::reading::Reading;
use super::slices::Slices;
use super::{losses, processes, stored};
use crate::window::Window;

/// Runs the chain engine over a window and adds the stored chains of that window, with permits of the asker.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met: the limits of one query hold for all of it.
pub(super) async fn detect(engine: &Engine, window: &Window, asker: &Asker) -> Result<Detection, ChainsError> {
    let reading = Reading::begin(engine, asker);
    // First, because the limit on events decides where the part begins that everything below reads.
    let slices = Slices::of(&reading, window).await?;
    let (stored, unread_chains) = stored::stored(&reading, window).await?;
    let looked_at = LookedAt::of(&slices, unread_chains, window);
    let window = Window { from_ns: looked_at.from_ns, ..window.clone() };
    let mut detector = chain_engine::Engine::new(Settings::default());
    for losses::NodeLoss { cluster, node, loss } in losses::losses(&reading, &window).await? {
        detector.note_loss(&cluster, &node, loss);
    }
    processes::note_processes(&reading, &window, &mut detector).await?;
    let landed = reading.of_nodes(nodes_of(&window), |_, _| ()).await?;
    let mut nodes: BTreeSet<String> = landed.into_iter().map(|landed| landed.node).collect();
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

/// Gives the detector the events slice by slice, in order of time, so that it need hold back no more than one slice.
async fn findings(
    reading: &Reading<'_>,
    window: &Window,
    slices: &Slices,
    mut detector: chain_engine::Engine,
) -> Result<Vec<Finding>, ChainsError> {
    for slice in &slices.slices {
        let of_slice = Window { from_ns: *slice.start(), to_ns: *slice.end(), ..window.clone() };
        let columns = COLUMNS.join(", ");
        let condition = events_of(&of_slice);
        // Unsorted: the detector takes the rows of a slice in any order, and a sort would need memory or spill for
        // them.
        let sql = format!("SELECT {columns} FROM silver.events WHERE {condition}");
        let mut events = reading.query(sql, slices.snapshot()).await?;
        while let Some(batch) = events.next().await {
            detector.push(&batch.map_err(|error| reading.whole(error))?)?;
        }
        // A watermark: no later slice has rows that ended by then, so the detector folds them and frees their memory.
        let until_ns = of_slice.to_ns;
        detector = reading
            .apart(move || {
                detector.fold(until_ns);
                detector
            })
            .await?;
    }
    reading.apart(move || detector.finish()).await
}
