//! The engine on simulated jobs: whom it blames, whom it leaves alone, and that nothing but the rows decides.

use event_schema::catalog::{Op, Source};

use crate::fixture::{BEGIN_NS, Fault, HOG_PID, Job, Row, batch, feed, findings};
use crate::{Chain, Engine, Finding, Limits, Loss, Reason, Settings, Severity, Verdict, format, text};

mod faults;
mod losses;
mod many;
mod names;

const MS: i64 = 1_000_000;

fn only(findings: Vec<Finding>) -> Finding {
    let [finding] = <[Finding; 1]>::try_from(findings).expect("one run of one job");
    finding
}

fn judged(job: &Job) -> Finding {
    only(findings(&job.rows()))
}

fn chains(finding: &Finding) -> &[Chain] {
    if let Verdict::Chains { chains, .. } = &finding.verdict { chains } else { &[] }
}

fn reason(finding: &Finding) -> &Reason {
    let Verdict::Unknown { reason } = &finding.verdict else { panic!("not unknown: {:?}", finding.verdict) };
    reason
}

fn the_chain(finding: &Finding) -> &Chain {
    let [chain] = chains(finding) else { panic!("not one chain: {:?}", finding.verdict) };
    chain
}

#[test]
fn a_hog_on_one_rank_is_named_with_its_share_and_evidence() {
    let rows = Job::hog(3).rows();
    let finding = only(findings(&rows));
    let chain = the_chain(&finding);
    assert_eq!((chain.rank, chain.node.as_str(), chain.severity), (Some(3), "gpu-node-01", Severity::High));
    assert!(chain.summary.contains(&format!("preempted by cpu-hog (pid {HOG_PID})")), "{}", chain.summary);
    assert!(chain.explained_share.is_some_and(|share| share > 0.85), "{:?}", chain.explained_share);
    assert!(chain.confidence.is_some_and(|confidence| confidence > 0.8), "{:?}", chain.confidence);
    assert!(chain.ratio.is_some_and(|ratio| (1.5..4.0).contains(&ratio)), "{:?}", chain.ratio);
    assert_eq!(chain.evidence.len(), 10);
    let mut shortest_ns = i64::MAX;
    for id in &chain.evidence {
        let row = rows.iter().find(|row| row.event_id == *id).expect("evidence is a row");
        assert!(row.duration_ns <= shortest_ns && row.duration_ns > 2 * MS, "the longest first: {}", row.duration_ns);
        shortest_ns = row.duration_ns;
        assert_eq!(
            (row.op, row.rank, row.peer.as_ref().map(|peer| peer.0)),
            (Op::RunnableWait, Some(3), Some(HOG_PID))
        );
    }
    let blamed: Vec<i32> = finding.ranking.iter().filter(|rank| rank.is_blamed).map(|rank| rank.rank).collect();
    assert_eq!(blamed, [3]);
    assert_eq!(finding.ranking[0].rank, 3, "the blamed rank leads the ranking");
    assert!(
        finding.ranking[1..].iter().all(|rank| rank.score == 0.0 && rank.wait_p50_ns > finding.ranking[0].wait_p50_ns)
    );
}

#[test]
fn the_explained_share_is_what_the_rows_say() {
    let job = Job {
        iterations: 400,
        ..Job::with([Fault::MoreWork { rank: 2, times: 1.6 }, Fault::Hog { rank: 2, from: 0, to: usize::MAX }])
    };
    let rows = job.rows();
    let hogged = rows.iter().filter(|row| row.peer.as_ref().is_some_and(|peer| peer.0 == HOG_PID));
    let waited_ns = hogged.map(|row| row.duration_ns).sum::<i64>() as f64;
    let more_work_ns = 0.6 * job.work_ns as f64 * job.iterations as f64;
    let truth = waited_ns / (waited_ns + more_work_ns);
    let reported = the_chain(&only(findings(&rows))).explained_share.unwrap_or(0.0);
    println!("explained share: reported {reported:.3}, true {truth:.3}");
    assert!((0.6..0.85).contains(&truth) && (reported - truth).abs() < 0.06, "reported {reported}, true {truth}");
}

