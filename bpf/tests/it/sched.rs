//! Waits of traced threads: how long, why, and who had the CPU.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bpf::{Class, Options, Record, WaitTotals};

use crate::harness::{Job, Seen, alone_as_root, load, start_helper};

const PREEMPTED: i64 = 0;
const WOKEN: i64 = 1;

fn wait_ns<'r>(records: impl IntoIterator<Item = &'r &'r Record>) -> i64 {
    records.into_iter().filter_map(|r| r.duration_ns()).sum()
}

/// Rank by process id.
fn ranks(job: &Job) -> BTreeMap<i32, i64> {
    job.ranks().iter().map(|r| (r["pid"].as_i64().unwrap() as i32, r["rank"].as_i64().unwrap())).collect()
}

#[test]
fn root_a_rank_that_shares_its_core_with_a_hog_waits_for_the_hog() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    let mut child = job.start(
        "--ranks 4 --seconds 4 --launches 20 --cpu-us 1000 --gpu-us 5000 --pin 0=0,1=0,2=0,3=1 --hog-cpu 1 --hog-nice -10 --isolate",
    );
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    assert_eq!((counters.of(Class::Sched).ring_drop, counters.of(Class::Sched).untracked), (0, 0));
    let ranks = ranks(&job);
    let waits = seen.of("runnable_wait");
    let of_rank = |rank| waits.iter().copied().filter(|r| ranks.get(&r.pid) == Some(&rank)).collect::<Vec<_>>();
    let victim = of_rank(3);
    let behind_hog: Vec<_> =
        victim.iter().copied().filter(|r| r.peer.is_some_and(|p| p.comm.as_str() == "cpu-hog")).collect();
    assert!(wait_ns(&behind_hog) * 10 > wait_ns(&victim) * 7, "{} of {} ns", wait_ns(&behind_hog), wait_ns(&victim));
    for healthy in 0..3 {
        assert!(
            wait_ns(&victim) > 3 * wait_ns(&of_rank(healthy)),
            "rank {healthy} waited {} ns",
            wait_ns(&of_rank(healthy))
        );
    }
    // The hog is a process of its own, and the reason is distinguished.
    let hog = behind_hog[0].peer.unwrap();
    assert!(
        hog.pid > 0
            && !ranks.contains_key(&hog.pid)
            && behind_hog.iter().all(|r| r.arg0 == i64::from(r.peer.unwrap().tid))
    );
    assert!(victim.iter().any(|r| r.arg1 == PREEMPTED) && victim.iter().any(|r| r.arg1 == WOKEN));
}

#[test]
fn root_sleeping_is_blocked_and_not_a_wait_for_the_cpu() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    let mut child = job.start("--ranks 1 --iterations 30 --launches 4 --cpu-us 0 --gpu-us 20000 --isolate");
    assert!(seen.follow(&mut tracer, &mut child).success());
    seen.finish(&mut tracer);
    let rank = *ranks(&job).keys().next().unwrap();
    let of_rank = |op| seen.of(op).into_iter().filter(|r| r.pid == rank).collect::<Vec<_>>();
    let blocked = of_rank("blocked");
    let asleep: Vec<_> = blocked.iter().filter(|r| r.duration_ns().unwrap() > 15_000_000).collect();
    assert!(asleep.len() >= 25, "30 synchronisations of 20 ms, {} long sleeps", asleep.len());
    assert!(asleep.iter().all(|r| r.arg0 & 0x3 != 0), "the state says interruptible or uninterruptible sleep");
    assert!(wait_ns(&blocked) > 3 * wait_ns(&of_rank("runnable_wait")));
    // Each wait ends when the next begins, and none overlaps another of the same thread.
    let mut waits: Vec<_> = seen.records.iter().filter(|r| r.class == Class::Sched && r.tid == rank).collect();
    waits.sort_by_key(|r| r.boot_ns);
    assert!(waits.windows(2).all(|w| w[0].boot_ns + w[0].duration_ns().unwrap() <= w[1].boot_ns));
}

#[test]
fn root_a_waiting_rank_is_woken_by_the_last_to_arrive() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut tracer = load(&Options::default());
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    // Rank 1 shares its core and comes late to every all-reduce.
    let mut child = job.start(
        "--ranks 2 --iterations 40 --launches 1 --cpu-us 2000 --gpu-us 1 --pin 0=0,1=1 \
         --hog-cpu 1 --hog-nice -10 --isolate",
    );
    assert!(seen.follow(&mut tracer, &mut child).success());
    seen.finish(&mut tracer);
    let ranks = ranks(&job);
    let woken_by = |rank: i64, waker: i64| {
        let is_pair = |r: &&&Record| {
            ranks.get(&r.pid) == Some(&rank) && r.peer.is_some_and(|p| ranks.get(&p.pid) == Some(&waker))
        };
        let blocked = seen.of("blocked");
        wait_ns(blocked.iter().filter(is_pair))
    };
    assert!(woken_by(0, 1) > 10 * woken_by(1, 0), "{} and {} ns", woken_by(0, 1), woken_by(1, 0));
    assert!(woken_by(0, 1) > 50_000_000, "{} ns", woken_by(0, 1));
}

