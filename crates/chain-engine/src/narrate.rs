//! Puts an explained slowdown into words: the chain, its timeline from cause to symptom, what to do, and its
//! confidence.

use event_schema::catalog::{Op, Source};

use crate::chain::{Cause, Chain, Severity, Step, stable_hash};
use crate::explain::{Explanation, Preemptor, Wait};
use crate::features::Peer;
use crate::format::{count, go_duration};
use crate::job::{JobKey, Member, Run};
use crate::peers::{Comparison, Sample, peers_in};
use crate::stats::{median, whole};
use crate::verdict::Coverage;

/// All that is known of one slow rank.
pub(crate) struct Story<'a> {
    pub(crate) job: &'a JobKey,
    pub(crate) run: Run<'a>,
    pub(crate) comparison: &'a Comparison,
    pub(crate) rank: usize,
    pub(crate) explanation: &'a Explanation,
    pub(crate) coverage: &'a Coverage,
}

/// Waits shown one by one in the timeline.
const WAITS_SHOWN: usize = 3;
/// Preempting processes named in the summary.
const PREEMPTORS_NAMED: usize = 3;
/// Share of the wait whose processes are named without "and others". A choice: lower it and fewer are named.
const MOST_OF_THE_WAIT: f64 = 0.9;

/// Factor of the confidence of a spell that comes and goes, at least. A choice.
const LEAST_STEADINESS: f64 = 0.7;
/// What is added to it for a spell without interruption: together they are 1.
const STEADINESS_GAIN: f64 = 0.3;
/// Ranks up to which a median of peers rests on two values, where one odd peer moves it.
const FEW_RANKS: usize = 3;
/// Factor of the confidence with as few ranks. A choice.
const OF_FEW_RANKS: f64 = 0.85;
/// Explained share from which more adds nothing to the confidence: running again after a wait, with cold caches, takes
/// time that no wait explains. A choice.
const FULLY_EXPLAINED: f64 = 0.9;

