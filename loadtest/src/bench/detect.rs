//! The live case: an agent traces a stub training job whose rank 3 has a CPU of its own. With a hog on that CPU,
//! `explain` must blame rank 3 for having been kept from it, and no other rank; without one, none.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use event_schema::catalog::Op;
use serde_json::Value;
use service_kit::run::{note, report};

use super::BenchError;
use super::report::Report;
use super::setup::free_port;
use crate::child::{Program, sibling};
use crate::out::unix_ns;

/// The job: without a hog each rank needs about an eighth of a CPU.
const JOB: &str = "--ranks 4 --seconds 6 --launches 10 --cpu-us 500 --gpu-us 3000 --apart 3 --isolate";
/// A hog with 15 times the weight of a rank, which then gets half of the CPU time it needs.
const HOG: &str = "--hog-rank 3 --hog-nice -12";
const SLOW_RANK: i64 = 3;
/// Calls of `cudaFree`: each rank makes two, last of all, so that when they are in the tables all before them is too.
const LAST_CALLS: u64 = 8;
/// Longest that anything may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The programs of the live case.
#[derive(Debug, Clone)]
pub struct Case {
    causeway: PathBuf,
    stub: PathBuf,
}

/// The answer on a job.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The document of `explain --json`.
    pub document: Value,
    /// CPU time of `causeway up` from its start to the answer.
    pub cpu: Duration,
    /// The evidence of the blame, as rows of the events named: rank, operation and the task that used the CPU.
    pub evidence: Vec<String>,
}

impl Case {
    /// Builds the stub job in `dir`. The program `causeway` traces it.
    ///
    /// # Errors
    /// The stub cannot be built.
    pub fn prepare(dir: &Path, causeway: PathBuf) -> Result<Self, BenchError> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("stub");
        let stub = dir.join("stub");
        said(Command::new("make").arg("-sC").arg(sources).arg(format!("OUT={}", stub.display())))?;
        Ok(Self { causeway, stub: stub.join("stub-train") })
    }

    /// The stub job.
    pub fn stub(&self) -> &Path {
        &self.stub
    }

    /// Runs the job once, over a lake of its own in `dir`, and queries which rank is slow.
    ///
    /// # Errors
    /// A program failed, or the events did not land in time.
    pub fn run(&self, dir: &Path, with_hog: bool) -> Result<Answer, BenchError> {
        std::fs::create_dir_all(dir).map_err(|source| BenchError::io(dir.display().to_string(), source))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let up = self.up(dir, &address)?;
        until("answering", || Ok(self.ask(&address, &["query", "SELECT 1"]).is_ok()))?;
        let hog = if with_hog { HOG } else { "" };
        // A name of its own: others may train on this host at the same time.
        let job = format!("live-{}", unix_ns());
        said(Command::new(&self.stub).args(["--job", &job]).args(JOB.split(' ')).args(hog.split_whitespace()))?;
        let (source, op) = Op::CudaFree.numbers();
        let last =
            format!("SELECT count(*) FROM silver.events WHERE job_id = '{job}' AND source = {source} AND op = {op}");
        until("landing the job's last calls", || {
            let landed = self.ask(&address, &["query", "--format", "csv", &last])?;
            Ok(landed.lines().nth(1).and_then(|n| n.trim().parse().ok()).is_some_and(|n: u64| n >= LAST_CALLS))
        })?;
        // Not before the last calls have landed: a verdict on a part of the job may differ.
        let document = self.ask(&address, &["explain", "--job", &job, "--json"])?;
        let document: Value = serde_json::from_str(&document).map_err(|source| unreadable(source, &document))?;
        let ids: Vec<String> = evidence_of(&document).map(|id| format!("'{id}'")).collect();
        let sql = format!(
            "SELECT rank, op, peer_comm FROM silver.events WHERE event_id IN ({})",
            // SQL has no empty IN list.
            if ids.is_empty() { "''".to_owned() } else { ids.join(", ") }
        );
        let rows = self.ask(&address, &["query", "--format", "csv", &sql])?;
        let evidence = rows.lines().skip(1).map(str::to_owned).collect();
        // Before the drain: a process that was waited for has no entry in /proc.
        let cpu = up.cpu_time()?;
        up.drain()?;
        Ok(Answer { document, cpu, evidence })
    }

    fn up(&self, dir: &Path, address: &str) -> Result<Program, BenchError> {
        let log = dir.join("up.log");
        let log = File::create(&log).map_err(|source| BenchError::io(log.display().to_string(), source))?;
        let mut command = self.causeway(address);
        command.args(["up", "--listen", address, "--data"]).arg(dir.join("lake")).stderr(log);
        Ok(Program::start(command)?)
    }

    /// Runs a command against the server at an address, and returns what it printed.
    fn ask(&self, address: &str, args: &[&str]) -> Result<String, BenchError> {
        said(self.causeway(address).args(args))
    }

    /// The program in a clean environment.
    fn causeway(&self, address: &str) -> Command {
        let mut command = Command::new(&self.causeway);
        // Settings of the caller's shell must not reach the program under measurement.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")) {
            command.env_remove(name);
        }
        command.env("CAUSEWAY_ADMIN_PORT", "0").env("CAUSEWAY_SERVER", format!("http://{address}"));
        command
    }
}

impl Answer {
    fn chains(&self) -> &[Value] {
        self.document["chains"].as_array().map_or(&[], Vec::as_slice)
    }

