//! Which chains are shown as one.

use super::*;
use crate::text;

fn chain(node: &str, severity: Severity, op: Option<&str>, at_ns: i64, ratio: f64) -> Chain {
    let mut chain = Chain::reported(format!("{node}:{at_ns}"), node, severity, format!("p99 {ratio}"), at_ns);
    chain.op = op.map(str::to_owned);
    chain.ratio = Some(ratio);
    chain
}

#[test]
fn equal_chains_are_one_group_with_their_count_and_time() {
    let op = Some("cuLaunchKernel");
    let chains = [
        chain("a", Severity::High, op, 3_000_000_000, 5.0),
        chain("a", Severity::High, op, 1_000_000_000, 9.0),
        chain("a", Severity::Medium, op, 2_000_000_000, 3.0),
        chain("b", Severity::High, op, 2_000_000_000, 3.0),
        chain("a", Severity::High, Some("cudaMalloc"), 2_000_000_000, 3.0),
        chain("a", Severity::High, op, 7_000_000_000, 7.0),
    ];
    let found = groups(&chains);
    let counts: Vec<usize> = found.iter().map(|group| group.count).collect();
    assert_eq!(counts, [3, 1, 1, 1]);
    let first = &found[0];
    assert_eq!((first.chain.ratio, first.first_seen_ns, first.last_seen_ns), (Some(9.0), 1_000_000_000, 7_000_000_000));
    let text = text::render_group(first);
    assert!(
        text.contains(
            "\n  Seen: 3 times from 1970-01-01T00:00:01.000Z to 1970-01-01T00:00:07.000Z; the worst is shown\n"
        ),
        "{text}"
    );
}

#[test]
fn jobs_ranks_and_words_without_an_operation_tell_chains_apart() {
    let of_job = |job: &str, rank| Chain {
        job_id: Some(job.to_owned()),
        rank: Some(rank),
        ..chain("a", Severity::High, Some("iteration"), 1, 2.0)
    };
    assert_eq!(groups(&[of_job("one", 3), of_job("two", 3), of_job("one", 2), of_job("one", 3)]).len(), 3);
    let words = [chain("a", Severity::High, None, 1, 2.0), chain("a", Severity::High, None, 1, 4.0)];
    assert_eq!(groups(&words).len(), 2, "an OOM kill and a pod eviction are two things");
    assert_eq!(groups(&[]), []);
}
