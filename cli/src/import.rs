//! `causeway import`: files recorded elsewhere become messages like an agent's. Every file is read to its end before anything
//! is written, so that a bad one changes nothing; rows that are there already are not sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use service_kit::run::{Drain, Exit, Fatal};

use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};

mod destination;
mod ingero;
mod parcel;

use destination::{Destination, DestinationError, LandedBoots};
use ingero::{Database, IngeroError, Nodes, Row, TABLES, Table};
use parcel::{Fingerprints, Packed, Packer, ParcelError, ParcelKey};

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
    let landed = destination.landed(&boots).await?;
    let mut reports = Vec::new();
    // What need not be sent (again): landed before, or held by a file before this one.
    let mut done: BTreeSet<String> = BTreeSet::new();
    for mut recording in recordings {
        let parcels = recording.parcels.iter();
        let is_landed = |p: &Parcel| landed.get(&p.boot_id).is_some_and(|found| found.rows >= p.rows);
        done.extend(parcels.filter(|(_, p)| is_landed(p)).map(|(_, p)| p.boot_id.clone()));
        recording.parcels.values_mut().for_each(|parcel| parcel.is_new = done.insert(parcel.boot_id.clone()));
        recording.send(&args, &landed, &mut destination).await?;
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
    rows: u64,
    is_new: bool,
}

impl Recording {
    /// Reads a file to its end, doing everything but the sending.
    async fn survey(path: &Path, args: &ImportArgs) -> Result<Self, ImportError> {
        let mut database = Database::open(path).await?;
        let stem = path.file_stem().map_or_else(|| "unknown".into(), |stem| stem.to_string_lossy());
        let nodes = Nodes::of(&mut database, args.node.as_deref(), &stem).await?;
        let mut fingerprints = Fingerprints::new();
        let mut rehearsal = Packers::new(path, &args.cluster, &database.version);
        for table in TABLES {
            database
                .for_each(table, |number, row| {
                    let key = ParcelKey { node: nodes.node_of(table, &row).to_owned(), kind: table.kind };
                    fingerprints.entry(key.clone()).or_default().add(&row.cells);
                    let time_ns = nodes.time_of(table, &row, &key.node);
                    rehearsal.add(&key, String::new, table, number, (row, time_ns)).map(drop)
                })
                .await?;
        }
        rehearsal.finish(|_, _| Ok::<_, ImportError>(()))?;
        let parcel = |(key, fingerprint): (ParcelKey, parcel::Fingerprint)| {
            let rows = fingerprint.rows;
            let boot_id = fingerprint.boot_id(&key);
            (key, Parcel { boot_id, rows, is_new: false })
        };
        let parcels = fingerprints.into_iter().map(parcel).collect();
        Ok(Self { path: path.to_owned(), database, nodes, parcels })
    }

    /// Reads the file again, in the same transaction, and sends what is new.
    async fn send(
        &mut self,
        args: &ImportArgs,
        landed: &LandedBoots,
        destination: &mut Destination,
    ) -> Result<(), ImportError> {
        let Self { path, database, nodes, parcels } = self;
        let mut deliver = |key: &ParcelKey, packed: Packed| -> Result<(), ImportError> {
            let before = parcels.get(key).and_then(|parcel| landed.get(&parcel.boot_id));
            if before.is_some_and(|boot| boot.messages.contains(&packed.first_seq)) {
                return Ok(());
            }
            Ok(destination.send(key.kind, &key.node, &packed.message)?)
        };
        let mut packers = Packers::new(path, &args.cluster, &database.version);
        for table in TABLES.iter().filter(|table| parcels.iter().any(|(key, p)| key.kind == table.kind && p.is_new)) {
            database
                .for_each(table, |number, row| {
                    let key = ParcelKey { node: nodes.node_of(table, &row).to_owned(), kind: table.kind };
                    let Some(parcel) = parcels.get(&key).filter(|parcel| parcel.is_new) else { return Ok(()) };
                    let time_ns = nodes.time_of(table, &row, &key.node);
                    match packers.add(&key, || parcel.boot_id.clone(), table, number, (row, time_ns))? {
                        Some(packed) => deliver(&key, packed),
                        None => Ok::<_, ImportError>(()),
                    }
                })
                .await?;
        }
        packers.finish(deliver)
    }

    fn report(&self) -> Report {
        let nodes: BTreeSet<&str> = self.parcels.keys().map(|key| key.node.as_str()).collect();
        let mut rows = BTreeMap::new();
        let mut new_rows = 0;
        for (key, parcel) in &self.parcels {
            *rows.entry(key.kind.name()).or_default() += parcel.rows;
            new_rows += if parcel.is_new { parcel.rows } else { 0 };
        }
        Report {
            file: self.path.display().to_string(),
            schema: self.database.version.clone(),
            nodes: nodes.into_iter().map(str::to_owned).collect(),
            rows,
            new_rows,
        }
    }
}

/// The packers of one reading of one file.
struct Packers<'a> {
    path: &'a Path,
    cluster: &'a str,
    agent: String,
    packers: BTreeMap<ParcelKey, Packer>,
}

impl<'a> Packers<'a> {
    fn new(path: &'a Path, cluster: &'a str, version: &str) -> Self {
        Self { path, cluster, agent: format!("ingero schema {version}"), packers: BTreeMap::new() }
    }

    fn add(
        &mut self,
        key: &ParcelKey,
        boot_id: impl FnOnce() -> String,
        table: &'static Table,
        number: u64,
        (row, time_ns): (Row, i64),
    ) -> Result<Option<Packed>, ImportError> {
        let failed = |source| ImportError::Row { path: self.path.to_owned(), table: table.name, row: number, source };
        if !self.packers.contains_key(key) {
            let packer = Packer::new(key, boot_id(), self.cluster, &self.agent).map_err(failed)?;
            self.packers.insert(key.clone(), packer);
        }
        let Some(packer) = self.packers.get_mut(key) else { return Ok(None) };
        packer.add(table, row, time_ns).map_err(failed)
    }

    fn finish(self, mut send: impl FnMut(&ParcelKey, Packed) -> Result<(), ImportError>) -> Result<(), ImportError> {
        for (key, packer) in self.packers {
            let failed = |source| ImportError::Parcel { path: self.path.to_owned(), source };
            if let Some(packed) = packer.finish().map_err(failed)? {
                send(&key, packed)?;
            }
        }
        Ok(())
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
