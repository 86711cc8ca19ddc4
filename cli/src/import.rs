//! `causeway import`: files recorded elsewhere become messages like an agent's. Every file is read to its end before anything
//! is written, so that a bad one changes nothing; rows that are there already are not sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use event_schema::identity::{StreamId, first_seq, stream_number};
use serde::Serialize;
use service_kit::run::{Drain, Exit, Fatal};
use tables::seen::Seen;

use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};

mod destination;
mod ingero;
pub(crate) mod parcel;

use destination::{Destination, DestinationError};
use ingero::{Database, IngeroError, Nodes, Row, TABLES, Table};
use parcel::{Fingerprint, Fingerprints, Packer, ParcelError, ParcelKey, Part};

/// What the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum FileFormat {
    /// Told by the content
    #[default]
    Auto,
    /// A database that `ingero trace` recorded
    Ingero,
}

/// Lands recordings in the lake; importing twice changes nothing
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Recordings to import
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Node of the rows that name none themselves [default: from the recording, else the name of the file]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Cluster the nodes belong to
    #[arg(long, default_value = "default")]
    cluster: String,
    /// What the files are
    #[arg(long, value_enum, default_value_t)]
    format: FileFormat,
    /// Print what was imported as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error(transparent)]
    Ingero(#[from] IngeroError),
    #[error("row {row} of table `{table}` of {} cannot be imported", path.display())]
    Row {
        path: PathBuf,
        table: &'static str,
        row: u64,
        #[source]
        source: ParcelError,
    },
    #[error("the rows of {} cannot be imported", path.display())]
    Parcel {
        path: PathBuf,
        #[source]
        source: ParcelError,
    },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for ImportError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: ImportArgs, place: &Place, drain: Drain) -> Result<Exit, ImportError> {
    let mut recordings = Vec::new();
    for path in &args.files {
        recordings.push(Recording::survey(path, &args).await?);
    }
    let mut destination = match place {
        Place::Embedded(dir) => Destination::embedded(dir.make()?, &drain).await?,
        Place::Remote(remote) => Destination::kafka(&remote.kafka)?,
    };
    let boots = recordings.iter().flat_map(|r| r.parcels.values()).map(|parcel| parcel.boot_id.clone()).collect();
    let mut seen = destination.landed(&boots).await?;
    let mut reports = Vec::new();
    for mut recording in recordings {
        recording.send(&args, &mut seen, &mut destination).await?;
        reports.push(recording.report());
        recording.database.close().await;
    }
    destination.finish(&drain).await?;
    print(&reports, args.json)?;
    Ok(Exit::Done)
}

/// A file that was read to its end and is sound.
struct Recording {
    path: PathBuf,
    database: Database,
    nodes: Nodes,
    parcels: BTreeMap<ParcelKey, Parcel>,
}

struct Parcel {
    boot_id: String,
    stream: StreamId,
    rows: u64,
    /// Rows met in the second reading.
    met: i64,
    new_rows: u64,
}

impl Parcel {
    fn new(key: &ParcelKey, fingerprint: Fingerprint) -> Self {
        let rows = fingerprint.rows;
        let boot_id = fingerprint.boot_id(key);
        let (node, stream) = (key.node.as_str().into(), stream_number(key.kind));
        let stream = StreamId { node, boot_id: boot_id.as_str().into(), epoch: 0, stream };
        Self { boot_id, stream, rows, met: 0, new_rows: 0 }
    }

    /// Notes the next row; its number if it need be sent: it has not landed, nor been sent for a file before this one.
    fn admit(&mut self, number: Option<i64>, seen: &mut Seen) -> Option<i64> {
        let number = number.unwrap_or(self.met);
        self.met += 1;
        let seq = first_seq(self.stream.epoch, self.stream.stream)?.saturating_add(number);
        let is_new = !seen.note(self.stream.clone(), seq, seq.saturating_add(1)).is_empty();
        self.new_rows += u64::from(is_new);
        is_new.then_some(number)
    }
}

impl Recording {
    /// Reads a file to its end, doing everything but the sending.
    async fn survey(path: &Path, args: &ImportArgs) -> Result<Self, ImportError> {
        let mut database = Database::open(path).await?;
        let stem = path.file_stem().map_or_else(|| "unknown".into(), |stem| stem.to_string_lossy());
        let nodes = Nodes::of(&mut database, args.node.as_deref(), &stem).await?;
        let mut fingerprints = Fingerprints::new();
        let mut rehearsal = Packers::new(path, &args.cluster, &database.version, |_: &ParcelKey, _| Ok(()));
        for table in TABLES {
            database
                .for_each(table, |at, row| {
                    let (key, number) = nodes.place(table, &row);
                    let fingerprint = fingerprints.entry(key.clone()).or_default();
                    let number = number.unwrap_or(i64::try_from(fingerprint.rows).unwrap_or(i64::MAX));
                    fingerprint.add(&row.cells);
                    let time_ns = nodes.time_of(table, &row, &key.node);
                    rehearsal.add(&key, String::new, table, (at, number), (row, time_ns))
                })
                .await?;
        }
        rehearsal.finish()?;
        let parcel = |(key, fingerprint): (ParcelKey, Fingerprint)| {
            let parcel = Parcel::new(&key, fingerprint);
            (key, parcel)
        };
        let parcels = fingerprints.into_iter().map(parcel).collect();
        Ok(Self { path: path.to_owned(), database, nodes, parcels })
    }

