//! Every call of a probed function is recorded once, with its arguments and duration, or counted as lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bpf::probes::CALLS;
use bpf::{Attached, Class, Counters, FirstInstruction, Library, LibraryKind, Method, NoticeKind, Options};
use event_schema::catalog::op_name;

use crate::harness::{Job, Seen, alone_as_root, load};

/// Calls per operation, from the stub's own counts.
fn expected(job: &Job) -> BTreeMap<(i32, i32), u64> {
    let calls = job.calls();
    let mut expected = BTreeMap::new();
    for probe in CALLS {
        let sum: u64 = probe.symbols.iter().filter_map(|s| calls.get(*s)).sum();
        *expected.entry(probe.op.numbers()).or_default() += sum;
    }
    expected.retain(|_, n| *n > 0);
    expected
}

fn seen_calls(seen: &Seen) -> BTreeMap<(i32, i32), u64> {
    let mut calls = BTreeMap::new();
    for r in seen.records.iter().filter(|r| r.class == Class::Call) {
        *calls.entry((r.source, r.op)).or_default() += 1;
    }
    calls
}

fn run(job: &Job, options: &Options, arguments: &str) -> (Vec<Attached>, Seen, Counters) {
    let mut tracer = load(options);
    let attached = job.attach(&mut tracer);
    let mut seen = Seen::default();
    let mut child = job.start(arguments);
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    (attached, seen, counters)
}

fn assert_exact(job: &Job, seen: &Seen, counters: &Counters) {
    let expected = expected(job);
    assert_eq!(counters.of(Class::Call).attempts, expected.values().sum::<u64>());
    assert_eq!((counters.of(Class::Call).ring_drop, counters.of(Class::Call).untracked), (0, 0));
    assert_eq!(seen_calls(seen), expected);
    assert!(seen.records.iter().all(|r| r.ret_code.is_none_or(|code| code == 0)));
}

#[test]
fn root_every_call_is_recorded_exactly_once() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let (attached, seen, counters) =
        run(&job, &Options::default(), "--ranks 4 --iterations 60 --launches 40 --gpu-us 1000");
    assert_exact(&job, &seen, &counters);
    assert!(attached.iter().all(|a| !a.already && a.single_stepped().count() == 0));
    let absent: Vec<_> = attached.iter().flat_map(|a| &a.absent).collect();
    assert!(absent.contains(&&"cudaLaunchKernel_ptsz") && !absent.contains(&&"cudaLaunchKernel"));
}

#[test]
fn root_a_ring_too_small_loses_only_what_it_counts() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options { data_ring_bytes: 4096, ..Options::default() });
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    assert!(job.start("--ranks 3 --iterations 60 --launches 40 --gpu-us 500").wait().unwrap().success());
    let counters = seen.finish(&mut tracer);
    assert_eq!(counters.of(Class::Call).attempts, expected(&job).values().sum::<u64>());
    assert!(counters.of(Class::Call).ring_drop > 0 && counters.of(Class::Call).drained > 0, "{counters:?}");
}

#[test]
fn root_a_poll_that_leaves_records_in_the_rings_says_so() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options { data_ring_bytes: 64 << 20, ..Options::default() });
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    assert!(job.start("--ranks 2 --iterations 100 --launches 750 --gpu-us 1").wait().unwrap().success());
    seen.poll(&mut tracer, Duration::ZERO);
    let first = seen.records.len();
    assert!(tracer.is_behind(), "{first} records");
    seen.poll(&mut tracer, Duration::ZERO);
    assert!(!tracer.is_behind() && seen.records.len() > first, "{first} records");
}

#[test]
fn root_processes_that_cannot_be_followed_are_counted_once_and_their_calls_are_recorded() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let options = Options { max_processes: 1, ..Options::default() };
    let (_, seen, counters) = run(&job, &options, "--ranks 3 --iterations 40 --gpu-us 500");
    assert_eq!(counters.of(Class::Call).attempts, expected(&job).values().sum::<u64>());
    assert_eq!(seen_calls(&seen), expected(&job));
    assert_eq!(counters.of(Class::Sched).untracked, 2, "one of the three ranks had the place");
}

