//! Who a record is of: from the process that had the number, from what was seen of the process, and from its parent.

use std::process::{Child, Command};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use event_schema::kind::RecordKind;

use super::super::super::known::{Known, REMEMBER_NS};
use super::*;
use crate::process::Statement;

impl Sink {
    fn process_of(&self, pid: i32) -> &Process {
        self.processes.get(pid).unwrap().process()
    }
}

/// Does what the scout does: reads the environments that the sink asks for.
fn read(sink: &mut Sink) {
    for pid in sink.take_to_read() {
        if let Some(sighting) = Sighting::read(pid) {
            sink.see(sighting).unwrap();
        }
    }
}

/// A process of rank 3, and what was known of one of rank 7 that had its number before.
struct Reused {
    child: Child,
    pid: i32,
}

impl Reused {
    fn new(sink: &mut Sink, exited_ns: Option<i64>) -> Self {
        let child = Command::new("sleep").arg("60").env("RANK", "3").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Between fork and exec the child still has our environment.
        while Process::read(pid).unwrap().rank() != Some(3) {
            assert!(Instant::now() < deadline);
        }
        let at_exec = Statement::of_environment(b"RANK=7");
        let process = Process { pid, start_ticks: 1, at_exec, ..Process::default() };
        sink.processes.known().insert(pid, Known::of(process).exited(exited_ns));
        Self { child, pid }
    }

    fn rank(&self, sink: &mut Sink) -> Option<i32> {
        read(sink);
        sink.process_of(self.pid).rank()
    }
}

