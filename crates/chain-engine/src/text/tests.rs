//! Forms of chains.

use expect_test::expect;

use super::*;
use crate::chain::{Severity, Step};
use crate::{Reason, Shares};

#[test]
fn a_chain_of_the_reference_is_shown_in_its_own_words() {
    let mut chain = Chain::reported(
        "gpu-node-01:tail-medium-cuLaunchKernel",
        "gpu-node-01",
        Severity::Medium,
        "cuLaunchKernel p99=734.136µs (45.8x p50) — 827 sched_switch events + heavy block I/O",
        1_775_218_723_000_000_000,
    );
    chain.root_cause = "827 sched_switch events + heavy block I/O".to_owned();
    chain.fixes = vec!["Pin the process with taskset".to_owned()];
    chain.timeline = vec![
        Step {
            layer: "HOST".to_owned(),
            op: "sched_switch".to_owned(),
            detail: "827 context switches (622ms off-CPU)".to_owned(),
            at_ns: None,
            duration_ns: None,
        },
        Step {
            layer: "DRIVER".to_owned(),
            op: "cuLaunchKernel".to_owned(),
            detail: "p99=734.136µs (45.8x p50=16.036µs)".to_owned(),
            at_ns: None,
            duration_ns: Some(734_136),
        },
    ];
    expect![[r"
        [MEDIUM] [gpu-node-01] cuLaunchKernel p99=734.136µs (45.8x p50) — 827 sched_switch events + heavy block I/O
          Root cause: 827 sched_switch events + heavy block I/O
          Seen: 2026-04-03T12:18:43.000Z
          Timeline:
            [HOST] sched_switch: 827 context switches (622ms off-CPU)
            [DRIVER] cuLaunchKernel: p99=734.136µs (45.8x p50=16.036µs) (734.136µs)
          Fix: Pin the process with taskset
    "]]
    .assert_eq(&render(&chain));
    assert_eq!(header(6, 3), "FLEET CAUSAL CHAINS - 6 chain(s) from 3 node(s)");
}

#[test]
fn a_chain_serialises_with_plain_names() {
    let chain = Chain::reported("a", "n", Severity::High, "s", 1);
    let json = serde_json::to_value(&chain).expect("plain data");
    assert_eq!((json["severity"].as_str(), json["cause"].as_str()), (Some("HIGH"), Some("reported")));
    assert!(json["rank"].is_null());
}

#[test]
fn a_reason_is_read_back_from_its_document() {
    let reason = Reason::Unexplained { node: "a".to_owned(), rank: 3, ratio: 2.0, shares: Shares::default() };
    let document = serde_json::to_value(&reason).expect("plain data");
    assert_eq!(serde_json::from_value::<Reason>(document).expect("the same type"), reason);
    let shares = serde_json::json!({ "bytes_ratio": 0.0 });
    let older = serde_json::json!({ "kind": "unexplained", "node": "a", "rank": 3, "ratio": 2.0, "shares": shares });
    assert_eq!(serde_json::from_value::<Reason>(older).expect("a share that is not given is none"), reason);
}
