//! `causeway-agent` tracing the stub training job, and what must come of it.

use std::collections::BTreeMap;

use bpf::probes::CALLS;
use event_schema::catalog::Source;

use crate::harness::{Job, LIBRARIES};
use crate::place::{Count, Place};
use crate::program::Program;

/// Starts an agent that traces `job`, and waits until it does.
#[track_caller]
pub(crate) fn start(place: &Place, job: &Job, settings: &[&str]) -> Program {
    let libraries = LIBRARIES.map(|(name, _)| job.library(name).display().to_string()).join(",");
    let mut command = place.command("causeway-agent");
    command.args(["--set", "node.name=node-1", "--set", "agent.drain_timeout=60s"]);
    command.args(["--set", &format!("agent.libraries={libraries}")]);
    command.args(["--set", &format!("spool.dir={}", place.dir("agent-spool").display())]);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    let mut agent = Program::start(command);
    agent.wait_for_log("agent started");
    agent
}

/// The calls that the job says it made, by source and operation as the oracle groups them.
pub(crate) fn made(job: &Job) -> BTreeMap<String, u64> {
    let made = job.calls();
    let mut calls = BTreeMap::new();
    for probe in CALLS {
        let sum: u64 = probe.symbols.iter().filter_map(|symbol| made.get(*symbol)).sum();
        *calls.entry(format!("{}/{}", probe.op.source().number(), probe.op.number())).or_default() += sum;
    }
    calls.retain(|_, count| *count > 0);
    calls
}

/// The calls of a job in `silver.events`, as PyIceberg and DuckDB count them.
#[track_caller]
pub(crate) fn landed(place: &Place, job: &str) -> BTreeMap<String, u64> {
    let sources = [Source::Cuda, Source::Driver, Source::Nccl].map(|source| source.number().to_string());
    let Count { groups, .. } = place.oracle("silver.events", &["--group", "job_id,source,op"]);
    let of_job = |(group, rows): (&String, &u64)| {
        let call = group.strip_prefix(job)?.strip_prefix('/')?;
        sources.iter().any(|source| call.split('/').next() == Some(source)).then(|| (call.to_owned(), *rows))
    };
    groups.iter().filter_map(of_job).collect()
}
