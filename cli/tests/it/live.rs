//! The whole way, live: kernel probes, agent, spool, ingest, tables, `explain`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadtest::bench::detect::{Answer, Case};
use serde_json::Value;

use crate::run::{Lake, Up};

/// One live test at a time: the hog of one job would slow the other. `None`, with a word, when not root.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: loading probes needs root");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs the live case once.
fn answer(with_hog: bool) -> Option<Answer> {
    let _alone = alone()?;
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

/// A job of four ranks that is named `name`.
fn train(stub: &Path, name: &str, args: &str) -> Child {
    let mut job = Command::new(stub);
    job.args(["--job", name, "--ranks", "4"]).args(args.split_whitespace());
    job.stdout(Stdio::null()).spawn().unwrap()
}

fn trained(mut job: Child) {
    assert!(job.wait().unwrap().success());
}

/// A server that traces this host, and the stub job.
fn traced(dir: &Path, data_ring: &str) -> (Lake, Up, PathBuf) {
    let lake = Lake::new();
    let up = lake.up_traced(data_ring);
    let case = Case::prepare(dir, PathBuf::from(env!("CARGO_BIN_EXE_causeway"))).unwrap();
    (lake, up, case.stub().to_owned())
}

fn finding<'a>(document: &'a Value, job: &str) -> &'a Value {
    let findings = document["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["job_id"] == job).unwrap_or_else(|| panic!("{job} is not in {document:#}"))
}

#[test]
fn root_explain_right_after_a_job_has_seen_all_of_it_or_says_what_is_still_landing() {
    let Some(_alone) = alone() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (lake, up, stub) = traced(dir.path(), "8MiB");
    trained(train(&stub, "soon", "--seconds 4 --launches 40 --cpu-us 200 --gpu-us 2000"));
    let at_once = up.ask(&["explain", "--job", "soon", "--json"]).ok();
    let document = at_once.json();
    let still = document["completeness"]["still_landing"].as_array().unwrap();
    let rows = |document: &Value| finding(document, "soon")["coverage"]["rows"].as_u64().unwrap();
    // The same window again, once everything has landed for certain.
    let [from, to] = ["from", "to"].map(|key| document["window"][key].as_str().unwrap());
    let window = ["explain", "--job", "soon", "--json", "--from", from, "--to", to, "--wait", "120s"];
    let later = up.ask(&window).ok().json();
    assert_eq!(later["completeness"]["still_landing"], serde_json::json!([]), "{later:#}");
    if still.is_empty() {
        assert_eq!(rows(&document), rows(&later), "what had landed was said to be everything");
    } else {
        assert!(at_once.err.contains("incomplete: still landing: "), "{}", at_once.err);
        let strict = up.ask(&["explain", "--job", "soon", "--wait", "0s", "--strict"]);
        assert!([0, 3].contains(&strict.code), "{} {}", strict.code, strict.err);
    }

    up.stop().ok();
    let up = lake.up(&[]);
    let nodes = up.ask(&["nodes", "--json"]).ok().json();
    let node = &nodes["nodes"][0];
    assert_eq!((&node["status"], &node["lag_ms"]), (&"ended".into(), &Value::Null), "{node}");
    let history = up.ask(&["query", "SELECT count(*) FROM events WHERE job_id = 'soon'"]).ok();
    assert!(history.err.contains("1 row from 1 node(s)") && !history.err.contains("missing"), "{}", history.err);
}

#[test]
fn root_of_two_jobs_at_once_every_chain_says_whose_it_is() {
    let Some(_alone) = alone() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_lake, up, stub) = traced(dir.path(), "8MiB");
    let hog = "--apart 3 --hog-rank 3 --hog-nice -12 --isolate";
    let first = train(&stub, "two-a", &format!("--seconds 8 --launches 10 --cpu-us 500 --gpu-us 3000 {hog}"));
    let second = train(&stub, "two-b", "--seconds 8 --launches 10 --cpu-us 100 --gpu-us 3000 --pin 0=0,1=0,2=0,3=0");
    trained(first);
    trained(second);
    let document = up.ask(&["explain", "--json", "--wait", "120s"]).ok().json();
    for job in ["two-a", "two-b"] {
        assert_eq!(finding(&document, job)["job_id"], job);
    }
    let chains = document["chains"].as_array().unwrap();
    assert!(chains.iter().any(|chain| chain["job_id"] == "two-a" && chain["rank"] == 3), "{document:#}");
    let [from, to] = ["from", "to"].map(|key| document["window"][key].as_str().unwrap());
    let text = up.ask(&["explain", "--all", "--from", from, "--to", to]).ok().out;
    for chain in chains {
        let [severity, node, job] = ["severity", "node", "job_id"].map(|key| chain[key].as_str().unwrap());
        let head = format!("[{severity}] [{node}] [job {job}] rank {} ", chain["rank"]);
        assert!(text.contains(&head), "{head} is not in\n{text}");
        let ratio = format!("{:.1}", chain["ratio"].as_f64().unwrap());
        let explanation = chain["explanation"].as_str().unwrap();
        assert!(explanation.contains(&format!("which is {ratio} times")), "one ratio: {explanation}");
    }
}

