//! The stub job itself, where it could disturb what runs beside it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Job, alone_as_root};

/// What `look` finds within a minute.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn hog_of(launcher: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).ok()?;
    let hog = children
        .split_whitespace()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "cpu-hog\n"));
    hog?.parse().ok()
}

#[test]
fn root_a_process_that_has_the_number_of_a_hog_that_died_is_left_alone() {
    let Some(_alone) = alone_as_root() else { return };
    let job = Job::new();
    let mut launcher = job.start("--ranks 1 --seconds 600 --gpu-us 1000 --hog-cpu 0");
    let hog = wait_for("the hog", || hog_of(launcher.id()));
    kill(Pid::from_raw(hog as i32), Signal::SIGKILL).unwrap();
    wait_for("the end of the hog", || (!Path::new(&format!("/proc/{hog}")).exists()).then_some(()));
    let mut heir = wait_for("a process with its number", || {
        // The kernel gives the next process the number after this one (proc_sys_kernel(5)), unless another process is
        // started in between.
        fs::write("/proc/sys/kernel/ns_last_pid", (hog - 1).to_string()).unwrap();
        let mut heir = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        if heir.id() == hog {
            return Some(heir);
        }
        drop(heir.stdin.take());
        heir.wait().unwrap();
        None
    });
    kill(Pid::from_raw(launcher.id() as i32), Signal::SIGTERM).unwrap();
    assert!(!launcher.wait().unwrap().success(), "a hog died");
    drop(heir.stdin.take());
    assert!(heir.wait().unwrap().success(), "it was killed in place of the hog");
}
