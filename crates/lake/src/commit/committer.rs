//! The shell around the protocol: reads the head, asks [`after`] what it means, builds and uploads the next version,
//! swaps the pointer, and tries again. All waiting is bounded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use iceberg::spec::{DataFile, ManifestFile};
use objects::Store;
use tables::def::TableDef;
use tokio::time::Instant;
use uuid::Uuid;

use super::outcome::Committed;
use super::version::{self, Proposal};
use super::{BatchFacts, CommitError, CommitOutcome, CommitRequest, HeadFacts, Next, Reply, StopReason, after};
use crate::catalog::{Catalog, CommitReply, Head, HeadError, PreparedCommit};
use crate::environment::Environment;
use crate::table::positions::is_free_property;
use crate::table::{TableIdent, Token, manifests, schema};

/// The pause after the first attempt that did not decide; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many landed paths are remembered to refuse a file that is committed twice.
const PATHS_REMEMBERED: usize = 4_096;

/// Commits to one table, one batch after another.
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
    /// The highest sequence number seen: a table that goes back was restored from somewhere.
    seen_sequence: AtomicI64,
    /// Attempts of one process do not compete with one another. Holds what the last commit leaves for the next.
    last: tokio::sync::Mutex<Option<LastList>>,
    landed: Mutex<LandedPaths>,
}

/// The manifest list written last, so that it need not be read back.
#[derive(Debug)]
struct LastList {
    location: String,
    manifests: Vec<ManifestFile>,
}

/// Which batch landed which file, for the last few thousand files of this process.
#[derive(Debug, Default)]
struct LandedPaths {
    tokens: HashMap<String, Token>,
    order: VecDeque<String>,
}