#[test]
fn root_a_burst_of_losses_is_charged_to_the_job_that_ran_in_it_and_to_no_other() {
    let Some(_alone) = alone() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_lake, up, stub) = traced(dir.path(), "1MiB");
    let quiet = "--seconds 4 --launches 5 --cpu-us 200 --gpu-us 3000";
    trained(train(&stub, "before", quiet));
    let during = train(&stub, "during", "--seconds 10 --launches 60 --cpu-us 200 --gpu-us 1000");
    // Part of the scenario, as the next wait is: the job runs undisturbed for a while, so that a share of it is without losses.
    std::thread::sleep(Duration::from_secs(3));
    // An agent that gets no CPU for this long does not read its rings: they overflow.
    up.signal("-STOP");
    std::thread::sleep(Duration::from_secs(5));
    up.signal("-CONT");
    trained(during);
    // Until the agent has caught up, its losses are reported with the burst.
    up.ask(&["explain", "--job", "during", "--wait", "120s"]).ok();
    trained(train(&stub, "after", quiet));
    let document = up.ask(&["explain", "--json", "--wait", "120s"]).ok().json();
    let lossy = &finding(&document, "during")["coverage"]["losses"];
    let burst = lossy.as_array().unwrap().iter().max_by_key(|loss| loss["lost_events"].as_u64()).expect("losses");
    let [lost, made] = ["lost_events", "made_events"].map(|key| burst[key].as_u64().unwrap());
    assert!(lost > 1_000 && lost < made && burst["iterations_not_judged"].as_u64() > Some(0), "{burst}");
    for job in ["before", "after"] {
        let finding = finding(&document, job);
        let [first, last] = ["first_ns", "last_ns"].map(|key| finding[key].as_i64().unwrap());
        let losses = finding["coverage"]["losses"].as_array().unwrap();
        assert!(losses.iter().all(|loss| loss["from_ns"] != burst["from_ns"]), "{finding:#}");
        // A busy machine may lose events at any time; then those are said, with their own time.
        for loss in losses {
            let [from, to] = ["from_ns", "to_ns"].map(|key| loss[key].as_i64().unwrap());
            assert!(from <= last + 1_000_000_000 && to >= first - 1_000_000_000, "{finding:#}");
        }
        if losses.is_empty() {
            assert_ne!(finding["verdict"]["reason"]["kind"], "incomplete", "{finding:#}");
        }
    }
    let no_node = up.ask(&["query", "SELECT 1", "--strict"]);
    assert_eq!((no_node.code, no_node.err.contains("node")), (0, false), "{}", no_node.err);
    let text = up.ask(&["explain", "--job", "during", "--wait", "0s"]).ok().out;
    assert!(text.contains("lost: job during: ") && text.contains(" not judged"), "{text}");
}
