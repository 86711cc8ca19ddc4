//! Each rule at its threshold and below.

use event_schema::catalog::Op;

use super::*;
use crate::chain::Severity;

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;

fn event(op: Op, ts_ns: i64, duration_ns: i64) -> Event {
    let (source, op) = op.numbers();
    Event { ts_ns, source, op, duration_ns: Some(duration_ns), arg0: 0, arg1: 0 }
}

/// Launches of 10 µs, the last of which took `longest_ns`, ten a second from second 100 on.
fn launches(count: i64, longest_ns: i64) -> Vec<Event> {
    let duration_ns = |n: i64| if n + 1 == count { longest_ns } else { 10_000 };
    (0..count).map(|n| event(Op::CuLaunchKernel, 100 * S + n * 100 * MS, duration_ns(n))).collect()
}

fn replayed(events: impl IntoIterator<Item = Event>, system: Option<SystemPeak>) -> Vec<Chain> {
    let mut events: Vec<Event> = events.into_iter().collect();
    events.sort_by_key(|event| event.ts_ns);
    let mut replay = NodeReplay::default();
    replay.evidence.system = system;
    events.into_iter().for_each(|event| replay.observe(event));
    replay.finish("n1")
}

fn switches(count: i64) -> impl Iterator<Item = Event> {
    (0..count).map(|n| event(Op::SchedSwitch, 99 * S + n, 3 * MS))
}

#[test]
fn a_long_tail_with_something_to_blame_is_a_chain_in_the_references_words() {
    let chains = replayed(launches(20, 51_501_448).into_iter().chain(switches(7)), None);
    let [chain] = &chains[..] else { panic!("{chains:?}") };
    assert_eq!(chain.summary, "cuLaunchKernel p99=51.501448ms (5150.1x p50) — 7 sched_switch events");
    assert_eq!((chain.id.as_str(), chain.node.as_str()), ("n1:tail-medium-cuLaunchKernel", "n1"));
    assert_eq!((chain.severity, chain.p99_ns, chain.p50_ns), (Severity::Medium, Some(51_501_448), Some(10_000)));
    let steps: Vec<_> = chain.timeline.iter().map(|step| (step.layer.as_str(), step.detail.as_str())).collect();
    let switches = ("HOST", "7 context switches (21ms off-CPU)");
    assert_eq!(steps, [switches, ("DRIVER", "p99=51.501448ms (5150.1x p50=10µs)")]);
    assert_eq!(chain.fixes.len(), 2);
}

#[test]
fn calls_that_were_not_timed_have_no_part_in_a_tail_but_in_the_rate() {
    let untimed = |event: Event| Event { duration_ns: None, ..event };
    let tail: Vec<Event> = launches(20, 51_501_448);
    let between = launches(2_000, 10_000).into_iter().map(untimed);
    let chains = replayed(tail.into_iter().chain(between).chain(switches(7)), None);
    assert_eq!((chains[0].p50_ns, chains[0].p99_ns), (Some(10_000), Some(51_501_448)), "zeros would be the median");
    let none = replayed(launches(20, 51_501_448).into_iter().map(untimed).chain(switches(7)), None);
    assert_eq!(none, []);
}

#[test]
fn a_tail_is_none_below_each_threshold() {
    let with =
        |count, longest_ns, off: i64| replayed(launches(count, longest_ns).into_iter().chain(switches(off)), None);
    assert_eq!(with(20, MS, 4), [], "four switches");
    assert_eq!(with(9, MS, 7), [], "nine calls");
    assert_eq!(with(20, 29_999, 7), [], "less than three times the median");
    assert_eq!(with(20, 30_000, 5).len(), 1);
    let cuda_only =
        replayed(switches(7).chain((0..20).map(|n| event(Op::NcclAllReduce, 100 * S + n, (n + 1) * MS))), None);
    assert_eq!(cuda_only, [], "collectives have no tails here");
}