#[test]
fn root_processes_that_cannot_be_followed_from_their_birth_are_counted_once_too() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options { max_processes: 1, ..Options::default() });
    job.attach(&mut tracer);
    let mut held = job.start_held("--ranks 3 --iterations 5 --gpu-us 500");
    tracer.trace_process(held.id() as i32).unwrap();
    drop(held.stdin.take());
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut held).success());
    let counters = seen.finish(&mut tracer);
    assert_eq!(
        counters.of(Class::Sched).untracked,
        3,
        "the launcher had the place: of each rank the fork says so, or its calls"
    );
}

#[test]
fn root_a_call_that_never_returns_is_recorded_when_its_thread_ends() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    // One launch of an hour: the rank hangs in its first synchronisation.
    let mut child = job.start("--ranks 1 --iterations 1 --launches 1 --gpu-us 3600000000");
    seen.poll_until(&mut tracer, |seen| !seen.of("AllReduce").is_empty());
    let rank = seen.of("AllReduce")[0].pid;
    // What is recorded in the end must have lasted at least so long.
    std::thread::sleep(Duration::from_millis(300));
    seen.poll(&mut tracer, Duration::ZERO);
    assert!(seen.of("cudaStreamSync").is_empty());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(rank), nix::sys::signal::Signal::SIGKILL).unwrap();
    seen.follow(&mut tracer, &mut child);
    let counters = seen.finish(&mut tracer);
    assert_eq!(counters.of(Class::Call).untracked, 0);
    for op in ["cudaStreamSync", "cuStreamSynchronize"] {
        let [hung] = seen.of(op)[..] else { panic!("{op}: {:?}", seen.of(op)) };
        assert_eq!((hung.pid, hung.ret_code), (rank, None), "{op}");
        assert!(hung.duration_ns().unwrap() > 200_000_000, "{hung:?}");
    }
    let exit = seen.of("process_exit").into_iter().find(|r| r.pid == rank).unwrap();
    assert!(seen.of("cudaStreamSync")[0].boot_ns < exit.boot_ns);
}

#[test]
fn root_the_classic_method_records_the_same() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let options = Options { method: Some(Method::Uprobe), ..Options::default() };
    let (attached, seen, counters) = run(&job, &options, "--ranks 2 --iterations 40 --gpu-us 500");
    assert_exact(&job, &seen, &counters);
    assert!(attached.iter().flat_map(|a| &a.probes).all(|p| p.method == Method::Uprobe));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn root_endbr64_is_skipped_and_calls_are_still_exact() {
    let Some(_alone) = alone_as_root() else { return };
    let cet = Job::of_variant("cet");
    let (attached, seen, counters) = run(&cet, &Options::default(), "--ranks 2 --iterations 40 --gpu-us 500");
    assert_exact(&cet, &seen, &counters);
    assert!(attached.iter().flat_map(|a| &a.probes).all(|p| p.first_instruction == FirstInstruction::Emulated));
    // Without the skip the probe would sit on the endbr64 itself.
    let code = std::fs::read(cet.library("libcudart.so.12")).unwrap();
    for probe in &attached[0].probes {
        let at = probe.offset as usize;
        assert_eq!(code[at - 4..at], [0xf3, 0x0f, 0x1e, 0xfa], "{}", probe.symbol);
    }
}

#[test]
fn root_a_running_process_is_recorded_from_attachment_on() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut child = job.start("--ranks 2 --seconds 60 --gpu-us 2000");
    let mut tracer = load(&Options::default());
    let mut seen = Seen::default();
    let path = job.library("libcudart.so.12");
    while mapping(&path).len() < 2 {
        std::thread::yield_now();
    }
    let ranks = mapping(&path);
    job.attach(&mut tracer);
    let synced = |seen: &Seen, pid: i32| seen.of("cudaStreamSync").iter().any(|r| r.pid == pid);
    seen.poll_until(&mut tracer, |seen| ranks.iter().all(|&pid| synced(seen, pid)));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    assert_eq!(counters.of(Class::Call).ring_drop, 0);
    // Nothing of the past, everything after: each rank ends with one device synchronisation.
    assert_eq!(seen.of("cudaDeviceSync").len(), 2);
    let first_calls = seen.notices.iter().filter(|n| n.kind == NoticeKind::FirstCall && ranks.contains(&n.pid));
    assert_eq!(first_calls.count(), 2);
}

