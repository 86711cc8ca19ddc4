//! The task of one table: collects the table's share of each batch, and commits by the table's policy. A table that is
//! slow finds more in its share each time and delays no other table; what its share holds counts against the memory of
//! ingest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, TopicPartition};
use futures::future::try_join_all;
use service_kit::run::Drain;
use tables::registry::{Content, Table};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::share::{Share, SharedBatch};
use crate::sink::{Sink, SinkError};
use crate::standing::Standing;

/// A table without rows that lies fewer messages than this behind is committed rarely: recovery reads so few quickly.
const FEW_MESSAGES: u64 = 1_024;
/// How many times longer such a table waits.
const RARELY: u32 = 12;

/// How soon a share is landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// When the policy of the table requires it.
    ByPolicy,
    /// Rows at once. A table without rows may wait.
    Rows,
    /// At once, also without rows.
    All,
}

/// How often tables are committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// A batch is closed when it is this old. Policies count in it.
    pub(crate) commit_interval: Duration,
    /// A table without rows is committed when it was not for this long, or [`RARELY`] times as long while it lies only
    /// [`FEW_MESSAGES`] behind.
    pub(crate) idle_commit_interval: Duration,
}

/// What the task of a table reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The table holds more than before.
    Landed,
    /// The task has ended.
    Failed(SinkError),
}

/// The task of a table has ended; its report has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the task of a table has ended")]
pub(crate) struct TaskEnded;

/// The mailbox of a task.
#[derive(Debug)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Waiting {
    share: Share,
    urgency: Urgency,
    /// Shares that were posted so far.
    posted: u64,
    is_closed: bool,
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Shares posted, of which nothing that was urgent is left.
    settled: u64,
    is_over: bool,
}

impl Mailbox {
    fn new() -> Self {
        let waiting = Waiting { share: Share::default(), urgency: Urgency::ByPolicy, posted: 0, is_closed: false };
        let progress = watch::Sender::new(Progress { settled: 0, is_over: false });
        Self { waiting: Mutex::new(waiting), changed: Notify::new(), progress }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, share: Share, urgency: Urgency) {
        let mut waiting = self.waiting();
        waiting.share.append(share);
        waiting.urgency = waiting.urgency.max(urgency);
        waiting.posted += 1;
        drop(waiting);
        // A permit is kept where the task does not wait yet (tokio, `Notify`): no post is missed between its look and
        // its wait.
        self.changed.notify_one();
    }

    fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_one();
    }

    fn settle(&self, posted: u64) {
        self.progress.send_modify(|progress| progress.settled = progress.settled.max(posted));
    }

    /// Waits until nothing urgent is left of what was posted before.
    async fn settled(&self) -> Result<(), TaskEnded> {
        let posted = self.waiting().posted;
        let mut progress = self.progress.subscribe();
        // Only what was posted until now counts: later shares do not prolong the wait.
        let reached = progress.wait_for(|progress| progress.is_over || progress.settled >= posted).await;
        match reached {
            Ok(progress) if progress.settled >= posted => Ok(()),
            _ => Err(TaskEnded),
        }
    }
}

/// What a task does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Land,
    /// Waits for a share, and until then at most.
    Wait(Option<Instant>),
    End,
}

/// The body of a task.
struct Worker {
    sink: Sink,
    standing: Standing,
    mailbox: Arc<Mailbox>,
    pace: Pace,
    /// When the table was committed last.
    committed: Instant,
    reports: mpsc::UnboundedSender<Report>,
}

impl Worker {
    async fn run(mut self) {
        let ended = self.land_all().await;
        // The run may be gone.
        if let Err(error) = ended {
            let _ = self.reports.send(Report::Failed(error));
        }
        self.mailbox.progress.send_modify(|progress| progress.is_over = true);
    }

    async fn land_all(&mut self) -> Result<(), SinkError> {
        loop {
            match self.next(Instant::now()) {
                Next::End => return Ok(()),
                Next::Wait(None) => self.mailbox.changed.notified().await,
                Next::Wait(Some(due)) => {
                    // The time is over, or a share has come: `next` decides again.
                    let _ = tokio::time::timeout_at(due.into(), self.mailbox.changed.notified()).await;
                }
                Next::Land => {
                    let Waiting { share, posted, .. } = self.take();
                    self.sink.land(&share).await?;
                    // Its memory is free before the table counts as settled.
                    drop(share);
                    self.committed = Instant::now();
                    self.mailbox.settle(posted);
                    let _ = self.reports.send(Report::Landed);
                }
            }
        }
    }

    fn take(&self) -> Waiting {
        let mut waiting = self.mailbox.waiting();
        // `posted` is copied under the same lock: what is posted while this share lands is not settled by it.
        let taken = Waiting { share: std::mem::take(&mut waiting.share), ..*waiting };
        waiting.urgency = Urgency::ByPolicy;
        taken
    }

