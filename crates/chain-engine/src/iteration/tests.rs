//! Where iterations begin and end.

use super::*;
use crate::features::OffCpuReason;

const MS: i64 = 1_000_000;

fn call(kind: Kind, start_ns: i64, end_ns: i64, op: Op) -> Call {
    Call { span: Span { start_ns, end_ns }, kind, op, offset_ns: 0, error_ns: 0 }
}

fn sync(start_ns: i64, end_ns: i64) -> Call {
    call(Kind::Sync, start_ns, end_ns, Op::CudaStreamSync)
}

fn bounds(calls: impl IntoIterator<Item = Call>) -> Vec<(i64, i64)> {
    let mut thread = Thread::default();
    calls.into_iter().for_each(|call| thread.call(call));
    thread.iterations().iter().map(|iteration| (iteration.span.start_ns / MS, iteration.span.end_ns / MS)).collect()
}

#[test]
fn an_iteration_ends_where_a_synchronising_call_returns() {
    let calls = [sync(8 * MS, 10 * MS), sync(15 * MS, 20 * MS), sync(28 * MS, 30 * MS)];
    assert_eq!(bounds(calls), [(10, 20), (20, 30)]);
}

#[test]
fn a_runtime_call_around_a_driver_call_ends_one_iteration() {
    let mut thread = Thread::default();
    for end_ms in [10, 20, 30] {
        thread.call(call(Kind::Sync, (end_ms - 4) * MS + 1_000, end_ms * MS - 1_000, Op::CuStreamSynchronize));
        thread.call(call(Kind::Sync, (end_ms - 4) * MS, end_ms * MS, Op::CudaStreamSync));
    }
    let ends: Vec<i64> = thread.iterations().iter().map(|iteration| iteration.span.end_ns).collect();
    assert_eq!(ends, [20 * MS, 30 * MS]);
    let last = &thread.iterations()[1];
    assert_eq!(last.ended_by, Op::CudaStreamSync, "the outer call's name");
    assert_eq!(last.parts.wait_ns, 4 * MS - 1_000, "counted once, less what the outer call did before the inner one");
}

#[test]
fn once_there_are_collectives_only_their_synchronisation_ends_an_iteration() {
    let collective = |at_ms: i64| call(Kind::Collective, at_ms * MS, at_ms * MS + 5_000, Op::NcclAllReduce);
    let calls = [
        sync(8 * MS, 10 * MS),
        collective(17),
        sync(18 * MS, 20 * MS),
        sync(23 * MS, 24 * MS),
        collective(27),
        sync(28 * MS, 30 * MS),
    ];
    assert_eq!(bounds(calls), [(10, 20), (20, 30)]);
}

#[test]
fn synchronising_twice_at_once_makes_no_iteration_of_nothing() {
    let calls =
        [sync(8 * MS, 10 * MS), sync(18 * MS, 20 * MS), sync(20 * MS + 1_000, 20 * MS + 2_000), sync(29 * MS, 30 * MS)];
    assert_eq!(bounds(calls), [(10, 20), (20, 30)]);
}

#[test]
fn a_copy_made_by_a_copy_counts_once() {
    let mut thread = Thread::default();
    thread.call(sync(8 * MS, 10 * MS));
    thread.call(call(Kind::Copy(64), 11 * MS + 1_000, 12 * MS - 1_000, Op::CuMemcpyAsync));
    thread.call(call(Kind::Copy(64), 11 * MS, 12 * MS, Op::CudaStreamSync));
    thread.call(call(Kind::Copy(8), 13 * MS, 14 * MS, Op::CudaStreamSync));
    thread.call(sync(19 * MS, 20 * MS));
    let iteration = &thread.iterations()[0];
    assert_eq!((iteration.copy_bytes, iteration.copy_ns), (72, 2 * MS));
}

#[test]
fn a_lost_call_makes_one_long_iteration() {
    assert_eq!(bounds([sync(8 * MS, 10 * MS), sync(38 * MS, 40 * MS)]), [(10, 40)]);
}

#[test]
fn the_oldest_are_forgotten_and_counted() {
    let mut thread = Thread::default();
    (1..=11).for_each(|n| thread.call(sync((10 * n - 2) * MS, 10 * n * MS)));
    assert_eq!(thread.keep_latest(4), 6);
    assert_eq!(thread.iterations().front().map(|iteration| iteration.number), Some(6));
    assert_eq!(thread.iterations_seen(), 10);
}

#[test]
fn a_thread_that_never_synchronises_keeps_nothing() {
    let mut thread = Thread::default();
    thread.call(call(Kind::Collective, 0, MS, Op::NcclAllReduce));
    thread.call(call(Kind::Copy(8), MS, 2 * MS, Op::CudaStreamSync));
    let span = Span { start_ns: 2 * MS, end_ns: 3 * MS };
    thread.off_cpu(OffCpu { span, why: OffCpuReason::Blocked { uninterruptible: false } });
    assert_eq!((thread.waits.len(), thread.copies.len(), thread.off_cpu.len()), (0, 0, 0));
}

#[test]
fn what_is_dropped_at_the_bound_counts_when_an_iteration_lacks_it() {
    let asleep = |at_ms: i64| OffCpu {
        span: Span { start_ns: at_ms * MS, end_ns: (at_ms + 1) * MS },
        why: OffCpuReason::Blocked { uninterruptible: false },
    };
    let mut thread = Thread::default();
    let sleep = |thread: &mut Thread, from_ms: i64| {
        (from_ms..from_ms + 10).for_each(|ms| {
            thread.off_cpu(asleep(ms));
            thread.bound_intervals(8);
        });
        thread.dropped()
    };
    assert_eq!(sleep(&mut thread, 0), 0, "before the first boundary");
    thread.call(sync(18 * MS, 20 * MS));
    assert_eq!(sleep(&mut thread, 21), 0, "no iteration lacks it yet");
    thread.call(sync(38 * MS, 40 * MS));
    assert_eq!(thread.dropped(), 4);
    sleep(&mut thread, 41);
    assert_eq!(thread.dropped(), 4, "after the last boundary");
}

#[test]
fn a_tight_loop_of_launches_has_an_iteration_for_each() {
    for (kind, iterations) in [(Kind::Launch, 9), (Kind::Collective, 9), (Kind::Copy(8), 0)] {
        let mut thread = Thread::default();
        for n in 1..=10 {
            thread.call(call(kind, n * MS + 5_000, n * MS + 10_000, Op::CudaStreamSync));
            thread.call(sync(n * MS + 12_000, (n + 1) * MS));
        }
        let lengths: Vec<i64> = thread.iterations().iter().map(Iteration::wall_ns).collect();
        assert_eq!(lengths, vec![MS; iterations], "{kind:?}");
    }
}
