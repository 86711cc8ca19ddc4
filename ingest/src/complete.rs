//! Tags data files once a commit names them. The lifecycle rule of the bucket moves only tagged files to cheaper
//! storage classes: an orphan stays where it is until it is deleted.

use std::time::{Duration, Instant};

use lake::DataFile;
use objects::{Store, TagError};
use service_kit::run::in_a_line;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

/// Files that wait for their tag, at most: those of some minutes.
const WAITING: usize = 4_096;
/// How often failures are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Hands committed files to the task that tags them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Completer {
    files: mpsc::Sender<String>,
    metrics: Metrics,
}

impl Completer {
    /// Starts the task. It ends once every clone is dropped and what waits was tried.
    pub(crate) fn start(store: Store, metrics: Metrics) -> (Self, JoinHandle<()>) {
        let (files, waiting) = mpsc::channel(WAITING);
        let tagger = Tagger { store, metrics: metrics.clone(), logged: None };
        (Self { files, metrics }, tokio::spawn(tagger.run(waiting)))
    }

    /// Has files tagged that a commit names. Landing does not wait for it: a file that is never tagged stays in the
    /// class that it was written in, and costs more.
    pub(crate) fn complete(&self, files: &[DataFile]) {
        for file in files {
            if self.files.try_send(file.file_path().to_owned()).is_err() {
                self.metrics.untagged_files.inc();
            }
        }
    }
}

struct Tagger {
    store: Store,
    metrics: Metrics,
    logged: Option<Instant>,
}

impl Tagger {
    async fn run(mut self, mut files: mpsc::Receiver<String>) {
        while let Some(location) = files.recv().await {
            match self.store.complete(&location).await {
                Ok(()) => {
                    self.metrics.tagged_files.inc();
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &TagError) {
        self.metrics.untagged_files.inc();
        // A user without the right `s3:PutObjectTagging` fails for every file.
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(reason = in_a_line(error), "a committed file was not tagged; it moves to no cheaper class");
        }
    }
}
