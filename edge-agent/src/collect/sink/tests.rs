//! Events are shed when the spool does not keep up, critical records are not; and idle streams get their beacons.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use bpf::{Class, Comm};

use super::*;

mod processes;

fn sink(queue: usize) -> (Sink, Receiver<Input>) {
    let (spool, inputs) = sync_channel(queue);
    (Sink::new(Limits::default(), None, spool, Metrics::default()), inputs)
}

fn record(class: Class, op: Op, pid: i32, boot_ns: i64) -> Record {
    Record {
        class,
        boot_ns,
        duration: None,
        source: op.source().number(),
        op: op.number(),
        pid,
        tid: pid,
        cpu: 0,
        comm: Comm::default(),
        cgroup_id: 1,
        arg0: 0,
        arg1: 0,
        bytes: None,
        ret_code: None,
        peer: None,
    }
}

/// Takes a little time for each of the inputs until no sender is left; returns the batches of each stream.
fn slowly(inputs: Receiver<Input>) -> std::thread::JoinHandle<HashMap<Stream, usize>> {
    std::thread::spawn(move || {
        let mut batches = HashMap::new();
        std::thread::sleep(Duration::from_millis(100));
        for input in inputs {
            if let Input::Cut(cut) = input {
                *batches.entry(cut.stream).or_default() += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        batches
    })
}

#[test]
fn a_spool_that_does_not_keep_up_sheds_events_and_no_critical_record() {
    let (mut sink, inputs) = sink(1);
    sink.events_wait = Duration::ZERO;
    let shed = sink.metrics.shed.clone();
    let spooling = slowly(inputs);
    let own_pid = i32::try_from(std::process::id()).unwrap();
    for i in 0..20 {
        sink.take(&record(Class::Sched, Op::Blocked, own_pid, i));
        sink.take(&record(Class::Process, Op::ProcessExec, own_pid, i));
        sink.cut(EventStream::Critical).unwrap();
        sink.cut(EventStream::Data).unwrap();
    }
    drop(sink);
    let batches = spooling.join().unwrap();
    assert_eq!(batches[&Stream::Critical], 20);
    let events = batches.get(&Stream::Data).copied().unwrap_or(0);
    assert!(events < 20 && shed.get() == 20 - events as u64, "{batches:?}, {} shed", shed.get());
}

#[test]
fn a_spool_that_is_busy_for_a_moment_sheds_nothing() {
    let (mut sink, inputs) = sink(1);
    // A test machine may stand still for longer than a node.
    sink.events_wait *= 40;
    let shed = sink.metrics.shed.clone();
    let own_pid = i32::try_from(std::process::id()).unwrap();
    let spooling = slowly(inputs);
    for i in 0..20 {
        sink.take(&record(Class::Sched, Op::Blocked, own_pid, i));
        sink.cut(EventStream::Data).unwrap();
    }
    drop(sink);
    assert_eq!((spooling.join().unwrap()[&Stream::Data], shed.get()), (20, 0));
}

#[test]
fn processes_that_are_met_together_take_one_place_in_the_queue() {
    let (mut sink, inputs) = sink(4);
    for n in 1..=100 {
        sink.take(&record(Class::Sched, Op::Blocked, i32::MAX - n, 1));
    }
    sink.cut_due().unwrap();
    let met = inputs.try_iter().map(|input| match input {
        Input::Cut(cut) => (cut.kind.name(), cut.batch.num_rows()),
        other => panic!("{other:?}"),
    });
    assert_eq!(met.collect::<Vec<_>>(), [("process", 100), ("cgroup", 1)]);
}

#[test]
fn at_the_end_nothing_is_shed_however_full_the_queue_is() {
    let (mut sink, inputs) = sink(1);
    let shed = sink.metrics.shed.clone();
    let own_pid = i32::try_from(std::process::id()).unwrap();
    let spooling = slowly(inputs);
    sink.take(&record(Class::Sched, Op::Blocked, own_pid, 1));
    sink.events_wait = HAND_OVER_LIMIT;
    sink.missed.data.ring_drop = 3;
    sink.finish(&Counters::default()).unwrap();
    drop(sink);
    let batches = spooling.join().unwrap();
    assert_eq!((batches[&Stream::Data], batches[&Stream::Critical], shed.get()), (1, 1, 0));
}

#[test]
fn a_spool_that_is_gone_is_not_waited_for() {
    let (mut sink, inputs) = sink(1);
    drop(inputs);
    let began = Instant::now();
    sink.finish(&Counters::default()).unwrap();
    assert!(began.elapsed() < HAND_OVER_LIMIT / 2);
    assert_eq!(sink.metrics.shed.get(), 2, "the accounts of both streams");
}

#[test]
fn a_beacon_is_due_on_a_stream_that_falls_idle_and_not_again_until_more_comes() {
    const NONE: [EventStream; 0] = [];
    let (mut sink, inputs) = sink(8);
    assert_eq!(sink.fallen_idle(), NONE, "nothing has come yet");
    let own_pid = i32::try_from(std::process::id()).unwrap();
    let beacon = Beacon { boot_ns: 7, wall_ns: 7, error_ns: 1 };
    sink.now_ns = 5 * IDLE_NS;
    sink.take(&record(Class::Sched, Op::Blocked, own_pid, 1));
    sink.take(&record(Class::Process, Op::ProcessExec, own_pid, 1));
    sink.now_ns += IDLE_NS - 1;
    assert_eq!(sink.fallen_idle(), NONE);
    sink.take(&record(Class::Sched, Op::Blocked, own_pid, 1));
    sink.now_ns += 1;
    assert_eq!(sink.fallen_idle(), [EventStream::Critical], "however busy the other one is");
    sink.report_beacon(&beacon, &[EventStream::Critical]);
    assert_eq!(sink.fallen_idle(), NONE);
    sink.now_ns += IDLE_NS;
    assert_eq!(sink.fallen_idle(), [EventStream::Data]);
    sink.report_beacon(&beacon, &[EventStream::Data]);
    sink.now_ns += 100 * IDLE_NS;
    assert_eq!(sink.fallen_idle(), NONE);
    sink.cut(EventStream::Data).unwrap();
    sink.cut(EventStream::Critical).unwrap();
    drop(sink);
    let mut rows = HashMap::new();
    for input in inputs {
        if let Input::Cut(cut) = input {
            *rows.entry(cut.stream).or_insert(0) += cut.batch.num_rows();
        }
    }
    assert_eq!((rows[&Stream::Data], rows[&Stream::Critical]), (3, 2), "the events, and a beacon each");
}
