//! The engine: registers nodes and processes, holds rows back until the watermark, folds them and reports findings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::columns::{ColumnError, Columns};
use crate::features::Span;
use crate::job::{JobKey, Member, Node, Run, runs};
use crate::judge::judge;
use crate::loss::{Loss, NodeLosses, overlapping};
use crate::names::Names;
use crate::observation::Observation;
use crate::process::{Bounds, Process};
use crate::rules::Settings;
use crate::verdict::{ChargedLoss, Coverage, Finding, IncompleteNode};

/// The detection engine. Give it rows with [`Engine::push`] or [`Engine::observe`], time with [`Engine::advance`].
#[derive(Debug, Default)]
pub struct Engine {
    settings: Settings,
    nodes: Vec<Node>,
    node_numbers: HashMap<String, usize>,
    last_node: usize,
    processes: HashMap<(usize, i32), Process>,
    pending_rows: usize,
    /// By number of the node.
    rows_of_unknown_processes: HashMap<usize, u64>,
    early_folds: u64,
    /// By cluster and name of the node.
    losses: BTreeMap<(String, String), NodeLosses>,
    names: Names,
    /// Process names received for nodes that have no rows yet, by cluster and node name.
    reported_names: HashMap<(String, String), Vec<(i32, String)>>,
}

