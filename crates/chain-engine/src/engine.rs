//! The engine's shell: who is known, what is held back, when it is folded, what is reported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::columns::{ColumnError, Columns};
use crate::job::{JobKey, Member, judge, runs};
use crate::observation::Observation;
use crate::process::{Bounds, Process};
use crate::rules::Settings;
use crate::verdict::{Coverage, Finding, IncompleteNode};

/// A boot of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) cluster: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) boot_id: Arc<str>,
}

impl Node {
    fn is_of(&self, row: &Observation<'_>) -> bool {
        (&*self.cluster, &*self.name, &*self.boot_id) == (row.cluster, row.node, row.boot_id)
    }
}

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
    lost_events: BTreeMap<(String, String), u64>,
}

impl Engine {
    /// An engine with other thresholds or bounds than the default ones.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes rows of `silver.events`, in any order ([`crate::COLUMNS`] says which columns it reads).
    ///
    /// # Errors
    /// A column is missing, has a type that does not fit, or is null where it must not be; no row of the batch is taken then.
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
        if !self.processes.contains_key(&key) && self.processes.len() >= self.settings.limits.processes {
            *self.rows_of_unknown_processes.entry(key.0).or_default() += 1;
            return;
        }
        if self.processes.entry(key).or_default().observe(row, &self.settings.limits) {
            self.pending_rows += 1;
            self.bound_pending();
        }
    }

    /// Tells that a node lost events (ring buffer full, shed, spool overrun): answers about it are then less certain.
    pub fn note_loss(&mut self, cluster: &str, node: &str, events: u64) {
        *self.lost_events.entry((cluster.to_owned(), node.to_owned())).or_default() += events;
    }

    /// Says that every row which ended at or before `watermark_ns` (unix nanoseconds) has been given, and returns the present
    /// finding of every run of a job that has new iterations. A chain keeps its id while it lasts.
    pub fn advance(&mut self, watermark_ns: i64) -> Vec<Finding> {
        self.fold(watermark_ns);
        self.report(true)
    }

    /// As [`Engine::advance`], without a look at what is found so far.
    pub fn fold(&mut self, watermark_ns: i64) {
        let own = self.own_threads();
        for (&(node, _), process) in &mut self.processes {
            let own = own.get(&JobKey::of(&self.nodes[node], process));
            let bounds = Bounds { limits: &self.settings.limits, own, node };
            self.pending_rows -= process.fold_until(watermark_ns, bounds);
        }
        self.bound_iterations();
    }

    /// Folds everything and returns the finding of every run of every job.
    pub fn finish(mut self) -> Vec<Finding> {
        self.fold(i64::MAX);
        self.report(false)
    }

    fn node_number(&mut self, row: &Observation<'_>) -> usize {
        if self.nodes.get(self.last_node).is_some_and(|node| node.is_of(row)) {
            return self.last_node;
        }
        self.last_node = self.find_or_add_node(row);
        self.last_node
    }

    fn find_or_add_node(&mut self, row: &Observation<'_>) -> usize {
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
        let fullest = self.processes.iter_mut().max_by_key(|(key, process)| (process.pending_rows(), **key));
        if let Some((&(node, _), process)) = fullest {
            let own = own.get(&JobKey::of(&self.nodes[node], process));
            let bounds = Bounds { limits: &self.settings.limits, own, node };
            self.pending_rows -= process.fold_older_half(bounds);
            self.early_folds += 1;
        }
        self.bound_iterations();
    }

    fn bound_iterations(&mut self) {
        let kept: usize = self.processes.values().flat_map(|p| p.threads.values()).map(|t| t.iterations().len()).sum();
        if kept <= self.settings.limits.iterations {
            return;
        }
        let threads = self.processes.values().flat_map(|p| p.threads.values()).filter(|t| !t.iterations().is_empty());
        let per_thread = (self.settings.limits.iterations / threads.count().max(1)).max(1);
        for process in self.processes.values_mut() {
            process.keep_latest_iterations(per_thread);
        }
    }

    fn report(&mut self, only_news: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (own, nobody) = (self.own_threads(), HashSet::new());
        for (job, members) in self.jobs() {
            let own = own.get(&job).unwrap_or(&nobody);
            for run in runs(members, &self.settings.rules) {
                if !only_news || run.iter().any(|member| member.process.has_news) {
                    findings.push(judge(&job, &run, own, &self.settings.rules, &self.coverage(&run)));
                }
            }
        }
        self.processes.values_mut().for_each(|process| process.has_news = false);
        findings
    }

    /// The ranks of each job, processes that never synchronised left out.
    fn jobs(&self) -> BTreeMap<JobKey, Vec<Member<'_>>> {
        let mut jobs: BTreeMap<JobKey, Vec<Member<'_>>> = BTreeMap::new();
        for (&(node_number, pid), process) in &self.processes {
            let node = &self.nodes[node_number];
            let Some(rank) = process.rank else { continue };
            let members = jobs.entry(JobKey::of(node, process)).or_default();
            members.extend(Member::new((node_number, node), pid, rank, process, &self.settings.rules));
        }
        jobs
    }

    /// Processes and threads of each job with their nodes, whether ranks or their helpers: waiting for them is not somebody
    /// else's doing.
    fn own_threads(&self) -> BTreeMap<JobKey, HashSet<(usize, i32)>> {
        let mut own: BTreeMap<JobKey, HashSet<(usize, i32)>> = BTreeMap::new();
        for (&(node, pid), process) in &self.processes {
            if process.rank.is_some() || process.job.is_some() {
                let of_job = own.entry(JobKey::of(&self.nodes[node], process)).or_default();
                of_job.extend(process.tids().chain([pid]).map(|id| (node, id)));
            }
        }
        own
    }

    fn coverage(&self, run: &[Member<'_>]) -> Coverage {
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
        of_nodes.iter_mut().for_each(|(node, rows)| rows.lost = self.lost_events.get(node).copied().unwrap_or(0));
        let share = |(node, rows): (&(String, String), &Rows)| {
            Some(IncompleteNode { node: node.1.clone(), missing_share: rows.missing_share()? })
        };
        let mut incomplete_nodes: Vec<IncompleteNode> = of_nodes.iter().filter_map(share).collect();
        incomplete_nodes.sort_by(|a, b| b.missing_share.total_cmp(&a.missing_share));
        Coverage {
            rows: of_nodes.values().map(|rows| rows.rows).sum(),
            lost_events: of_nodes.values().map(|rows| rows.lost).sum(),
            left_out_rows: of_nodes.values().map(|rows| rows.left_out).sum(),
            iterations_forgotten: run.iter().map(|member| member.process.iterations_forgotten).sum(),
            early_folds: self.early_folds,
            incomplete_nodes,
        }
    }
}

/// Rows of one node, and what is missing among them.
#[derive(Debug, Default)]
struct Rows {
    rows: u64,
    left_out: u64,
    lost: u64,
}

impl Rows {
    /// `None` when nothing is missing.
    fn missing_share(&self) -> Option<f64> {
        let missing = self.lost + self.left_out;
        let all = self.rows + self.lost;
        (missing > 0).then(|| (missing as f64 / all.max(1) as f64).min(1.0))
    }
}
