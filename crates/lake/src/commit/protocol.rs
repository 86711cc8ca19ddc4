//! The one protocol of all commits: look at the head, ask whether the action is valid there, make the next version
//! durable, send it, resolve a lost reply, repeat. All waiting is bounded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use iceberg::spec::DataFile;
use objects::Store;
use tables::def::TableDef;
use tokio::time::Instant;
use uuid::Uuid;

use super::actions::{Action, Append, AppendRefusal, Checked, CommitRequest, Maintenance};
use super::base::{Base, Searched};
use super::change::{Change, LastList};
use super::outcome::{ActionOutcome, CommitError, CommitOutcome, Committed, Conflict};
use super::reply::{Attempt, Reply, Resolved, StopReason, resolve};
use super::version;
use crate::catalog::{Catalog, CatalogError, CommitReply, Head, HeadError, PreparedCommit};
use crate::environment::Environment;
use crate::table::positions::HeadFacts;
use crate::table::{TableIdent, Token, schema};

/// The longest pause after the first attempt that did not decide; doubled after each (exponential backoff).
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many landed paths are kept to refuse a file that is committed twice.
const PATHS_REMEMBERED: usize = 4_096;

/// What the tables of a lake have in common.
#[derive(Debug)]
pub(crate) struct Warehouse {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) store: Store,
    pub(crate) environment: Environment,
}

/// Commits to one table, one change after another.
#[derive(Debug)]
pub(crate) struct Committer {
    ident: TableIdent,
    /// What the files are made for.
    def: Arc<TableDef>,
    schema_id: i32,
    spec_id: i32,
    table: Uuid,
    catalog: Arc<dyn Catalog>,
    store: Store,
    environment: Environment,
    /// The highest sequence number seen: a table with a lower one was restored from an older copy.
    seen_sequence: AtomicI64,
    /// Locked by each commit, so that those of one process do not compete. Holds what the last commit leaves for the
    /// next.
    last: tokio::sync::Mutex<Option<LastList>>,
    landed: Mutex<LandedPaths>,
}

/// Which change landed which file, for the last few thousand files of this process.
#[derive(Debug, Default)]
struct LandedPaths {
    tokens: HashMap<String, Token>,
    order: VecDeque<String>,
}

impl LandedPaths {
    fn add(&mut self, files: &[DataFile], token: Token) {
        for file in files {
            // A path that is there already is not queued again, so that queue and map hold the same paths.
            if self.tokens.insert(file.file_path().to_owned(), token).is_none() {
                self.order.push_back(file.file_path().to_owned());
            }
        }
        while self.order.len() > PATHS_REMEMBERED {
            self.order.pop_front().and_then(|path| self.tokens.remove(&path));
        }
    }

    fn is_of_another(&self, path: &str, token: Token) -> bool {
        self.tokens.get(path).is_some_and(|landed| *landed != token)
    }
}

/// How a commit of any action ended.
enum Ended<R> {
    Committed(Committed),
    Refused(R),
    Stop(StopReason),
    Unknown(CommitError),
    Unreachable(CommitError),
}

/// A version that is durable, ready to be sent.
struct Prepared<'a> {
    commit: Box<dyn PreparedCommit + 'a>,
    list: Option<LastList>,
    obsolete: Vec<String>,
}

/// How far one commit has come.
struct Progress {
    /// The head that was read last.
    base: Arc<str>,
    deadline: Instant,
    /// The longest the next pause may be.
    pause: Duration,
    swaps: u32,
    reply: Reply,
    /// A swap whose fate is unknown, and the pointer it started from: once the pointer has left that place, the swap
    /// cannot be applied any more.
    unresolved: Option<(Arc<str>, CommitError)>,
}

