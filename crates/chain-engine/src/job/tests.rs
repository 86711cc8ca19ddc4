//! Which processes are one job, and of whom nothing can be said.

use crate::fixture::{BEGIN_NS, Job, Row, feed, findings};
use crate::{Engine, Finding, Limits, Reason, Settings, Verdict, text};

const MS: i64 = 1_000_000;

fn reason(finding: &Finding) -> &Reason {
    let Verdict::Unknown { reason } = &finding.verdict else { panic!("not unknown: {:?}", finding.verdict) };
    reason
}

fn on_node(job: &Job, node: &str) -> Vec<Row> {
    job.rows().into_iter().map(|row| Row { node: node.to_owned(), ..row }).collect()
}

#[test]
fn jobs_without_a_name_are_told_apart_by_their_nodes() {
    for job_id in [None, Some("none"), Some("")] {
        let slow = Job { job_id, ..Job::hog(3) };
        // Of the other job, half is on a node with the first one's rank numbers, and it begins in the middle of it.
        let other = Job { job_id, pid_base: 5_000, begin_ns: BEGIN_NS + 3 * MS, seed: 2, ..Job::default() };
        let found = findings(&[on_node(&slow, "a"), on_node(&other, "b")].concat());
        assert_eq!(found.len(), 2, "{job_id:?}: {found:?}");
        assert!(found.iter().all(|finding| finding.job_id.is_none()));
        assert!(matches!(&found[0].verdict, Verdict::Chains { chains, .. } if chains[0].rank == Some(3)), "{found:?}");
        assert!(matches!(found[1].verdict, Verdict::Healthy { ranks: 4, .. }), "{:?}", found[1].verdict);
        assert!(
            text::finding(&found[1]).starts_with("none: job (unnamed, on b): 4 ranks"),
            "{}",
            text::finding(&found[1])
        );
    }
}

#[test]
fn a_job_without_a_name_goes_by_its_node_when_no_rank_iterated() {
    let rows: Vec<Row> = on_node(&Job { job_id: None, iterations: 1, ..Job::default() }, "a");
    let [finding] = <[Finding; 1]>::try_from(findings(&rows)).expect("one run");
    assert_eq!(
        text::finding(&finding),
        "unknown: job (unnamed, on a): 0 iteration(s) seen and 30 of every rank are needed\n"
    );
}

#[test]
fn two_jobs_under_one_name_at_one_time_are_not_judged_as_one() {
    for job_id in [None, Some("sweep")] {
        let slow = Job { job_id, ..Job::hog(3) };
        let other = Job { job_id, pid_base: 5_000, begin_ns: BEGIN_NS + 3 * MS, seed: 2, ..Job::default() };
        let found = findings(&[slow.rows(), other.rows()].concat());
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(reason(finding), &Reason::SeveralJobs { rank: 0 });
        assert!(text::finding(finding).contains("give each job an id of its own"), "{}", text::finding(finding));
    }
}

#[test]
fn a_helper_that_inherits_a_rank_does_not_keep_its_job_from_being_judged() {
    for iterations in [4, 20] {
        // The helpers of rank 0, one of them from before the first iterations.
        let helper = |pid_base, begin_ns| Job { ranks: 1, iterations, pid_base, begin_ns, ..Job::default() }.rows();
        let early = helper(500, BEGIN_NS + 1);
        let found = findings(&[Job::default().rows(), early, helper(7_000, BEGIN_NS + 300 * MS)].concat());
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert!(matches!(finding.verdict, Verdict::Healthy { ranks: 4, .. }), "{:?}", finding.verdict);
    }
}

#[test]
fn a_rank_that_was_never_compared_is_not_called_healthy() {
    let seldom = |row: &Row| row.rank != Some(2) || row.ts_ns < BEGIN_NS + 400 * MS;
    let rows: Vec<Row> = Job { iterations: 400, ..Job::default() }.rows().into_iter().filter(seldom).collect();
    let [finding] = <[Finding; 1]>::try_from(findings(&rows)).expect("one run");
    assert_eq!(reason(&finding), &Reason::NotCompared { ranks: vec![2], of: 4 });
    assert!(text::finding(&finding).contains("1 of 4 ranks have too few iterations"), "{}", text::finding(&finding));
}

#[test]
fn a_rank_seen_for_part_of_the_run_is_not_called_healthy_for_all_of_it() {
    let rows = Job { iterations: 400, ..Job::default() }.rows();
    let middle_ns = rows.iter().map(|row| row.ts_ns).max().map_or(0, |last_ns| i64::midpoint(BEGIN_NS, last_ns));
    let in_half = |row: &Row| row.rank != Some(2) || row.ts_ns < middle_ns;
    let rows: Vec<Row> = rows.into_iter().filter(in_half).collect();
    let [finding] = <[Finding; 1]>::try_from(findings(&rows)).expect("one run");
    assert_eq!(reason(&finding), &Reason::NotCompared { ranks: vec![2], of: 4 });
}

#[test]
fn iterations_that_were_forgotten_are_not_called_healthy() {
    let limits = Limits { iterations: 400, ..Limits::default() };
    let mut engine = Engine::new(Settings { limits, ..Settings::default() });
    feed(&mut engine, &Job { iterations: 1_000, ..Job::default() }.rows());
    let [finding] = <[Finding; 1]>::try_from(engine.finish()).expect("one run");
    let Reason::Forgotten { iterations: 3_500.., from_ns } = reason(&finding) else { panic!("{finding:?}") };
    assert_eq!(*from_ns, finding.first_ns);
    assert!(text::finding(&finding).contains("look at a shorter window"), "{}", text::finding(&finding));
}

#[test]
fn folding_slice_by_slice_leaves_nothing_out_and_says_the_same() {
    let rows = Job::hog(3).rows();
    let mut engine = Engine::default();
    for slice in 0..100 {
        let within = |row: &&Row| (row.ts_ns - BEGIN_NS).div_euclid(50 * MS) == slice;
        let part: Vec<Row> = rows.iter().rev().filter(within).cloned().collect();
        feed(&mut engine, &part);
        engine.fold(BEGIN_NS + (slice + 1) * 50 * MS - 1);
    }
    let sliced = engine.finish();
    assert_eq!(sliced[0].coverage.left_out_rows, 0);
    assert_eq!(sliced, findings(&rows));
}
