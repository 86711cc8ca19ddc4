//! One job: which processes are its ranks, which of them ran together, and what is to be said of each such run.

use std::sync::Arc;

use crate::chain::{Chain, Culprit, Severity};
use crate::engine::Node;
use crate::explain::{Explanation, Preemptor, Run, explain, percentile};
use crate::iteration::{Iteration, WaitView};
use crate::loss::{Loss, overlapping};
use crate::narrate::Story;
use crate::peers::{Comparison, Sample, median};
use crate::process::Process;
use crate::rules::Rules;
use crate::verdict::{Coverage, Finding, Reason, StragglerRank, Verdict};

/// What makes processes one job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobKey {
    pub(crate) cluster: Arc<str>,
    pub(crate) job: Option<Arc<str>>,
    /// Of a job without a name only: nothing says that such processes of two nodes belong together.
    node: Option<Node>,
}

impl JobKey {
    pub(crate) fn of(node: &Node, process: &Process) -> Self {
        let of_one_node = process.job.is_none().then(|| node.clone());
        Self { cluster: Arc::clone(&node.cluster), job: process.job.clone(), node: of_one_node }
    }
}

/// A rank: one process, seen through the thread that drives its GPU.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) node_number: usize,
    pub(crate) node: &'a Node,
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    pub(crate) rank: i32,
    pub(crate) process: &'a Process,
    /// After the warm-up, but for those that overlap a heavy loss of the node.
    pub(crate) iterations: Vec<&'a Iteration>,
    /// Those that do.
    not_judged: Vec<&'a Iteration>,
    /// The heavy losses of the node, by time.
    heavy: &'a [Loss],
}

impl<'a> Member<'a> {
    /// `None` for a process that never synchronised: a helper that inherited its rank.
    pub(crate) fn new(
        (node_number, node): (usize, &'a Node),
        (pid, rank): (i32, i32),
        process: &'a Process,
        heavy: &'a [Loss],
        rules: &Rules,
    ) -> Option<Self> {
        let (tid, thread) = process.driver()?;
        let warm = thread.iterations().iter().filter(|i| i.number >= rules.warmup_iterations);
        let (iterations, not_judged) =
            warm.partition(|iteration| overlapping(heavy, iteration.start_ts_ns(), iteration.end_ts_ns()).is_empty());
        Some(Self { node_number, node, pid, tid, rank, process, iterations, not_judged, heavy })
    }

    /// Iterations left out because they overlap this loss.
    pub(crate) fn not_judged_within(&self, loss: &Loss) -> u64 {
        let is_within = |i: &&&Iteration| loss.overlaps(i.start_ts_ns(), i.end_ts_ns());
        self.not_judged.iter().filter(is_within).count() as u64
    }

    /// Iterations seen after the warm-up, judged or not.
    fn seen(&self) -> usize {
        self.iterations.len() + self.not_judged.len()
    }

    fn starts_ns(&self) -> i64 {
        let firsts = [self.iterations.first(), self.not_judged.first()].into_iter().flatten();
        firsts.map(|iteration| iteration.start_ts_ns()).min().unwrap_or(i64::MAX)
    }

    fn ends_ns(&self) -> i64 {
        let lasts = [self.iterations.last(), self.not_judged.last()].into_iter().flatten();
        lasts.map(|iteration| iteration.end_ts_ns()).max().unwrap_or(i64::MIN)
    }

    /// That its node lost too much while it ran; `None` when nothing was left out for that.
    fn lost_reason(&self) -> Option<Reason> {
        let (first, last) = self.not_judged.first().zip(self.not_judged.last())?;
        let during = overlapping(self.heavy, first.start_ts_ns(), last.end_ts_ns());
        let all = Loss::sum(during.iter().copied())?;
        Some(Reason::Incomplete {
            node: self.node.name.to_string(),
            missing_share: all.share(),
            from_ns: Some(all.from_ns),
            to_ns: Some(all.to_ns),
        })
    }

    /// Whether both were the same rank at once, each long enough to be taken for it.
    fn rivals(&self, other: &Self, rules: &Rules) -> bool {
        let overlaps = self.starts_ns() < other.ends_ns() && other.starts_ns() < self.ends_ns();
        self.rank == other.rank && overlaps && self.is_long(rules) && other.is_long(rules)
    }

    fn is_long(&self, rules: &Rules) -> bool {
        self.seen() >= rules.min_iterations
    }

    /// Whether, of two processes of one rank, this one did too little to be taken for it while the other did more.
    fn helps(&self, other: &Self, rules: &Rules) -> bool {
        let lives = self.process.life.zip(other.process.life);
        let is_beside = self.node_number == other.node_number && lives.is_some_and(|(own, other)| own.overlaps(other));
        let did = |member: &Self| (member.seen(), std::cmp::Reverse(member.pid));
        !self.is_long(rules) && is_beside && did(self) < did(other)
    }
}

/// Leaves out helpers that a rank started and that synchronised a little for themselves: their rank they inherited.
fn without_helpers<'a>(mut members: Vec<Member<'a>>, rules: &Rules) -> Vec<Member<'a>> {
    members.sort_by_key(|member| member.rank);
    let of_ranks = members.chunk_by(|a, b| a.rank == b.rank);
    let is_helper = of_ranks.flat_map(|same| same.iter().map(|member| same.iter().any(|o| member.helps(o, rules))));
    let is_helper: Vec<bool> = is_helper.collect();
    members.into_iter().zip(is_helper).filter(|(_, is_helper)| !is_helper).map(|(member, _)| member).collect()
}