    /// What is wrong with the answer; `None` when it is right.
    pub fn fault(&self, with_hog: bool) -> Option<String> {
        let [chain] = self.chains() else {
            let is_right = !with_hog && self.chains().is_empty();
            return (!is_right).then(|| format!("{} chain(s): {}", self.chains().len(), self.in_short()));
        };
        if !with_hog {
            return Some(format!("blamed without a hog: {}", self.in_short()));
        }
        let cause = chain["root_cause"].as_str().unwrap_or_default();
        // A row as the query prints it: rank, operation (22 is `runnable_wait` of the host), task that used the CPU.
        let wait = format!("{SLOW_RANK},22,cpu-hog");
        let of_hog = self.evidence.iter().filter(|row| **row == wait).count();
        // The cause must be named and shown: a right verdict on wrong evidence is a fault as well.
        let faults = [
            (chain["rank"] != SLOW_RANK, "another rank"),
            (chain["cause"] != "cpu_preemption", "another cause"),
            (!cause.contains("runnable but not running for"), "the cause is not named"),
            (!cause.contains(": cpu-hog "), "another process comes first"),
            (chain["explained_share"].as_f64().is_none_or(|share| share < 0.5), "less than half is explained"),
            (self.evidence.is_empty() || of_hog * 2 <= self.evidence.len(), "the evidence does not show the hog"),
        ];
        let faults: Vec<&str> = faults.iter().filter(|(is_fault, _)| *is_fault).map(|(_, what)| *what).collect();
        (!faults.is_empty())
            .then(|| format!("{}: {}; evidence {:?}", faults.join(", "), self.in_short(), self.evidence))
    }

    /// Whether the verdict is that all is well.
    pub fn says_healthy(&self) -> bool {
        self.document["findings"][0]["verdict"]["verdict"] == "healthy"
    }

    fn in_short(&self) -> String {
        let summaries: Vec<&str> = self.chains().iter().filter_map(|chain| chain["summary"].as_str()).collect();
        format!("{summaries:?}, verdict {}", self.document["findings"][0]["verdict"])
    }
}

fn evidence_of(document: &Value) -> impl Iterator<Item = &str> {
    let chains = document["chains"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    chains.iter().flat_map(|chain| chain["evidence"].as_array().into_iter().flatten()).filter_map(Value::as_str)
}

/// Runs the case `runs` times with a hog and as often without, in turn, over lakes in `dir`.
///
/// # Errors
/// The stub cannot be built. A run that fails is a wrong answer.
pub fn run(dir: &Path, runs: usize) -> Result<Report, BenchError> {
    let case = Case::prepare(dir, sibling("causeway"))?;
    let mut blamed = 0;
    let mut spared = 0;
    let mut healthy = 0;
    let mut cpu = Duration::ZERO;
    let mut began_load = 0.0f64;
    for number in 0..runs * 2 {
        // In turn, so that other load on the machine affects both kinds of runs.
        let with_hog = number % 2 == 0;
        let load = load_average();
        let lake = dir.join(format!("run-{number}"));
        began_load = began_load.max(load);
        let answer = case.run(&lake, with_hog).map_err(|error| report(&error));
        // A run that fails counts as wrong: leaving it out would improve the figure.
        let is_right = answer.as_ref().is_ok_and(|answer| answer.fault(with_hog).is_none());
        *(if with_hog { &mut blamed } else { &mut spared }) += usize::from(is_right);
        if let Ok(answer) = &answer {
            healthy += usize::from(!with_hog && answer.says_healthy());
            cpu += answer.cpu;
        }
        print_run(number, with_hog, load, answer);
        // Forty runs by default, each with a lake of its own.
        let _ = std::fs::remove_dir_all(&lake);
    }
    let mut figures = Report::new("detect");
    figures.add("runs with a hog", runs as f64, "", "");
    figures.add("  rank 3 blamed, for the hog, and no other", blamed as f64, "runs", ">= 19 of 20");
    figures.add("runs without a hog", runs as f64, "", "");
    figures.add("  no rank blamed", spared as f64, "runs", "20 of 20");
    figures.add("  of these reported as healthy, not unknown", healthy as f64, "runs", "");
    figures.add("CPU time of `causeway up` per run", cpu.as_secs_f64() / (runs * 2).max(1) as f64, "s", "");
    figures.add("highest load average at the start of a run", began_load, "", "");
    Ok(figures)
}

fn print_run(number: usize, with_hog: bool, load: f64, answer: Result<Answer, String>) {
    let what = if with_hog { "hog" } else { "no hog" };
    let verdict = match answer {
        Ok(answer) => answer
            .fault(with_hog)
            .map_or_else(|| format!("right: {}", answer.in_short()), |fault| format!("WRONG: {fault}")),
        Err(error) => format!("WRONG: {error}"),
    };
    note(&format!("run {number} ({what}, load {load}): {verdict}"));
}

/// Of the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Runs a command to its end and returns what it printed.
fn said(command: &mut Command) -> Result<String, BenchError> {
    let what = format!("{command:?}");
    let Output { status, stdout, stderr } = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(source) => return Err(BenchError::io(what, source)),
    };
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&stderr);
    Err(BenchError::io(what, std::io::Error::other(format!("{status}: {}", why.trim()))))
}

fn unreadable(source: serde_json::Error, text: &str) -> BenchError {
    BenchError::io(format!("reading {text}"), source)
}

fn until(what: &str, mut happened: impl FnMut() -> Result<bool, BenchError>) -> Result<(), BenchError> {
    let began = Instant::now();
    while !happened()? {
        if began.elapsed() > TIME_LIMIT {
            return Err(BenchError::Timeout { what: what.to_owned(), seconds: TIME_LIMIT.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
