//! Environments as programs began with them: what `c/environ.h` has kept of each process.

use std::mem::{offset_of, size_of};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::skeleton::types::cw_environ;

/// Looks environments up, from any thread. Of a process that has ended the last 512 are kept.
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
    /// The process it was forked from, if it has not replaced its image since.
    pub parent: Option<i32>,
    /// `NAME=VALUE`, each with a zero byte at its end; a long value is cut off.
    pub text: Vec<u8>,
}

impl Environments {
    pub(crate) fn new(living: MapHandle, ended: MapHandle) -> Self {
        Self { living, ended }
    }

    /// The environment of the process that had number `pid` at time `boot_ns`. `None` when it had none of the wanted variables,
    /// or began before the probes were loaded.
    pub fn of(&self, pid: i32, boot_ns: i64) -> Option<Environment> {
        let [living, ended] = [&self.living, &self.ended].map(|map| lookup(map, pid));
        let had_begun = |environment: &Environment| environment.since_ns <= boot_ns;
        living.clone().filter(had_begun).or_else(|| ended.filter(had_begun)).or(living)
    }
}

fn lookup(map: &MapHandle, pid: i32) -> Option<Environment> {
    let value = map.lookup(&pid.to_ne_bytes(), MapFlags::ANY).ok().flatten()?;
    decode(&value)
}

fn decode(value: &[u8]) -> Option<Environment> {
    if value.len() < size_of::<cw_environ>() {
        return None;
    }
    let int = |at: usize| value.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes));
    let since = value.get(offset_of!(cw_environ, since_ns)..).and_then(|rest| rest.first_chunk());
    let parent = int(offset_of!(cw_environ, parent))?.cast_signed();
    let text = value.get(offset_of!(cw_environ, text)..)?;
    let bytes = (int(offset_of!(cw_environ, bytes))? as usize).min(text.len());
    Some(Environment {
        since_ns: i64::from_ne_bytes(*since?),
        parent: (parent != 0).then_some(parent),
        text: text[..bytes].to_vec(),
    })
}
