//! One object becomes messages: read to its end first, so that a bad one changes nothing, and then a second time to
//! send its rows.

use std::io;
use std::path::PathBuf;

use objects::{Bucket, BucketError, Dropped};
use prometheus_client::metrics::counter::Counter;
use recordings::{DestinationError, IngeroError, Options, Recording, RecordingError, SnapshotError, Target};
use service_kit::run::Drain;
use tempfile::NamedTempFile;

use crate::format::{BEGINNING, Format, FormatError, Output, Stream, columns};
use crate::packer::{Packer, boot_id};
use crate::source::{Failure, Origin, Source, SourceError};
use crate::temporary::{Temporary, TemporaryError};

/// Why the rows of an object were not sent, or not all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandingError {
    /// What it holds cannot be landed. Nothing of it was sent.
    #[error(transparent)]
    Unfit(FormatError),
    /// The object cannot be read.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The log cannot be written, or what has landed cannot be read.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("a temporary file cannot be written in {}: name another directory with `bulk.temporary_dir`", dir.display())]
    Temporary {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The copy of a database cannot be read here, whatever it holds.
    #[error("the copy of a database cannot be read")]
    Local(#[source] Box<RecordingError>),
    /// The drain ended the reading.
    #[error("interrupted; another attempt sends the object again, and nothing lands twice")]
    Interrupted,
}

/// Sends objects of a bucket to the log. Blocks its thread while it reads: a multi-threaded runtime is required.
#[derive(Debug, Clone)]
pub struct Landing {
    /// Where the objects are.
    pub bucket: Bucket,
    /// The cluster of rows that name none.
    pub cluster: String,
    /// Where files are that cannot be read as a stream.
    pub temporary: Temporary,
    /// Ends the reading.
    pub drain: Drain,
    /// Counts bytes that are fetched.
    pub read_bytes: Counter,
}

impl Landing {
    /// Reads an object and sends its rows. They have not landed before [`Target::finish`] returns. Returns the number
    /// of rows of the object, whether or not they had landed before.
    ///
    /// # Errors
    /// See [`LandingError`]. What was sent before an error lands; sent again, it lands no second time.
    pub async fn send(&self, object: &Dropped, target: &mut Target) -> Result<u64, LandingError> {
        let origin = Origin {
            bucket: self.bucket.clone(),
            object: object.clone(),
            drain: self.drain.clone(),
            read_bytes: self.read_bytes.clone(),
        };
        match self.format(&origin).await.map_err(|error| error.settled(&Failure::default()))? {
            Format::Stream(format) => {
                // Each reading fetches the object anew: two of them cost less than a disk as large as any object.
                self.stream(format, &origin, None)?;
                self.stream(format, &origin, Some(target))
            }
            Format::Parquet => {
                let file = self.temporary.fetch(origin).await?;
                self.parquet(&file, object, None)?;
                self.parquet(&file, object, Some(target))
            }
            Format::Database => {
                let file = self.temporary.fetch(origin).await?;
                self.database(&file, target).await
            }
        }
    }

    async fn format(&self, origin: &Origin) -> Result<Format, LandingError> {
        let object = &origin.object;
        if object.size_bytes == 0 {
            return Err(LandingError::Unfit(FormatError::Empty));
        }
        let end = object.size_bytes.min(BEGINNING as u64);
        let beginning = origin.bucket.range(&object.key, &object.revision, 0..end).await?;
        Format::of(&beginning).map_err(LandingError::Unfit)
    }

    fn output<'a>(&self, object: &Dropped, target: Option<&'a mut Target>) -> Output<'a> {
        // By its entity tag and not by its version: a listing has no versions, and a back-fill must know an object that
        // was announced. Versions with equal tags have equal bytes.
        let id = boot_id(self.bucket.name(), &object.key, &object.revision.etag);
        Output::new(Packer::new(id, &self.cluster), target)
    }

    fn stream(&self, format: Stream, origin: &Origin, target: Option<&mut Target>) -> Result<u64, LandingError> {
        tokio::task::block_in_place(|| {
            let source = Source::new(origin.clone());
            let failure = source.failure();
            let mut output = self.output(&origin.object, target);
            let read = format.read(source, &mut output).and_then(|()| output.finish());
            read.map_err(|error| LandingError::Unfit(error).settled(&failure))
        })
    }

    fn parquet(
        &self,
        file: &NamedTempFile,
        object: &Dropped,
        target: Option<&mut Target>,
    ) -> Result<u64, LandingError> {
        tokio::task::block_in_place(|| {
            let mut output = self.output(object, target);
            let read = columns::read(file.as_file(), &mut output).and_then(|()| output.finish());
            read.map_err(|error| LandingError::Unfit(error).settled(&Failure::default()))
        })
    }

    /// Rows of a recording are known by their content (ADR 21), in whichever object they are.
    async fn database(&self, file: &NamedTempFile, target: &mut Target) -> Result<u64, LandingError> {
        let options = Options { node: None, cluster: &self.cluster, skip_bad_rows: false };
        let surveyed = Recording::survey(file.path(), options, &mut (), &self.drain).await;
        let imported = match surveyed {
            Ok(recording) => recording.send(target, &mut (), &self.drain).await,
            Err(error) => Err(error),
        };
        imported.map(|imported| imported.all_rows()).map_err(of_recording)
    }
}

impl LandingError {
    /// The error behind that of a decoder: of the bucket, or of the log, if one of them failed.
    fn settled(self, failure: &Failure) -> Self {
        match (failure.take(), self) {
            (Some(error), _) => error.into(),
            (None, Self::Unfit(FormatError::Destination(DestinationError::Interrupted))) => Self::Interrupted,
            (None, Self::Unfit(FormatError::Destination(error))) => Self::Destination(error),
            (None, error) => error,
        }
    }
}

impl From<SourceError> for LandingError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Bucket(error) => Self::Bucket(error),
            SourceError::Interrupted => Self::Interrupted,
        }
    }
}

impl From<TemporaryError> for LandingError {
    fn from(error: TemporaryError) -> Self {
        match error {
            TemporaryError::TooLarge { bytes, limit } => Self::Unfit(FormatError::TooLarge { bytes, limit }),
            TemporaryError::Source(error) => error.into(),
            TemporaryError::Write { dir, source } => Self::Temporary { dir, source },
        }
    }
}

fn of_recording(error: RecordingError) -> LandingError {
    match error {
        error if error.is_interrupted() => LandingError::Interrupted,
        RecordingError::Destination(error) => LandingError::Destination(error),
        RecordingError::InPart { source, .. } => of_recording(*source),
        // Of the file system here, and not of what the file holds.
        error @ RecordingError::Ingero(IngeroError::Snapshot(
            SnapshotError::Copy { .. } | SnapshotError::Unreadable { .. } | SnapshotError::Busy { .. },
        )) => LandingError::Local(Box::new(error)),
        error => LandingError::Unfit(FormatError::Recording(Box::new(error))),
    }
}