impl Drop for Reused {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_record_later_than_the_exit_is_of_the_next_process_of_that_number() {
    let (mut sink, _inputs) = sink(100);
    let reused = Reused::new(&mut sink, Some(100));
    sink.take(&record(Class::Sched, Op::Blocked, reused.pid, 99));
    assert_eq!(reused.rank(&mut sink), Some(7), "its last waits are read after its exit");
    sink.take(&record(Class::Sched, Op::Blocked, reused.pid, 101));
    assert_eq!(reused.rank(&mut sink), Some(3));
}

#[test]
fn a_second_exit_does_not_ask_again_who_it_was() {
    let (mut sink, _inputs) = sink(100);
    let reused = Reused::new(&mut sink, None);
    for boot_ns in [100, 101] {
        sink.take(&record(Class::Process, Op::ProcessExit, reused.pid, boot_ns));
        assert_eq!(reused.rank(&mut sink), Some(7));
    }
}

#[test]
fn a_forked_child_is_new_though_its_number_is_not() {
    let (mut sink, _inputs) = sink(100);
    let reused = Reused::new(&mut sink, None);
    let own_pid = i32::try_from(std::process::id()).unwrap();
    sink.take(&Record { arg0: i64::from(reused.pid), ..record(Class::Process, Op::ProcessFork, own_pid, 5) });
    sink.take(&record(Class::Sched, Op::Blocked, reused.pid, 6));
    assert_eq!(reused.rank(&mut sink), Some(3));
}

#[test]
fn a_process_whose_exec_record_is_lost_is_read_again_at_its_next_record_after_the_notice() {
    let (mut sink, _inputs) = sink(100);
    let reused = Reused::new(&mut sink, None);
    sink.note_exec(reused.pid, 100);
    sink.take(&record(Class::Sched, Op::Blocked, reused.pid, 99));
    assert_eq!(reused.rank(&mut sink), Some(7), "of the program before");
    sink.take(&record(Class::Process, Op::ProcessExit, reused.pid, 101));
    assert_eq!(reused.rank(&mut sink), Some(7), "an exiting process has lost its environment");
    let (mut sink, _inputs) = self::sink(100);
    let reused = Reused::new(&mut sink, None);
    sink.note_exec(reused.pid, 100);
    sink.take(&record(Class::Sched, Op::Blocked, reused.pid, 101));
    assert_eq!(reused.rank(&mut sink), Some(3));
    sink.note_exec(reused.pid, 100);
    assert!(sink.processes.get(reused.pid).unwrap().execed_ns().is_none(), "it was read since");
}

/// What a scan that began at `since_ns` has seen of the processes.
fn scanned(pids: &[i32], since_ns: i64) -> Alive {
    let start = |pid: &i32| Some((*pid, Process::living_start_of(*pid)?));
    Alive { since_ns, processes: pids.iter().filter_map(start).collect() }
}

#[test]
fn a_process_whose_exit_nobody_recorded_is_forgotten() {
    let (mut sink, _inputs) = sink(100);
    let mut reused = Reused::new(&mut sink, None);
    let pid = reused.pid;
    sink.forget_exited(&scanned(&[pid], 1));
    assert!(sink.processes.get(pid).is_none(), "another process has its number");
    sink.take(&record(Class::Sched, Op::Blocked, pid, 6));
    sink.forget_exited(&scanned(&[pid], 7));
    assert_eq!(reused.rank(&mut sink), Some(3), "it is there");
    reused.child.kill().unwrap();
    reused.child.wait().unwrap();
    sink.now_ns = 50;
    sink.forget_exited(&scanned(&[], 6));
    assert_eq!(sink.processes.get(pid).unwrap().exited_ns(), None, "it may have been born after the scan began");
    sink.forget_exited(&scanned(&[], 7));
    assert_eq!(sink.processes.get(pid).unwrap().exited_ns(), Some(50), "its last records may be in the ring");
    sink.now_ns += REMEMBER_NS;
    sink.forget_exited(&scanned(&[], 60));
    assert_eq!(sink.processes(), 0);
}

fn init(pid: i32, ranks: i64, rank: i64) -> Record {
    Record { arg0: ranks, arg1: rank, ret_code: Some(0), ..record(Class::Call, Op::NcclCommInitRank, pid, 5) }
}

/// A process that says nothing of itself.
fn silent(sink: &mut Sink) -> (Child, i32) {
    let child = Command::new("sleep").arg("60").env_clear().spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let process = Process { pid, start_ticks: Process::living_start_of(pid).unwrap(), ..Process::default() };
    sink.processes.known().insert(pid, Known::of(process));
    (child, pid)
}

#[test]
fn the_rank_given_to_nccl_is_that_of_the_largest_communicator_until_the_environment_names_one() {
    let (mut sink, _inputs) = sink(100);
    let (mut child, pid) = silent(&mut sink);
    let said = |sink: &Sink| {
        let (ranks, source) = sink.process_of(pid).ranks()?;
        Some((ranks.rank, ranks.world_size, source.name()))
    };
    for refused in [init(pid, 8, 8), init(pid, 8, -1), Record { ret_code: Some(2), ..init(pid, 8, 5) }] {
        sink.take(&refused);
        assert_eq!(said(&sink), None, "{refused:?}");
    }
    sink.take(&init(pid, 2, 1));
    sink.take(&init(pid, 8, 5));
    sink.take(&init(pid, 4, 0));
    assert_eq!(said(&sink), Some((5, Some(8), "ncclCommInitRank")));
    assert_eq!(sink.to_read, [pid, pid], "its environment may name it by now");
    sink.take(&Record { ret_code: Some(NCCL_IN_PROGRESS), ..init(pid, 8, 6) });
    assert_eq!(said(&sink), Some((6, Some(8), "ncclCommInitRank")), "the job was formed anew");
    see(&mut sink, pid, "RANK=7\0WORLD_SIZE=16", 10);
    assert_eq!(said(&sink), Some((7, Some(16), "environment")));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Has the environment seen that the program of a living process had at this time.
fn see(sink: &mut Sink, pid: i32, now: &str, at_ns: i64) {
    let glance = Sighting::glance(pid).unwrap();
    sink.see(Sighting { now: Some(Statement::of_environment(now.as_bytes())), at_ns, ..glance }).unwrap();
}

#[test]
fn a_rank_inherited_from_the_launcher_gives_way_to_that_of_a_larger_communicator() {
    let (mut sink, _inputs) = sink(100);
    let (mut child, pid) = silent(&mut sink);
    sink.processes.known().get_mut(&pid).unwrap().process_mut().at_exec =
        Statement::of_environment(b"SLURM_PROCID=0\0SLURM_NTASKS=1");
    sink.take(&init(pid, 8, 5));
    assert_eq!(sink.process_of(pid).rank(), Some(5));
    assert_eq!(sink.to_read, [pid], "it may have set another rank itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_a_program_had_set_is_not_said_of_the_next_program_of_the_process() {
    let (mut sink, _inputs) = sink(100);
    let (mut child, pid) = silent(&mut sink);
    sink.processes.known().clear();
    let rank = |sink: &Sink| sink.process_of(pid).rank();
    see(&mut sink, pid, "RANK=5", 50);
    sink.take(&record(Class::Sched, Op::Blocked, pid, 60));
    assert_eq!(rank(&sink), Some(5));
    sink.take(&record(Class::Process, Op::ProcessExec, pid, 100));
    assert_eq!(rank(&sink), None);
    see(&mut sink, pid, "RANK=5", 90);
    assert_eq!(rank(&sink), None, "the reading began before the exec");
    see(&mut sink, pid, "RANK=6", 110);
    assert_eq!(rank(&sink), Some(6));
    see(&mut sink, pid, "", 120);
    assert_eq!(rank(&sink), None, "it is unset");
    see(&mut sink, pid, "RANK=7", 150);
    sink.take(&record(Class::Process, Op::ProcessExec, pid, 140));
    assert_eq!(rank(&sink), Some(7), "it was read after the exec whose record came later");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_child_that_was_forked_and_became_another_program_has_nothing_of_its_parent() {
    let (mut sink, _inputs) = sink(100);
    let reused = Reused::new(&mut sink, None);
    let gone = i32::MAX - 7;
    for (op, expected) in [(Op::ProcessExit, Some(7)), (Op::ProcessExec, None)] {
        sink.take(&Record { arg0: i64::from(gone), ..record(Class::Process, Op::ProcessFork, reused.pid, 5) });
        sink.take(&record(Class::Process, op, gone, 6));
        assert_eq!(sink.process_of(gone).rank(), expected, "{op:?}");
    }
}

#[test]
fn a_forked_child_that_lives_is_what_its_parent_has_made_itself() {
    let (mut sink, _inputs) = sink(100);
    let (mut parent, parent_pid) = silent(&mut sink);
    let (mut child, pid) = silent(&mut sink);
    let rank = |sink: &mut Sink, boot_ns| {
        sink.take(&record(Class::Sched, Op::Blocked, pid, boot_ns));
        sink.process_of(pid).rank()
    };
    sink.processes.known().get_mut(&parent_pid).unwrap().process_mut().at_exec =
        Statement::of_environment(b"SLURM_PROCID=0");
    see(&mut sink, parent_pid, "RANK=5", 50);
    sink.take(&Record { arg0: i64::from(pid), ..record(Class::Process, Op::ProcessFork, parent_pid, 60) });
    assert_eq!(rank(&mut sink, 70), Some(5));
    // Also when it makes no record for long, and when it was seen meanwhile.
    sink.processes.known().remove(&pid);
    sink.now_ns = 60 + 2 * REMEMBER_NS;
    sink.forget_exited(&scanned(&[parent_pid, pid], 70));
    sink.see(Sighting { at_ns: 80, ..Sighting::glance(pid).unwrap() }).unwrap();
    assert_eq!(rank(&mut sink, 90), Some(5));
    sink.take(&record(Class::Process, Op::ProcessExec, pid, 100));
    assert_eq!(rank(&mut sink, 110), None, "another program");
    for process in [&mut parent, &mut child] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn the_next_process_of_a_forked_childs_number_has_nothing_of_its_parent() {
    let (mut sink, _inputs) = sink(100);
    let (mut parent, parent_pid) = silent(&mut sink);
    let (mut next, pid) = silent(&mut sink);
    see(&mut sink, parent_pid, "RANK=5", 50);
    sink.take(&Record { arg0: i64::from(pid), ..record(Class::Process, Op::ProcessFork, parent_pid, 60) });
    for (op, boot_ns, expected) in [(Op::ProcessExit, 70, Some(5)), (Op::Blocked, 80, None)] {
        let class = if op == Op::Blocked { Class::Sched } else { Class::Process };
        sink.take(&record(class, op, pid, boot_ns));
        assert_eq!(sink.process_of(pid).rank(), expected, "{op:?}");
    }
    for process in [&mut parent, &mut next] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn a_look_at_a_child_counts_though_the_record_of_its_fork_is_read_later() {
    let (mut sink, _inputs) = sink(100);
    let (mut parent, parent_pid) = silent(&mut sink);
    let (mut child, pid) = silent(&mut sink);
    sink.processes.known().remove(&pid);
    see(&mut sink, parent_pid, "RANK=5\0CAUSEWAY_JOB_ID=llm", 50);
    see(&mut sink, pid, "RANK=6", 70);
    sink.take(&Record { arg0: i64::from(pid), ..record(Class::Process, Op::ProcessFork, parent_pid, 60) });
    sink.take(&record(Class::Sched, Op::Blocked, pid, 80));
    assert_eq!(sink.process_of(pid).rank(), Some(6));
    for process in [&mut parent, &mut child] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn a_look_at_a_process_that_had_ended_when_it_was_met_gives_it_its_container() {
    let (mut sink, _inputs) = sink(100);
    let gone = i32::MAX - 7;
    let process = Process { pid: gone, start_ticks: 9, ..Process::default() };
    sink.processes.known().insert(gone, Known::of(process.clone()).kept());
    let (cgroup_path, container_id) = (Some("/docker/c1".to_owned()), Some("c1".to_owned()));
    for (start_ticks, expected) in [(8, None), (9, Some("c1"))] {
        let process = Process {
            start_ticks,
            cgroup_path: cgroup_path.clone(),
            container_id: container_id.clone(),
            ..process.clone()
        };
        sink.see(Sighting { process, at_exec: None, now: None, at_ns: 5 }).unwrap();
        assert_eq!(sink.process_of(gone).container_id.as_deref(), expected, "{start_ticks}");
    }
}

#[test]
fn what_was_learned_of_a_process_is_kept_while_it_is_there() {
    let (mut sink, _inputs) = sink(100);
    let (mut child, pid) = silent(&mut sink);
    sink.processes.known().clear();
    see(&mut sink, pid, "RANK=5", 50);
    for n in 0..20_000 {
        let process = Process { pid: i32::MAX - n, start_ticks: 1, ..Process::default() };
        sink.see(Sighting { process, at_exec: None, now: None, at_ns: 50 }).unwrap();
    }
    sink.now_ns = 50 + REMEMBER_NS;
    sink.forget_exited(&scanned(&[pid], 60));
    sink.take(&record(Class::Sched, Op::Blocked, pid, 60));
    assert_eq!(sink.process_of(pid).rank(), Some(5));
    sink.processes.known().clear();
    sink.forget_exited(&Alive { since_ns: 60, processes: HashMap::from([(pid, 1)]) });
    sink.take(&record(Class::Sched, Op::Blocked, pid, 60));
    assert_eq!(sink.process_of(pid).rank(), None, "another process had its number meanwhile");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Rank, and why it is not traced, of every record of a process.
fn reported(sink: &mut Sink, inputs: &Receiver<Input>) -> Vec<(Option<i64>, Option<String>)> {
    sink.cut_due().unwrap();
    let mut reported = Vec::new();
    for input in inputs.try_iter() {
        let Input::Cut(Cut { kind: RecordKind::Process, batch, .. }) = input else { continue };
        let column = |name: &str| batch.column_by_name(name).unwrap();
        for row in 0..batch.num_rows() {
            let text = |name| column(name).is_valid(row).then(|| array_value_to_string(column(name), row).unwrap());
            reported.push((text("rank").map(|rank| rank.parse().unwrap()), text("untraced")));
        }
    }
    reported
}

#[test]
fn a_process_that_is_not_traced_keeps_its_rank_and_stays_so_until_it_is() {
    let (mut sink, inputs) = sink(100);
    let (mut child, pid) = silent(&mut sink);
    sink.processes.known().clear();
    let note = |sink: &mut Sink, reason: Option<&str>| {
        let process = Process::glance(pid).unwrap();
        sink.note_untraced(&Untraced { process, reason: reason.map(str::to_owned) }).unwrap();
        reported(sink, &inputs)
    };
    let no_room = || Some("no room".to_owned());
    see(&mut sink, pid, "RANK=5", 50);
    assert_eq!(note(&mut sink, Some("no room")), [(Some(5), no_room())], "it has no record yet");
    sink.take(&record(Class::Sched, Op::Blocked, pid, 60));
    see(&mut sink, pid, "RANK=6", 70);
    assert_eq!(reported(&mut sink, &inputs), [(Some(5), no_room()), (Some(6), no_room())]);
    assert_eq!(note(&mut sink, Some("no room")), [(Some(6), no_room())]);
    assert_eq!(note(&mut sink, None), [(Some(6), None)]);
    see(&mut sink, pid, "RANK=7", 80);
    assert_eq!(reported(&mut sink, &inputs), [(Some(7), None)]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_was_seen_of_a_process_is_known_of_its_records_after_it_has_ended() {
    let (mut sink, _inputs) = sink(100);
    let gone = i32::MAX - 7;
    let seen = Process {
        pid: gone,
        start_ticks: 9,
        name: "python3".to_owned(),
        container_id: Some("c1".to_owned()),
        ..Process::default()
    };
    let now = Some(Statement::of_environment(b"RANK=3"));
    sink.see(Sighting { process: seen, at_exec: None, now, at_ns: 5 }).unwrap();
    sink.take(&record(Class::Sched, Op::Blocked, gone, 6));
    sink.take(&Record { arg0: i64::from(gone - 1), ..record(Class::Process, Op::ProcessFork, gone, 7) });
    sink.take(&record(Class::Sched, Op::Blocked, gone - 1, 8));
    for pid in [gone, gone - 1] {
        let process = sink.process_of(pid);
        assert_eq!((process.rank(), process.container_id.as_deref()), (Some(3), Some("c1")));
    }
}
