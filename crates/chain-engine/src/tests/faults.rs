//! Several faults at once: who is blamed, who is mentioned, and who costs the job nothing.

use event_schema::catalog::Op;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{MS, chains, judged, only, reason, the_chain};
use crate::fixture::{BEGIN_NS, Fault, Job, Row, feed, findings};
use crate::{Engine, Limits, Loss, Reason, Settings, Verdict, text};

fn hog(rank: usize) -> Fault {
    Fault::Hog { rank, from: 0, to: usize::MAX }
}

#[test]
fn a_hog_on_a_rank_that_comes_before_a_slower_one_is_not_blamed_and_the_slower_one_is_named() {
    let faults = [Fault::MoreWork { rank: 1, times: 2.0 }, hog(2)];
    let finding = judged(&Job { hog_strength: 0.4, ..Job::with(faults) });
    assert!(matches!(reason(&finding), Reason::Unexplained { rank: 1, .. }), "{:?}", finding.verdict);
    assert!(finding.ranking.iter().all(|rank| !rank.is_blamed));
}

#[test]
fn of_two_faults_the_larger_is_told() {
    let finding = judged(&Job::with([Fault::MoreWork { rank: 1, times: 1.4 }, hog(2)]));
    assert_eq!(the_chain(&finding).rank, Some(2));
    let Verdict::Chains { unexplained, .. } = &finding.verdict else { panic!("{:?}", finding.verdict) };
    assert_eq!(unexplained, &[], "rank 1 comes before rank 2 in every iteration");
}

#[test]
fn a_slow_rank_without_a_chain_is_told_beside_the_chains() {
    let faults = [Fault::MoreWork { rank: 1, times: 1.6 }, Fault::Hog { rank: 2, from: 0, to: 300 }];
    let finding = judged(&Job { iterations: 600, ..Job::with(faults) });
    assert_eq!(the_chain(&finding).rank, Some(2));
    let Verdict::Chains { unexplained, .. } = &finding.verdict else { panic!("{:?}", finding.verdict) };
    assert!(matches!(unexplained[..], [Reason::Unexplained { rank: 1, .. }]), "{unexplained:?}");
    let reported = finding.ranking.iter().find(|rank| rank.rank == 1).and_then(|rank| rank.unexplained.clone());
    assert_eq!(reported.as_ref(), unexplained.first());
    let text = text::finding(&finding);
    assert!(text.ends_with(&format!("unknown: job train-1: {}\n", unexplained[0])), "{text}");
    assert_eq!(chains(&finding).len(), 1);
}

/// A rank whose CPU many processes have in turn, each of them little of it.
fn beside_a_build(processes: i64) -> Job {
    Job { hog_processes: processes, work_ns: 40 * MS, iterations: 100, ..Job::hog(1) }
}

#[test]
fn preemption_by_many_processes_is_preemption() {
    let finding = judged(&beside_a_build(12));
    let chain = the_chain(&finding);
    assert_eq!(chain.rank, Some(1));
    assert!(chain.explained_share.is_some_and(|share| share > 0.85), "{:?}", chain.explained_share);
    assert!(chain.summary.contains(" more: explains"), "{}", chain.summary);
}

#[test]
fn thousands_of_processes_that_come_and_go_are_told_alike_in_any_order_of_arrival() {
    let mut rows = beside_a_build(5_000).rows();
    let finding = only(findings(&rows));
    assert!(the_chain(&finding).explained_share.is_some_and(|share| share > 0.85), "{:?}", finding.verdict);
    rows.shuffle(&mut StdRng::seed_from_u64(3));
    assert_eq!(only(findings(&rows)), finding);
}

#[test]
fn a_cpu_that_nobody_known_had_is_said_apart() {
    let unnamed = |row: Row| Row { peer: None, arg0: if row.op == Op::RunnableWait { 0 } else { row.arg0 }, ..row };
    let rows: Vec<Row> = Job::hog(3).rows().into_iter().map(unnamed).collect();
    let finding = only(findings(&rows));
    let Reason::Unexplained { rank: 3, shares, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert!(shares.holder_unknown > 0.85, "{shares:?}");
    assert!(text::finding(&finding).contains(" % runnable, CPU holder unknown, "), "{}", text::finding(&finding));
}

#[test]
fn a_process_of_the_job_that_is_known_later_is_no_outsider() {
    let late = |row: &Row| row.rank != Some(1) || row.ts_ns > BEGIN_NS + 1_500 * MS;
    let rows: Vec<Row> = Job::with([Fault::Siblings { rank: 0 }]).rows().into_iter().filter(late).collect();
    let (before, after): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.ts_ns < BEGIN_NS + 1_400 * MS);
    let mut engine = Engine::default();
    feed(&mut engine, &before);
    engine.fold(BEGIN_NS + 1_300 * MS);
    feed(&mut engine, &after);
    let finding = only(engine.finish());
    assert!(chains(&finding).is_empty(), "{:?}", finding.verdict);
    let reported = finding.ranking.iter().find(|rank| rank.rank == 0).and_then(|rank| rank.shares);
    assert!(reported.is_some_and(|shares| shares.crowded_by_job > 0.85 && shares.preempted < 0.1), "{reported:?}");
}