impl Engine {
    /// An engine with other thresholds or bounds than the default ones.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes rows of `silver.events`, in any order ([`crate::COLUMNS`] says which columns it reads).
    ///
    /// # Errors
    /// A column is missing, has a type that does not fit, or is null where it must not be; no row of the batch is taken
    /// then.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), ColumnError> {
        let columns = Columns::of(batch)?;
        for row in columns.observations() {
            self.observe(&row);
        }
        Ok(())
    }

    /// Takes one row.
    pub fn observe(&mut self, row: &Observation<'_>) {
        let key = (self.node_number(row), row.pid);
        // Before the bound below: a row that is dropped there may still name the process that took a CPU.
        self.names.observe(key.0, row);
        // Only a new process is refused. Rows of a registered one are taken at any time, so that its iterations stay
        // complete.
        if !self.processes.contains_key(&key) && self.processes.len() >= self.settings.limits.processes {
            *self.rows_of_unknown_processes.entry(key.0).or_default() += 1;
            return;
        }
        if self.processes.entry(key).or_default().observe(row, &self.settings.limits) {
            self.pending_rows += 1;
            self.bound_pending();
        }
    }

    /// Takes a loss of events that rows of this engine are made of (ring buffer full, shed, spool overrun). It counts
    /// against the iterations of that node that it overlaps, and against no others.
    pub fn note_loss(&mut self, cluster: &str, node: &str, loss: Loss) {
        let max_missing_share = self.settings.rules.max_missing_share;
        // A loss is reported for a node, without its boot: `charged` selects by time.
        let losses = self.losses.entry((cluster.to_owned(), node.to_owned())).or_default();
        losses.note(loss, max_missing_share);
    }

    /// Takes the name of a process, for those that the rows name by threads only.
    pub fn note_process(&mut self, cluster: &str, node: &str, pid: i32, name: &str) {
        let reported = self.reported_names.entry((cluster.to_owned(), node.to_owned())).or_default();
        reported.push((pid, name.to_owned()));
    }

    /// Declares that every row which ended at or before `watermark_ns` (unix nanoseconds) has been given, and returns
    /// the present finding of every run of a job that has new iterations. A chain keeps its id while it lasts.
    pub fn advance(&mut self, watermark_ns: i64) -> Vec<Finding> {
        self.fold(watermark_ns);
        self.report(true)
    }

    /// As [`Engine::advance`], without making findings.
    pub fn fold(&mut self, watermark_ns: i64) {
        // Collected anew for each fold, since processes join the job over time. A wait that was folded before its peer
        // was known to be of the job is corrected in `Run::found_own`.
        let own = self.own_threads();
        for (&(node, _), process) in &mut self.processes {
            let own = own.get(&JobKey::of(&self.nodes[node], process));
            let bounds = Bounds { limits: &self.settings.limits, own, node };
            // Cannot underflow: `pending_rows` is the sum of the rows that the processes hold back.
            self.pending_rows -= process.fold_until(watermark_ns, bounds);
        }
        self.bound_iterations();
    }

    /// Folds everything and returns the finding of every run of every job.
    pub fn finish(mut self) -> Vec<Finding> {
        // The input has ended, so that no row can be late: a watermark beyond every row.
        self.fold(i64::MAX);
        self.report(false)
    }

    fn node_number(&mut self, row: &Observation<'_>) -> usize {
        // Rows of one node come in runs: the last number spares most rows a key of three strings.
        if self.nodes.get(self.last_node).is_some_and(|node| node.is_of(row)) {
            return self.last_node;
        }
        self.last_node = self.find_or_add_node(row);
        self.last_node
    }

    fn find_or_add_node(&mut self, row: &Observation<'_>) -> usize {
        // The zero bytes separate the parts: without them ("ab", "c") and ("a", "bc") would be one key.
        let key = format!("{}\0{}\0{}", row.cluster, row.node, row.boot_id);
        if let Some(&number) = self.node_numbers.get(&key) {
            return number;
        }
        let [cluster, name, boot_id] = [row.cluster, row.node, row.boot_id].map(Arc::from);
        self.nodes.push(Node { cluster, name, boot_id });
        self.node_numbers.insert(key, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn bound_pending(&mut self) {
        if self.pending_rows <= self.settings.limits.pending_rows {
            return;
        }
        let own = self.own_threads();
        // Ties are broken by the key: a hash map has a random order, and the answer must not depend on it.
        let fullest = self.processes.iter_mut().max_by_key(|(key, process)| (process.pending_rows(), **key));
        if let Some((&(node, _), process)) = fullest {
            let own = own.get(&JobKey::of(&self.nodes[node], process));
            let bounds = Bounds { limits: &self.settings.limits, own, node };
            self.pending_rows -= process.fold_older_half(bounds);
            // Reported with the finding: a row that comes later and ended before this point is left out as late.
            self.early_folds += 1;
        }
        // The fold may have completed iterations, which have a bound of their own.
        self.bound_iterations();
    }

    fn bound_iterations(&mut self) {
        let kept: usize = self.processes.values().flat_map(|p| p.threads.values()).map(|t| t.iterations().len()).sum();
        if kept <= self.settings.limits.iterations {
            return;
        }
        let threads = self.processes.values().flat_map(|p| p.threads.values()).filter(|t| !t.iterations().is_empty());
        // An equal share each: ranks are compared with one another, and history that only one of them has is of no use.
        let per_thread = (self.settings.limits.iterations / threads.count().max(1)).max(1);
        for process in self.processes.values_mut() {
            process.keep_latest_iterations(per_thread);
        }
    }

    fn report(&mut self, only_news: bool) -> Vec<Finding> {
        // Losses are noted in any order, and `overlapping` searches them by time.
        self.losses.values_mut().for_each(NodeLosses::settle);
        self.take_reported_names();
        let mut findings = Vec::new();
        let own = self.own_threads();
        let none = HashSet::new();
        for (job, members) in self.jobs() {
            let own = own.get(&job).unwrap_or(&none);
            let of_job = runs(members, &self.settings.rules).into_iter();
            for run in of_job.filter(|run| !only_news || run.iter().any(|member| member.process.has_news)) {
                let of_run = Run { members: &run, own_threads: own, names: &self.names };
                findings.push(judge(&job, of_run, &self.settings.rules, &self.coverage(&run)));
            }
        }
        // Only after every run is judged: one process with news is enough to report its whole run.
        self.processes.values_mut().for_each(|process| process.has_news = false);
        findings
    }

    /// The ranks of each job, processes that never synchronised left out.
    fn jobs(&self) -> BTreeMap<JobKey, Vec<Member<'_>>> {
        let mut jobs: BTreeMap<JobKey, Vec<Member<'_>>> = BTreeMap::new();
        for (&(node_number, pid), process) in &self.processes {
            let node = &self.nodes[node_number];
            // A process without a rank takes no part in collectives. Where it names the job, `own_threads` still has
            // it.
            let Some(rank) = process.rank() else { continue };
            let members = jobs.entry(JobKey::of(node, process)).or_default();
            let heavy = self.losses_of(node).map_or(&[] as &[Loss], NodeLosses::heavy);
            members.extend(Member::new((node_number, node), (pid, rank), process, heavy, &self.settings.rules));
        }
        jobs
    }

    /// Processes and threads of each job with their nodes, whether ranks or their helpers. A wait for one of them is
    /// not preemption from outside the job.
    fn own_threads(&self) -> BTreeMap<JobKey, HashSet<(usize, i32)>> {
        let mut own: BTreeMap<JobKey, HashSet<(usize, i32)>> = BTreeMap::new();
        for (&(node, pid), process) in &self.processes {
            if process.rank().is_some() || process.job.is_some() {
                let of_job = own.entry(JobKey::of(&self.nodes[node], process)).or_default();
                // The pid too: the first thread may have no rows. Rows name a peer by its process id, or by its thread
                // id where the agent had no process for it.
                of_job.extend(process.tids().chain([pid]).map(|id| (node, id)));
            }
        }
        own
    }

    fn losses_of(&self, node: &Node) -> Option<&NodeLosses> {
        self.losses.get(&(node.cluster.to_string(), node.name.to_string()))
    }

    /// Adds the process names received for a node to each of its boots. A process of another boot with the same number
    /// is named by its own rows.
    fn take_reported_names(&mut self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for (pid, name) in
                self.reported_names.get(&(node.cluster.to_string(), node.name.to_string())).into_iter().flatten()
            {
                self.names.add_reported(number, *pid, name);
            }
        }
    }

    fn coverage(&self, run: &[Member<'_>]) -> Coverage {
        // By boot first: rows of processes beyond the bound count once for a boot, not once for each of its ranks.
        let mut of_boots: BTreeMap<usize, Rows> = BTreeMap::new();
        for member in run {
            let of_boot = of_boots.entry(member.node_number).or_default();
            of_boot.rows += member.process.rows;
            of_boot.left_out += member.process.left_out();
        }
        let mut of_nodes: BTreeMap<(String, String), Rows> = BTreeMap::new();
        for (number, of_boot) in of_boots {
            let node = &self.nodes[number];
            let unknown = self.rows_of_unknown_processes.get(&number).copied().unwrap_or(0);
            let of_node = of_nodes.entry((node.cluster.to_string(), node.name.to_string())).or_default();
            of_node.rows += of_boot.rows;
            of_node.left_out += of_boot.left_out + unknown;
        }
        let mut losses = Vec::new();
        for (node, rows) in &mut of_nodes {
            let of_node = self.losses.get(node).map(|losses| charged(&node.1, losses, run)).unwrap_or_default();
            // Light losses only. Iterations that overlap a heavy loss are left out, so that nothing is missing among
            // those judged.
            rows.lost_share = of_node.iter().filter(|loss| !loss.is_heavy).map(|loss| loss.share).fold(0.0, f64::max);
            losses.extend(of_node);
        }
        let mut incomplete_nodes: Vec<IncompleteNode> = Vec::new();
        for (node, rows) in &of_nodes {
            if let Some(missing_share) = rows.missing_share() {
                incomplete_nodes.push(IncompleteNode { node: node.1.clone(), missing_share });
            }
        }
        // The sort is stable: nodes with equal shares stay in order of name.
        incomplete_nodes.sort_by(|a, b| b.missing_share.total_cmp(&a.missing_share));
        Coverage {
            rows: of_nodes.values().map(|rows| rows.rows).sum(),
            lost_events: losses.iter().map(|loss| loss.lost_events).sum(),
            losses,
            left_out_rows: of_nodes.values().map(|rows| rows.left_out).sum(),
            iterations_forgotten: run.iter().map(|member| member.process.iterations_forgotten).sum(),
            early_folds: self.early_folds,
            incomplete_nodes,
        }
    }
}

