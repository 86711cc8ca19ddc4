//! What compaction costs: bytes of data files per second of one core, memory, and what the files take before and after;
//! DuckDB sorts the same files beside it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use event_schema::position::{Message, TopicPartition};
use event_schema::topics;
use fleet_sim::FleetSpec;
use lake::{CommitOutcome, CommitRequest, Lake, LakeOptions, TableHandle, Token};
use maintenance::rewrite::Rewriter;
use maintenance::task::Work;
use maintenance::{Landed, Limits, Policy, Survey, land, survey};
use tables::arrival::Arrival;
use tables::registry::find;
use tables::seen::Seen;

use super::BenchError;
use super::report::Report;

/// Files of the large job, of as many rows each: about 1 MB, a commit of ingest at 60,000 events per second.
const FILES: usize = 64;
const ROWS_OF_FILE: usize = 65_536;
const ROWS_OF_MESSAGE: usize = 16_384;
/// Files of the small job.
const SMALL_FILES: usize = 10;
/// A week: the day of the rows is over.
const LATER_MS: i64 = 7 * 86_400_000;
/// Ticks of a second in `/proc/self/stat` (proc(5), `sysconf(_SC_CLK_TCK)`): 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// The same files in the same order by another engine, on one thread.
const DUCKDB: &str = "
import duckdb, json, resource, sys, time
out, files = sys.argv[1], sys.argv[2:]
db = duckdb.connect()
db.execute(\"SET threads = 1; SET memory_limit = '256MB'\")
began = time.monotonic()
db.execute(f\"COPY (SELECT * FROM read_parquet({files!r}) ORDER BY node, ts) TO '{out}' (FORMAT parquet, COMPRESSION zstd, \
COMPRESSION_LEVEL 1)\")
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({'seconds': time.monotonic() - began, 'cpu': used.ru_utime + used.ru_stime, 'rss': used.ru_maxrss * 1024}))
";

/// What a job took.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    /// Bytes by which the peak of the resident memory was raised.
    memory_bytes: f64,
}

/// Fills lakes below `dir` and compacts them.
///
/// # Errors
/// When they cannot be written, read or rewritten, or DuckDB is not installed.
pub async fn run(dir: &Path) -> Result<Report, BenchError> {
    let mut report = Report::new("compact");
    let Some(table) = find("silver", "events") else { return Ok(report) };
    let large = lake_in(&dir.join("large")).await?.ensure_table(&table.def).await?;
    let rows = (FILES * ROWS_OF_FILE) as f64;
    fill(&large, FILES).await?;
    let before = files(&large, &dir.join("large")).await?;
    let duckdb = duckdb(dir, &before.paths)?;
    let cost = compact(&large, Limits { spill: dir.to_owned(), ..Limits::default() }).await?;
    let after = files(&large, &dir.join("large")).await?;
    let megabytes = before.bytes / 1e6;
    report.add("data files before", megabytes, "MB", "");
    report.add("… number of files", before.paths.len() as f64, "", "");
    report.add("… after", after.paths.len() as f64, "", "1");
    report.add("bytes of an event before", before.bytes / rows, "B", "");
    report.add("… after", after.bytes / rows, "B", "less");
    report.add("compaction with check, on one core", megabytes / cost.cpu_seconds, "MB/s of files", "");
    report.add("… events", rows / 1e6 / cost.cpu_seconds, "M/s", "");
    report.add("… wall time", cost.seconds, "s", "");
    report.add("… memory beyond the start", cost.memory_bytes / 1e6, "MB", "below 400");
    report.add("DuckDB, the same sort on one core", megabytes / duckdb.cost.cpu_seconds, "MB/s of files", "");
    report.add("… memory of the process", duckdb.cost.memory_bytes / 1e6, "MB", "");
    report.add("… bytes of an event after", duckdb.bytes / rows, "B", "");
    report.add("CPU time of DuckDB, of ours", duckdb.cost.cpu_seconds / cost.cpu_seconds, "x", "");

    let small = lake_in(&dir.join("small")).await?.ensure_table(&table.def).await?;
    fill(&small, SMALL_FILES).await?;
    let cost = compact(&small, Limits { spill: dir.to_owned(), ..Limits::default() }).await?;
    report.add(format!("{SMALL_FILES} files of 1 MB, wall time"), cost.seconds, "s", "below 2");
    Ok(report)
}

async fn lake_in(dir: &Path) -> Result<Lake, BenchError> {
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.display()),
        warehouse: dir.join("warehouse").display().to_string(),
        s3: None,
    };
    Ok(Lake::open(options).await?)
}

