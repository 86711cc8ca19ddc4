//! Does the tasks: looks at every table, takes the most gainful task whose lease is free, rewrites, commits.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lake::{DataFile, FoldRows, Lake, Lease, Leases, TableHandle};
use maintenance::rewrite::{PrepareError, Rewriter, Verified, VerifyError};
use maintenance::task::{Rewrite, Work};
use maintenance::{LandError, Landed, Survey, Task, is_current, land, survey};
use service_kit::admin::Condition;
use service_kit::clock::Clock;
use service_kit::run::{Drain, in_a_line};
use tables::def::{TableDef, TableName};
use tables::registry::Table;

use crate::error::TaskError;
use crate::metrics::{Metrics, OutcomeLabel, TableLabel};
use crate::options::Options;
use crate::pace::Pace;

/// A round ends after this time, and the tables are looked at again: files that came meanwhile may be more gainful.
const ROUND: Duration = Duration::from_secs(60);
/// How long a set of files is not tried again that could not be rewritten.
const REFUSED: Duration = Duration::from_secs(3_600);
/// A lease is extended when a third of it has passed, so that one attempt may fail.
const RENEWALS: u32 = 3;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its files were replaced.
    Replaced,
    /// Another compactor has its lease.
    Leased,
    /// Its files are gone: another compactor has done it.
    Gone,
    /// The table moved so that the replacement did not fit any more.
    Conflict,
    /// The lease ended while it was done.
    LeaseLost,
    /// It was broken off, because the compactor is to end.
    Drained,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Leased => "leased",
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::LeaseLost => "lease_lost",
            Self::Drained => "drained",
        }
    }
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Tasks that ended by a commit.
    pub(crate) replaced: u64,
    /// Tasks and looks that failed.
    pub(crate) failed: u64,
    /// Tasks that were planned and are not done: they are another compactor's, or there was no time.
    pub(crate) left: u64,
}

/// What a worker works with.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) lake: Lake,
    pub(crate) leases: Leases,
    /// Names this worker in leases.
    pub(crate) holder: String,
    pub(crate) tables: &'static [Table],
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) pace: Pace,
    /// Met while the tables can be looked at.
    pub(crate) looking: Condition,
    pub(crate) handles: BTreeMap<TableName, TableHandle>,
    /// Sets of files that could not be rewritten, and when they may be tried again.
    pub(crate) refused: BTreeMap<BTreeSet<String>, Instant>,
    /// Why a table is left alone, as it was logged last.
    pub(crate) reasons: BTreeMap<TableName, String>,
}

impl Worker {
    /// Looks at all tables and does what there is to do, for about a minute.
    pub(crate) async fn round(&mut self, drain: &Drain) -> Result<Round, TaskError> {
        let began = Instant::now();
        let mut round = Round::default();
        let mut tasks = match self.plan(&mut round).await {
            Ok(tasks) => tasks,
            Err(error) => {
                self.looking.unmet(format!("looking at the tables failed: {}", in_a_line(&error)));
                return Err(error);
            }
        };
        // Not at the end of the round: what there is to do may take long.
        self.looking.met();
        tasks.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let count = tasks.len() as u64;
        for (done, task) in (0..).zip(tasks) {
            if drain.is_cancelled() || began.elapsed() >= ROUND {
                round.left += count - done;
                break;
            }
            self.count(&task, &mut round, drain).await;
        }
        Ok(round)
    }

    async fn count(&mut self, task: &Task, round: &mut Round, drain: &Drain) {
        let outcome = self.perform(task, drain).await;
        let label = match &outcome {
            Ok(outcome) => outcome.label(),
            Err(TaskError::Prepare(PrepareError::Verify(VerifyError::Differs { .. }))) => "refused",
            Err(_) => "failed",
        };
        let label = OutcomeLabel { table: task.table.to_string(), outcome: label };
        self.metrics.tasks.get_or_create(&label).inc();
        match outcome {
            Ok(Outcome::Replaced) => round.replaced += 1,
            Ok(Outcome::Gone) => {}
            Ok(_) => round.left += 1,
            Err(error) => {
                round.failed += 1;
                self.fail(task, &error);
            }
        }
    }

    /// Remembers what is not to be tried again at once.
    fn fail(&mut self, task: &Task, error: &TaskError) {
        if error.is_transient() {
            return warn(task.table, error, "a task failed; it is planned again");
        }
        if let TaskError::Land(LandError::Stopped { .. }) = error {
            self.handles.remove(&task.table);
            return warn(task.table, error, "the table is not the one that was opened; it is opened anew");
        }
        tracing::error!(table = %task.table, reason = in_a_line(error), "files are left as they are for an hour");
        self.refused.insert(names(task), Instant::now() + REFUSED);
    }