#[test]
fn the_host_makes_a_tail_severe() {
    let peak = SystemPeak { cpu_pct: 99.4, mem_pct: 96.0, mem_avail_mb: 12, swap_mb: 3, load_avg: 10.5 };
    let severity =
        |system, more: Vec<Event>| replayed(launches(20, MS).into_iter().chain(more), Some(system))[0].severity;
    let busy = SystemPeak { cpu_pct: 99.4, ..SystemPeak::default() };
    assert_eq!(severity(busy, vec![]), Severity::High);
    assert_eq!(severity(SystemPeak { load_avg: 10.5, ..SystemPeak::default() }, vec![]), Severity::Medium);
    let slow_disk = vec![event(Op::BlockWrite, 99 * S, 51 * MS)];
    assert_eq!(severity(SystemPeak::default(), slow_disk), Severity::High);
    let chain = &replayed(launches(20, MS), Some(peak))[0];
    assert_eq!(chain.root_cause, "high CPU utilization + memory pressure + swap activity + high system load");
    assert_eq!(chain.timeline[1].detail, "Memory 96% (12 MB available)");
}

#[test]
fn block_io_and_the_network_are_told_with_their_figures() {
    let io = (0..200).map(|n| {
        let op = if n < 150 { Op::BlockRead } else { Op::BlockWrite };
        Event { arg0: 8, ..event(op, 99 * S + n, 40_000) }
    });
    let retransmits = (0..6).map(|n| event(Op::TcpRetransmit, 99 * S + n, 0));
    let sockets = (0..101).map(|n| Event { arg1: 20_000, ..event(Op::NetSend, 99 * S + n, 0) });
    let chains = replayed(launches(20, MS).into_iter().chain(io).chain(retransmits).chain(sockets), None);
    let [chain] = &chains[..] else { panic!("{chains:?}") };
    assert_eq!(chain.root_cause, "heavy block I/O + 6 TCP retransmits + heavy network socket I/O");
    let details: Vec<_> = chain.timeline.iter().map(|step| step.detail.as_str()).collect();
    assert_eq!(
        details[..3],
        [
            "200 I/O ops (150 reads, 50 writes), 8ms total, 0.8 MB, peak 40µs",
            "6 retransmits",
            "101 socket ops (1.9 MB)"
        ]
    );
}

#[test]
fn a_rate_that_falls_after_enough_looks_is_a_drop() {
    let at = |second: i64, calls: i64| {
        (0..calls).map(move |n| event(Op::CudaLaunchKernel, second * S + n * S / calls, 10_000))
    };
    let fast = (100..108).flat_map(|second| at(second, 100));
    let events = || fast.clone().chain(at(108, 30)).chain(at(109, 30)).chain(at(110, 30));
    let chains = replayed(events().chain(switches(5)), None);
    let [chain] = &chains[..] else { panic!("{chains:?}") };
    assert!(chain.summary.starts_with("cudaLaunchKernel throughput dropped "), "{}", chain.summary);
    assert_eq!((chain.severity, chain.root_cause.as_str()), (Severity::High, "5 sched_switch events"));
    assert_eq!(replayed(events(), None), [], "nothing to blame");
    let early = (100..102).flat_map(|second| at(second, 100)).chain(at(102, 30));
    assert_eq!(replayed(early.chain(switches(5)), None), [], "no peak is believed yet");
}

#[test]
fn some_events_are_chains_by_themselves() {
    let many = |op, count: i64| (0..count).map(move |n| event(op, 99 * S + n, 0));
    let found = |events: Vec<Event>| replayed(events, None).into_iter().map(|c| (c.id, c.severity)).collect::<Vec<_>>();
    assert_eq!(found(many(Op::TcpRetransmit, 10).collect()), []);
    assert_eq!(
        found(many(Op::TcpRetransmit, 11).collect()),
        [("n1:tcp-retransmit-medium".to_owned(), Severity::Medium)]
    );
    assert_eq!(found(many(Op::TcpRetransmit, 101).collect()), [("n1:tcp-retransmit-high".to_owned(), Severity::High)]);
    assert_eq!(found(many(Op::OomKill, 1).collect()), [("n1:oom".to_owned(), Severity::High)]);
    assert_eq!(found(many(Op::PodOomKill, 1).collect()), [("n1:oom".to_owned(), Severity::High)]);
    assert_eq!(found(many(Op::PodRestart, 1).collect()), [("n1:pod-restart".to_owned(), Severity::High)]);
    assert_eq!(found(many(Op::PodEviction, 1).collect()), [("n1:pod-eviction".to_owned(), Severity::High)]);
    assert_eq!(found(Vec::new()), []);
}

#[test]
fn nodes_are_replayed_each_by_itself() {
    let mut replay = Replay::default();
    for event in launches(20, MS) {
        replay.node("c", "a").observe(event);
    }
    switches(9).for_each(|event| replay.node("c", "b").observe(event));
    assert_eq!(replay.finish(), []);
}
