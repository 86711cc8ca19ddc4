//! One query of a Trino client: runs ahead by one page, and keeps the page it gave last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::super::App;
use super::failure;
use super::page::{self, Page, Posted};
use query_engine::Asker;
use query_engine::QueryError;

/// Which of the two resources a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Queued,
    Executing,
}

impl Phase {
    fn path(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Executing => "executing",
        }
    }
}

/// A query of a client.
#[derive(Debug)]
pub(super) struct Running {
    id: String,
    slug: String,
    base: String,
    posted: Posted,
    created: Instant,
    touched: StdMutex<Instant>,
    followed: AtomicBool,
    ended: AtomicBool,
    work: StdMutex<Option<AbortHandle>>,
    cursor: Mutex<Cursor>,
}

/// Where the client is.
#[derive(Debug)]
struct Cursor {
    phase: Phase,
    token: u64,
    /// The page that was given for `token`.
    body: Bytes,
    /// The address the last page led to; `None` after the end.
    next: Option<(Phase, u64)>,
    pages: Option<mpsc::Receiver<Page>>,
    columns: Option<Value>,
    rows: u64,
}

impl Running {
    pub(super) fn new(id: String, slug: String, base: String, posted: Posted) -> Self {
        let now = Instant::now();
        let cursor = Cursor {
            phase: Phase::Queued,
            token: 0,
            body: Bytes::new(),
            next: Some((Phase::Queued, 1)),
            pages: None,
            columns: None,
            rows: 0,
        };
        let mut running = Self {
            id,
            slug,
            base,
            posted,
            created: now,
            touched: StdMutex::new(now),
            followed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            work: StdMutex::new(None),
            cursor: Mutex::new(cursor),
        };
        let body = running.document("QUEUED", Some((Phase::Queued, 1)), 0).to_string();
        running.cursor.get_mut().body = body.into();
        running
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn slug(&self) -> &str {
        &self.slug
    }

    pub(super) fn client(&self) -> &Asker {
        &self.posted.client
    }

    /// Records that a client asked.
    pub(super) fn follow(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.followed.store(true, Ordering::Relaxed);
    }

    /// A client has asked for a page behind the first: the query has begun.
    pub(super) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// When a client last asked.
    pub(super) fn idle_since(&self) -> Instant {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its last page was given; it can only be given again.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The answer to the POST. The query starts with the first GET: until then it costs no more than its place in the
    /// registry.
    pub(super) fn first(&self) -> Bytes {
        self.document("QUEUED", Some((Phase::Queued, 1)), 0).to_string().into()
    }

    /// The page of a token; `None` when it is gone or was never announced.
    pub(super) async fn page(
        self: &Arc<Self>,
        app: &Arc<App>,
        phase: Phase,
        token: u64,
        until: Instant,
    ) -> Option<Bytes> {
        // Before the lock, which another request may hold for a second: the query must not count as idle meanwhile.
        self.follow();
        let mut cursor = self.cursor.lock().await;
        // Idempotent: a client whose response was lost asks once more for the same token.
        if (cursor.phase, cursor.token) == (phase, token) {
            return Some(cursor.body.clone());
        }
        if cursor.next != Some((phase, token)) {
            return None;
        }
        let body = self.advance(app, &mut cursor, (phase, token), until).await;
        (cursor.phase, cursor.token, cursor.body) = (phase, token, body.clone());
        // From now on the query is the first to be evicted, but its last page is still given again for a while.
        self.ended.store(cursor.next.is_none(), Ordering::Relaxed);
        Some(body)
    }

    async fn advance(self: &Arc<Self>, app: &Arc<App>, cursor: &mut Cursor, at: (Phase, u64), until: Instant) -> Bytes {
        if cursor.pages.is_none() {
            cursor.pages = Some(self.start(app));
        }
        // The query runs already: its first page is made while the client fetches the next address.
        if at.0 == Phase::Queued {
            cursor.next = Some((Phase::Executing, 0));
            return self.document("PLANNING", cursor.next, 0).to_string().into();
        }
        let page = match cursor.pages.as_mut() {
            // Cancel-safe: where the connection of the client breaks during the wait, no page is lost and the cursor
            // has not moved.
            Some(pages) => timeout_at(until, pages.recv()).await,
            None => Ok(None),
        };
        let following = Some((Phase::Executing, at.1 + 1));
        match page {
            // No page within the wait: an empty one, which sends the client to the next token.
            Err(_) => {
                cursor.next = following;
                self.with_columns(cursor, "RUNNING").to_string().into()
            }
            Ok(Some(Page::Columns { columns, data, rows })) => {
                cursor.columns = Some(columns);
                self.data(cursor, following, data, rows)
            }
            Ok(Some(Page::Data { data, rows })) => self.data(cursor, following, data, rows),
            Ok(Some(Page::Failed(error))) => self.failed(cursor, &error),
            Ok(Some(Page::End)) => {
                cursor.next = None;
                self.with_columns(cursor, "FINISHED").to_string().into()
            }
            // The sender was dropped without a last page: the task panicked or was aborted.
            Ok(None) => self.failed(cursor, &QueryError::Internal { message: "the query broke off".to_owned() }),
        }
    }

    fn start(self: &Arc<Self>, app: &Arc<App>) -> mpsc::Receiver<Page> {
        // One page ahead of the client, and no more in memory (backpressure).
        let (sender, pages) = mpsc::channel(1);
        let posted = self.posted.clone();
        // Begun here and not by the task: one that is aborted before its first poll is counted too.
        let tally = app.metrics.begin(self.created.into_std());
        let work = tokio::spawn(Box::pin(page::produce(Arc::clone(app), posted, tally, sender)));
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.abort_handle());
        pages
    }

    fn data(&self, cursor: &mut Cursor, next: Option<(Phase, u64)>, data: Vec<u8>, rows: u64) -> Bytes {
        cursor.next = next;
        cursor.rows += rows;
        let document = self.with_columns(cursor, "RUNNING").to_string();
        // A page without rows has no `data`, as Trino's have none.
        if rows == 0 {
            return document.into();
        }
        // The rows are JSON already: they are put in front of the closing brace.
        let mut body = Vec::with_capacity(document.len() + data.len() + 10);
        body.extend_from_slice(document.strip_suffix('}').unwrap_or(&document).as_bytes());
        body.extend_from_slice(b",\"data\":");
        body.extend_from_slice(&data);
        body.push(b'}');
        body.into()
    }

    fn with_columns(&self, cursor: &Cursor, state: &str) -> Value {
        let mut document = self.document(state, cursor.next, cursor.rows);
        if let Some(columns) = &cursor.columns {
            document["columns"] = columns.clone();
        }
        document
    }

    fn failed(&self, cursor: &mut Cursor, error: &QueryError) -> Bytes {
        cursor.next = None;
        let mut document = self.with_columns(cursor, "FAILED");
        document["error"] = failure::describe(error);
        document.to_string().into()
    }

    fn document(&self, state: &str, next: Option<(Phase, u64)>, rows: u64) -> Value {
        let Self { id, slug, base, .. } = self;
        let mut document = json!({
            "id": id,
            "infoUri": format!("{base}/ui/query.html?{id}"),
            "stats": stats(state, self.created, rows),
            "warnings": [],
        });
        if let Some((phase, token)) = next {
            document["nextUri"] = json!(format!("{base}/v1/statement/{}/{id}/{slug}/{token}", phase.path()));
        }
        document
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A query that is cancelled, evicted or abandoned gives its permit back at once.
        if let Some(work) = self.work.lock().unwrap_or_else(PoisonError::into_inner).take() {
            work.abort();
        }
    }
}

/// Nodes and splits stay zero: the command line client draws a tree of stages as soon as there are any.
fn stats(state: &str, created: Instant, rows: u64) -> Value {
    let elapsed = u64::try_from(created.elapsed().as_millis()).unwrap_or(u64::MAX);
    let finished = matches!(state, "FINISHED" | "FAILED");
    json!({
        "state": state,
        "queued": state == "QUEUED",
        "scheduled": state != "QUEUED",
        "progressPercentage": if finished { 100.0 } else { 0.0 },
        "runningPercentage": 0.0,
        "nodes": 0, "totalSplits": 0, "queuedSplits": 0, "runningSplits": 0, "completedSplits": 0,
        "planningTimeMillis": 0, "analysisTimeMillis": 0, "cpuTimeMillis": 0, "wallTimeMillis": elapsed,
        "queuedTimeMillis": 0, "elapsedTimeMillis": elapsed, "finishingTimeMillis": 0, "physicalInputTimeMillis": 0,
        "processedRows": rows, "processedBytes": 0, "physicalInputBytes": 0, "physicalWrittenBytes": 0,
        "internalNetworkInputBytes": 0, "peakMemoryBytes": 0, "spilledBytes": 0,
    })
}
