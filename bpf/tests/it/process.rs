//! Life and death of traced processes, and the hints by which new ones are found.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use bpf::{Class, NoticeKind, Options, Tracer};

use crate::harness::{Job, Seen, alone_as_root, load, start_helper};

#[test]
fn root_fork_exec_and_exit_are_seen_with_their_status() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options::default());
    let script = "read go; sh -c 'exit 7'; /bin/true; kill -9 $$";
    let mut shell = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = shell.id() as i32;
    tracer.trace_process(pid).unwrap();
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut seen = Seen::default();
    seen.follow(&mut tracer, &mut shell);
    let counters = seen.finish(&mut tracer);
    assert_eq!(counters.of(Class::Process).ring_drop, 0);
    let forks = seen.of("process_fork");
    assert!(forks.iter().all(|r| r.pid == pid && r.class == Class::Process));
    let children: Vec<i64> = forks.iter().map(|r| r.arg0).collect();
    assert_eq!(children.len(), 2);
    let exit_of = |pid: i64| seen.of("process_exit").into_iter().find(|r| i64::from(r.pid) == pid).copied().unwrap();
    assert_eq!((exit_of(children[0]).arg0, exit_of(children[0]).ret_code), (7, Some(7)));
    assert_eq!(exit_of(children[1]).arg0, 0);
    assert_eq!((exit_of(i64::from(pid)).arg0, exit_of(i64::from(pid)).arg1), (0, 9), "killed");
    let execs = seen.of("process_exec");
    let image_of = |pid: i64| execs.iter().find(|r| i64::from(r.pid) == pid).map(|r| r.comm.as_str());
    assert_eq!((image_of(children[0]), image_of(children[1])), (Some("sh"), Some("true")));
}

#[test]
fn root_nothing_is_kept_of_threads_whose_process_is_no_longer_traced() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options::default());
    for stop in [Tracer::untrace, Tracer::release] {
        let script = "while read line; do :; done";
        let mut shell = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = shell.id() as i32;
        tracer.trace_process(pid).unwrap();
        let stdin = shell.stdin.take().unwrap();
        let mut seen = Seen::default();
        // Its exec may be the first record, and only a wait that began when the process was traced is recorded.
        seen.poll_until(&mut tracer, |seen| {
            (&stdin).write_all(b"go\n").unwrap();
            seen.records.iter().any(|r| r.class == Class::Sched)
        });
        assert!(tracer.wait_totals().unwrap().iter().any(|t| t.tid == pid));
        stop(&tracer, pid).unwrap();
        drop(stdin);
        shell.wait().unwrap();
        assert!(tracer.wait_totals().unwrap().is_empty(), "another thread may get its number");
        seen.poll(&mut tracer, Duration::ZERO);
        assert_eq!(seen.of("process_exit").len(), 0);
    }
}

/// Run by the next test in a process of its own.
#[test]
#[ignore = "a helper of root_a_process_exits_once_however_many_threads_it_had"]
fn run_eight_threads() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(std::thread::yield_now))));
}

#[test]
fn root_a_process_exits_once_however_many_threads_it_had() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options::default());
    let mut helper = start_helper(Command::new(std::env::current_exe().unwrap()), "process::run_eight_threads");
    tracer.trace_process(helper.id() as i32).unwrap();
    helper.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut helper).success());
    seen.finish(&mut tracer);
    assert_eq!(seen.of("process_exit").len(), 1);
    assert_eq!(seen.of("process_fork").len(), 0, "a thread is not a process");
    let threads: HashSet<i32> = seen.records.iter().map(|r| r.tid).collect();
    assert!(threads.len() > 8, "waits of its threads are recorded");
    assert!(tracer.wait_totals().unwrap().is_empty(), "nothing is kept of the dead");
}

/// Run by the next test in a process of its own.
#[test]
#[ignore = "a helper of root_threads_that_end_together_are_one_exit"]
fn end_with_eight_threads() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // They are still running when the test runner ends.
    (0..8).for_each(|_| drop(std::thread::spawn(|| while std::hint::black_box(true) {})));
}

#[test]
fn root_threads_that_end_together_are_one_exit() {
    const TIMES: usize = 20;
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options { min_runnable_ns: u64::MAX, min_blocked_ns: u64::MAX, ..Options::default() });
    let mut seen = Seen::default();
    for _ in 0..TIMES {
        let mut helper =
            start_helper(Command::new(std::env::current_exe().unwrap()), "process::end_with_eight_threads");
        tracer.trace_process(helper.id() as i32).unwrap();
        helper.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert!(seen.follow(&mut tracer, &mut helper).success());
    }
    seen.finish(&mut tracer);
    assert_eq!(seen.of("process_exit").len(), TIMES);
}

#[test]
fn root_every_exec_and_every_first_call_is_noticed() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    let mut child = job.start("--ranks 3 --iterations 5 --gpu-us 500");
    let launcher = child.id() as i32;
    assert!(seen.follow(&mut tracer, &mut child).success());
    seen.finish(&mut tracer);
    let noticed = |kind| seen.notices.iter().filter(move |n| n.kind == kind).map(|n| n.pid);
    assert_eq!(noticed(NoticeKind::Exec).filter(|&pid| pid == launcher).count(), 1);
    for rank in job.ranks() {
        let pid = rank["pid"].as_i64().unwrap() as i32;
        assert_eq!(noticed(NoticeKind::Exec).filter(|&p| p == pid).count(), 1);
        assert_eq!(noticed(NoticeKind::FirstCall).filter(|&p| p == pid).count(), 1);
    }
}

#[test]
fn root_children_of_a_traced_process_are_traced() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    let mut held = job.start_held("--ranks 2 --iterations 10 --gpu-us 1000");
    tracer.trace_process(held.id() as i32).unwrap();
    held.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut held).success());
    seen.finish(&mut tracer);
    assert_eq!(seen.of("process_fork").len(), 2);
    let execs = seen.of("process_exec").into_iter().filter(|r| r.comm.as_str() == "stub-train").count();
    assert_eq!(execs, 3, "the launcher and its two ranks");
    assert_eq!(seen.of("process_exit").len(), 3);
    for rank in job.ranks() {
        let pid = rank["pid"].as_i64().unwrap() as i32;
        assert!(seen.of("blocked").iter().any(|r| r.pid == pid));
    }
}
