//! `causeway import`: the arguments, what is printed, and the exit code. The import itself is in the crate
//! `recordings`. A file that is refused changes nothing, and the others are still imported.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use event_schema::wire::NAME_BYTES_MAX;
use objects::{BucketError, StoreError};
use recordings::{Destination, DestinationError, Imported, Options, Recording, RecordingError, Target, ToKafka};
use service_kit::run::{Drain, Exit, Fatal, note};

use crate::output::OutputError;
use crate::place::{Place, PlaceArgs, PlaceError};

mod bucket;
mod progress;
mod report;
pub(crate) mod spool;

use progress::ProgressLine;
use report::Outcome;
use spool::ToSpool;

/// The cluster of nodes when the user names none.
const CLUSTER: &str = "default";

/// What the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum FileFormat {
    /// Recognised by the content
    #[default]
    Auto,
    /// A database that `ingero trace` recorded
    Ingero,
}

/// Lands recordings in the lake; importing twice changes nothing
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Recordings to import, or `s3://bucket/prefix`: everything below it that was not landed yet
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Node of a recording that names none itself [default: a name made of its content]
    #[arg(long, value_name = "NAME", value_parser = name)]
    node: Option<String>,
    /// Cluster the nodes belong to [default: default]
    #[arg(long, value_name = "NAME", value_parser = name)]
    cluster: Option<String>,
    /// What the files are
    #[arg(long, value_enum, default_value_t)]
    format: FileFormat,
    /// Leave out rows that cannot be imported, and count them, instead of refusing the file
    #[arg(long)]
    skip_bad_rows: bool,
    /// Print what was imported as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// A name that a message can carry and a terminal can show.
fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("a name cannot be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("a name cannot have control characters".to_owned());
    }
    match text.len() {
        bytes if bytes > NAME_BYTES_MAX => Err(format!("a name of {bytes} bytes is longer than {NAME_BYTES_MAX}")),
        _ => Ok(text.to_owned()),
    }
}

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("the bucket cannot be used")]
    Store(#[from] StoreError),
    #[error("the bucket cannot be used")]
    Bucket(#[from] BucketError),
    #[error(
        "s3://{asked} lies in {reserved} or contains it, and what is there must not be landed: give a prefix of its own, \
         such as s3://BUCKET/incoming/"
    )]
    Reserved { asked: String, reserved: String },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for ImportError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Reserved { .. } => Exit::Usage,
            Self::Destination(DestinationError::Interrupted) => Exit::Interrupted,
            Self::Destination(_) | Self::Store(_) | Self::Bucket(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// There is no destination, or the messages cannot be delivered. A file that cannot be imported is no such error: it is
/// reported, and the exit code is 1.
pub(crate) async fn run(args: ImportArgs, place: &Place, drain: Drain) -> Result<Exit, ImportError> {
    let options = Options {
        node: args.node.as_deref(),
        cluster: args.cluster.as_deref().unwrap_or(CLUSTER),
        skip_bad_rows: args.skip_bad_rows,
    };
    // An import that was killed could not remove its copies, each as large as a recording.
    recordings::remove_stale();
    let mut import = Import { place, options, drain: &drain, progress: ProgressLine::new(), target: None };
    let mut outcomes = Vec::new();
    let ended = import.all(&args, &mut outcomes).await;
    // Before the error of the import: files that were sent completely are reported also where a later one failed.
    report::print(&outcomes, args.json)?;
    ended?;
    Ok(if outcomes.iter().any(Outcome::is_refused) { Exit::Failed } else { Exit::Done })
}

/// Why a file was not imported.
enum FileError {
    /// The file itself: the others may be imported.
    Recording(RecordingError),
    /// What would stop every other file too.
    Import(ImportError),
}

impl From<RecordingError> for FileError {
    fn from(error: RecordingError) -> Self {
        match error {
            // The next file would meet the same destination.
            RecordingError::Destination(error) => Self::Import(error.into()),
            // A signal ends the import, whichever file was being read; the file itself has no fault.
            error if error.is_interrupted() => Self::Import(DestinationError::Interrupted.into()),
            error => Self::Recording(error),
        }
    }
}

impl From<ImportError> for FileError {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

/// An import in progress.
struct Import<'a> {
    place: &'a Place,
    options: Options<'a>,
    drain: &'a Drain,
    progress: ProgressLine,
    /// Opened for the first file that is sound, or before it where there is a lake already.
    target: Option<Target>,
}

impl Import<'_> {
    /// Imports every file and lands what is new.
    async fn all(&mut self, args: &ImportArgs, outcomes: &mut Vec<Outcome>) -> Result<(), ImportError> {
        let sent = self.send_all(args, outcomes).await;
        let Some(target) = &mut self.target else { return sent };
        match sent {
            Ok(()) => Ok(target.finish(self.drain).await?),
            Err(error) => {
                // Appended messages become visible to readers now. Otherwise they would appear when a later writer
                // opens the partition, perhaps after the same rows have landed anew.
                if let Err(error) = target.keep() {
                    note(&service_kit::run::report(&error));
                }
                Err(error)
            }
        }
    }

    async fn send_all(&mut self, args: &ImportArgs, outcomes: &mut Vec<Outcome>) -> Result<(), ImportError> {
        for path in &args.files {
            if let Some(location) = path.to_str().and_then(|path| path.strip_prefix("s3://")) {
                self.bucket(location, outcomes).await?;
                continue;
            }
            let imported = self.file(path).await;
            self.progress.clear();
            outcomes.push(match imported {
                Ok(imported) => Outcome::imported(&imported, self.options, args.cluster.is_some()),
                Err(FileError::Import(error)) => return Err(error),
                Err(FileError::Recording(error)) => Outcome::refused(path, &error),
            });
        }
        Ok(())
    }

    async fn file(&mut self, path: &Path) -> Result<Imported, FileError> {
        // An existing lake may have another import in progress. It is waited for before the file is locked, which would
        // keep the tracer from writing for as long.
        if self.target.is_none() && self.place.is_there() {
            self.target = Some(open(self.place, self.drain).await?);
        }
        let recording = Recording::survey(path, self.options, &mut self.progress, self.drain).await?;
        // After the file was read to its end: where every file is refused, no lake is made.
        let target = match &mut self.target {
            Some(target) => target,
            none => none.insert(open(self.place, self.drain).await?),
        };
        Ok(recording.send(target, &mut self.progress, self.drain).await?)
    }
}

async fn open(place: &Place, drain: &Drain) -> Result<Target, ImportError> {
    let destination: Box<dyn Destination> = match place {
        Place::Embedded(dir) => {
            let spool = ToSpool::open(dir.make()?, drain).await;
            Box::new(spool.map_err(DestinationError::from)?)
        }
        Place::Remote(remote) => Box::new(ToKafka::open(&remote.kafka, drain)?),
    };
    Ok(Target::open(destination).await?)
}