    /// The tasks of all tables that exist. A table that cannot be looked at does not keep the others from it.
    async fn plan(&mut self, round: &mut Round) -> Result<Vec<Task>, TaskError> {
        self.refused.retain(|_, until| *until > Instant::now());
        let listed = self.lake.list().await.map_err(TaskError::Catalog)?;
        let mut tasks = Vec::new();
        for table in self.tables {
            let name = table.def.name;
            // Not made here: the table begins when ingest makes it.
            if !listed.iter().any(|ident| ident.namespace == name.namespace && ident.name == name.name) {
                continue;
            }
            match self.plan_table(table).await {
                Ok(planned) => {
                    self.reasons.remove(&name);
                    tasks.extend(planned);
                }
                Err(error) => {
                    round.failed += u64::from(!matches!(error, TaskError::LeftAlone { .. }));
                    self.leave_alone(name, &error);
                }
            }
        }
        // By their files and not by day: what else is in the day can be merged all the same.
        tasks.retain(|task| !self.refused.contains_key(&names(task)));
        Ok(tasks)
    }

    fn leave_alone(&mut self, table: TableName, error: &TaskError) {
        let reason = in_a_line(error);
        self.metrics.left_alone.get_or_create(&TableLabel::of(table)).set(1);
        // Once, and not in every round.
        if self.reasons.get(&table) != Some(&reason) {
            tracing::warn!(table = %table, reason, "a table is not maintained");
            self.reasons.insert(table, reason);
        }
    }

    async fn plan_table(&mut self, table: &Table) -> Result<Vec<Task>, TaskError> {
        let name = table.def.name;
        let handle = self.handle(table).await?;
        let found = survey(&handle, &self.options.policy, self.clock.now_ms()).await;
        let found = found.map_err(|source| TaskError::Read { table: name, source })?;
        if let Survey::LeftAlone(source) = found {
            return Err(TaskError::LeftAlone { table: name, source });
        }
        self.metrics.left_alone.get_or_create(&TableLabel::of(name)).set(0);
        let Survey::Planned(plan) = found else { return Ok(Vec::new()) };
        self.metrics.show(name, &plan);
        Ok(plan.tasks)
    }

    async fn handle(&mut self, table: &Table) -> Result<TableHandle, TaskError> {
        let name = table.def.name;
        if let Some(handle) = self.handles.get(&name) {
            return Ok(handle.clone());
        }
        // Checks that the columns are those of the definition: what does not fit is an error that names each.
        let opened = self.lake.ensure_table(&table.def).await;
        let handle = opened.map_err(|source| TaskError::Open { table: name, source })?;
        self.handles.insert(name, handle.clone());
        Ok(handle)
    }

    fn fold(&self, table: TableName) -> Option<FoldRows> {
        self.tables.iter().find(|known| known.def.name == table)?.fold()
    }

    /// Does one task under its lease.
    async fn perform(&mut self, task: &Task, drain: &Drain) -> Result<Outcome, TaskError> {
        let Work::Rewrite(rewrite) = &task.work;
        let Some(handle) = self.handles.get(&task.table).cloned() else { return Ok(Outcome::Gone) };
        if !self.wait_for_pace(drain).await {
            return Ok(Outcome::Drained);
        }
        let taken = self.leases.acquire(&task.lease(), &self.holder, self.options.lease).await;
        let Some(lease) = taken.map_err(TaskError::Lease)? else { return Ok(Outcome::Leased) };
        let outcome = self.perform_leased(&handle, rewrite, &lease, drain).await;
        // In every case: without it the task would wait for the end of the lease.
        if let Err(error) = self.leases.release(&lease).await {
            tracing::debug!(%error, "a lease is not released, and ends by itself");
        }
        outcome
    }

    /// Waits until more bytes may be read; `false`: the compactor is to end.
    async fn wait_for_pace(&self, drain: &Drain) -> bool {
        // Before the lease: another compactor may have room where this one has none.
        let wait = self.pace.wait(self.clock.now_ms());
        tokio::select! {
            () = tokio::time::sleep(wait) => !drain.is_cancelled(),
            () = drain.cancelled() => false,
        }
    }

