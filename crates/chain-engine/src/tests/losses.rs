//! Losses count against the iterations they overlap, and against nothing else.

use super::*;

const SECOND: i64 = 1_000 * MS;

/// Lost half of what was made, in this time after the job's beginning.
fn burst(from_ns: i64, to_ns: i64) -> Loss {
    Loss { from_ns: BEGIN_NS + from_ns, to_ns: BEGIN_NS + to_ns, lost: 5_000, made: 10_000 }
}

fn with_losses(jobs: &[&Job], node: &str, losses: &[Loss]) -> Vec<Finding> {
    let mut engine = Engine::default();
    jobs.iter().for_each(|job| feed(&mut engine, &job.rows()));
    losses.iter().for_each(|loss| engine.note_loss("lab", node, *loss));
    engine.finish()
}

/// Without what happened in a stretch of time: what a burst of losses leaves of a job's rows.
fn cut_out(job: &Job, from_ns: i64, to_ns: i64) -> Vec<Row> {
    let is_lost = |row: &Row| (from_ns..to_ns).contains(&(row.ts_ns + row.duration_ns - BEGIN_NS));
    job.rows().into_iter().filter(|row| !is_lost(row)).collect()
}

#[test]
fn a_burst_before_and_after_a_job_changes_nothing_of_what_is_said_of_it() {
    let job = Job::hog(3);
    let before = burst(-9 * SECOND, -MS);
    let after = burst(100 * SECOND, 108 * SECOND);
    let alone = only(findings(&job.rows()));
    assert_eq!(only(with_losses(&[&job], "gpu-node-01", &[before, after])), alone);
    assert_eq!(only(with_losses(&[&job], "another-node", &[burst(0, 9 * SECOND)])), alone);
}

#[test]
fn a_burst_in_one_job_leaves_the_jobs_before_and_after_it_as_they_are() {
    let first = Job::hog(3);
    let second =
        Job { job_id: Some("train-2"), pid_base: 5_000, begin_ns: BEGIN_NS + 60 * SECOND, seed: 2, ..Job::default() };
    let found = with_losses(&[&first, &second], "gpu-node-01", &[burst(-SECOND, 30 * SECOND)]);
    let [lossy, spared] = &found[..] else { panic!("{found:?}") };
    assert!(matches!(reason(lossy), Reason::Incomplete { from_ns: Some(_), .. }), "{:?}", lossy.verdict);
    assert!(matches!(spared.verdict, Verdict::Healthy { ranks: 4, .. }), "{:?}", spared.verdict);
    assert_eq!((spared.coverage.lost_events, &spared.coverage.losses[..]), (0, &[][..]));
}

#[test]
fn verdicts_of_the_iterations_outside_a_burst_keep_standing_and_it_is_said_what_was_charged() {
    let job = Job { iterations: 1_000, ..Job::hog(3) };
    let from_ns = 2 * SECOND;
    let to_ns = 4 * SECOND;
    let mut engine = Engine::default();
    feed(&mut engine, &cut_out(&job, from_ns, to_ns));
    engine.note_loss("lab", "gpu-node-01", burst(from_ns, to_ns));
    let finding = only(engine.finish());
    assert_eq!(the_chain(&finding).rank, Some(3));
    let [charged] = &finding.coverage.losses[..] else { panic!("{:?}", finding.coverage) };
    assert_eq!((charged.lost_events, charged.made_events, charged.share), (5_000, 10_000, 0.5));
    assert!(charged.iterations_not_judged >= 4, "one that straddles it for each rank: {charged:?}");
    let text = text::losses(&finding);
    assert!(
        text.starts_with(
            "lost: job train-1: 5000 of 10000 events (50.0 %) that gpu-node-01 made from 2026-01-01T00:00:02.000Z to \
             2026-01-01T00:00:04.000Z are missing: "
        ) && text.ends_with("in that time not judged\n"),
        "{text}"
    );

    let healthy = Job { iterations: 1_000, ..Job::default() };
    let finding = only(with_losses(&[&healthy], "gpu-node-01", &[burst(from_ns, to_ns)]));
    let Verdict::Healthy { iterations, .. } = finding.verdict else { panic!("{:?}", finding.verdict) };
    assert!((500..900).contains(&iterations), "those in the burst are not judged: {iterations}");
}

#[test]
fn a_job_whose_iterations_all_lie_in_a_burst_is_unknown_and_the_share_is_that_of_the_burst() {
    let finding = only(with_losses(&[&Job::default()], "gpu-node-01", &[burst(-SECOND, 60 * SECOND)]));
    let Reason::Incomplete { node, missing_share, .. } = reason(&finding) else { panic!("{:?}", finding.verdict) };
    assert_eq!((node.as_str(), *missing_share), ("gpu-node-01", 0.5));
    let text = text::finding(&finding);
    assert!(text.contains("50.0 % of the events that gpu-node-01 made from 2025-12-31T23:59:59.000Z to "), "{text}");
}

#[test]
fn a_burst_on_one_node_of_a_job_is_not_held_against_the_ranks_of_the_others() {
    let job = Job { nodes: 4, iterations: 1_000, ..Job::hog(1) };
    let found = with_losses(&[&job], "gpu-node-03", &[burst(0, 5 * SECOND)]);
    let finding = only(found);
    assert_eq!(the_chain(&finding).rank, Some(1));
    let counts: Vec<(i32, usize)> = finding.ranking.iter().map(|rank| (rank.rank, rank.iterations)).collect();
    let of = |wanted| counts.iter().find(|(rank, _)| *rank == wanted).map_or(0, |(_, count)| *count);
    assert!(of(2) < of(0) && of(0) == of(1) && of(1) == of(3), "{counts:?}");

    let healthy = Job { nodes: 4, iterations: 1_000, ..Job::default() };
    let finding = only(with_losses(&[&healthy], "gpu-node-03", &[burst(SECOND, 3 * SECOND)]));
    assert!(matches!(finding.verdict, Verdict::Healthy { ranks: 4, .. }), "{:?}", finding.verdict);
}

#[test]
fn a_few_events_lost_all_along_are_borne_and_said() {
    let few: Vec<Loss> =
        (0..20).map(|n| Loss { lost: 20, made: 1_000, ..burst(n * 250 * MS, n * 250 * MS + MS) }).collect();
    let finding = only(with_losses(&[&Job::hog(3)], "gpu-node-01", &few));
    assert_eq!(the_chain(&finding).rank, Some(3));
    assert!(finding.coverage.losses.iter().all(|loss| !loss.is_heavy && loss.iterations_not_judged == 0));
    let text = text::losses(&finding);
    assert!(text.contains("(2.0 %)") && text.ends_with("too few to leave an iteration out\n"), "{text}");
}