/// Processes, other than launchers, that have the file mapped.
fn mapping(path: &std::path::Path) -> Vec<i32> {
    let path = path.to_string_lossy();
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let maps = std::fs::read_to_string(entry.path().join("maps")).unwrap_or_default();
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if maps.contains(&*path) && environ.windows(6).any(|w| w == b"\0RANK=") {
            pids.push(pid);
        }
    }
    pids
}

#[test]
fn root_arguments_and_durations_are_those_of_the_call() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let started = boot_ns();
    let (_, seen, _) =
        run(&job, &Options::default(), "--ranks 1 --iterations 20 --launches 10 --gpu-us 5000 --copy-bytes 65536");
    let ended = boot_ns();
    for r in &seen.records {
        assert!(r.boot_ns >= started && r.boot_ns + r.duration_ns().unwrap_or(0) <= ended, "{r:?}");
    }
    // 10 launches of 500 µs are in the stream when the rank synchronises; less is left where the rank lost its CPU before.
    let syncs = seen.of("cudaStreamSync");
    assert!(syncs.iter().any(|sync| sync.duration_ns().unwrap() >= 4_000_000), "{syncs:?}");
    for sync in syncs {
        assert!((1..100_000_000).contains(&sync.duration_ns().unwrap()), "{sync:?}");
        let stream = sync.arg0;
        assert!(stream != 0 && seen.of("cudaLaunchKernel").iter().filter(|l| l.arg1 == stream).count() == 200);
        assert_eq!(seen.of("cuLaunchKernel").iter().filter(|l| l.arg1 == stream).count(), 200);
        let inner = seen.of("cuStreamSynchronize");
        let inside = |r: &&&bpf::Record| {
            r.boot_ns >= sync.boot_ns
                && r.boot_ns + r.duration_ns().unwrap_or(0) <= sync.boot_ns + sync.duration_ns().unwrap()
        };
        assert_eq!(inner.iter().filter(inside).count(), 1);
    }
    for copy in seen.of("cudaMemcpyAsync") {
        assert_eq!((copy.bytes, copy.arg0, copy.arg1, copy.ret_code), (Some(65_536), 65_536, 1, Some(0)));
    }
    for reduce in seen.of("AllReduce") {
        assert_eq!(reduce.bytes, Some((1 << 18) * 4), "elements times the size of float32");
    }
    let mut allocated: Vec<i64> = seen.of("cudaMalloc").iter().map(|r| r.arg1).collect();
    let mut freed: Vec<i64> = seen.of("cudaFree").iter().map(|r| r.arg0).collect();
    allocated.sort_unstable();
    freed.sort_unstable();
    assert_eq!((allocated.len(), &allocated), (2, &freed));
    assert!(seen.of("cudaLaunchKernel").iter().all(|r| r.duration.is_none() && r.ret_code.is_none() && r.arg0 != 0));
    assert!(seen.records.iter().all(|r| op_name(r.source, r.op).is_some()));
}

fn boot_ns() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

#[test]
fn root_a_file_is_probed_once_whatever_path_leads_to_it() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let path = job.library("libcudart.so.12");
    let through_proc = format!("/proc/{}/root{}", std::process::id(), path.display());
    let link = path.with_extension("other");
    std::fs::hard_link(&path, &link).unwrap();
    for path in [through_proc.into(), link] {
        let again = tracer.attach_library(&Library { path, kind: LibraryKind::Cudart }).unwrap();
        assert!(again.already && !again.probes.is_empty());
    }
    let mut seen = Seen::default();
    let mut child = job.start("--ranks 1 --iterations 5 --gpu-us 500");
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    assert_exact(&job, &seen, &counters);
}

#[test]
fn root_a_library_reached_through_the_root_of_a_process_is_probed() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    for (name, kind) in crate::harness::LIBRARIES {
        let path = format!("/proc/self/root{}", job.library(name).display());
        tracer.attach_library(&Library { path: path.into(), kind }).unwrap();
    }
    let mut seen = Seen::default();
    let mut child = job.start("--ranks 1 --iterations 5 --gpu-us 500");
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    assert_exact(&job, &seen, &counters);
}

