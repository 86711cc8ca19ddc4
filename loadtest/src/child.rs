//! A program under measurement: started from beside this one, stopped with SIGTERM, its CPU time read from the kernel.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("`{program}` cannot be started: build it first (`cargo build --workspace`)")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("`{program}` cannot be stopped")]
    Stop {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("`{program}` ended with {status}")]
    Failed { program: String, status: ExitStatus },
    #[error("/proc does not have the CPU time of `{program}`")]
    CpuTime { program: String },
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

/// A program of this workspace, beside the one that is running.
pub fn sibling(name: &str) -> PathBuf {
    // Cargo puts all programs of the workspace into one directory. If this program's path is not known, PATH is
    // searched.
    let here = std::env::current_exe().unwrap_or_default();
    here.with_file_name(name)
}

impl Program {
    /// Starts a program with its standard error passed on.
    ///
    /// # Errors
    /// When it is not there.
    pub fn start(mut command: Command) -> Result<Self, ChildError> {
        let name = command.get_program().to_string_lossy().into_owned();
        // Standard output belongs to the report alone.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|source| ChildError::Start { program: name.clone(), source })?;
        Ok(Self { name, child })
    }

    /// CPU time used so far, user and system, all threads.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn cpu_time(&self) -> Result<Duration, ChildError> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // proc(5): utime and stime are fields 14 and 15; the second field, in parentheses, may hold spaces.
        let Some((_, after_name)) = stat.rsplit_once(')') else {
            return Err(ChildError::CpuTime { program: self.name.clone() });
        };
        // Field 3 is the first after the name: 11 fields precede utime.
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        let Ok(Some(per_second)) = sysconf(SysconfVar::CLK_TCK) else {
            return Err(ChildError::CpuTime { program: self.name.clone() });
        };
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Largest resident size so far, MiB.
    pub fn peak_rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        // proc(5): VmHWM is the peak of the resident set, in kB that are KiB.
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    /// Asks the program to drain and waits for it.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub fn drain(mut self) -> Result<(), ChildError> {
        // A pid fits (at most 2^22). kill(2) would take 0 for the whole process group.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0));
        let stopped = kill(pid, Signal::SIGTERM).map_err(io::Error::from).and_then(|()| self.child.wait());
        let status = stopped.map_err(|source| ChildError::Stop { program: self.name.clone(), source })?;
        if status.success() { Ok(()) } else { Err(ChildError::Failed { program: self.name.clone(), status }) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Without effect on a program that was drained: the standard library signals no child that it has waited for.
        // The wait reaps it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