    fn next(&self, now: Instant) -> Next {
        let mut waiting = self.mailbox.waiting();
        let has_rows = waiting.share.has_rows();
        let is_urgent = waiting.urgency == Urgency::All || (waiting.urgency == Urgency::Rows && has_rows);
        if is_urgent {
            return Next::Land;
        }
        waiting.urgency = Urgency::ByPolicy;
        self.mailbox.settle(waiting.posted);
        // After what is urgent: closing lands that first. The rest is in the log.
        if waiting.is_closed {
            return Next::End;
        }
        let due = waiting.share.due(self.sink.policy(), self.pace.commit_interval);
        match due.or_else(|| self.idle_due(&waiting.share)) {
            Some(due) if due <= now => Next::Land,
            due => Next::Wait(due),
        }
    }

    /// When a table without rows is to follow; `None` when it is not behind.
    fn idle_due(&self, share: &Share) -> Option<Instant> {
        // A range is empty where only a gap is missing; the table is behind all the same.
        let behind: u64 = self.standing.missing(&share.ends).iter().map(|range| range.len().max(1)).sum();
        let times = match behind {
            0 => return None,
            FEW_MESSAGES.. => 1,
            _ => RARELY,
        };
        Some(self.committed + self.pace.idle_commit_interval * times)
    }
}

/// A table, and its running task.
#[derive(Debug)]
struct TableTask {
    table: &'static Table,
    standing: Standing,
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

/// The tasks of all tables.
#[derive(Debug)]
pub(crate) struct TableTasks(Vec<TableTask>);

impl TableTasks {
    /// Starts a task for each table, on a thread of its own: encoding is work, not waiting. They end where they stand
    /// when `abandoned` is cancelled: the log still has what did not land.
    pub(crate) fn start(sinks: Vec<Sink>, pace: Pace, abandoned: &Drain) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (reports, receive) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for sink in sinks {
            let table = sink.table();
            let standing = sink.standing();
            let mailbox = Arc::new(Mailbox::new());
            let worker = Worker {
                sink,
                standing: standing.clone(),
                mailbox: Arc::clone(&mailbox),
                pace,
                committed: Instant::now(),
                reports: reports.clone(),
            };
            let abandoned = abandoned.clone();
            let runtime = tokio::runtime::Handle::current();
            // A thread of the blocking pool for the life of the task: encoding would hold up the other tasks of the
            // runtime.
            let thread = tokio::task::spawn_blocking(move || {
                let _ = runtime.block_on(abandoned.run_until_cancelled(worker.run()));
            });
            tasks.push(TableTask { table, standing, mailbox, thread });
        }
        (Self(tasks), receive)
    }

    fn of(&self, content: Content) -> impl Iterator<Item = &TableTask> {
        self.0.iter().filter(move |task| task.table.content == content)
    }

    /// Posts their shares of a batch to the tables, except to those with this content.
    pub(crate) fn post(&self, batch: &SharedBatch, urgency: Urgency, except: &[Content]) {
        for task in self.0.iter().filter(|task| !except.contains(&task.table.content)) {
            task.mailbox.post(Share::of(task.table, batch), urgency);
        }
    }

    /// Lands a batch in the tables with this content.
    pub(crate) async fn land(&self, batch: &SharedBatch, urgency: Urgency, content: Content) -> Result<(), TaskEnded> {
        for task in self.of(content) {
            task.mailbox.post(Share::of(task.table, batch), urgency);
            task.mailbox.settled().await?;
        }
        Ok(())
    }

    /// Waits until nothing urgent is left of what was posted.
    pub(crate) async fn settled(&self) -> Result<(), TaskEnded> {
        for task in &self.0 {
            task.mailbox.settled().await?;
        }
        Ok(())
    }

    /// Reads where every table stands on logs.
    ///
    /// # Errors
    /// A table cannot be read.
    pub(crate) async fn take_over(&self, logs: &[TopicPartition]) -> Result<(), SinkError> {
        let reading = self.standings().map(async |(table, standing)| {
            standing.take_over(logs).await.map_err(|source| SinkError::Offsets { table, source })
        });
        try_join_all(reading).await?;
        Ok(())
    }

    /// Where the tables stand, each with its name.
    pub(crate) fn standings(&self) -> impl Iterator<Item = (String, &Standing)> {
        self.0.iter().map(|task| (task.table.def.name.to_string(), &task.standing))
    }

    /// Forgets logs that are not read any more, and how far they are to be landed. What of them had rows has landed.
    pub(crate) fn give_up(&self, logs: &[TopicPartition]) {
        for task in &self.0 {
            task.mailbox.waiting().share.give_up(logs);
            task.standing.give_up(logs);
        }
    }

    /// Where the table that is furthest behind stands.
    pub(crate) fn landed_up_to(&self, at: &TopicPartition) -> NextOffset {
        self.0.iter().map(|task| task.standing.next(at)).min().unwrap_or_default()
    }

    /// Where the table with this content stands; `None` without one.
    pub(crate) fn next_of(&self, content: Content, at: &TopicPartition) -> Option<NextOffset> {
        self.of(content).map(|task| task.standing.next(at)).next()
    }

    /// Ends the tasks once nothing urgent is left.
    pub(crate) async fn close(&mut self) {
        // All are closed before one is waited for: they end side by side.
        self.0.iter().for_each(|task| task.mailbox.close());
        for task in self.0.drain(..) {
            if let Err(error) = task.thread.await {
                tracing::error!(table = %task.table.def.name, %error, "the task of a table did not end by itself");
            }
        }
    }
}

#[cfg(test)]
mod tests;
