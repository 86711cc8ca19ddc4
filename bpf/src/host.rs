//! What the machine is and what this process may do there: kernel release, BTF, PID namespace, capabilities.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// Where the kernel shows the types of its own data.
pub(crate) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// The PID namespace of this process.
pub(crate) const PID_NAMESPACE: &str = "/proc/self/ns/pid";
/// What to do about a PID namespace that is not the host's.
pub(crate) const PID_NAMESPACE_ADVICE: &str =
    "run in the host's: `hostPID: true` in the pod, or `--pid=host` for docker and podman";

/// Whether processes have the same numbers here as in the kernel, where the probes take them from.
pub(crate) fn is_in_hosts_pid_namespace() -> io::Result<bool> {
    /// The first PID namespace has a number that is the same on every kernel (`PROC_PID_INIT_INO`).
    const INITIAL: u64 = 0xEFFF_FFFC;
    // namespaces(7): the inode number of the file identifies the namespace.
    fs::metadata(PID_NAMESPACE).map(|namespace| namespace.ino() == INITIAL)
}

/// The running kernel's version.
pub(crate) struct Kernel {
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// Major and minor number of the release; 0 where it has none.
    version: (u32, u32),
}

impl Kernel {
    pub(crate) fn running() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::parse(release.trim())
    }

    pub(crate) fn parse(release: &str) -> Self {
        // The first two numbers of any text: distributions append their own (`5.15.0-101-generic`).
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { release: release.to_owned(), version }
    }

    pub(crate) fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }
}

/// A capability of Linux.
#[derive(Clone, Copy)]
pub(crate) struct Capability {
    name: &'static str,
    /// Its bit in the sets that `/proc/PID/status` shows.
    bit: u32,
}

pub(crate) const DAC_READ_SEARCH: Capability = Capability { name: "CAP_DAC_READ_SEARCH", bit: 2 };
pub(crate) const SYS_PTRACE: Capability = Capability { name: "CAP_SYS_PTRACE", bit: 19 };
const SYS_ADMIN: Capability = Capability { name: "CAP_SYS_ADMIN", bit: 21 };
const PERFMON: Capability = Capability { name: "CAP_PERFMON", bit: 38 };
const BPF: Capability = Capability { name: "CAP_BPF", bit: 39 };

/// The effective set of this thread.
struct Capabilities(u64);

impl Capabilities {
    fn effective() -> Self {
        // capabilities(7): they belong to the thread.
        let status = if Path::new("/proc/thread-self/status").exists() {
            "/proc/thread-self/status"
        } else {
            "/proc/self/status"
        };
        let status = fs::read_to_string(status).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
        // Unreadable counts as none: what is then refused names the capabilities.
        Self(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    fn has(&self, capability: Capability) -> bool {
        self.0 & (1 << capability.bit) != 0
    }

    /// Names of those of `wanted` that are not in the set.
    fn absent<const N: usize>(&self, wanted: [Capability; N]) -> Vec<&'static str> {
        wanted.into_iter().filter(|&c| !self.has(c)).map(|c| c.name).collect()
    }
}

/// Names of those of `wanted` that are not held.
pub(crate) fn absent_capabilities<const N: usize>(wanted: [Capability; N]) -> Vec<&'static str> {
    Capabilities::effective().absent(wanted)
}

/// Names of what is needed to load the probes and not held. CAP_SYS_ADMIN stands for both.
pub(crate) fn missing_capabilities() -> Vec<&'static str> {
    let held = Capabilities::effective();
    // capabilities(7): CAP_BPF and CAP_PERFMON were split from CAP_SYS_ADMIN in 5.8, which still includes them.
    if held.has(SYS_ADMIN) { Vec::new() } else { held.absent([BPF, PERFMON]) }
}

#[cfg(test)]
mod tests {
    //! Versions compare as numbers.

    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert!(Kernel::parse("6.18.44-fc-v657").at_least(6, 6));
        assert!(Kernel::parse("5.15.0-101-generic").at_least(5, 15));
        assert!(!Kernel::parse("5.4.0-150-generic").at_least(5, 15));
        assert!(!Kernel::parse("4.18.0-513.el8.x86_64").at_least(5, 15));
        assert!(Kernel::parse("6.10.3").at_least(6, 6));
        assert!(!Kernel::parse("").at_least(5, 15));
    }
}
