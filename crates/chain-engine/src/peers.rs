//! Finds ranks that are slower than their peers. Time is divided into tiles that hold several iterations each. In every
//! tile each rank's median busy time is compared with the other ranks' (median and MAD), and, where it has a past, with
//! its own usual time changed as its peers' did. A rank is slow only if it also keeps the others waiting, and only if
//! that lasts.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::iteration::{Iteration, WaitView};
use crate::rules::Rules;
use crate::stats::{MAD_TO_SIGMA, median, whole};

/// One rank in one tile: medians over its iterations there, nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) busy_ns: f64,
    pub(crate) wait_ns: f64,
    pub(crate) wall_ns: f64,
    /// Which of the rank's iterations.
    pub(crate) iterations: Range<usize>,
}

/// A rank was slow in a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// What its busy time should have been, nanoseconds.
    pub(crate) reference_ns: f64,
}

/// All ranks over all tiles.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) view: WaitView,
    /// Length of every tile, nanoseconds.
    pub(crate) tile_ns: i64,
    /// Start of each tile, unix nanoseconds.
    pub(crate) starts_ns: Vec<i64>,
    /// By tile, then rank; `None` where a rank has too few iterations.
    pub(crate) tiles: Vec<Vec<Option<Sample>>>,
    /// By rank, then tile.
    pub(crate) marks: Vec<Vec<Option<Mark>>>,
    /// By rank: the tiles of its lasting slow spells.
    pub(crate) episodes: Vec<Vec<usize>>,
}

impl Comparison {
    /// Compares ranks given their iterations in order of time.
    pub(crate) fn of(ranks: &[Vec<&Iteration>], view: WaitView, rules: &Rules) -> Self {
        let tile_ns = tile_length_ns(ranks, rules);
        let (starts_ns, tiles) = lay_out(ranks, view, tile_ns, rules);
        let baselines: Vec<Option<f64>> = (0..ranks.len()).map(|rank| baseline_ns(&tiles, rank, rules)).collect();
        let marks: Vec<Vec<Option<Mark>>> = (0..ranks.len())
            .map(|rank| tiles.iter().map(|tile| mark(tile, rank, &baselines, rules)).collect())
            .collect();
        let episodes = (0..ranks.len()).map(|rank| lasting(&tiles, rank, &marks[rank], tile_ns, rules)).collect();
        Self { view, tile_ns, starts_ns, tiles, marks, episodes }
    }

    pub(crate) fn has_episode(&self) -> bool {
        self.episodes.iter().any(|episode| !episode.is_empty())
    }

    /// Tiles in which the rank was compared.
    pub(crate) fn tiles_of(&self, rank: usize) -> usize {
        self.tiles.iter().filter(|tile| tile[rank].is_some()).count()
    }
}

/// The length of a tile. It holds enough iterations and is much longer than the error of wall time (of the rank with
/// the largest; a median, since one row is no measure). It is a power of two, so that it seldom changes as more
/// iterations come.
fn tile_length_ns(ranks: &[Vec<&Iteration>], rules: &Rules) -> i64 {
    let walls = ranks.iter().flatten().map(|iteration| iteration.wall_ns() as f64).collect();
    let mut error_ns = 0.0_f64;
    for rank in ranks {
        let errors = rank.iter().map(|iteration| iteration.error_ns as f64).collect();
        error_ns = error_ns.max(median(errors).unwrap_or(0.0));
    }
    let filled_ns = whole(median(walls).unwrap_or(0.0)).saturating_mul(rules.tile_iterations);
    let wanted_ns = filled_ns.max(rules.tile_min_ns).max(whole(error_ns).saturating_mul(rules.tile_errors));
    // The power of two that follows 0 is 1, so that `tile_number` never divides by 0. 2^62 is the largest one that an
    // `i64` holds.
    let power_ns = u64::try_from(wanted_ns).ok().and_then(u64::checked_next_power_of_two);
    power_ns.and_then(|ns| i64::try_from(ns.min(1 << 62)).ok()).unwrap_or(i64::MAX)
}

