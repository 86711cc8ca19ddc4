//! Spans, and the partition of one iteration.

use proptest::prelude::*;

use super::*;

fn span(start_ns: i64, end_ns: i64) -> Span {
    Span { start_ns, end_ns }
}

fn spans(of: &[(i64, i64)]) -> Spans {
    let mut all = Spans::default();
    of.iter().for_each(|(start, end)| all.push(span(*start, *end)));
    all
}

fn by(pid: i32) -> Holder {
    Holder::Outsider(Peer { pid })
}

fn runnable(start_ns: i64, end_ns: i64, holder: Holder) -> OffCpu {
    let id = Arc::from(format!("n:b:{start_ns}"));
    OffCpu { span: span(start_ns, end_ns), why: OffCpuReason::Runnable { woken: false, holder, id } }
}

fn woken(start_ns: i64, end_ns: i64) -> OffCpu {
    let why = OffCpuReason::Runnable { woken: true, holder: by(1), id: Arc::from("n:b:woken") };
    OffCpu { span: span(start_ns, end_ns), why }
}

fn blocked(start_ns: i64, end_ns: i64, uninterruptible: bool) -> OffCpu {
    OffCpu { span: span(start_ns, end_ns), why: OffCpuReason::Blocked { uninterruptible } }
}

#[test]
fn a_driver_call_inside_a_runtime_call_is_one_span() {
    assert_eq!(spans(&[(12, 18), (10, 20), (30, 40)]), spans(&[(10, 20), (30, 40)]));
}

#[test]
fn gaps_are_what_is_left() {
    let all = spans(&[(-5, 10), (20, 30), (90, 120)]);
    assert_eq!(all.gaps(span(0, 100)), spans(&[(10, 20), (30, 90)]));
    assert_eq!(spans(&[]).gaps(span(0, 100)), spans(&[(0, 100)]));
}

proptest! {
    #[test]
    fn spans_and_their_gaps_fill_the_whole(ends in proptest::collection::btree_map(1_i64..1_000, 0_i64..200, 0..30)) {
        let whole = span(100, 900);
        let all = spans(&ends.into_iter().map(|(end, length)| (end - length, end)).collect::<Vec<_>>());
        let gaps = all.gaps(whole);
        prop_assert_eq!(all.overlap_ns(whole) + gaps.length_ns(), whole.length_ns());
        prop_assert_eq!(gaps.gaps(whole).length_ns(), all.overlap_ns(whole));
    }
}

#[test]
fn time_off_the_cpu_counts_only_outside_calls_that_wait() {
    let calls = spans(&[(60_000_000, 100_000_000)]);
    let off = [
        blocked(0, 5_000_000, false),
        blocked(5_000_000, 6_000_000, true),
        runnable(10_000_000, 20_000_000, by(7)),
        runnable(50_000_000, 70_000_000, by(7)),
        blocked(70_000_000, 99_000_000, false),
    ];
    let parts = partition(span(0, 100_000_000), &calls, &off);
    assert_eq!((parts.wait_ns, parts.sleep_ns, parts.uninterruptible_ns), (40_000_000, 5_000_000, 1_000_000));
    let [peer] = parts.peers.as_slice() else { panic!("{:?}", parts.peers) };
    assert_eq!(peer.peer.pid, 7);
    assert_eq!(peer.waits, CpuWaits { count: 2, busy_ns: 20_000_000, whole_ns: 30_000_000 });
    assert_eq!(peer.waits, parts.outsiders);
    let evidence = &peer.weightiest;
    assert_eq!((evidence.busy_ns, evidence.duration_ns, &*evidence.event_id), (10_000_000, 20_000_000, "n:b:50000000"));
}

#[test]
fn a_late_wake_is_the_ranks_own_delay() {
    let calls = spans(&[(60_000_000, 100_000_000)]);
    let off = [blocked(60_010_000, 90_000_000, false), woken(90_000_000, 99_990_000)];
    let parts = partition(span(0, 100_000_000), &calls, &off);
    assert_eq!((parts.wait_ns, parts.outsiders.busy_ns), (30_000_000, 9_990_000));
}