/// Splits the processes of a job into runs: when a rank comes up again in another process, the job was started again. Rivals
/// stay in one run, since nothing says to which of them the other ranks belong.
pub(crate) fn runs<'a>(members: Vec<Member<'a>>, rules: &Rules) -> Vec<Vec<Member<'a>>> {
    let mut members = without_helpers(members, rules);
    members.sort_by_key(|member| (member.starts_ns(), member.node.clone(), member.pid));
    let mut runs: Vec<Vec<Member<'_>>> = vec![Vec::new()];
    for member in members {
        let belongs = |run: &&mut Vec<Member<'_>>| {
            let mut same_rank = run.iter().filter(|other| other.rank == member.rank);
            same_rank.all(|other| other.rivals(&member, rules))
        };
        match runs.last_mut().filter(belongs) {
            Some(run) => run.push(member),
            None => runs.push(vec![member]),
        }
    }
    runs.iter_mut().for_each(|run| run.sort_by_key(|member| member.rank));
    runs
}

/// What is to be said of a run.
pub(crate) fn judge(job: &JobKey, run: Run<'_>, rules: &Rules, coverage: &Coverage) -> Finding {
    let members = run.members;
    let comparison = compare(members, rules);
    let explanation: Vec<Option<Explanation>> = (0..members.len())
        .map(|rank| {
            (!comparison.episodes[rank].is_empty()).then(|| explain(run, &comparison, rank, rules.evidence_ids))
        })
        .collect();
    let case = Case { job, run, comparison: &comparison, explanation: &explanation, rules, coverage };
    let (standings, verdict) = match too_little(members, rules) {
        Some(reason) => (members.iter().map(|_| Standing::Even).collect(), Verdict::Unknown { reason }),
        None => decide(&case),
    };
    // A job without a name goes by its node, also when none of its ranks got anywhere.
    let of_ranks = members.iter().map(|member| member.node);
    let mut nodes: Vec<String> = of_ranks.chain(&job.node).map(|node| node.name.to_string()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let all = || members.iter().flat_map(|member| &member.iterations);
    Finding {
        cluster: job.cluster.to_string(),
        job_id: job.job.as_deref().map(str::to_owned),
        nodes,
        first_ns: all().map(|iteration| iteration.start_ts_ns()).min().unwrap_or(0),
        last_ns: all().map(|iteration| iteration.end_ts_ns()).max().unwrap_or(0),
        ranking: ranking(&case, &standings),
        verdict,
        coverage: coverage.clone(),
    }
}

/// Looks at the time outside calls that wait; where that singles no rank out, at the time outside those calls and sleep, since
/// a collective may wait in code that is not traced.
fn compare(members: &[Member<'_>], rules: &Rules) -> Comparison {
    let ranks: Vec<Vec<&Iteration>> = members.iter().map(|member| member.iterations.clone()).collect();
    let by_calls = Comparison::of(&ranks, WaitView::Calls, rules);
    if by_calls.has_episode() {
        return by_calls;
    }
    let by_sleep = Comparison::of(&ranks, WaitView::CallsAndSleep, rules);
    if by_sleep.has_episode() { by_sleep } else { by_calls }
}

fn too_little(members: &[Member<'_>], rules: &Rules) -> Option<Reason> {
    if let Some(pair) = members.windows(2).find(|pair| pair[0].rank == pair[1].rank) {
        return Some(Reason::SeveralJobs { rank: pair[0].rank });
    }
    let judged = nth_most(members.iter().map(|member| member.iterations.len()), rules.min_ranks);
    let seen = nth_most(members.iter().map(Member::seen), rules.min_ranks);
    let is_for_losses = judged.is_some_and(|count| count < rules.min_iterations)
        && seen.is_some_and(|count| count >= rules.min_iterations);
    if is_for_losses {
        let worst = members.iter().max_by_key(|member| member.not_judged.len());
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

struct Case<'a> {
    job: &'a JobKey,
    run: Run<'a>,
    comparison: &'a Comparison,
    explanation: &'a [Option<Explanation>],
    rules: &'a Rules,
    coverage: &'a Coverage,
}

/// What is to be said of one rank.
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
    let stand = |(rank, explanation): (usize, &Option<Explanation>)| {
        explanation.as_ref().map_or(Standing::Even, |t| stand(case, rank, t))
    };
    let standings: Vec<Standing> = case.explanation.iter().enumerate().map(stand).collect();
    let slowdown = |rank: usize| case.explanation[rank].as_ref().map_or(0.0, |explanation| explanation.slowdown);
    let mut costliest: Vec<usize> = (0..standings.len()).collect();
    costliest.sort_by(|a, b| slowdown(*b).total_cmp(&slowdown(*a)));
    let (mut chains, mut unexplained) = (Vec::new(), Vec::new());
    for rank in costliest {
        match &standings[rank] {
            Standing::Even => {}
            Standing::Blamed(chain) => chains.push(Chain::clone(chain)),
            Standing::Unexplained(reason) => unexplained.push(reason.clone()),
        }
    }
    chains.sort_by_key(|chain| (std::cmp::Reverse(chain.severity), chain.rank));
    let verdict = match unexplained.first() {
        _ if !chains.is_empty() => Verdict::Chains { chains, unexplained },
        Some(worst) => Verdict::Unknown { reason: worst.clone() },
        None => doubt(case).map_or_else(|| healthy(case), |reason| Verdict::Unknown { reason }),
    };
    (standings, verdict)
}

/// The first cause that explains enough of a slow rank's excess. A rank of whose rows many are missing is not called slow: two
/// iterations with the call between them lost are one of twice the length.
fn stand(case: &Case<'_>, rank: usize, explanation: &Explanation) -> Standing {
    let node = case.run.members[rank].node.name.to_string();
    let missing_share = case.coverage.missing_share_of(&node);
    if missing_share > case.rules.max_missing_share {
        return Standing::Unexplained(Reason::Incomplete { node, missing_share, from_ns: None, to_ns: None });
    }
    if explanation.shares.preempted >= case.rules.min_explained && !explanation.preemptors.is_empty() {
        let (job, run, comparison, coverage) = (case.job, case.run, case.comparison, case.coverage);
        return Standing::Blamed(Box::new(Story { job, run, comparison, rank, explanation, coverage }.chain()));
    }
    let member = &case.run.members[rank];
    let (rank, ratio) = (member.rank, explanation.ratio);
    Standing::Unexplained(if member.process.scheduler_rows == 0 {
        Reason::NoSchedulerData { node, rank, ratio }
    } else {
        Reason::Unexplained { node, rank, ratio, shares: explanation.shares }
    })
}

/// No rank stands out; is that because there is nothing, or because it cannot be seen?
fn doubt(case: &Case<'_>) -> Option<Reason> {
    let members = case.run.members;
    let share = |rank: usize| {
        let iterations = &members[rank].iterations;
        let wall_ns: f64 = iterations.iter().map(|iteration| iteration.wall_ns() as f64).sum();
        (wall_ns > 0.0).then(|| case.run.preempted_ns(rank, iterations) * iterations.len() as f64 / wall_ns)
    };
    let crowded = median((0..members.len()).filter_map(share).collect()).unwrap_or(0.0);
    if crowded >= case.rules.crowded_share {
        return Some(Reason::EveryRankPreempted { share: crowded });
    }
    // In too few stretches a slow spell would not have been one; of a rank that came late or left early the rest is not known.
    // One stretch may lack iterations at the run's edge, however short the run.
    let of_run = case.comparison.tiles.len();
    let may_lack = ((1.0 - case.rules.min_compared_share) * of_run as f64).max(1.0);
    let is_compared = |rank: &usize| {
        let compared = case.comparison.tiles_of(*rank);
        let lacks = of_run - compared - lost_tiles(case.comparison, &members[*rank], *rank);
        compared >= case.rules.persistence_k && lacks as f64 <= may_lack
    };
    let not_compared: Vec<usize> = (0..members.len()).filter(|rank| !is_compared(rank)).collect();
    if let Some(reason) = not_compared.iter().find_map(|rank| members[*rank].lost_reason()) {
        return Some(reason);
    }
    if !not_compared.is_empty() {
        let ranks = not_compared.into_iter().map(|rank| members[rank].rank).collect();
        return Some(Reason::NotCompared { ranks, of: members.len() });
    }
    if case.coverage.iterations_forgotten > 0 {
        let begins = members.iter().map(Member::starts_ns).min();
        let iterations = case.coverage.iterations_forgotten;
        return Some(Reason::Forgotten { iterations, from_ns: begins.unwrap_or(0) });
    }
    let is_much = |missing_share: f64| missing_share > case.rules.max_missing_share;
    if let Some(worst) = case.coverage.incomplete_nodes.first().filter(|worst| is_much(worst.missing_share)) {
        let node = worst.node.clone();
        let missing_share = worst.missing_share;
        return Some(Reason::Incomplete { node, missing_share, from_ns: None, to_ns: None });
    }
    let world_size = world_size(members);
    (members.len() < world_size).then_some(Reason::RanksMissing { seen: members.len(), world_size })
}

/// Stretches in which a rank was not compared because iterations of it were left out for losses.
fn lost_tiles(comparison: &Comparison, member: &Member<'_>, rank: usize) -> usize {
    let ends_ns = comparison.starts_ns.iter().map(|start_ns| start_ns.saturating_add(comparison.tile_ns));
    let tiles = comparison.starts_ns.iter().zip(ends_ns).zip(&comparison.tiles);
    let is_lost = |(start_ns, end_ns): (&i64, i64)| {
        let starts = |i: &&Iteration| (*start_ns..end_ns).contains(&i.start_ts_ns());
        member.not_judged.iter().any(starts)
    };
    tiles.filter(|(times, tile)| tile[rank].is_none() && is_lost(*times)).count()
}

/// Ranks the job says it has; at least those seen.
pub(crate) fn world_size(members: &[Member<'_>]) -> usize {
    let said = members.iter().filter_map(|member| member.process.world_size()).max();
    said.and_then(|size| usize::try_from(size).ok()).unwrap_or(0).max(members.len())
}

fn healthy(case: &Case<'_>) -> Verdict {
    let members = case.run.members;
    let iterations = members.iter().map(|member| member.iterations.len() as u64).min().unwrap_or(0);
    let least = |tile: &Vec<Option<Sample>>| {
        let shares = tile.iter().flatten().filter(|sample| sample.wall_ns > 0.0).map(|s| s.wait_ns / s.wall_ns);
        shares.min_by(f64::total_cmp)
    };
    let least_wait_share = median(case.comparison.tiles.iter().filter_map(least).collect()).unwrap_or(0.0);
    Verdict::Healthy { ranks: members.len(), iterations, least_wait_share }
}

fn ranking(case: &Case<'_>, standings: &[Standing]) -> Vec<StragglerRank> {
    let place = |(rank, standing): (usize, &Standing)| StragglerRank {
        is_blamed: matches!(standing, Standing::Blamed(_)),
        culprits: case.explanation[rank]
            .as_ref()
            .map_or_else(Vec::new, |explanation| culprits(case.run, rank, &explanation.preemptors)),
        unexplained: if let Standing::Unexplained(reason) = standing { Some(reason.clone()) } else { None },
        ..figures(case.run.members, case.comparison, rank, case.explanation[rank].as_ref())
    };
    let mut ranking: Vec<StragglerRank> = standings.iter().enumerate().map(place).collect();
    ranking.sort_by(|a, b| {
        let by_cost = b.score.total_cmp(&a.score).then_with(|| b.ratio.total_cmp(&a.ratio));
        by_cost.then_with(|| a.rank.cmp(&b.rank))
    });
    ranking
}

fn figures(
    members: &[Member<'_>],
    comparison: &Comparison,
    rank: usize,
    explanation: Option<&Explanation>,
) -> StragglerRank {
    let member = &members[rank];
    let view = comparison.view;
    let p50 = |of: &dyn Fn(&Iteration) -> i64| {
        percentile(&mut member.iterations.iter().map(|iteration| of(iteration)).collect::<Vec<_>>(), 0.5).unwrap_or(0)
    };
    let ratios = comparison.tiles.iter().filter_map(|tile| {
        let peers =
            tile.iter().enumerate().filter(|(other, _)| *other != rank).filter_map(|(_, s)| Some(s.as_ref()?.busy_ns));
        median(peers.collect()).filter(|ns| *ns > 0.0).zip(tile[rank].as_ref()).map(|(peers, own)| own.busy_ns / peers)
    });
    let wall_ns: f64 = member.iterations.iter().map(|iteration| iteration.wall_ns() as f64).sum();
    let excess = comparison.episodes[rank].iter().filter_map(|&tile| {
        let (sample, mark) = (comparison.tiles[tile][rank].as_ref()?, comparison.marks[rank][tile]?);
        Some((sample.busy_ns - mark.reference_ns) * sample.iterations.len() as f64)
    });
    StragglerRank {
        rank: member.rank,
        node: member.node.name.to_string(),
        pid: member.pid,
        tid: member.tid,
        iterations: member.iterations.len(),
        busy_p50_ns: p50(&|iteration| iteration.busy_ns(view)),
        wait_p50_ns: p50(&|iteration| iteration.waiting_ns(view)),
        ratio: explanation.map(|explanation| explanation.ratio).or_else(|| median(ratios.collect())).unwrap_or(1.0),
        slow_tiles: comparison.episodes[rank].len(),
        tiles: comparison.tiles_of(rank),
        score: if wall_ns > 0.0 { (excess.fold(0.0, |sum, ns| sum + ns) / wall_ns).clamp(0.0, 1.0) } else { 0.0 },
        is_blamed: false,
        unexplained: None,
        culprits: Vec::new(),
        shares: explanation.map(|explanation| explanation.shares),
        evidence: explanation.map_or_else(Vec::new, |explanation| {
            explanation.evidence.iter().map(|wait| wait.evidence.event_id.to_string()).collect()
        }),
    }
}

/// Largest number of culprits reported per rank.
const CULPRITS_NAMED: usize = 10;

/// The processes that had the CPU of a rank.
pub(crate) fn culprits(run: Run<'_>, rank: usize, preemptors: &[Preemptor]) -> Vec<Culprit> {
    let node = run.members[rank].node_number;
    let explanation = preemptors.iter().take(CULPRITS_NAMED).map(|preemptor| Culprit {
        pid: preemptor.peer.pid,
        name: run.names.process(node, preemptor.peer.pid).map(str::to_owned),
        is_causeway: run.names.is_causeway(node, preemptor.peer.pid),
        share: preemptor.share,
    });
    explanation.collect()
}

/// How bad a slowdown of the whole job is.
pub(crate) fn severity(slowdown: f64) -> Severity {
    match slowdown {
        s if s >= 0.3 => Severity::High,
        s if s >= 0.1 => Severity::Medium,
        _ => Severity::Low,
    }
}

#[cfg(test)]
mod tests;
