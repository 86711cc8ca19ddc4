//! The verdict on one run of a job: chains, healthy, or unknown and why, with the ranking of its ranks.

use std::cmp::Reverse;

use crate::chain::Chain;
use crate::explain::{Explanation, explain};
use crate::iteration::{Iteration, WaitView};
use crate::job::{JobKey, Member, Run};
use crate::narrate::Story;
use crate::peers::{Comparison, Sample, peers_in};
use crate::rules::Rules;
use crate::stats::{median, percentile};
use crate::verdict::{Coverage, Finding, Reason, StragglerRank, Verdict};

/// The finding on a run.
pub(crate) fn judge(job: &JobKey, run: Run<'_>, rules: &Rules, coverage: &Coverage) -> Finding {
    let members = run.members;
    let comparison = compare(members, rules);
    let mut explanation = Vec::with_capacity(members.len());
    for (rank, episode) in comparison.episodes.iter().enumerate() {
        let is_slow = !episode.is_empty();
        explanation.push(is_slow.then(|| explain(run, &comparison, rank, rules)));
    }
    let case = Case { job, run, comparison: &comparison, explanation: &explanation, rules, coverage };
    // Too little data overrules a slow spell that was found. The ranking shows the spell all the same.
    let (standings, verdict) = match too_little(members, rules) {
        Some(reason) => (members.iter().map(|_| Standing::Even).collect(), Verdict::Unknown { reason }),
        None => decide(&case),
    };
    // A job without a name is identified by its node, also where no process of it is a rank with iterations.
    let of_ranks = members.iter().map(|member| member.node);
    let mut nodes: Vec<String> = of_ranks.chain(job.node()).map(|node| node.name.to_string()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let first_ns = members.iter().flat_map(|member| &member.iterations).map(|iteration| iteration.start_ts_ns()).min();
    let last_ns = members.iter().flat_map(|member| &member.iterations).map(|iteration| iteration.end_ts_ns()).max();
    Finding {
        cluster: job.cluster.to_string(),
        job_id: job.job.as_deref().map(str::to_owned),
        nodes,
        first_ns: first_ns.unwrap_or(0),
        last_ns: last_ns.unwrap_or(0),
        ranking: ranking(&case, &standings),
        verdict,
        coverage: coverage.clone(),
    }
}

/// Looks at the time outside calls that wait; where that singles no rank out, at the time outside those calls and
/// sleep, since a collective may wait in code that is not traced.
fn compare(members: &[Member<'_>], rules: &Rules) -> Comparison {
    let ranks: Vec<Vec<&Iteration>> = members.iter().map(|member| member.iterations.clone()).collect();
    let by_calls = Comparison::of(&ranks, WaitView::Calls, rules);
    if by_calls.has_episode() {
        return by_calls;
    }
    // The second view only where the first has no slow rank: sleep may as well be a fault of the rank itself, which
    // counting it as waiting would hide.
    let by_sleep = Comparison::of(&ranks, WaitView::CallsAndSleep, rules);
    if by_sleep.has_episode() { by_sleep } else { by_calls }
}

/// Why a run cannot be judged, whatever its ranks did; `None` where it can.
fn too_little(members: &[Member<'_>], rules: &Rules) -> Option<Reason> {
    // Members are sorted by rank, so that two processes of one rank are neighbours.
    if let Some(pair) = members.windows(2).find(|pair| pair[0].rank == pair[1].rank) {
        return Some(Reason::SeveralJobs { rank: pair[0].rank });
    }
    // The nth most, not the least: one rank with little data does not make the run unknown while enough others can be
    // compared. `doubt` names the ranks that were not.
    let judged = nth_most(members.iter().map(|member| member.iterations.len()), rules.min_ranks);
    let seen = nth_most(members.iter().map(Member::seen), rules.min_ranks);
    // Enough iterations were seen and too few are left: the reason is the losses, not a short run.
    let is_for_losses = judged.is_some_and(|count| count < rules.min_iterations)
        && seen.is_some_and(|count| count >= rules.min_iterations);
    if is_for_losses {
        // Ranks lack iterations for heavy losses only, so the worst has some left out and `lost_reason` gives a reason.
        let worst = members.iter().max_by_key(|member| member.not_judged());
        return worst.and_then(Member::lost_reason);
    }
    match judged {
        _ if members.is_empty() => Some(Reason::TooLittleData { iterations: 0, needed: rules.min_iterations }),
        None => Some(Reason::TooFewRanks { ranks: members.len(), needed: rules.min_ranks }),
        Some(iterations) if iterations < rules.min_iterations => {
            Some(Reason::TooLittleData { iterations, needed: rules.min_iterations })
        }
        Some(_) => None,
    }
}

/// The nth largest of counts, from 1; `None` of fewer.
fn nth_most(counts: impl Iterator<Item = usize>, nth: usize) -> Option<usize> {
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.get(nth.saturating_sub(1)).copied()
}

/// What the verdict on a run is derived from.
struct Case<'a> {
    job: &'a JobKey,
    run: Run<'a>,
    comparison: &'a Comparison,
    /// By rank; `None` of a rank without a slow spell.
    explanation: &'a [Option<Explanation>],
    rules: &'a Rules,
    coverage: &'a Coverage,
}

impl Case<'_> {
    /// What the rank's slow spells cost the job, relative to its time without them; 0 of a rank that has none.
    fn slowdown(&self, rank: usize) -> f64 {
        self.explanation[rank].as_ref().map_or(0.0, |explanation| explanation.slowdown)
    }

    /// Share of a rank's wall time in which it was runnable and outsiders had its CPU; `None` without iterations.
    fn preempted_share(&self, rank: usize) -> Option<f64> {
        let iterations = &self.run.members[rank].iterations;
        let wall_ns: f64 = iterations.iter().map(|iteration| iteration.wall_ns() as f64).sum();
        (wall_ns > 0.0).then(|| self.run.preempted_ns(rank, iterations) * iterations.len() as f64 / wall_ns)
    }

    /// Whether a slow spell of the rank would have been found. A rank that was compared in too few stretches cannot
    /// have one. A rank that started late or ended early was not compared in the rest. Stretches that lack iterations
    /// for losses do not count as missing.
    fn is_compared(&self, rank: usize) -> bool {
        let of_run = self.comparison.tiles.len();
        // One stretch may lack iterations at the run's edge, however short the run.
        let may_lack = ((1.0 - self.rules.min_compared_share) * of_run as f64).max(1.0);
        let compared = self.comparison.tiles_of(rank);
        // Cannot underflow: a lost stretch is one in which the rank was not compared.
        let lacks = of_run - compared - lost_tiles(self.comparison, &self.run.members[rank], rank);
        // In fewer stretches than k no spell can have k slow ones.
        compared >= self.rules.persistence_k && lacks as f64 <= may_lack
    }
}

/// The verdict on one rank.
enum Standing {
    /// No other rank waits for it.
    Even,
    /// Slow, and the cause is known.
    Blamed(Box<Chain>),
    /// Slow, and the cause is not known.
    Unexplained(Reason),
}

/// The standing of every rank, and what follows from them for the run.
fn decide(case: &Case<'_>) -> (Vec<Standing>, Verdict) {
    let mut standings = Vec::with_capacity(case.explanation.len());
    for (rank, explanation) in case.explanation.iter().enumerate() {
        standings.push(explanation.as_ref().map_or(Standing::Even, |explanation| stand(case, rank, explanation)));
    }
    let mut costliest: Vec<usize> = (0..standings.len()).collect();
    // The sort is stable: ranks that cost the same stay in order of rank.
    costliest.sort_by(|a, b| case.slowdown(*b).total_cmp(&case.slowdown(*a)));
    let mut chains = Vec::new();
    let mut unexplained = Vec::new();
    for rank in costliest {
        match &standings[rank] {
            Standing::Even => {}
            Standing::Blamed(chain) => chains.push(Chain::clone(chain)),
            Standing::Unexplained(reason) => unexplained.push(reason.clone()),
        }
    }
    chains.sort_by_key(|chain| (Reverse(chain.severity), chain.rank));
    let verdict = match unexplained.first() {
        // A known cause is reported although other slow ranks have none; these are listed beside it.
        _ if !chains.is_empty() => Verdict::Chains { chains, unexplained },
        Some(worst) => Verdict::Unknown { reason: worst.clone() },
        // "Healthy" is concluded only where a slow rank would have been found.
        None => doubt(case).map_or_else(|| healthy(case), |reason| Verdict::Unknown { reason }),
    };
    (standings, verdict)
}

/// The first cause that explains enough of a slow rank's excess. A rank of whose rows many are missing is not called
/// slow: two iterations with the call between them lost are one of twice the length.
fn stand(case: &Case<'_>, rank: usize, explanation: &Explanation) -> Standing {
    let node = case.run.members[rank].node.name.to_string();
    let missing_share = case.coverage.missing_share_of(&node);
    // Before the cause: with rows missing, the length of an iteration is itself in doubt.
    if missing_share > case.rules.max_missing_share {
        return Standing::Unexplained(Reason::Incomplete { node, missing_share, from_ns: None, to_ns: None });
    }
    // A chain names processes. Where those kept by iterations turned out to be of the job, the share has none left to
    // name.
    if explanation.shares.preempted >= case.rules.min_explained && !explanation.preemptors.is_empty() {
        let Case { job, run, comparison, coverage, .. } = *case;
        return Standing::Blamed(Box::new(Story { job, run, comparison, rank, explanation, coverage }.chain()));
    }
    let member = &case.run.members[rank];
    let rank = member.rank;
    let ratio = explanation.ratio;
    // Without a row of the scheduler, a share of 0 is no measurement.
    Standing::Unexplained(if member.process.scheduler_rows == 0 {
        Reason::NoSchedulerData { node, rank, ratio }
    } else {
        Reason::Unexplained { node, rank, ratio, shares: explanation.shares }
    })
}

/// Why "healthy" cannot be concluded although no rank is slow; `None` where it can.
fn doubt(case: &Case<'_>) -> Option<Reason> {
    let members = case.run.members;
    let shares = (0..members.len()).filter_map(|rank| case.preempted_share(rank));
    // The median over ranks: one preempted rank is a slow rank, not a crowded job.
    let crowded = median(shares.collect()).unwrap_or(0.0);
    if crowded >= case.rules.crowded_share {
        return Some(Reason::EveryRankPreempted { share: crowded });
    }
    let not_compared: Vec<usize> = (0..members.len()).filter(|&rank| !case.is_compared(rank)).collect();
    // Losses first: that reason names the node and the time, and the other one only the ranks.
    if let Some(reason) = not_compared.iter().find_map(|rank| members[*rank].lost_reason()) {
        return Some(reason);
    }
    if !not_compared.is_empty() {
        let ranks = not_compared.into_iter().map(|rank| members[rank].rank).collect();
        return Some(Reason::NotCompared { ranks, of: members.len() });
    }
    // The iterations kept show no slow rank. Of those discarded before nothing is known.
    if case.coverage.iterations_forgotten > 0 {
        let begins = members.iter().map(Member::starts_ns).min();
        let iterations = case.coverage.iterations_forgotten;
        return Some(Reason::Forgotten { iterations, from_ns: begins.unwrap_or(0) });
    }
    // Sorted by share: the first is the worst.
    let worst = case.coverage.incomplete_nodes.first();
    if let Some(worst) = worst.filter(|worst| worst.missing_share > case.rules.max_missing_share) {
        let node = worst.node.clone();
        let missing_share = worst.missing_share;
        return Some(Reason::Incomplete { node, missing_share, from_ns: None, to_ns: None });
    }
    // Last: every rank seen is in order, and the slow one may be among those that were never seen.
    let world_size = case.run.world_size();
    (members.len() < world_size).then_some(Reason::RanksMissing { seen: members.len(), world_size })
}

/// Stretches in which a rank was not compared because iterations of it were left out for losses.
fn lost_tiles(comparison: &Comparison, member: &Member<'_>, rank: usize) -> usize {
    let mut lost = 0;
    for (start_ns, tile) in comparison.starts_ns.iter().zip(&comparison.tiles) {
        let time_ns = *start_ns..start_ns.saturating_add(comparison.tile_ns);
        lost += usize::from(tile[rank].is_none() && member.lost_iteration_in(&time_ns));
    }
    lost
}

/// The verdict on a run in which no rank stands out.
fn healthy(case: &Case<'_>) -> Verdict {
    let members = case.run.members;
    let iterations = members.iter().map(|member| member.iterations.len() as u64).min().unwrap_or(0);
    let shares = case.comparison.tiles.iter().filter_map(|tile| least_wait_share(tile));
    let least_wait_share = median(shares.collect()).unwrap_or(0.0);
    Verdict::Healthy { ranks: members.len(), iterations, least_wait_share }
}

/// Share of its wall time that the rank which waits least in a tile waits.
fn least_wait_share(tile: &[Option<Sample>]) -> Option<f64> {
    let samples = tile.iter().flatten().filter(|sample| sample.wall_ns > 0.0);
    samples.map(|sample| sample.wait_ns / sample.wall_ns).min_by(f64::total_cmp)
}

/// Every rank, the one that costs most first.
fn ranking(case: &Case<'_>, standings: &[Standing]) -> Vec<StragglerRank> {
    let mut ranking = Vec::with_capacity(standings.len());
    for (rank, standing) in standings.iter().enumerate() {
        let explanation = case.explanation[rank].as_ref();
        ranking.push(StragglerRank {
            is_blamed: matches!(standing, Standing::Blamed(_)),
            culprits: explanation.map_or_else(Vec::new, |of| case.run.culprits(rank, &of.preemptors)),
            unexplained: if let Standing::Unexplained(reason) = standing { Some(reason.clone()) } else { None },
            ..figures(case.run.members, case.comparison, rank, explanation)
        });
    }
    ranking.sort_by(|a, b| {
        // `total_cmp`, since a sort needs a total order and `partial_cmp` has none for NaN. Ranks are distinct, so ties
        // end there.
        let by_cost = b.score.total_cmp(&a.score).then_with(|| b.ratio.total_cmp(&a.ratio));
        by_cost.then_with(|| a.rank.cmp(&b.rank))
    });
    ranking
}

/// One rank among its peers, without what the judgement adds.
fn figures(
    members: &[Member<'_>],
    comparison: &Comparison,
    rank: usize,
    explanation: Option<&Explanation>,
) -> StragglerRank {
    let member = &members[rank];
    let view = comparison.view;
    let ratios = comparison.tiles.iter().filter_map(|tile| ratio_to_peers(tile, rank));
    StragglerRank {
        rank: member.rank,
        node: member.node.name.to_string(),
        pid: member.pid,
        tid: member.tid,
        iterations: member.iterations.len(),
        busy_p50_ns: p50_ns(member, |iteration| iteration.busy_ns(view)),
        wait_p50_ns: p50_ns(member, |iteration| iteration.waiting_ns(view)),
        ratio: explanation.map(|explanation| explanation.ratio).or_else(|| median(ratios.collect())).unwrap_or(1.0),
        slow_tiles: comparison.episodes[rank].len(),
        tiles: comparison.tiles_of(rank),
        score: score(member, comparison, rank),
        is_blamed: false,
        unexplained: None,
        culprits: Vec::new(),
        shares: explanation.map(|explanation| explanation.shares),
        evidence: explanation.map_or_else(Vec::new, Explanation::evidence_ids),
    }
}

/// Median over the iterations of a rank, nanoseconds; 0 without iterations.
fn p50_ns(member: &Member<'_>, of: impl Fn(&Iteration) -> i64) -> i64 {
    let mut values: Vec<i64> = member.iterations.iter().map(|iteration| of(iteration)).collect();
    percentile(&mut values, 0.5).unwrap_or(0)
}

/// Busy time of a rank in a tile relative to the median of its peers there; `None` where the rank was not compared or
/// no peer was busy.
fn ratio_to_peers(tile: &[Option<Sample>], rank: usize) -> Option<f64> {
    let own = tile[rank].as_ref()?;
    let peers_ns = median(peers_in(tile, rank).map(|(_, peer)| peer.busy_ns).collect())?;
    (peers_ns > 0.0).then(|| own.busy_ns / peers_ns)
}

/// Excess over the reference in slow spells, as a share of all wall time.
fn score(member: &Member<'_>, comparison: &Comparison, rank: usize) -> f64 {
    let wall_ns: f64 = member.iterations.iter().map(|iteration| iteration.wall_ns() as f64).sum();
    let mut excess_ns = 0.0;
    for &tile in &comparison.episodes[rank] {
        if let (Some(sample), Some(mark)) = (&comparison.tiles[tile][rank], comparison.marks[rank][tile]) {
            excess_ns += (sample.busy_ns - mark.reference_ns) * sample.iterations.len() as f64;
        }
    }
    // A median times a count stands for a sum here, so that the quotient may pass 1.
    if wall_ns > 0.0 { (excess_ns / wall_ns).clamp(0.0, 1.0) } else { 0.0 }
}