#[test]
fn losing_the_cpu_in_a_call_that_spins_does_not_show_when_the_call_was_released() {
    let calls = spans(&[(60_000_000, 100_000_000)]);
    // Preempted 3 ms before the release at 99 ms, and running again 1 ms after it.
    let parts = partition(span(0, 101_000_000), &calls, &[runnable(96_000_000, 99_990_000, by(1))]);
    assert_eq!((parts.wait_ns, parts.outsiders.busy_ns), (40_000_000, 0));
}

#[test]
fn what_follows_the_wake_up_in_a_call_is_the_ranks_own_delay() {
    let calls = spans(&[(60_000_000, 100_000_000)]);
    let parts = |off: &[OffCpu]| {
        let parts = partition(span(0, 101_000_000), &calls, off);
        (parts.wait_ns, parts.outsiders.busy_ns)
    };
    let woken_then_preempted = [
        blocked(60_010_000, 90_000_000, false),
        woken(90_000_000, 94_000_000),
        runnable(94_010_000, 99_990_000, by(1)),
    ];
    assert_eq!(parts(&woken_then_preempted), (30_000_000, 9_980_000));
    let woken_at_once_then_preempted =
        [blocked(60_010_000, 90_000_000, false), runnable(90_020_000, 99_990_000, by(1))];
    assert_eq!(parts(&woken_at_once_then_preempted), (30_000_000, 9_970_000));
    let woken_long_before = [woken(70_000_000, 71_000_000), runnable(96_000_000, 99_990_000, by(1))];
    assert_eq!(parts(&woken_long_before), (40_000_000, 0), "it went on waiting after that wake-up");
    for before in [blocked(50_000_000, 59_980_000, false), woken(59_900_000, 59_980_000)] {
        let (waited_ns, busy_ns) = parts(&[before, runnable(60_020_000, 99_990_000, by(1))]);
        assert_eq!(waited_ns, 40_000_000, "it was woken before the call");
        assert!(busy_ns < 100_000, "{busy_ns}");
    }
}

#[test]
fn waits_that_explain_nothing_are_no_evidence() {
    let calls = spans(&[(60_000_000, 100_000_000)]);
    let off = [
        runnable(10_000_000, 12_000_000, by(7)),
        runnable(50_000_000, 55_000_000, by(7)),
        runnable(59_000_000, 70_000_000, by(7)),
        runnable(72_000_000, 99_000_000, by(7)),
        runnable(99_100_000, 99_500_000, by(8)),
    ];
    let parts = partition(span(0, 101_000_000), &calls, &off);
    let [peer] = parts.peers.as_slice() else { panic!("{:?}", parts.peers) };
    assert_eq!(peer.waits, CpuWaits { count: 3, busy_ns: 8_000_000, whole_ns: 18_000_000 });
    assert_eq!(&*peer.weightiest.event_id, "n:b:50000000", "5 ms of it were lost, of longer ones less");
}

#[test]
fn the_largest_peers_are_named_and_all_are_added_up() {
    let mut off: Vec<OffCpu> = (1..7).map(|n| runnable(n * 10, n * 10 + n, by(n as i32))).collect();
    off.push(runnable(80, 85, Holder::OwnJob));
    off.push(runnable(90, 97, Holder::Unknown));
    let parts = partition(span(0, 100), &Spans::default(), &off);
    let reported: Vec<(i32, i64)> = parts.peers.iter().map(|wait| (wait.peer.pid, wait.waits.busy_ns)).collect();
    assert_eq!(reported, [(6, 6), (5, 5), (4, 4), (3, 3)]);
    assert_eq!(parts.outsiders, CpuWaits { count: 6, busy_ns: 21, whole_ns: 21 });
    assert_eq!((parts.own_job_ns, parts.unknown_ns), (5, 7));
}