#[test]
fn root_waits_below_the_threshold_are_summed_and_counted() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let never = u64::MAX;
    let mut tracer = load(&Options { min_runnable_ns: never, min_blocked_ns: never, ..Options::default() });
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    let mut child = job.start("--ranks 2 --seconds 30 --gpu-us 2000");
    let deadline = Instant::now() + Duration::from_secs(25);
    let waited_long = |t: &WaitTotals| t.blocked_ns > 30_000_000;
    while tracer.wait_totals().unwrap().into_iter().filter(waited_long).count() < 2 {
        assert!(Instant::now() < deadline, "{:?}", tracer.wait_totals().unwrap());
        seen.poll(&mut tracer, Duration::from_millis(10));
    }
    let totals = tracer.wait_totals().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let counters = seen.finish(&mut tracer);
    assert_eq!((counters.of(Class::Sched).attempts, counters.of(Class::Sched).drained), (0, 0));
    let counted: u64 = totals.iter().map(|t| t.runnable_count + t.blocked_count).sum();
    assert!(
        (40..=counters.of(Class::Sched).sampled_out).contains(&counted),
        "{counted} of {}",
        counters.of(Class::Sched).sampled_out
    );
}

/// Run by the next test in a process of its own: many more threads than the table holds, and then one that sleeps.
#[test]
#[ignore = "a helper of root_waits_are_still_seen_after_more_threads_have_come_and_gone_than_the_table_holds"]
fn run_many_short_threads_and_a_sleeper() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for _ in 0..MANY_THREADS {
        std::thread::spawn(std::thread::yield_now).join().unwrap();
    }
    let sleeper = std::thread::Builder::new().name("sleeper".to_owned());
    sleeper.spawn(|| std::thread::sleep(Duration::from_millis(60))).unwrap().join().unwrap();
}

const MANY_THREADS: usize = 400;

#[test]
fn root_waits_are_still_seen_after_more_threads_have_come_and_gone_than_the_table_holds() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options { min_blocked_ns: 20_000, max_threads: 64, ..Options::default() });
    let mut helper =
        start_helper(Command::new(std::env::current_exe().unwrap()), "sched::run_many_short_threads_and_a_sleeper");
    tracer.trace_process(helper.id() as i32).unwrap();
    helper.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut helper).success());
    let counters = seen.finish(&mut tracer);
    let threads: BTreeSet<i32> = seen.of("runnable_wait").iter().map(|r| r.tid).collect();
    assert!(threads.len() > MANY_THREADS / 2, "waits of {} threads", threads.len());
    let slept = |r: &&Record| r.comm.as_str() == "sleeper" && r.duration_ns() > Some(50_000_000);
    assert_eq!(seen.of("blocked").into_iter().filter(slept).count(), 1);
    assert_eq!(counters.of(Class::Sched).untracked, 0);
    assert!(tracer.wait_totals().unwrap().is_empty(), "nothing is kept of the dead");
}

/// Run by the next test with a real-time priority on one CPU: it holds the CPU, and ends with many short runs of others.
#[test]
#[ignore = "a helper of root_who_held_the_cpu_is_named_though_many_ran_briefly_after_it"]
fn hold_the_cpu_and_switch_often_at_the_end() {
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let relay = |from: Receiver<()>, to: SyncSender<()>| {
        move || {
            for () in from.iter().take(20) {
                let _ = to.send(()); // the other has had its turns
            }
        }
    };
    let ((to_ping, ping), (to_pong, pong)) = (sync_channel(1), sync_channel(1));
    let ping = named("ping").spawn(relay(ping, to_pong)).unwrap();
    let pong = named("pong").spawn(relay(pong, to_ping.clone())).unwrap();
    let hold = move || {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        // A new thread is known by its name from the next time on that it is given the CPU.
        std::thread::sleep(Duration::from_millis(1));
        let held = Instant::now();
        while held.elapsed() < Duration::from_millis(80) {}
        to_ping.send(()).unwrap();
    };
    named("holder").spawn(hold).unwrap().join().unwrap();
    ping.join().unwrap();
    pong.join().unwrap();
}

#[test]
fn root_who_held_the_cpu_is_named_though_many_ran_briefly_after_it() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options::default());
    let on_cpu_1 = |arguments: &[&str]| {
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).args(arguments);
        command
    };
    let mut victim = on_cpu_1(&["sh", "-c", "while :; do :; done"]).spawn().unwrap();
    tracer.trace_process(victim.id() as i32).unwrap();
    let program = std::env::current_exe().unwrap();
    let command = on_cpu_1(&["chrt", "-f", "10", program.to_str().unwrap()]);
    let mut helper = start_helper(command, "sched::hold_the_cpu_and_switch_often_at_the_end");
    let mut seen = Seen::default();
    // The helper has started when it has taken the CPU and given it back to wait for the word.
    seen.poll_until(&mut tracer, |seen| seen.of("runnable_wait").iter().any(|r| r.pid == victim.id() as i32));
    helper.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(seen.follow(&mut tracer, &mut helper).success());
    seen.poll(&mut tracer, Duration::from_millis(200));
    victim.kill().unwrap();
    victim.wait().unwrap();
    seen.finish(&mut tracer);
    let waits = seen.of("runnable_wait");
    let held: Vec<_> = waits.iter().filter(|r| r.duration_ns().unwrap() > 60_000_000).collect();
    let names: Vec<_> = held.iter().filter_map(|r| r.peer).map(|peer| peer.comm.to_string()).collect();
    assert!(names.contains(&"holder".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name == "ping" || name == "pong"), "{names:?}");
}
