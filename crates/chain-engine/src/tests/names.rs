//! Processes are named, not threads, and Causeway says when it is itself to blame.

use event_schema::catalog::Op;

use super::*;

/// The hog's waits as rows of a process with several threads, of which the first is named only when `leader` is.
fn threaded(leader: Option<&str>) -> Vec<Row> {
    let mut nth = 0;
    let thread = |row: Row| match &row.peer {
        Some((HOG_PID, _)) => {
            nth += 1;
            let (tid, name) = match (nth % 3, leader) {
                (0, Some(leader)) => (HOG_PID, leader),
                (1, _) => (HOG_PID + 1, "query"),
                _ => (HOG_PID + 2, "tokio-rt-worker"),
            };
            Row { arg0: i64::from(tid), peer: Some((HOG_PID, name.to_owned())), ..row }
        }
        _ => row,
    };
    Job::hog(3).rows().into_iter().map(thread).collect()
}

#[test]
fn waits_for_several_threads_of_one_process_are_blamed_on_the_process() {
    let finding = only(findings(&threaded(Some("backup"))));
    let chain = the_chain(&finding);
    assert!(chain.summary.contains(&format!("preempted by backup (pid {HOG_PID}):")), "{}", chain.summary);
    assert!(!text::finding(&finding).contains("tokio-rt-worker"), "{}", text::finding(&finding));
    let [culprit, ..] = &chain.culprits[..] else { panic!("{chain:?}") };
    assert_eq!((culprit.pid, culprit.name.as_deref(), culprit.is_causeway), (HOG_PID, Some("backup"), false));
    assert!(culprit.share > 0.9, "the threads' shares are one: {}", culprit.share);
    assert_eq!(finding.ranking[0].culprits, chain.culprits);
}

#[test]
fn a_process_of_which_only_threads_were_seen_is_named_from_elsewhere_or_by_them() {
    let rows = threaded(None);
    let of_threads = only(findings(&rows));
    let words = format!("the process of threads query, tokio-rt-worker (pid {HOG_PID})");
    assert!(the_chain(&of_threads).summary.contains(&words), "{}", the_chain(&of_threads).summary);

    let mut engine = Engine::default();
    feed(&mut engine, &rows);
    engine.note_process("lab", "gpu-node-01", HOG_PID, "backup");
    engine.note_process("lab", "another-node", HOG_PID, "wrong");
    let found = only(engine.finish());
    assert!(the_chain(&found).summary.contains(&format!("backup (pid {HOG_PID})")), "{}", the_chain(&found).summary);
}

#[test]
fn causeway_says_when_it_is_itself_to_blame_and_does_not_advise_to_starve_its_probes() {
    let mut rows = threaded(None);
    let beacon = Row { op: Op::Beacon, pid: HOG_PID, tid: HOG_PID, rank: None, peer: None, ..rows[0].clone() };
    rows.push(beacon);
    let finding = only(findings(&rows));
    let chain = the_chain(&finding);
    let words = format!("causeway (pid {HOG_PID}) (this is Causeway)");
    assert!(chain.summary.contains(&words), "{}", chain.summary);
    assert!(chain.culprits[0].is_causeway && !chain.fixes[0].contains("renice"), "{:?}", chain.fixes);
    assert!(chain.fixes[0].contains(&format!("taskset -cp CPUS {HOG_PID}")), "{:?}", chain.fixes);

    let by_name = only(findings(&threaded(Some("causeway-query"))));
    assert!(the_chain(&by_name).culprits[0].is_causeway);
}

#[test]
fn the_figures_of_a_chain_agree_and_say_what_an_iteration_costs() {
    let finding = judged(&Job { iterations: 600, ..Job::with([Fault::Hog { rank: 1, from: 200, to: 400 }]) });
    let chain = the_chain(&finding);
    let ratio = format!("{:.1}", chain.ratio.unwrap_or_default());
    let explanation = chain.explanation.as_deref().unwrap_or_default();
    assert!(chain.summary.contains(&format!("({ratio}x p50)")), "{}", chain.summary);
    assert!(explanation.contains(&format!("which is {ratio} times their ")), "{explanation}");
    let cost_ns = chain.cost_per_iteration_ns.unwrap_or(0);
    assert!((4 * MS..12 * MS).contains(&cost_ns), "a hog as strong as the rank costs its work once more: {cost_ns}");
    assert!(
        explanation.contains(&format!("That cost {} per iteration", format::go_duration(cost_ns))),
        "{explanation}"
    );
}

#[test]
fn a_name_with_control_characters_breaks_no_line() {
    let finding = only(findings(&threaded(Some("a\nb\u{1b}[31m"))));
    let text = text::finding(&finding);
    assert!(text.contains("preempted by a\\nb\\u{1b}[31m (pid"), "{text}");
}