    /// Reads the file again, in the same transaction, and sends what is new.
    async fn send(
        &mut self,
        args: &ImportArgs,
        seen: &mut Seen,
        destination: &mut Destination,
    ) -> Result<(), ImportError> {
        let Self { path, database, nodes, parcels } = self;
        let deliver = |key: &ParcelKey, message: Bytes| Ok(destination.send(key.kind, &key.node, &message)?);
        let mut packers = Packers::new(path, &args.cluster, &database.version, deliver);
        for table in TABLES {
            database
                .for_each(table, |at, row| {
                    let (key, number) = nodes.place(table, &row);
                    let Some(parcel) = parcels.get_mut(&key) else { return Ok(()) };
                    let Some(number) = parcel.admit(number, seen) else { return Ok(()) };
                    let time_ns = nodes.time_of(table, &row, &key.node);
                    packers.add(&key, || parcel.boot_id.clone(), table, (at, number), (row, time_ns))
                })
                .await?;
        }
        packers.finish()
    }

    fn report(&self) -> Report {
        let nodes: BTreeSet<&str> = self.parcels.keys().map(|key| key.node.as_str()).collect();
        let mut rows = BTreeMap::new();
        for (key, parcel) in &self.parcels {
            *rows.entry(key.kind.name()).or_default() += parcel.rows;
        }
        Report {
            file: self.path.display().to_string(),
            schema: self.database.version.clone(),
            nodes: nodes.into_iter().map(str::to_owned).collect(),
            rows,
            new_rows: self.parcels.values().map(|parcel| parcel.new_rows).sum(),
        }
    }
}

/// The packers of one reading of one file, and what is done with their messages.
struct Packers<'a, D> {
    path: &'a Path,
    cluster: &'a str,
    agent: String,
    packers: BTreeMap<ParcelKey, Packer>,
    deliver: D,
}

impl<'a, D: FnMut(&ParcelKey, Bytes) -> Result<(), ImportError>> Packers<'a, D> {
    fn new(path: &'a Path, cluster: &'a str, version: &str, deliver: D) -> Self {
        Self { path, cluster, agent: format!("ingero schema {version}"), packers: BTreeMap::new(), deliver }
    }

    /// Adds a row: the `at`th of its table, with its number in the parcel.
    fn add(
        &mut self,
        key: &ParcelKey,
        boot_id: impl FnOnce() -> String,
        table: &'static Table,
        (at, number): (u64, i64),
        (row, time_ns): (Row, i64),
    ) -> Result<(), ImportError> {
        let path = self.path;
        let failed = |source| ImportError::Row { path: path.to_owned(), table: table.name, row: at, source };
        if !self.packers.contains_key(key) {
            self.end_minute_before(key)?;
            let packer = Packer::new(key, boot_id(), self.cluster, &self.agent).map_err(failed)?;
            self.packers.insert(key.clone(), packer);
        }
        let Some(packer) = self.packers.get_mut(key) else { return Ok(()) };
        match packer.add(table, number, row, time_ns).map_err(failed)? {
            Some(message) => (self.deliver)(key, message),
            None => Ok(()),
        }
    }

    /// Rows come in order of time: when a minute begins, the one before has ended.
    fn end_minute_before(&mut self, key: &ParcelKey) -> Result<(), ImportError> {
        let is_minute = |before: &&ParcelKey| {
            (&before.node, before.kind) == (&key.node, key.kind) && matches!(before.part, Part::Minute(_))
        };
        let before = self.packers.range(..key.clone()).next_back().map(|(before, _)| before).filter(is_minute).cloned();
        match before.and_then(|before| self.packers.remove_entry(&before)) {
            Some((before, packer)) => self.end(&before, packer),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<(), ImportError> {
        std::mem::take(&mut self.packers).into_iter().try_for_each(|(key, packer)| self.end(&key, packer))
    }

    fn end(&mut self, key: &ParcelKey, packer: Packer) -> Result<(), ImportError> {
        let failed = |source| ImportError::Parcel { path: self.path.to_owned(), source };
        match packer.finish().map_err(failed)? {
            Some(message) => (self.deliver)(key, message),
            None => Ok(()),
        }
    }
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    schema: String,
    nodes: Vec<String>,
    rows: BTreeMap<&'static str, u64>,
    new_rows: u64,
}

fn print(reports: &[Report], json: bool) -> Result<(), OutputError> {
    if json {
        return output::json(&serde_json::json!(reports));
    }
    for report in reports {
        let rows: Vec<String> = report.rows.iter().map(|(kind, rows)| format!("{rows} {kind}")).collect();
        let outcome = match report.new_rows {
            0 => "already imported, nothing new".to_owned(),
            new => format!("{new} new rows"),
        };
        let (file, schema) = (&report.file, &report.schema);
        eprintln!("{file}: {outcome} ({} rows from {}; schema {schema})", rows.join(", "), report.nodes.join(", "));
    }
    Ok(())
}