impl Story<'_> {
    pub(crate) fn chain(&self) -> Chain {
        let member = self.member();
        let explanation = self.explanation;
        // At least 1 ns, so that peers that were not busy at all do not make the ratio infinite.
        let ratio = explanation.p99_ns as f64 / (explanation.peers_p50_ns as f64).max(1.0);
        let explained = explanation.shares.preempted;
        Chain {
            id: self.id(),
            severity: Severity::of_slowdown(explanation.slowdown),
            summary: format!(
                "rank {} iteration p99={} ({ratio:.1}x p50) - {}, preempted by {}: explains {:.0} % of the slowdown",
                member.rank,
                go_duration(explanation.p99_ns),
                count(explanation.waits.count, "runnable wait"),
                self.culprits(),
                explained * 100.0,
            ),
            cause: Cause::CpuPreemption,
            root_cause: format!(
                "rank {} was runnable but not running for {}: {} had its CPU",
                member.rank,
                go_duration(explanation.waits.busy_ns),
                self.culprits(),
            ),
            explanation: Some(self.explanation(ratio)),
            fixes: self.fixes(),
            node: member.node.name.to_string(),
            job_id: self.job.job.as_deref().map(str::to_owned),
            rank: Some(member.rank),
            pid: Some(member.pid),
            tid: Some(member.tid),
            op: Some("iteration".to_owned()),
            p50_ns: Some(explanation.peers_p50_ns),
            p99_ns: Some(explanation.p99_ns),
            ratio: Some(ratio),
            confidence: Some(self.confidence()),
            explained_share: Some(explained),
            cost_per_iteration_ns: Some(explanation.cost_per_iteration_ns),
            culprits: self.run.culprits(self.rank, &explanation.preemptors),
            first_seen_ns: explanation.first_ts_ns,
            last_seen_ns: explanation.last_ts_ns,
            iterations_affected: Some(explanation.affected),
            iterations_total: Some(member.iterations.len() as u64),
            timeline: self.timeline(ratio),
            evidence: explanation.evidence_ids(),
        }
    }

    fn name(&self, peer: Peer) -> String {
        self.run.names.shown(self.member().node_number, peer.pid)
    }

    fn wait_step(&self, wait: &Wait) -> Step {
        let behind = self.name(wait.peer);
        let id = &wait.evidence.event_id;
        Step {
            layer: Source::Host.name().to_owned(),
            op: Op::RunnableWait.name().to_owned(),
            detail: format!("in iteration {} behind {behind} [{id}]", wait.iteration),
            at_ns: Some(wait.start_ts_ns),
            duration_ns: Some(wait.evidence.duration_ns),
        }
    }

    fn member(&self) -> &Member<'_> {
        &self.run.members[self.rank]
    }

    /// From job, process, cause and the tile in which it began.
    fn id(&self) -> String {
        let member = self.member();
        let first_tile = self.comparison.episodes[self.rank].first().copied().unwrap_or(0);
        let start_ns = self.comparison.starts_ns.get(first_tile).copied().unwrap_or(0);
        // The start of the tile and not of the first iteration: tiles are powers of two and rarely change as rows are
        // added, so that the chain keeps its id. The boot, because process numbers are used again after a restart.
        let hash = stable_hash([
            self.job.cluster.as_bytes(),
            self.job.job.as_deref().unwrap_or_default().as_bytes(),
            member.node.boot_id.as_bytes(),
            &member.pid.to_le_bytes(),
            &start_ns.to_le_bytes(),
        ]);
        format!("{}:{}-rank-{}-{hash:016x}", member.node.name, Cause::CpuPreemption.name(), member.rank)
    }

    fn culprits(&self) -> String {
        let main = self.main_preemptors();
        let named = main.iter().map(|preemptor| self.name(preemptor.peer)).collect::<Vec<_>>().join(", ");
        match self.explanation.preemptors.len() - main.len() {
            _ if self.share_of(main) >= MOST_OF_THE_WAIT => named,
            // All processes recorded are named and fall short: an iteration records the largest few only.
            0 => format!("{named} and others"),
            // Those recorded make up the whole wait but for rounding, so that their number is exact.
            rest if self.share_of(&self.explanation.preemptors) >= 0.99 => format!("{named} and {rest} more"),
            rest => format!("{named} and at least {rest} more"),
        }
    }

    /// The fewest that make up most of the wait.
    fn main_preemptors(&self) -> &[Preemptor] {
        let all = &self.explanation.preemptors;
        let most = all.len().min(PREEMPTORS_NAMED);
        let enough = (1..most).find(|&first| self.share_of(&all[..first]) >= MOST_OF_THE_WAIT);
        &all[..enough.unwrap_or(most)]
    }

    fn share_of(&self, preemptors: &[Preemptor]) -> f64 {
        preemptors.iter().map(|preemptor| preemptor.share).sum()
    }

    fn explanation(&self, ratio: f64) -> String {
        let member = self.member();
        let explanation = self.explanation;
        let (own_ns, peers_ns) = self.waits_ns();
        format!(
            "In {} of {} iterations rank {} computed longer than its peers: {} at p99, which is {ratio:.1} times their {} at p50. \
             That cost {} per iteration on average. It waited {} for the others and they {} (p50), so the job waited for it. \
             {:.0} % of the excess was time in which its thread was runnable and another process had the CPU; its peers had \
             none of that or much less.",
            explanation.affected,
            member.iterations.len(),
            member.rank,
            go_duration(explanation.p99_ns),
            go_duration(explanation.peers_p50_ns),
            go_duration(explanation.cost_per_iteration_ns),
            go_duration(own_ns),
            go_duration(peers_ns),
            explanation.shares.preempted * 100.0,
        )
    }

    fn fixes(&self) -> Vec<String> {
        let rank = self.member().rank;
        let mut fixes = Vec::new();
        for preemptor in self.main_preemptors() {
            let pid = preemptor.peer.pid;
            let who = self.name(preemptor.peer);
            let is_own = self.run.names.is_causeway(self.member().node_number, pid);
            // The agent must not be reniced as a whole: while its threads wait for a CPU, the kernel rings fill up and
            // lose events.
            let yields = if is_own { String::new() } else { format!(", or let it yield: renice -n 19 -p {pid}") };
            fixes.push(format!("keep {who} off the CPU of rank {rank}: taskset -cp CPUS {pid}{yields}"));
        }
        fixes.push(
            "reserve CPUs for the ranks (cpuset, isolcpus, or the static CPU manager policy of Kubernetes)".to_owned(),
        );
        fixes
    }

    fn timeline(&self, ratio: f64) -> Vec<Step> {
        let explanation = self.explanation;
        let inside = 100.0 * explanation.waits.busy_ns as f64 / (explanation.waits.whole_ns as f64).max(1.0);
        let shares = explanation.preemptors.iter().take(PREEMPTORS_NAMED);
        let by =
            shares.map(|p| format!("{} {:.0} %", self.name(p.peer), p.share * 100.0)).collect::<Vec<_>>().join(", ");
        let mut steps = vec![Step {
            layer: Source::Host.name().to_owned(),
            op: Op::RunnableWait.name().to_owned(),
            detail: format!(
                "{}, {inside:.0} % of their time while its iterations computed: {by}",
                count(explanation.waits.count, "wait")
            ),
            at_ns: Some(explanation.first_ts_ns),
            duration_ns: Some(explanation.waits.busy_ns),
        }];
        steps.extend(explanation.evidence.iter().take(WAITS_SHOWN).map(|wait| self.wait_step(wait)));
        steps.push(Step {
            layer: "RANK".to_owned(),
            op: "iteration".to_owned(),
            detail: format!(
                "p99={} ({ratio:.1}x p50={} of its peers)",
                go_duration(explanation.p99_ns),
                go_duration(explanation.peers_p50_ns)
            ),
            at_ns: Some(explanation.first_ts_ns),
            duration_ns: None,
        });
        steps.extend(self.symptom());
        steps
    }

    /// The symptom on the other ranks: the call in which they wait for this rank.
    fn symptom(&self) -> Option<Step> {
        let tile = *self.comparison.episodes[self.rank].first()?;
        let view = self.comparison.view;
        let peers = peers_in(&self.comparison.tiles[tile], self.rank);
        let (victim, sample): (usize, &Sample) = peers.max_by(|a, b| a.1.wait_ns.total_cmp(&b.1.wait_ns))?;
        let victim = &self.run.members[victim];
        let longest =
            victim.iterations[sample.iterations.clone()].iter().max_by_key(|i| (i.waiting_ns(view), i.number))?;
        let (own_ns, peers_ns) = self.waits_ns();
        // Nothing bounds how far the clocks of two nodes are apart.
        let is_one_clock = victim.node_number == self.member().node_number;
        Some(Step {
            layer: longest.ended_by.source().name().to_owned(),
            op: longest.ended_by.name().to_owned(),
            detail: format!(
                "the other ranks wait {} per iteration for rank {}, itself {} (rank {} longest){}",
                go_duration(peers_ns),
                self.member().rank,
                go_duration(own_ns),
                victim.rank,
                if is_one_clock { "" } else { "; on another node's clock, so no order in time is claimed" },
            ),
            // A wait for others ends the iteration, so it began that long before the end.
            at_ns: is_one_clock.then(|| longest.end_ts_ns() - longest.waiting_ns(view)),
            duration_ns: Some(longest.waiting_ns(view)),
        })
    }

    /// Median wait for others per iteration, of this rank and of its peers, while it was slow.
    fn waits_ns(&self) -> (i64, i64) {
        let mut own = Vec::new();
        let mut peers = Vec::new();
        for &tile in &self.comparison.episodes[self.rank] {
            let tile = &self.comparison.tiles[tile];
            own.extend(tile[self.rank].as_ref().map(|sample| sample.wait_ns));
            peers.extend(peers_in(tile, self.rank).map(|(_, sample)| sample.wait_ns));
        }
        (whole(median(own).unwrap_or(0.0)), whole(median(peers).unwrap_or(0.0)))
    }

    /// The confidence: a product of what is explained, how steadily the rank was slow, the number of peers and the
    /// completeness of the data. Not a calibrated probability: its numbers are choices, made so that a steady fault on
    /// a full job comes near 1.
    fn confidence(&self) -> f64 {
        let slow = &self.comparison.episodes[self.rank];
        // Tiles from the first slow one to the last, both included. Those between that were not slow lower the factor.
        let spell = slow.last().zip(slow.first()).map_or(1, |(last, first)| last - first + 1);
        let steadiness = LEAST_STEADINESS + STEADINESS_GAIN * slow.len() as f64 / spell as f64;
        let peers = if self.run.members.len() > FEW_RANKS { 1.0 } else { OF_FEW_RANKS };
        // Not by 0: the world size is at least the number of members.
        let seen = self.run.members.len() as f64 / self.run.world_size() as f64;
        let explained = (self.explanation.shares.preempted / FULLY_EXPLAINED).min(1.0);
        (explained
            * steadiness
            * peers
            * seen.sqrt()
            * (1.0 - self.coverage.missing_share_of(&self.member().node.name)))
        .clamp(0.0, 1.0)
    }
}