impl LandedPaths {
    fn add(&mut self, request: &CommitRequest) {
        for file in &request.files {
            if self.tokens.insert(file.file_path().to_owned(), request.token).is_none() {
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

/// A commit that is ready to be sent, and what it leaves when it lands.
struct Prepared<'a> {
    commit: Box<dyn PreparedCommit + 'a>,
    landing: Landing,
}

struct Landing {
    sequence_number: i64,
    list: LastList,
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
        tokio::time::sleep((environment.jitter)(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn give_up(self, error: CommitError) -> CommitOutcome {
        match self.unresolved {
            Some((_, lost_reply)) => CommitOutcome::Unknown(lost_reply),
            None => CommitOutcome::Unreachable(error),
        }
    }
}

impl Committer {
    pub(crate) fn new(
        ident: TableIdent,
        def: Arc<TableDef>,
        head: &Head,
        catalog: Arc<dyn Catalog>,
        store: Store,
        environment: Environment,
    ) -> Self {
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

    pub(crate) async fn commit(&self, request: CommitRequest) -> CommitOutcome {
        let mut last = self.last.lock().await;
        let mut progress = Progress::new(self.environment.commit_limit);
        if let Some(problem) = self.problem(&request) {
            return CommitOutcome::Stop(StopReason::Request(problem));
        }
        loop {
            let (head, facts, batch) = match self.look(&request, &mut progress).await {
                Ok(seen) => seen,
                Err(HeadError::NotFound(_)) => return CommitOutcome::Stop(StopReason::TableDropped),
                Err(error) if progress.is_over() || !error.is_transient() => {
                    return progress.give_up(CommitError::Head(error));
                }
                Err(_) => {
                    progress.pause(&self.environment).await;
                    continue;
                }
            };
            match after(progress.reply, &facts, &batch) {
                Next::Committed => return self.committed(&head, &facts, &request, &progress),
                Next::Trim(keep) => return CommitOutcome::Trim(keep),
                Next::Drop => return CommitOutcome::Drop,
                Next::Stop(reason) => return CommitOutcome::Stop(reason),
                Next::Retry if progress.is_over() => {
                    let swaps = progress.swaps;
                    return progress.give_up(CommitError::Contention { swaps });
                }
                Next::Retry => {}
            }
            if let Some(problem) = self.misfit(&head) {
                return CommitOutcome::Stop(StopReason::Altered(problem));
            }
            let prepared = self.prepare(&mut last, &head, &facts, &batch, &request);
            let prepared = match tokio::time::timeout_at(progress.deadline, prepared).await {
                Ok(Ok(prepared)) => prepared,
                Ok(Err(error)) => return progress.give_up(error),
                Err(_) => return progress.give_up(CommitError::SlowStore),
            };
            let reply = prepared.commit.commit().await;
            if let Some(outcome) = self.heard(&mut progress, &mut last, reply, prepared.landing, &request) {
                return outcome;
            }
            progress.pause(&self.environment).await;
        }
    }

    /// Reads the head and compares it with what this writer has seen.
    async fn look(
        &self,
        request: &CommitRequest,
        progress: &mut Progress,
    ) -> Result<(Head, HeadFacts, BatchFacts), HeadError> {
        let head = self.catalog.load(&self.ident).await?;
        if progress.unresolved.as_ref().is_some_and(|(base, _)| *base != head.location) {
            progress.unresolved = None;
        }
        progress.base = Arc::clone(&head.location);
        let facts = HeadFacts::of(&head.metadata);
        let batch = BatchFacts {
            table: self.table,
            seen_sequence: self.seen_sequence.load(Ordering::Acquire),
            ranges: request.ranges.clone(),
            gaps: request.gaps.clone(),
            token: request.token,
        };
        if facts.table == self.table {
            self.seen_sequence.fetch_max(facts.sequence, Ordering::AcqRel);
        }
        Ok((head, facts, batch))
    }

    /// Why files made here do not fit the table any more: it was altered after it was opened.
    fn misfit(&self, head: &Head) -> Option<String> {
        // A schema never changes under its id, and this is asked at every commit.
        if head.metadata.current_schema_id() != self.schema_id
            && let Err(mismatch) = schema::verify(&self.def, &self.ident, &head.metadata)
        {
            return Some(mismatch.to_string());
        }
        let (expected, found) = (self.spec_id, head.metadata.default_partition_spec_id());
        (found != expected).then(|| format!("its partition spec is {found} now, files are written for {expected}"))
    }

    /// Builds the next version and makes its objects durable.
    async fn prepare<'a>(
        &'a self,
        last: &mut Option<LastList>,
        head: &'a Head,
        facts: &HeadFacts,
        batch: &BatchFacts,
        request: &CommitRequest,
    ) -> Result<Prepared<'a>, CommitError> {
        let store = &self.store;
        let parent = match head.metadata.current_snapshot() {
            None => Vec::new(),
            Some(snapshot) => match last.take().filter(|list| list.location == snapshot.manifest_list()) {
                Some(list) => list.manifests,
                None => manifests::load_list(store, snapshot.manifest_list()).await.map_err(CommitError::Manifest)?,
            },
        };
        let proposal = version::next(store, &self.environment, (head, facts, parent), batch, request).await?;
        let Proposal { version, sequence_number, list_location, manifests, objects } = proposal;
        let puts = objects.into_iter().map(|(location, bytes)| async move { store.put(&location, bytes).await });
        let objects = async { try_join_all(puts).await.map_err(CommitError::Store) };
        let commit = async { Ok(self.catalog.prepare(&self.ident, head, version).await?) };
        let commit = tokio::try_join!(objects, commit)?.1;
        let list = LastList { location: list_location, manifests };
        Ok(Prepared { commit, landing: Landing { sequence_number, list } })
    }

    /// Notes a reply; an outcome when it decided.
    fn heard(
        &self,
        progress: &mut Progress,
        last: &mut Option<LastList>,
        reply: CommitReply,
        landing: Landing,
        request: &CommitRequest,
    ) -> Option<CommitOutcome> {
        progress.swaps += u32::from(!matches!(reply, CommitReply::NotSent(_)));
        let head = match reply {
            CommitReply::Applied(head) => head,
            CommitReply::Lost => {
                progress.reply = Reply::Lost;
                return None;
            }
            CommitReply::NotSent(error) => {
                tracing::warn!(table = %self.ident, %error, "commit not sent");
                progress.reply = Reply::NotSent;
                return None;
            }
            CommitReply::Unknown(error) => {
                tracing::warn!(table = %self.ident, %error, "commit reply lost, reading the head and swapping again");
                progress.unresolved = Some((Arc::clone(&progress.base), CommitError::Catalog(error)));
                progress.reply = Reply::Unknown;
                return None;
            }
        };
        let Landing { sequence_number, list } = landing;
        *last = Some(list);
        self.seen_sequence.fetch_max(sequence_number, Ordering::AcqRel);
        self.landed.lock().unwrap_or_else(PoisonError::into_inner).add(request);
        let snapshot_id = request.token.snapshot_id();
        let metadata_version = head.version();
        let landed = Committed { snapshot_id, sequence_number, metadata_version, swaps: progress.swaps };
        Some(CommitOutcome::Committed(landed))
    }

    /// The outcome for a batch whose token was found in the head.
    fn committed(&self, head: &Head, facts: &HeadFacts, request: &CommitRequest, progress: &Progress) -> CommitOutcome {
        self.landed.lock().unwrap_or_else(PoisonError::into_inner).add(request);
        let snapshot_id = request.token.snapshot_id();
        let snapshot = head.metadata.snapshot_by_id(snapshot_id);
        CommitOutcome::Committed(Committed {
            snapshot_id,
            sequence_number: snapshot.map_or(facts.sequence, |s| s.sequence_number()),
            metadata_version: head.version(),
            swaps: progress.swaps,
        })
    }

    /// What makes a request no batch: mistakes of the caller that would damage the table.
    fn problem(&self, request: &CommitRequest) -> Option<String> {
        if let Some(key) = request.properties.keys().find(|key| !is_free_property(key)) {
            return Some(format!("the property {key} is not the caller's to set"));
        }
        let landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut paths = HashSet::new();
        let mut files = request.files.iter().map(DataFile::file_path);
        let path = files.find(|path| !paths.insert(*path) || landed.is_of_another(path, request.token))?;
        Some(format!("the file {path} is committed twice"))
    }
}