impl Progress {
    fn new(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self { base: "".into(), deadline, pause: FIRST_PAUSE, swaps: 0, reply: Reply::NotSent, unresolved: None }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    async fn pause(&mut self, environment: &Environment) {
        // Random pauses (full jitter): writers that lost the same race do not meet again.
        tokio::time::sleep((environment.jitter)(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Gives up because the time is over.
    fn run_out<R>(self) -> Ended<R> {
        let error = match self.swaps {
            // No other writer was met: the head came too late, or no request left this machine.
            0 => CommitError::SlowCatalog,
            swaps => CommitError::Contention { swaps },
        };
        self.give_up(error)
    }

    fn give_up<R>(self, error: CommitError) -> Ended<R> {
        match self.unresolved {
            // A swap may still be applied: the caller must repeat this request and must not replace it.
            Some((_, lost_reply)) => Ended::Unknown(lost_reply),
            None => Ended::Unreachable(error),
        }
    }
}

impl Committer {
    pub(crate) fn new(ident: TableIdent, def: Arc<TableDef>, head: &Head, warehouse: Warehouse) -> Self {
        let Warehouse { catalog, store, environment } = warehouse;
        Self {
            ident,
            def,
            schema_id: head.metadata.current_schema_id(),
            spec_id: head.metadata.default_partition_spec_id(),
            table: head.metadata.uuid(),
            catalog,
            store,
            environment,
            seen_sequence: AtomicI64::new(head.metadata.last_sequence_number()),
            last: tokio::sync::Mutex::default(),
            landed: Mutex::default(),
        }
    }

    /// Lands a batch.
    pub(crate) async fn append(&self, request: &CommitRequest) -> CommitOutcome {
        match self.commit(&Append { request }, request.token).await {
            Ended::Committed(committed) => CommitOutcome::Committed(committed),
            Ended::Refused(AppendRefusal::Trim(keep)) => CommitOutcome::Trim(keep),
            Ended::Refused(AppendRefusal::Drop) => CommitOutcome::Drop,
            Ended::Refused(AppendRefusal::Stop(reason)) | Ended::Stop(reason) => CommitOutcome::Stop(reason),
            Ended::Unknown(error) => CommitOutcome::Unknown(error),
            Ended::Unreachable(error) => CommitOutcome::Unreachable(error),
        }
    }

    /// Commits any other action.
    pub(crate) async fn maintain(&self, action: &Maintenance, token: Token) -> ActionOutcome {
        let ended = match action {
            Maintenance::Replace(action) => self.commit(action, token).await,
            Maintenance::Remake(action) => self.commit(action, token).await,
            Maintenance::DeleteFiles(action) => self.commit(action, token).await,
            Maintenance::Expire(action) => self.commit(action, token).await,
            Maintenance::Pin(action) => self.commit(action, token).await,
            Maintenance::SetProperties(action) => self.commit(action, token).await,
            Maintenance::Evolve(action) => self.commit(&**action, token).await,
            Maintenance::RollBack(action) => self.commit(action, token).await,
        };
        outcome(ended)
    }

    async fn commit<A: Action>(&self, action: &A, token: Token) -> Ended<A::Refusal> {
        let mut last = self.last.lock().await;
        let mut progress = Progress::new(self.environment.commit_limit);
        let searched = Searched::default();
        // Before anything is read: such a request is refused on every head.
        if let Some(problem) = action.problem().or_else(|| self.twice(action.adds().unwrap_or_default(), token)) {
            return Ended::Stop(StopReason::Request(problem));
        }
        loop {
            let head = match self.look(&mut progress).await {
                Ok(head) => head,
                // The catalog has answered: the table was dropped or renamed.
                Err(HeadError::NotFound(_)) => return Ended::Stop(StopReason::TableDropped),
                Err(error) if progress.is_over() || !error.is_transient() => {
                    return progress.give_up(CommitError::Head(error));
                }
                Err(_) => {
                    progress.pause(&self.environment).await;
                    continue;
                }
            };
            let facts = HeadFacts::of(&head.metadata);
            // Judges the reply of the pass before by a head that was read after it. In the first pass nothing was sent,
            // and the token is found if an earlier call has landed this change: commits are idempotent.
            match resolve(progress.reply, &facts, &self.attempt(token)) {
                Resolved::Committed => return Ended::Committed(self.found(&head, action, token, &progress)),
                Resolved::Stop(reason) => return Ended::Stop(reason),
                Resolved::Open => {}
            }
            self.note_sequence(facts.sequence);
            let base = Base {
                ident: &self.ident,
                head: &head,
                facts: &facts,
                token,
                store: &self.store,
                environment: &self.environment,
                last: last.as_ref(),
                searched: &searched,
            };
            let found = match in_time(progress.deadline, action.check(&base)).await {
                Ok(Checked::Valid(found)) => found,
                Ok(Checked::Refused(refusal)) => return Ended::Refused(refusal),
                Err(error) => return progress.give_up(error),
            };
            // After the check, whose answer is final however late; before the objects, which would only be orphans.
            if progress.is_over() {
                return progress.run_out();
            }
            // Only files must fit schema and spec: a change of properties lands on any.
            if let Some(problem) = self.misfit(&head).filter(|_| action.adds().is_some()) {
                return Ended::Stop(StopReason::Altered(problem));
            }
            let Prepared { commit, list, obsolete } =
                match in_time(progress.deadline, self.prepare(&base, action, found)).await {
                    Ok(prepared) => prepared,
                    Err(error) => return progress.give_up(error),
                };
            // Not cut off at the deadline, because that alone would make its result unknown. The catalog limits the
            // wait for the reply.
            if let Some(head) = self.hear(&mut progress, commit.commit().await) {
                // The next commit need not read this list back, unless another writer commits in between.
                *last = list;
                // After the swap: until then the table names these objects.
                self.delete(obsolete);
                return Ended::Committed(self.applied(&head, action, token, &progress));
            }
            progress.pause(&self.environment).await;
        }
    }

    fn attempt(&self, token: Token) -> Attempt {
        Attempt { table: self.table, seen_sequence: self.seen_sequence.load(Ordering::Acquire), token }
    }

    fn note_sequence(&self, sequence: i64) {
        self.seen_sequence.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Reads the head. Once the table has left the base of a commit whose reply was lost, that commit cannot be applied
    /// any more.
    async fn look(&self, progress: &mut Progress) -> Result<Head, HeadError> {
        let head = self.catalog.load(&self.ident).await?;
        if progress.unresolved.as_ref().is_some_and(|(base, _)| *base != head.location) {
            // A later timeout is `Unreachable` again: no swap of this call can be applied any more.
            progress.unresolved = None;
        }
        progress.base = Arc::clone(&head.location);
        Ok(head)
    }

    /// Why files made here do not fit the table any more: it was altered after it was opened.
    fn misfit(&self, head: &Head) -> Option<String> {
        // A schema never changes under its id, and this is asked at every commit.
        if head.metadata.current_schema_id() != self.schema_id
            && let Err(mismatch) = schema::verify(&self.def, &self.ident, &head.metadata)
        {
            return Some(mismatch.to_string());
        }
        // Partition values of the files belong to this spec, and manifests are written with the default one.
        let expected = self.spec_id;
        let found = head.metadata.default_partition_spec_id();
        (found != expected).then(|| format!("its partition spec is {found} now, files are written for {expected}"))
    }

    /// Builds the next version and makes its objects durable.
    async fn prepare<'a, A: Action>(
        &'a self,
        base: &Base<'a>,
        action: &A,
        found: A::Found,
    ) -> Result<Prepared<'a>, CommitError> {
        let Change { updates, objects, list, obsolete } = action.apply(base, found).await?;
        let version = version::next(base, updates)?;
        let store = &self.store;
        // Manifests and metadata file are written at the same time: nothing names them before the swap, so their order
        // is free.
        let puts = objects.into_iter().map(|(location, bytes)| async move { store.put(&location, bytes).await });
        let objects = async { try_join_all(puts).await.map_err(CommitError::Store) };
        let commit = async { Ok(self.catalog.prepare(&self.ident, base.head, version).await?) };
        let commit = tokio::try_join!(objects, commit)?.1;
        Ok(Prepared { commit, list, obsolete })
    }

    /// Records a reply; returns the new head when the commit was applied.
    fn hear(&self, progress: &mut Progress, reply: CommitReply) -> Option<Head> {
        // A request that did not leave this machine is no swap.
        progress.swaps += u32::from(!matches!(reply, CommitReply::NotSent(_)));
        progress.reply = match reply {
            CommitReply::Applied(head) => return Some(head),
            CommitReply::Lost => Reply::Lost,
            CommitReply::NotSent(error) => self.not_sent(&error),
            CommitReply::Unknown(error) => self.reply_lost(progress, error),
        };
        None
    }

    fn not_sent(&self, error: &CatalogError) -> Reply {
        tracing::warn!(table = %self.ident, %error, "commit not sent");
        Reply::NotSent
    }

    fn reply_lost(&self, progress: &mut Progress, error: CatalogError) -> Reply {
        tracing::warn!(table = %self.ident, %error, "commit reply lost, reading the head and committing again");
        // The swap can be applied for as long as the table is at this base.
        progress.unresolved = Some((Arc::clone(&progress.base), CommitError::Catalog(error)));
        Reply::Unknown
    }

    /// Deletes objects that no version needs any more, without waiting: one that stays is an orphan and harmless.
    fn delete(&self, obsolete: Vec<String>) {
        if obsolete.is_empty() {
            return;
        }
        tokio::spawn(delete_all(self.store.clone(), obsolete));
    }

    /// The change that a commit of this call has put into the table.
    fn applied<A: Action>(&self, head: &Head, action: &A, token: Token, progress: &Progress) -> Committed {
        self.note_sequence(head.metadata.last_sequence_number());
        self.remember_files(action, token);
        Committed {
            snapshot_id: token.snapshot_id(),
            sequence_number: head.metadata.last_sequence_number(),
            metadata_version: head.version(),
            swaps: progress.swaps,
        }
    }

    /// The change whose token was found in the head.
    fn found<A: Action>(&self, head: &Head, action: &A, token: Token, progress: &Progress) -> Committed {
        let sequence = head.metadata.last_sequence_number();
        self.note_sequence(sequence);
        self.remember_files(action, token);
        let snapshot_id = token.snapshot_id();
        let snapshot = head.metadata.snapshot_by_id(snapshot_id);
        Committed {
            snapshot_id,
            // No snapshot when the change was of properties alone, or when the snapshot has expired since.
            sequence_number: snapshot.map_or(sequence, |s| s.sequence_number()),
            metadata_version: head.version(),
            swaps: progress.swaps,
        }
    }

    fn remember_files<A: Action>(&self, action: &A, token: Token) {
        let files = action.adds().unwrap_or_default();
        self.landed.lock().unwrap_or_else(PoisonError::into_inner).add(files, token);
    }

    /// A file that is added twice, here or by an earlier change: its rows would be counted twice.
    fn twice(&self, files: &[DataFile], token: Token) -> Option<String> {
        let landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut paths = HashSet::new();
        let mut files = files.iter().map(DataFile::file_path);
        // The same token is a repetition of the same change, which `resolve` recognises in the head.
        let path = files.find(|path| !paths.insert(*path) || landed.is_of_another(path, token))?;
        Some(format!("the file {path} is committed twice"))
    }
}

async fn delete_all(store: Store, locations: Vec<String>) {
    for location in locations {
        if let Err(error) = store.delete(&location).await {
            tracing::debug!(location, %error, "a replaced object stays");
        }
    }
}

/// Waits for the store, but not beyond the deadline. What is ready at once is never too late.
async fn in_time<T>(deadline: Instant, work: impl Future<Output = Result<T, CommitError>>) -> Result<T, CommitError> {
    tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(CommitError::SlowStore))
}

fn outcome(ended: Ended<Conflict>) -> ActionOutcome {
    match ended {
        Ended::Committed(committed) => ActionOutcome::Committed(committed),
        Ended::Refused(conflict) => ActionOutcome::Conflict(conflict),
        Ended::Stop(reason) => ActionOutcome::Stop(reason),
        Ended::Unknown(error) => ActionOutcome::Unknown(error),
        Ended::Unreachable(error) => ActionOutcome::Unreachable(error),
    }
}