/// Commits so many files of events, as ingest does.
async fn fill(handle: &TableHandle, files: usize) -> Result<(), BenchError> {
    let Some(table) = find("silver", "events") else { return Ok(()) };
    // The morning of a day, so that all rows are of one.
    let day_ns = crate::out::unix_ns().div_euclid(86_400_000_000_000) * 86_400_000_000_000;
    let rows = ROWS_OF_MESSAGE;
    let spec = FleetSpec { nodes: 4, ranks_per_node: 8, seed: 1, rows, gap_ns: 20_000, start_wall_ns: day_ns };
    let mut nodes = spec.build();
    let mut seen = Seen::new();
    let at = TopicPartition::new(topics::EVENTS, 0);
    let mut offset = 0;
    for _ in 0..files {
        let mut arrivals = Vec::new();
        // One message of each node.
        for node in nodes.iter_mut().take(ROWS_OF_FILE / ROWS_OF_MESSAGE) {
            let payload = node.next_message(rows)?;
            let message = Message { at: at.clone(), offset, timestamp_ms: 0, key: None, payload, headers: Vec::new() };
            arrivals.push(Arrival::decode(message, 0).admit(&mut seen));
            offset += 1;
        }
        let files = handle.write(&table.rows(&arrivals.iter().collect::<Vec<_>>())?).await?;
        // Without ranges: the rows come from no log, so that the table has no offsets to check.
        match handle.commit(CommitRequest::new(Vec::new(), Token::random(), files)).await {
            CommitOutcome::Committed(_) => {}
            other => return Err(BenchError::Commit { outcome: format!("{other:?}") }),
        }
    }
    Ok(())
}

/// The data files of a table.
struct Files {
    paths: Vec<PathBuf>,
    bytes: f64,
}

async fn files(handle: &TableHandle, dir: &Path) -> Result<Files, BenchError> {
    let files = handle.reader().snapshot().await?.plan(&[]).await?;
    let paths = files.iter().map(|file| dir.join("warehouse").join(file.path.as_ref())).collect();
    Ok(Files { paths, bytes: files.iter().map(|file| file.size_bytes).sum::<u64>() as f64 })
}

/// Does every task of the table's plan.
async fn compact(handle: &TableHandle, limits: Limits) -> Result<Cost, BenchError> {
    let policy = Policy::default();
    let now_ms = crate::out::unix_ns() / 1_000_000 + LATER_MS;
    let tasks = match survey(handle, &policy, now_ms).await? {
        Survey::Planned(plan) => plan.tasks,
        Survey::LeftAlone(_) | Survey::Empty => Vec::new(),
    };
    // proc(5): 5 resets the peak of the resident memory to its present size.
    std::fs::write("/proc/self/clear_refs", "5").map_err(|source| BenchError::io("resetting VmHWM", source))?;
    let resident = status("VmRSS:")?;
    let cpu = cpu_seconds()?;
    let began = Instant::now();
    let rewriter = Rewriter { table: handle, fold: None, policy: &policy, limits: &limits };
    for task in &tasks {
        let Work::Rewrite(rewrite) = &task.work;
        let verified = rewriter.rewrite(rewrite).await?;
        match land(handle, &verified.replacement()).await? {
            Landed::Committed(_) => {}
            Landed::Conflict(conflict) => return Err(BenchError::Commit { outcome: conflict.to_string() }),
        }
    }
    Ok(Cost {
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds()? - cpu,
        memory_bytes: (status("VmHWM:")? - resident).max(0.0),
    })
}

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> Result<f64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status");
    let status = status.map_err(|source| BenchError::io("reading /proc/self/status", source))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    let kilobytes: f64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(f64::NAN);
    Ok(kilobytes * 1_024.0)
}

/// CPU time of this process.
fn cpu_seconds() -> Result<f64, BenchError> {
    let stat = std::fs::read_to_string("/proc/self/stat");
    let stat = stat.map_err(|source| BenchError::io("reading /proc/self/stat", source))?;
    // proc(5): the name of the process may contain spaces; user and system time are fields 14 and 15, and field 3 is
    // the first one behind the name.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = behind_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    Ok(times.sum::<f64>() / TICKS)
}

/// What DuckDB did.
struct DuckDb {
    cost: Cost,
    bytes: f64,
}

fn duckdb(dir: &Path, files: &[PathBuf]) -> Result<DuckDb, BenchError> {
    let cache = std::env::var_os("CAUSEWAY_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/causeway"),
        PathBuf::from,
    );
    let out = dir.join("duckdb.parquet");
    let mut python = Command::new(cache.join("venv/bin/python"));
    let run = python.args(["-c", DUCKDB]).arg(&out).args(files).output();
    let output = run.map_err(|source| BenchError::io("starting Python with DuckDB", source))?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|source| {
        let problem = format!("sorting with DuckDB: {}", String::from_utf8_lossy(&output.stderr));
        BenchError::io(problem, std::io::Error::from(source))
    })?;
    let [seconds, cpu_seconds, memory_bytes] =
        ["seconds", "cpu", "rss"].map(|name| answer.get(name).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN));
    let cost = Cost { seconds, cpu_seconds, memory_bytes };
    let size = std::fs::metadata(&out).map_err(|source| BenchError::io("looking at DuckDB's file", source))?;
    Ok(DuckDb { cost, bytes: size.len() as f64 })
}
