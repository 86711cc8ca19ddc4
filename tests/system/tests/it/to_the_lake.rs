//! From the call in a traced process to the row in the lake: what the job made = what landed + what was counted as lost.

use crate::agent;
use crate::harness::{Job, alone_as_root};
use crate::ingest::Ingest;
use crate::place::Place;

/// By this name its calls are distinguished from those of another job on this machine.
const JOB: &str = "to-the-lake";

/// Traces a job to its end, lands everything, and holds the audit.
fn trace(place: &Place, job: &Job, settings: &[&str], work: &str) {
    let mut ingest = Ingest::start(place);
    ingest.wait_for_log("reading begins");
    let agent = agent::start(place, job, settings);
    assert!(job.start(&format!("{work} --job {JOB}")).wait().unwrap().success());
    agent.terminate().ok();
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    let audit = place.audit().ok();
    assert!(!audit.out.contains("not ended"), "the probes' own account was held against the ledger: {}", audit.out);
}

#[test]
fn root_every_call_of_the_job_is_in_the_lake() {
    let Some(_alone) = alone_as_root() else { return };
    let (place, job) = (Place::local(), Job::new());
    trace(&place, &job, &[], "--ranks 4 --iterations 60 --launches 40 --gpu-us 1000");
    let made = agent::made(&job);
    eprintln!("{} calls made and landed", made.values().sum::<u64>());
    assert_eq!(agent::landed(&place, JOB), made);
}

#[test]
fn root_with_a_ring_too_small_what_is_not_in_the_lake_is_in_its_ledger() {
    let Some(_alone) = alone_as_root() else { return };
    let (place, job) = (Place::local(), Job::new());
    // Without waits the ring holds nothing but calls: every loss is a call's.
    let settings = ["agent.data_ring=4KiB", "agent.min_runnable=1h", "agent.min_blocked=1h"];
    trace(&place, &job, &settings, "--ranks 4 --iterations 60 --launches 200 --gpu-us 200");
    let ledger = ["--id", "log_name,log_partition,log_offset", "--group", "kind", "--sum", "ring_drop"];
    let lost = u64::try_from(place.oracle("ops.ledger", &ledger).sum).unwrap();
    let made: u64 = agent::made(&job).values().sum();
    let landed: u64 = agent::landed(&place, JOB).values().sum();
    eprintln!("{made} calls made, {landed} landed, {lost} counted as lost");
    assert!(lost > 0, "the ring was too small");
    assert_eq!(made, landed + lost);
}