type Tiles = Vec<Vec<Option<Sample>>>;

fn lay_out(ranks: &[Vec<&Iteration>], view: WaitView, tile_ns: i64, rules: &Rules) -> (Vec<i64>, Tiles) {
    // The median of fewer is too uncertain: the rank counts as not compared in such a tile.
    let fewest = usize::try_from((rules.tile_iterations / 2).max(1)).unwrap_or(usize::MAX);
    let mut tiles: BTreeMap<i64, Vec<Option<Sample>>> = BTreeMap::new();
    for (rank, iterations) in ranks.iter().enumerate() {
        let mut from = 0;
        // Iterations are in order of time, so that those of one tile are neighbours. Only where the wall clock was set
        // back may a tile come twice; the later stretch then replaces the earlier one.
        for chunk in iterations.chunk_by(|a, b| tile_number(a, tile_ns) == tile_number(b, tile_ns)) {
            let range = from..from + chunk.len();
            from = range.end;
            if chunk.len() < fewest {
                continue;
            }
            let tile = tiles.entry(tile_number(chunk[0], tile_ns)).or_insert_with(|| vec![None; ranks.len()]);
            tile[rank] = sample(chunk, view, range);
        }
    }
    // Among fewer ranks none can be singled out.
    tiles.retain(|_, tile| tile.iter().flatten().count() >= rules.min_ranks);
    tiles.into_iter().map(|(number, tile)| (number.saturating_mul(tile_ns), tile)).unzip()
}

fn tile_number(iteration: &Iteration, tile_ns: i64) -> i64 {
    iteration.start_ts_ns().div_euclid(tile_ns)
}

/// The medians of a rank's iterations in one tile; `None` without iterations.
fn sample(chunk: &[&Iteration], view: WaitView, iterations: Range<usize>) -> Option<Sample> {
    Some(Sample {
        busy_ns: median_of(chunk, |iteration| iteration.busy_ns(view))?,
        wait_ns: median_of(chunk, |iteration| iteration.waiting_ns(view))?,
        wall_ns: median_of(chunk, Iteration::wall_ns)?,
        iterations,
    })
}

fn median_of(chunk: &[&Iteration], what: impl Fn(&Iteration) -> i64) -> Option<f64> {
    median(chunk.iter().map(|iteration| what(iteration) as f64).collect())
}

/// The ranks compared in a tile, but for one.
pub(crate) fn peers_in(tile: &[Option<Sample>], rank: usize) -> impl Iterator<Item = (usize, &Sample)> {
    let all = tile.iter().enumerate().filter_map(|(other, sample)| Some((other, sample.as_ref()?)));
    all.filter(move |(other, _)| *other != rank)
}

/// What is usual for the rank: the lower quartile over time, so that a fault that comes later does not become the norm.
fn baseline_ns(tiles: &Tiles, rank: usize, rules: &Rules) -> Option<f64> {
    let mut busy: Vec<f64> = tiles.iter().filter_map(|tile| tile[rank].as_ref()).map(|sample| sample.busy_ns).collect();
    if busy.len() < rules.baseline_tiles {
        return None;
    }
    busy.sort_unstable_by(f64::total_cmp);
    busy.get(busy.len() / 4).copied().filter(|ns| *ns > 0.0)
}

/// Whether a rank was slow in a tile: it delays its peers, is an outlier, and its excess matters to the iteration.
fn mark(tile: &[Option<Sample>], rank: usize, baselines: &[Option<f64>], rules: &Rules) -> Option<Mark> {
    let own = tile[rank].as_ref()?;
    let peers: Vec<(usize, &Sample)> = peers_in(tile, rank).collect();
    if peers.len() + 1 < rules.min_ranks || !delays_others(own, &peers, rules) {
        return None;
    }
    // Its own past first: ranks of different roles, such as the stages of a pipeline, differ from one another at all
    // times.
    let reference_ns = usual_ns(own, &peers, baselines, rank, rules)
        .or_else(|| is_outlier(own.busy_ns, peers.iter().map(|(_, sample)| sample.busy_ns).collect(), rules))?;
    (own.busy_ns - reference_ns >= rules.min_impact * own.wall_ns).then_some(Mark { reference_ns })
}

