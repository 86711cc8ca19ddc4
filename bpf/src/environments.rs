//! Environments as programs began with them: what `c/environ.h` has kept of each process.

use std::mem::{offset_of, size_of};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::bytes::{int, long, unsigned};
use crate::skeleton::types::cw_environ;

/// The unit of the start time in `/proc/PID/stat`, nanoseconds: USER_HZ is 100 on x86-64 and arm64.
const TICK_NS: u64 = 10_000_000;

/// Looks environments up; may be used on any thread.
#[derive(Debug)]
pub struct Environments {
    living: MapHandle,
    ended: MapHandle,
}

/// The wanted variables of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// When its program began, or it was forked: nanoseconds of CLOCK_BOOTTIME.
    pub since_ns: i64,
    /// When the process started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: u64,
    /// The process it was forked from, if it has not replaced its image since.
    pub parent: Option<i32>,
    /// Not all of the environment could be looked at: a wanted variable that is missing may be there all the same.
    pub is_cut: bool,
    /// `NAME=VALUE`, each with a zero byte at its end; a long value is cut off.
    pub text: Vec<u8>,
    /// When the process was forked, nanoseconds of CLOCK_BOOTTIME.
    born_ns: i64,
    /// When the process ended, by the same clock.
    until_ns: i64,
}

impl Environments {
    pub(crate) fn new(living: MapHandle, ended: MapHandle) -> Self {
        Self { living, ended }
    }

    /// The environment of the process that had number `pid` at time `boot_ns`; without text when it had none of the
    /// wanted variables. `None` when it began before the probes were loaded, or there were too many processes to keep
    /// it. Of one that has ended it is kept when the process was traced, until [`Self::forget_ended`].
    pub fn of(&self, pid: i32, boot_ns: i64) -> Option<Environment> {
        // The living first: after reuse of a number both maps may have an entry, and the living process with an earlier
        // birth than the record is the one that made it.
        let mut kept = [&self.living, &self.ended].into_iter().filter_map(|map| lookup(map, &pid.to_ne_bytes()));
        kept.find(|environment| environment.born_ns <= boot_ns)
    }

    /// Deletes the environments of processes that had ended by time `boot_ns`.
    pub fn forget_ended(&self, boot_ns: i64) {
        // All keys first: after a deletion the table is gone through from its beginning again.
        let pids: Vec<Vec<u8>> = self.ended.keys().collect();
        for pid in pids {
            if lookup(&self.ended, &pid).is_some_and(|environment| environment.until_ns <= boot_ns) {
                // The probes may have put that of another process in its place.
                let _ = self.ended.delete(&pid);
            }
        }
    }
}

fn lookup(map: &MapHandle, pid: &[u8]) -> Option<Environment> {
    let value = map.lookup(pid, MapFlags::ANY).ok().flatten()?;
    decode(&value)
}

fn decode(value: &[u8]) -> Option<Environment> {
    // `libbpf-rs` returns values of the map's own size; the check makes every offset below valid.
    if value.len() < size_of::<cw_environ>() {
        return None;
    }
    let born_ns = long(value, offset_of!(cw_environ, born_ns));
    let parent = int(value, offset_of!(cw_environ, parent));
    let text = value.get(offset_of!(cw_environ, text)..)?;
    // `min`: the probes never write more than there is room for, but a slice must not rest on it.
    let bytes = (unsigned(value, offset_of!(cw_environ, bytes)) as usize).min(text.len());
    Some(Environment {
        since_ns: long(value, offset_of!(cw_environ, since_ns)),
        // The kernel computes field 22 of stat(5) from `start_boottime` in the same way, so that the two compare as
        // equal.
        start_ticks: born_ns.cast_unsigned() / TICK_NS,
        parent: (parent != 0).then_some(parent),
        is_cut: unsigned(value, offset_of!(cw_environ, is_cut)) != 0,
        text: text[..bytes].to_vec(),
        born_ns,
        until_ns: long(value, offset_of!(cw_environ, until_ns)),
    })
}
