//! Jobs and runs: which processes are the ranks of a job, and which of them ran together.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::iteration::Iteration;
use crate::loss::{Loss, overlapping};
use crate::names::Names;
use crate::observation::Observation;
use crate::process::Process;
use crate::rules::Rules;
use crate::verdict::Reason;

/// A boot of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) cluster: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) boot_id: Arc<str>,
}

impl Node {
    /// Whether the row was made in this boot of this node.
    pub(crate) fn is_of(&self, row: &Observation<'_>) -> bool {
        (&*self.cluster, &*self.name, &*self.boot_id) == (row.cluster, row.node, row.boot_id)
    }
}

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

    /// The node that identifies a job without a name.
    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

/// A rank: one process, represented by the thread that drives its GPU.
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
        // By its number in the life of the thread: iterations discarded at the bound do not make later ones count as
        // warm-up.
        let warm = thread.iterations().iter().filter(|i| i.number >= rules.warmup_iterations);
        let (iterations, not_judged) =
            // Kept apart and not dropped: the finding says how many iterations each loss took out.
            warm.partition(|iteration| overlapping(heavy, iteration.start_ts_ns(), iteration.end_ts_ns()).is_empty());
        Some(Self { node_number, node, pid, tid, rank, process, iterations, not_judged, heavy })
    }

    /// Iterations left out because they overlap this loss.
    pub(crate) fn not_judged_within(&self, loss: &Loss) -> u64 {
        let mut within = 0;
        for iteration in &self.not_judged {
            within += u64::from(loss.overlaps(iteration.start_ts_ns(), iteration.end_ts_ns()));
        }
        within
    }

    /// Iterations left out for any loss of the node.
    pub(crate) fn not_judged(&self) -> usize {
        self.not_judged.len()
    }

    /// Whether an iteration that was left out for a loss began in this time, unix nanoseconds.
    pub(crate) fn lost_iteration_in(&self, time_ns: &Range<i64>) -> bool {
        self.not_judged.iter().any(|iteration| time_ns.contains(&iteration.start_ts_ns()))
    }

    /// Iterations seen after the warm-up, judged or not.
    pub(crate) fn seen(&self) -> usize {
        self.iterations.len() + self.not_judged.len()
    }

    /// Start of the first iteration seen, unix nanoseconds.
    pub(crate) fn starts_ns(&self) -> i64 {
        let firsts = [self.iterations.first(), self.not_judged.first()].into_iter().flatten();
        firsts.map(|iteration| iteration.start_ts_ns()).min().unwrap_or(i64::MAX)
    }

    /// End of the last iteration seen, unix nanoseconds.
    fn ends_ns(&self) -> i64 {
        let lasts = [self.iterations.last(), self.not_judged.last()].into_iter().flatten();
        lasts.map(|iteration| iteration.end_ts_ns()).max().unwrap_or(i64::MIN)
    }

    /// The reason that its node lost too much while it ran; `None` when nothing was left out for that.
    pub(crate) fn lost_reason(&self) -> Option<Reason> {
        // In order of time, so that first and last enclose all of them.
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
        // At the same time: a process that replaced another one of its rank is no rival but a new run.
        let overlaps = self.starts_ns() < other.ends_ns() && other.starts_ns() < self.ends_ns();
        self.rank == other.rank && overlaps && self.is_long(rules) && other.is_long(rules)
    }

    fn is_long(&self, rules: &Rules) -> bool {
        self.seen() >= rules.min_iterations
    }

    /// Iterations seen; of equals the process with the smaller number did more.
    fn work_done(&self) -> (usize, Reverse<i32>) {
        (self.seen(), Reverse(self.pid))
    }

    /// Whether, of two processes of one rank, this one did too little to be taken for it while the other did more.
    fn helps(&self, other: &Self, rules: &Rules) -> bool {
        // Only beside the other process on one node: a short process before or after it is a run that failed, not a
        // helper.
        let lives = self.process.life.zip(other.process.life);
        let is_beside = self.node_number == other.node_number && lives.is_some_and(|(own, other)| own.overlaps(other));
        !self.is_long(rules) && is_beside && self.work_done() < other.work_done()
    }
}

/// Leaves out helper processes: they inherited the rank of the process that started them, and synchronised a few times
/// themselves.
fn without_helpers<'a>(mut members: Vec<Member<'a>>, rules: &Rules) -> Vec<Member<'a>> {
    // `chunk_by` compares neighbours only.
    members.sort_by_key(|member| member.rank);
    let mut is_helper = Vec::with_capacity(members.len());
    for same_rank in members.chunk_by(|a, b| a.rank == b.rank) {
        is_helper.extend(same_rank.iter().map(|member| same_rank.iter().any(|other| member.helps(other, rules))));
    }
    members.into_iter().zip(is_helper).filter(|(_, is_helper)| !is_helper).map(|(member, _)| member).collect()
}

/// Splits the processes of a job into runs: when a rank comes up again in another process, the job was started again.
/// Rivals stay in one run, since nothing says to which of them the other ranks belong.
pub(crate) fn runs<'a>(members: Vec<Member<'a>>, rules: &Rules) -> Vec<Vec<Member<'a>>> {
    let mut members = without_helpers(members, rules);
    // In order of start, so that a process belongs to the latest run that has no process of its rank. Node and number
    // only break ties.
    members.sort_by_key(|member| (member.starts_ns(), member.node.clone(), member.pid));
    let mut runs: Vec<Vec<Member<'_>>> = vec![Vec::new()];
    for member in members {
        match runs.last_mut() {
            Some(run) if belongs(run, &member, rules) => run.push(member),
            // The rank came up again: the job was started again.
            _ => runs.push(vec![member]),
        }
    }
    runs.iter_mut().for_each(|run| run.sort_by_key(|member| member.rank));
    runs
}

/// Whether a run has no process of this rank besides rivals.
fn belongs(run: &[Member<'_>], member: &Member<'_>, rules: &Rules) -> bool {
    let mut same_rank = run.iter().filter(|other| other.rank == member.rank);
    same_rank.all(|other| other.rivals(member, rules))
}

/// The ranks of a run, and which threads of their nodes belong to the job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    /// Sorted by rank.
    pub(crate) members: &'a [Member<'a>],
    /// Processes and threads of the job, each with the number of its node.
    pub(crate) own_threads: &'a HashSet<(usize, i32)>,
    pub(crate) names: &'a Names,
}

impl Run<'_> {
    /// Ranks that the job states it has; at least those seen.
    pub(crate) fn world_size(&self) -> usize {
        let said = self.members.iter().filter_map(|member| member.process.world_size()).max();
        // Rows are not trusted: a negative size, or one below the ranks seen, is replaced by their number.
        said.and_then(|size| usize::try_from(size).ok()).unwrap_or(0).max(self.members.len())
    }
}

#[cfg(test)]
mod tests;