/// The rank's own baseline, moved by what its peers' busy times did since theirs; `None` where it has no baseline, or
/// did as its peers did.
fn usual_ns(
    own: &Sample,
    peers: &[(usize, &Sample)],
    baselines: &[Option<f64>],
    rank: usize,
    rules: &Rules,
) -> Option<f64> {
    let baseline_ns = baselines[rank]?;
    // Difference in differences, as ratios: what changed for all ranks alike, such as a larger batch, makes none of
    // them slow.
    let drifts = peers.iter().filter_map(|(other, sample)| Some(sample.busy_ns / baselines[*other]?));
    let drift = is_outlier(own.busy_ns / baseline_ns, drifts.collect(), rules)?;
    Some(drift * baseline_ns)
}

/// The job waits for the rank that comes last to the collective: it waits clearly less than its peers do, and none
/// clearly less than it. A rank slowed that still comes before another costs the job nothing. Where no rank waits for
/// another, the slow rank's own wall time is longer.
fn delays_others(own: &Sample, peers: &[(usize, &Sample)], rules: &Rules) -> bool {
    let lead_ns = rules.min_lead * own.wall_ns;
    let comes_last = peers.iter().all(|(_, peer)| own.wait_ns <= peer.wait_ns + lead_ns);
    let wait_ns = median(peers.iter().map(|(_, peer)| peer.wait_ns).collect());
    let wall_ns = median(peers.iter().map(|(_, peer)| peer.wall_ns).collect());
    comes_last && wait_ns.is_some_and(|ns| own.wait_ns + lead_ns <= ns)
        || wall_ns.is_some_and(|ns| own.wall_ns > rules.min_wall_ratio * ns)
}

/// The peers' median if `value` lies far above it.
fn is_outlier(value: f64, peers: Vec<f64>, rules: &Rules) -> Option<f64> {
    if peers.len() + 1 < rules.min_ranks {
        return None;
    }
    // Median and MAD tolerate outliers among up to half of the peers (breakdown point 50 %); mean and standard
    // deviation tolerate none.
    let centre = median(peers.clone())?;
    let deviation = median(peers.iter().map(|peer| (peer - centre).abs()).collect())?;
    let scale = (MAD_TO_SIGMA * deviation).max(rules.scale_floor * centre);
    (value >= rules.min_ratio * centre && value - centre >= rules.min_z * scale).then_some(centre)
}

/// The marked tiles that lie in a window of n compared tiles with at least k marked. Empty where together they are
/// neither a large enough share of the tiles compared nor long enough.
fn lasting(tiles: &Tiles, rank: usize, marks: &[Option<Mark>], tile_ns: i64, rules: &Rules) -> Vec<usize> {
    // k of n in a sliding window over the tiles compared: a tile with too few iterations neither ends a spell nor
    // belongs to it.
    let compared: Vec<usize> = (0..tiles.len()).filter(|&tile| tiles[tile][rank].is_some()).collect();
    let window = rules.persistence_n.min(compared.len()).max(1);
    let mut slow: Vec<usize> = Vec::new();
    for stretch in compared.windows(window) {
        let marked = stretch.iter().copied().filter(|&tile| marks[tile].is_some()).collect::<Vec<_>>();
        if marked.len() >= rules.persistence_k {
            // Windows overlap, and tiles come in order: those up to the last one taken are repetitions.
            let known = slow.last().copied();
            slow.extend(marked.into_iter().filter(|&tile| known.is_none_or(|last| tile > last)));
        }
    }
    let slow_ns = i64::try_from(slow.len()).unwrap_or(i64::MAX).saturating_mul(tile_ns);
    let is_enough =
        slow.len() as f64 >= rules.min_episode_share * compared.len() as f64 || slow_ns >= rules.min_episode_ns;
    if is_enough { slow } else { Vec::new() }
}

#[cfg(test)]
mod tests;