#[test]
fn the_text_form_reads_like_the_references() {
    let finding = judged(&Job::hog(3));
    let text = text::finding(&finding);
    println!("{}\n{text}", text::header(1, 1));
    let headline = text.lines().next().unwrap_or_default();
    assert!(headline.starts_with("[HIGH] [gpu-node-01] [job train-1] rank 3 iteration p99="), "{headline}");
    assert!(headline.contains("x p50) - ") && headline.ends_with(" % of the slowdown"), "{headline}");
    for part in ["Root cause: rank 3 was runnable", "Timeline:", "Fix: ", "Evidence: gpu-node-01:0f1e2d3c:"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_healthy_job_is_called_healthy() {
    let finding = judged(&Job::default());
    assert!(matches!(finding.verdict, Verdict::Healthy { ranks: 4, .. }), "{:?}", finding.verdict);
    assert!(finding.ranking.iter().all(|rank| rank.score == 0.0 && !rank.is_blamed && rank.evidence.is_empty()));
    assert!(
        text::finding(&finding).ends_with("none slower than its peers on the CPU\n"),
        "{}",
        text::finding(&finding)
    );
    let counts: Vec<usize> = finding.ranking.iter().map(|rank| rank.iterations).collect();
    assert_eq!(counts, [194; 4], "200 boundaries bound 199 iterations, and the first 5 are warm-up");
}

#[test]
fn where_every_rank_waits_long_it_is_said_that_the_gpus_are_not_compared() {
    let finding = judged(&Job { gpu_ns: 20 * MS, ..Job::default() });
    let Verdict::Healthy { least_wait_share, .. } = finding.verdict else { panic!("{:?}", finding.verdict) };
    assert!((0.6..0.9).contains(&least_wait_share), "{least_wait_share}");
    let text = text::finding(&finding);
    assert!(
        text.contains("the GPU or the network paces the job, and whether one of them is slow is not seen"),
        "{text}"
    );
    assert_eq!(the_chain(&judged(&Job { gpu_ns: 20 * MS, ..Job::hog(3) })).rank, Some(3));
}

#[test]
fn more_work_is_slower_but_not_explained() {
    let finding = judged(&Job::with([Fault::MoreWork { rank: 1, times: 2.0 }]));
    let Reason::Unexplained { rank: 1, ratio, shares, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert!(*ratio > 1.7 && shares.preempted < 0.2 && shares.asleep < 0.2, "{ratio} {shares:?}");
    assert!(text::finding(&finding).contains("x its peers) but not explained by preemption"));
    assert_eq!(finding.ranking[0].rank, 1);
}

#[test]
fn ranks_preempted_alike_single_nobody_out() {
    let finding = judged(&Job::with([Fault::HogEverywhere]));
    assert!(matches!(reason(&finding), Reason::EveryRankPreempted { share } if *share > 0.25), "{:?}", finding.verdict);
}

#[test]
fn sleep_io_and_copies_are_not_preemption() {
    let sleep = judged(&Job::with([Fault::Sleep { rank: 2, ns: 8 * MS, io: false }]));
    let Reason::Unexplained { rank: 2, shares, .. } = reason(&sleep) else { panic!("{:?}", sleep.verdict) };
    assert!(shares.asleep > 0.8 && shares.uninterruptible < 0.1, "{shares:?}");

    let io = judged(&Job::with([Fault::Sleep { rank: 2, ns: 8 * MS, io: true }]));
    let Reason::Unexplained { rank: 2, shares, .. } = reason(&io) else { panic!("{:?}", io.verdict) };
    assert!(shares.uninterruptible > 0.8 && shares.asleep < 0.1, "{shares:?}");

    let copies = judged(&Job::with([Fault::MoreBytes { rank: 2, times: 50 }]));
    let Reason::Unexplained { rank: 2, shares, .. } = reason(&copies) else { panic!("{:?}", copies.verdict) };
    assert!((shares.bytes_ratio - 50.0).abs() < 1.0 && shares.copying > 0.8, "nested calls count once: {shares:?}");
}

#[test]
fn a_cpu_shared_within_the_job_is_not_an_outsiders_doing() {
    let finding = judged(&Job::with([Fault::Siblings { rank: 0 }]));
    let Reason::Unexplained { rank: 0, shares, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert!(shares.crowded_by_job > 0.8 && shares.preempted < 0.1, "{shares:?}");
}

#[test]
fn what_every_rank_suffers_explains_no_rank() {
    let finding = judged(&Job::with([Fault::Toll { ns: 4 * MS }, Fault::MoreWork { rank: 1, times: 2.0 }]));
    let Reason::Unexplained { rank: 1, shares, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert!(shares.preempted < 0.1, "{shares:?}");
}

#[test]
fn waits_off_the_critical_path_are_no_cause() {
    let slow = Fault::MoreWork { rank: 1, times: 2.0 };
    let helper = judged(&Job::with([slow, Fault::HogOnHelper { rank: 1 }, Fault::HogOnHelper { rank: 2 }]));
    assert!(matches!(reason(&helper), Reason::Unexplained { rank: 1, .. }), "{:?}", helper.verdict);
    let waiting = judged(&Job::with([slow, Fault::HogWhileWaiting { rank: 2 }]));
    assert!(matches!(reason(&waiting), Reason::Unexplained { rank: 1, .. }), "{:?}", waiting.verdict);
}

#[test]
fn without_scheduler_rows_the_slow_rank_is_named_and_the_cause_is_not() {
    let finding = judged(&Job { scheduler_rows: false, ..Job::hog(3) });
    assert!(matches!(reason(&finding), Reason::NoSchedulerData { rank: 3, .. }), "{:?}", finding.verdict);
}

#[test]
fn too_few_ranks_or_iterations_are_unknown() {
    let two = judged(&Job { ranks: 2, ..Job::hog(1) });
    assert_eq!(reason(&two), &Reason::TooFewRanks { ranks: 2, needed: 3 });
    let short = judged(&Job { iterations: 20, ..Job::hog(1) });
    assert!(matches!(reason(&short), Reason::TooLittleData { needed: 30, .. }), "{:?}", short.verdict);
}

#[test]
fn ranks_unseen_or_rows_lost_forbid_calling_a_job_healthy() {
    let unseen = judged(&Job { world_size: 8, ..Job::default() });
    assert_eq!(reason(&unseen), &Reason::RanksMissing { seen: 4, world_size: 8 });
    let mut engine = Engine::default();
    feed(&mut engine, &Job::default().rows());
    let always = Loss { from_ns: BEGIN_NS, to_ns: i64::MAX, lost: 950, made: 1_000 };
    engine.note_loss("lab", "gpu-node-01", always);
    let lossy = only(engine.finish());
    assert!(
        matches!(reason(&lossy), Reason::Incomplete { missing_share, .. } if *missing_share > 0.9),
        "{:?}",
        lossy.verdict
    );
}

#[test]
fn clocks_that_disagree_between_nodes_change_neither_blame_nor_claim_an_order() {
    let job = Job { nodes: 4, clock_offset_ns: 70 * MS, clock_error_ns: 100, ..Job::hog(2) };
    let finding = judged(&job);
    let chain = the_chain(&finding);
    assert_eq!((chain.rank, chain.node.as_str()), (Some(2), "gpu-node-03"));
    let symptom = chain.timeline.last().expect("a symptom");
    assert_eq!(symptom.at_ns, None);
    assert!(symptom.detail.contains("no order in time is claimed"), "{}", symptom.detail);

    let of_one_node = judged(&Job { nodes: 1, ..job });
    assert!(the_chain(&of_one_node).timeline.last().is_some_and(|step| step.at_ns.is_some()));
}

#[test]
fn lost_synchronising_calls_are_borne() {
    let finding = judged(&Job { lost_syncs: 0.1, iterations: 400, ..Job::hog(0) });
    assert_eq!(the_chain(&finding).rank, Some(0));
}

#[test]
fn a_collective_that_waits_in_untraced_code_is_seen_by_its_sleep() {
    let finding = judged(&Job { collective_is_traced: false, ..Job::hog(3) });
    assert_eq!(the_chain(&finding).rank, Some(3));
    let healthy = judged(&Job { collective_is_traced: false, ..Job::default() });
    assert!(matches!(healthy.verdict, Verdict::Healthy { .. }), "{:?}", healthy.verdict);
}

#[test]
fn a_fault_that_begins_and_ends_is_dated() {
    let finding = judged(&Job { iterations: 600, ..Job::with([Fault::Hog { rank: 1, from: 200, to: 400 }]) });
    let chain = the_chain(&finding);
    let affected = chain.iterations_affected.unwrap_or(0);
    assert!((150..=210).contains(&affected), "{affected} of 200");
    assert!(chain.first_seen_ns > BEGIN_NS + 1_200 * MS && chain.last_seen_ns < finding.last_ns - 1_000 * MS);
    let brief = judged(&Job { iterations: 600, ..Job::with([Fault::Hog { rank: 1, from: 300, to: 310 }]) });
    assert!(matches!(brief.verdict, Verdict::Healthy { .. }), "ten iterations are no spell: {:?}", brief.verdict);
}

#[test]
fn a_job_started_again_is_judged_anew() {
    let first = Job::hog(3);
    let second = Job { pid_base: 9_000, begin_ns: BEGIN_NS + 3_600_000 * MS, ..Job::default() };
    let found = findings(&[first.rows(), second.rows()].concat());
    assert_eq!(found.len(), 2);
    assert_eq!(the_chain(&found[0]).rank, Some(3));
    assert!(matches!(found[1].verdict, Verdict::Healthy { .. }), "{:?}", found[1].verdict);
}

#[test]
fn rows_of_no_job_are_no_finding() {
    let rows: Vec<Row> = Job::hog(3).rows().into_iter().map(|row| Row { rank: None, ..row }).collect();
    assert_eq!(findings(&rows), []);
}

#[test]
fn waits_that_do_not_name_their_rank_belong_to_their_process() {
    let unnamed = |row: Row| if row.op.source() == Source::Host { Row { rank: None, ..row } } else { row };
    let rows: Vec<Row> = Job::hog(3).rows().into_iter().map(unnamed).collect();
    assert_eq!(only(findings(&rows)), judged(&Job::hog(3)));
}

#[test]
fn a_rank_inherited_from_the_launcher_gives_way_to_the_one_that_is_stated_later() {
    let mut rows = Job::hog(3).rows();
    let until_ns = rows.iter().map(|row| row.ts_ns).min().unwrap() + 50 * MS;
    for row in rows.iter_mut().filter(|row| row.rank.is_some() && row.ts_ns < until_ns) {
        (row.rank, row.world_size) = (Some(0), 1);
    }
    assert_eq!(the_chain(&only(findings(&rows))).rank, Some(3));
}

#[test]
fn a_chain_keeps_its_id_while_it_lasts_and_is_told_only_when_there_is_news() {
    let rows = Job { iterations: 600, ..Job::hog(3) }.rows();
    let mut engine = Engine::default();
    let mut ids = Vec::new();
    for part in rows.chunks(2_000) {
        feed(&mut engine, part);
        let until_ns = part.iter().map(|row| row.ts_ns).max().unwrap_or(0) - 50 * MS;
        ids.extend(engine.advance(until_ns).iter().flat_map(chains).map(|chain| (chain.id.clone(), chain.rank)));
    }
    assert!(ids.len() > 3, "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let last_ns = rows.iter().map(|row| row.ts_ns + row.duration_ns).max().unwrap_or(0);
    engine.advance(last_ns);
    assert_eq!(engine.advance(last_ns + MS), [], "nothing new");
}

#[test]
fn a_batch_says_the_same_as_its_rows() {
    let rows = Job::hog(3).rows();
    let mut engine = Engine::default();
    engine.push(&batch(&rows)).expect("a batch of silver.events");
    assert_eq!(engine.finish(), findings(&rows));
}

#[test]
fn bounds_are_kept_and_told() {
    let limits = Limits { pending_rows: 2_000, iterations: 400, ..Limits::default() };
    let mut engine = Engine::new(Settings { limits, ..Settings::default() });
    feed(&mut engine, &Job { iterations: 1_000, ..Job::hog(3) }.rows());
    let finding = only(engine.finish());
    assert_eq!(the_chain(&finding).rank, Some(3));
    let coverage = finding.coverage;
    assert!(coverage.early_folds > 0 && coverage.iterations_forgotten >= 3_500, "{coverage:?}");
    assert!(finding.ranking.iter().all(|rank| rank.iterations <= 100), "{:?}", finding.ranking);

    let few = Limits { processes: 2, ..Limits::default() };
    let mut engine = Engine::new(Settings { limits: few, ..Settings::default() });
    feed(&mut engine, &Job::hog(3).rows());
    assert!(only(engine.finish()).coverage.left_out_rows > 1_000);
}

#[test]
fn late_and_impossible_rows_are_left_out_and_counted() {
    let rows = Job::hog(3).rows();
    let mut engine = Engine::default();
    feed(&mut engine, &rows);
    engine.advance(i64::MAX - 1);
    feed(&mut engine, &rows[..100]);
    let hostile = Row { ts_ns: i64::MAX, boot_ns: i64::MIN, duration_ns: i64::MAX, ..rows[0].clone() };
    feed(&mut engine, &[hostile]);
    let finding = only(engine.finish());
    let counted = rows[..100].iter().filter(|row| row.observation().kind().is_some()).count() as u64;
    assert_eq!(finding.coverage.left_out_rows, counted + 1);
    let expected = only(findings(&rows));
    assert_eq!(the_chain(&finding).summary, the_chain(&expected).summary);
    assert!(the_chain(&finding).confidence < the_chain(&expected).confidence, "less certain for what is missing");
}