    async fn perform_leased(
        &mut self,
        handle: &TableHandle,
        rewrite: &Rewrite,
        lease: &Lease,
        drain: &Drain,
    ) -> Result<Outcome, TaskError> {
        let name = handle.def().name;
        // After the lease is taken: who had it before may have done this task.
        let current = is_current(handle, rewrite).await.map_err(|source| TaskError::Read { table: name, source })?;
        if !current {
            return Ok(Outcome::Gone);
        }
        // Also of a rewrite that fails: what it has read was read.
        self.pace.spend(rewrite.bytes(), self.clock.now_ms());
        let began = Instant::now();
        let (policy, limits) = (&self.options.policy, &self.options.limits);
        let rewriter = Rewriter { table: handle, fold: self.fold(name), policy, limits };
        let verified = tokio::select! {
            verified = rewriter.rewrite(rewrite) => verified?,
            // Dropped where it stands: what it has written are orphans.
            () = drain.cancelled() => return Ok(Outcome::Drained),
            () = self.keep(lease) => return Ok(Outcome::LeaseLost),
        };
        let label = TableLabel::of(name);
        self.metrics.rewrite_seconds.get_or_create(&label).observe(began.elapsed().as_secs_f64());
        self.metrics.read_bytes.get_or_create(&label).inc_by(rewrite.bytes());
        self.metrics.rows.get_or_create(&label).inc_by(rewrite.rows());
        // A process that was stopped for long would commit work that another one is doing again: a conflict for that
        // one.
        if !self.leases.renew(lease, self.options.lease).await.map_err(TaskError::Lease)? {
            return Ok(Outcome::LeaseLost);
        }
        self.commit(handle, rewrite, &verified).await
    }

    async fn commit(&self, handle: &TableHandle, rewrite: &Rewrite, verified: &Verified) -> Result<Outcome, TaskError> {
        let name = handle.def().name;
        let label = TableLabel::of(name);
        let began = Instant::now();
        // Not broken off by a drain: its result would not be known.
        let landed = land(handle, &verified.replacement()).await?;
        self.metrics.commit_seconds.get_or_create(&label).observe(began.elapsed().as_secs_f64());
        match landed {
            Landed::Committed(committed) => {
                self.count_replaced(&label, rewrite, verified);
                log_replaced(name, rewrite, verified, committed.swaps);
                self.tag(handle.def(), verified.files()).await;
                Ok(Outcome::Replaced)
            }
            Landed::Conflict(conflict) => {
                warn(name, &conflict, "a rewrite came too late; the table is planned anew");
                Ok(Outcome::Conflict)
            }
        }
    }

    /// Tags files that a commit names, so that the rule of the bucket may move them to cheaper storage classes. Tagged
    /// before the commit, an orphan would move too, and be billed for months.
    async fn tag(&self, def: &TableDef, files: &[DataFile]) {
        let store = self.lake.store();
        if !def.tiers || !store.supports_tags() {
            return;
        }
        let label = TableLabel::of(def.name);
        for file in files {
            match store.complete(file.file_path()).await {
                Ok(()) => {
                    self.metrics.tagged_files.get_or_create(&label).inc();
                }
                Err(error) => {
                    self.metrics.untagged_files.get_or_create(&label).inc();
                    warn(def.name, &error, "a merged file was not tagged; it moves to no cheaper class");
                }
            }
        }
    }

    fn count_replaced(&self, label: &TableLabel, rewrite: &Rewrite, verified: &Verified) {
        self.metrics.written_bytes.get_or_create(label).inc_by(verified.bytes());
        self.metrics.spilled_bytes.get_or_create(label).inc_by(verified.spilled_bytes());
        self.metrics.files_removed.get_or_create(label).inc_by(rewrite.inputs.len() as u64);
        self.metrics.files_added.get_or_create(label).inc_by(verified.files().len() as u64);
    }

    /// Extends the lease again and again; returns when it is lost.
    async fn keep(&self, lease: &Lease) {
        loop {
            tokio::time::sleep(self.options.lease / RENEWALS).await;
            match self.leases.renew(lease, self.options.lease).await {
                Ok(true) => {}
                Ok(false) => return,
                // The next attempt comes before the lease ends. The commit asks once more.
                Err(error) => tracing::warn!(%error, "a lease was not extended"),
            }
        }
    }
}

fn warn(table: TableName, error: &dyn Error, what: &str) {
    tracing::warn!(table = %table, reason = in_a_line(error), "{what}");
}

fn log_replaced(table: TableName, rewrite: &Rewrite, verified: &Verified, swaps: u32) {
    tracing::info!(
        table = %table,
        why = %rewrite.why,
        files = rewrite.inputs.len(),
        into = verified.files().len(),
        bytes = rewrite.bytes(),
        written = verified.bytes(),
        swaps,
        "files replaced"
    );
}

fn gain(task: &Task) -> f64 {
    match &task.work {
        Work::Rewrite(rewrite) => rewrite.gain(),
    }
}

/// The files of a task.
fn names(task: &Task) -> BTreeSet<String> {
    match &task.work {
        Work::Rewrite(rewrite) => rewrite.inputs.iter().map(|input| input.location.clone()).collect(),
    }
}