/// What a node lost while ranks of a run ran on it: each heavy loss by itself, all light ones together.
fn charged(node: &str, losses: &NodeLosses, run: &[Member<'_>]) -> Vec<ChargedLoss> {
    let members: Vec<&Member<'_>> = run.iter().filter(|member| &*member.node.name == node).collect();
    let lives: Vec<Span> = members.iter().filter_map(|member| member.process.life).collect();
    let Some(from_ns) = lives.iter().map(|life| life.start_ns).min() else { return Vec::new() };
    let to_ns = lives.iter().map(|life| life.end_ns).fold(from_ns, i64::max);
    let mut charged = Vec::new();
    // The range spans all processes of the run on the node. Between two of them there may be a time in which none ran.
    for loss in overlapping(losses.heavy(), from_ns, to_ns).iter().filter(|loss| is_of_run(loss, &lives)) {
        let not_judged = members.iter().map(|member| member.not_judged_within(loss)).sum();
        charged.push(charge(node, *loss, true, not_judged));
    }
    let light = overlapping(losses.light(), from_ns, to_ns).iter().filter(|loss| is_of_run(loss, &lives));
    charged.extend(Loss::sum(light.copied()).map(|loss| charge(node, loss, false, 0)));
    charged
}

/// Whether a process of the run ran while events were lost.
fn is_of_run(loss: &Loss, lives: &[Span]) -> bool {
    lives.iter().any(|life| loss.overlaps(life.start_ns, life.end_ns))
}

fn charge(node: &str, loss: Loss, is_heavy: bool, iterations_not_judged: u64) -> ChargedLoss {
    ChargedLoss {
        node: node.to_owned(),
        from_ns: loss.from_ns,
        to_ns: loss.to_ns,
        lost_events: loss.lost,
        made_events: loss.made,
        share: loss.share(),
        is_heavy,
        iterations_not_judged,
    }
}

/// Rows of one node, and what is missing among them.
#[derive(Debug, Default)]
struct Rows {
    rows: u64,
    left_out: u64,
    /// Of what the node made while it lost events that no iteration was left out for, 0 to 1.
    lost_share: f64,
}

impl Rows {
    /// `None` when nothing is missing.
    fn missing_share(&self) -> Option<f64> {
        // Two filters in series: of the events made, `lost_share` never became rows, and of the rows a part was left
        // out. Rows of processes beyond the bound are among `left_out` and not among `rows`, hence the lower bound of
        // 0.
        let kept = (1.0 - self.lost_share) * (1.0 - self.left_out as f64 / self.rows.max(1) as f64).max(0.0);
        (self.lost_share > 0.0 || self.left_out > 0).then_some(1.0 - kept)
    }
}
