//! The whole way, live: kernel probes, agent, spool, ingest, tables, `explain`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use loadtest::bench::detect::{Answer, Case};

/// Runs the live case once, alone: the hog of one job would slow the other. `None`, with a word, when not root.
fn answer(with_hog: bool) -> Option<Answer> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: loading probes needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let case = Case::prepare(dir.path(), PathBuf::from(env!("CARGO_BIN_EXE_causeway"))).unwrap();
    Some(case.run(&dir.path().join("run"), with_hog).unwrap())
}

#[test]
fn root_explain_blames_the_rank_that_a_hog_keeps_from_its_cpu_and_nobody_else() {
    let Some(answer) = answer(true) else { return };
    assert_eq!(answer.fault(true), None, "{:#}", answer.document);
    let chain = &answer.document["chains"][0];
    assert!(chain["first_seen_ns"].as_i64() < chain["last_seen_ns"].as_i64());
    assert_eq!(answer.evidence.len(), chain["evidence"].as_array().unwrap().len(), "every id names an event");
}

#[test]
fn root_explain_blames_nobody_without_a_hog() {
    let Some(answer) = answer(false) else { return };
    assert_eq!(answer.fault(false), None, "{:#}", answer.document);
}