#[test]
fn root_without_adoption_only_traced_processes_are_recorded() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let options = Options { adopt_callers: false, ..Options::default() };
    let (_, seen, counters) = run(&job, &options, "--ranks 1 --iterations 5 --gpu-us 500");
    assert_eq!((seen.records.len(), counters.events().attempts), (0, 0));

    let mut tracer = load(&options);
    job.attach(&mut tracer);
    let mut held = job.start_held("--ranks 1 --iterations 5 --gpu-us 500");
    tracer.trace_process(held.id() as i32).unwrap();
    drop(held.stdin.take());
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut held).success());
    seen.finish(&mut tracer);
    assert_eq!(seen.of("cudaDeviceSync").len(), 1, "the rank is a child of a traced process");
}

#[test]
fn root_a_process_left_alone_is_not_adopted() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let mut child = job.start("--ranks 1 --seconds 60 --gpu-us 1000");
    let mut seen = Seen::default();
    seen.poll_until(&mut tracer, |seen| !seen.of("cudaStreamSync").is_empty());
    let rank = seen.of("cudaStreamSync")[0].pid;
    tracer.untrace(rank).unwrap();
    // A call that had begun may still return; then there is silence.
    seen.poll(&mut tracer, Duration::from_millis(100));
    let before = tracer.counters().unwrap().events().attempts;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(seen.follow(&mut tracer, &mut child).success());
    assert_eq!(seen.finish(&mut tracer).events().attempts, before);
}

/// Descriptors of this process that are links of probes.
fn links() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("bpf_link"))).count()
}

#[test]
fn root_a_released_library_leaves_no_link_behind_and_can_be_probed_again() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    let before = links();
    let attached = job.attach(&mut tracer);
    assert_eq!((tracer.libraries(), links() > before), (3, true));
    let began = Instant::now();
    assert!(attached.iter().all(|library| tracer.release_library(library.id)));
    assert!(began.elapsed() < Duration::from_millis(100), "the reader of the rings waited for {:?}", began.elapsed());
    assert!(!tracer.release_library(attached[0].id), "it has none");
    assert_eq!(tracer.libraries(), 0);
    while links() > before {
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let mut seen = Seen::default();
    assert!(job.start("--ranks 1 --iterations 5 --gpu-us 500").wait().unwrap().success());
    seen.poll(&mut tracer, Duration::ZERO);
    assert!(!seen.records.iter().any(|r| r.class == Class::Call));
    std::fs::remove_file(job.library("counts.json")).unwrap();
    for _ in 0..2 {
        let attached = job.attach(&mut tracer);
        assert!(attached.iter().all(|library| !library.already));
        assert!(attached.iter().all(|library| tracer.release_library(library.id)));
    }
    // At once after the release: no call is recorded by old links as well.
    job.attach(&mut tracer);
    let mut child = job.start("--ranks 1 --iterations 5 --gpu-us 500");
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    assert_exact(&job, &seen, &counters);
}

#[test]
fn root_another_thread_can_end_a_wait_for_records() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options { adopt_callers: false, ..Options::default() });
    let waker = tracer.waker();
    let mut seen = Seen::default();
    for _ in 0..3 {
        let (waker, woken) = (waker.clone(), Arc::new(AtomicBool::new(false)));
        let began = Instant::now();
        let waking = {
            let woken = woken.clone();
            std::thread::spawn(move || {
                // By then the other thread waits, as a rule; a wake before that ends its next wait.
                std::thread::sleep(Duration::from_millis(50));
                woken.store(true, Ordering::Relaxed);
                waker.wake();
            })
        };
        // Execs of other processes wake it, too.
        while !woken.load(Ordering::Relaxed) {
            seen.poll(&mut tracer, Duration::from_secs(20));
        }
        waking.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn root_ranks_given_to_nccl_are_recorded() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let (_, seen, _) = run(&job, &Options::default(), "--ranks 3 --iterations 2 --launches 1 --gpu-us 100");
    let mut ranks: Vec<_> = seen.of("CommInitRank").iter().map(|r| (r.arg0, r.arg1, r.ret_code)).collect();
    ranks.sort_unstable();
    assert_eq!(ranks, [(3, 0, Some(0)), (3, 1, Some(0)), (3, 2, Some(0))]);
}