#[test]
fn threads_that_never_synchronise_lose_nothing_that_matters() {
    let limits = Limits { intervals_per_thread: 128, ..Limits::default() };
    let reported = |job: &Job| {
        let mut engine = Engine::new(Settings { limits: limits.clone(), ..Settings::default() });
        let rows = job.rows();
        feed(&mut engine, &rows);
        // One of them synchronises twice: first and last of all.
        let calls: Vec<Row> =
            rows.into_iter().filter(|row| row.op == Op::CudaStreamSync && row.rank == Some(0)).collect();
        let by_helper = |row: Option<&Row>| row.map(|row| Row { tid: row.tid + 1, ..row.clone() });
        feed(&mut engine, &by_helper(calls.first()).into_iter().chain(by_helper(calls.last())).collect::<Vec<_>>());
        only(engine.finish())
    };
    let healthy = reported(&Job { helper_threads: 3, ..Job::default() });
    assert!(matches!(healthy.verdict, Verdict::Healthy { .. }), "{:?}", healthy.verdict);
    assert_eq!(healthy.coverage.left_out_rows, 0);
    assert_eq!(the_chain(&reported(&Job { helper_threads: 3, ..Job::hog(2) })).rank, Some(2));
}

#[test]
fn evidence_is_waits_that_made_the_iteration_longer() {
    let pause = Fault::Pause { rank: 2, every: 4, ns: 40 * MS };
    let rows = Job::with([hog(1), Fault::HogWhileWaiting { rank: 1 }, pause]).rows();
    let is_long = |row: &&Row| row.op == Op::RunnableWait && row.rank == Some(1) && row.duration_ns > 20 * MS;
    assert!(rows.iter().filter(is_long).count() > 40, "the longest waits explain nothing");
    let finding = only(findings(&rows));
    let chain = the_chain(&finding);
    assert_eq!((chain.rank, chain.evidence.len()), (Some(1), 10));
    let calls: Vec<&Row> = rows.iter().filter(|row| row.rank == Some(1) && row.op == Op::CudaStreamSync).collect();
    for id in &chain.evidence {
        let wait = rows.iter().find(|row| row.event_id == *id).expect("evidence is a row");
        let is_inside =
            |call: &&Row| call.ts_ns <= wait.ts_ns && wait.ts_ns + wait.duration_ns < call.ts_ns + call.duration_ns;
        let explains = wait.arg1 == 1 || !calls.iter().any(is_inside);
        assert!(explains, "{id} lies in a call that waited anyway");
    }
}

#[test]
fn what_one_node_lost_is_not_averaged_away() {
    let job = Job { ranks: 16, nodes: 16, iterations: 80, world_size: 16, ..Job::default() };
    let mut engine = Engine::default();
    feed(&mut engine, &job.rows());
    let of_node = job.rows().iter().filter(|row| row.node == "gpu-node-07").count() as u64;
    let lost = of_node / 2;
    let made = of_node + of_node / 2;
    engine.note_loss("lab", "gpu-node-07", Loss { from_ns: BEGIN_NS, to_ns: i64::MAX, lost, made });
    let finding = only(engine.finish());
    let Reason::Incomplete { node, missing_share, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert_eq!(node, "gpu-node-07");
    assert!((missing_share - 1.0 / 3.0).abs() < 0.01, "{missing_share}");
}

#[test]
fn a_rank_is_not_called_slow_by_rows_that_are_half_lost() {
    let job = Job { nodes: 4, ..Job::hog(1) };
    let mut engine = Engine::default();
    feed(&mut engine, &job.rows());
    let half = Loss { from_ns: BEGIN_NS, to_ns: i64::MAX, lost: 1_000, made: 2_000 };
    engine.note_loss("lab", "gpu-node-02", half);
    let finding = only(engine.finish());
    let Reason::Incomplete { node, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert_eq!(node, "gpu-node-02");

    let mut engine = Engine::default();
    feed(&mut engine, &job.rows());
    engine.note_loss("lab", "gpu-node-03", half);
    assert_eq!(the_chain(&only(engine.finish())).rank, Some(1), "another node's loss does not excuse it");
}
