//! What this machine allows, for `doctor`: each check says what was found and what to do.

use std::fs;

use libbpf_rs::MapType;

use crate::host::{
    self, BTF_PATH, DAC_READ_SEARCH, Kernel, PID_NAMESPACE, PID_NAMESPACE_ADVICE, SYS_PTRACE, is_in_hosts_pid_namespace,
};
use crate::load::Options;
use crate::priority::{self, Priority};
use crate::tracer::Tracer;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Tracing works with less: see the advice.
    Limited,
    /// Tracing does not work.
    Missing,
}

/// One thing tracing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A word or two, as in the report: `kernel`, `pid namespace`.
    pub name: &'static str,
    /// Whether tracing works with what was found.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What to do, unless all is well.
    pub advice: Option<String>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>, advice: &str) -> Self {
        let advice = (verdict != Verdict::Good).then(|| advice.to_owned());
        Self { name, verdict, found: found.into(), advice }
    }
}

/// Looks at kernel, BTF, capabilities and lockdown, then loads the probes for a moment.
pub fn preflight() -> Vec<Check> {
    vec![
        check_kernel(),
        check_return_probes(&Kernel::running(), std::env::consts::ARCH),
        check_btf(),
        check_capabilities(),
        check_reach(),
        check_pid_namespace(),
        check_ring(),
        check_lockdown(),
        check_priority(),
        check_load(),
    ]
}

fn check_kernel() -> Check {
    let kernel = Kernel::running();
    let verdict = match () {
        // 6.6 has uprobe_multi links; 5.15 has all that is required (attach cookies, `bpf_task_pt_regs`).
        () if kernel.at_least(6, 6) => Verdict::Good,
        () if kernel.at_least(5, 15) => Verdict::Limited,
        () => Verdict::Missing,
    };
    let advice = "kernel 6.6 or later probes a library with one link and without CAP_SYS_ADMIN; 5.15 is the least";
    Check::new("kernel", verdict, kernel.release, advice)
}

/// From 6.11 on, a return probe on x86-64 makes a system call in the traced process. Until 6.14 seccomp filters it like
/// any other, and a profile without it ends the process or makes the call fail, which ends it as well.
fn check_return_probes(kernel: &Kernel, architecture: &str) -> Check {
    // The system call uretprobe(2) came with 6.11 on x86-64; 6.14 exempts it from seccomp filters.
    let is_filtered = architecture == "x86_64" && kernel.at_least(6, 11) && !kernel.at_least(6, 14);
    let (verdict, found) =
        if is_filtered { (Verdict::Limited, "seccomp may filter them") } else { (Verdict::Good, "not filtered") };
    let advice = "a traced process under a seccomp profile that does not allow the system call `uretprobe` may crash: allow \
                  it in the profiles of jobs, or use kernel 6.14 or later (a distribution may have the change earlier)";
    Check::new("return probes", verdict, found, advice)
}

fn check_btf() -> Check {
    let (verdict, found) = match fs::metadata(BTF_PATH) {
        Ok(meta) => (Verdict::Good, format!("{BTF_PATH}, {} bytes", meta.len())),
        Err(error) => (Verdict::Missing, format!("{BTF_PATH}: {error}")),
    };
    Check::new("btf", verdict, found, "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y")
}

fn check_capabilities() -> Check {
    let missing = host::missing_capabilities();
    let verdict = if missing.is_empty() { Verdict::Good } else { Verdict::Missing };
    let found =
        if missing.is_empty() { "CAP_BPF, CAP_PERFMON".to_owned() } else { format!("no {}", missing.join(", ")) };
    Check::new("capabilities", verdict, found, "run as root or grant CAP_BPF and CAP_PERFMON")
}

/// Capabilities that are needed to look into processes of other users.
fn check_reach() -> Check {
    let absent = host::absent_capabilities([SYS_PTRACE, DAC_READ_SEARCH]);
    let verdict = if absent.is_empty() { Verdict::Good } else { Verdict::Limited };
    let found = if absent.is_empty() {
        "CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH".to_owned()
    } else {
        format!("no {}", absent.join(", "))
    };
    Check::new("reach", verdict, found, "without them only libraries and processes of the same user are found")
}

fn check_pid_namespace() -> Check {
    let (verdict, found) = match is_in_hosts_pid_namespace() {
        Ok(true) => (Verdict::Good, "the host's".to_owned()),
        Ok(false) => (Verdict::Missing, "one of its own".to_owned()),
        Err(error) => (Verdict::Missing, format!("{PID_NAMESPACE}: {error}")),
    };
    Check::new("pid namespace", verdict, found, PID_NAMESPACE_ADVICE)
}

fn check_ring() -> Check {
    let (verdict, found) = match MapType::RingBuf.is_supported() {
        Ok(true) => (Verdict::Good, "supported".to_owned()),
        Ok(false) => (Verdict::Missing, "cannot be made".to_owned()),
        Err(error) => (Verdict::Missing, format!("{error:#}")),
    };
    // libbpf makes a ring to find out, which also fails for want of the right to: the version distinguishes the two.
    let advice = if Kernel::running().at_least(5, 8) {
        "run as root or grant CAP_BPF: this kernel has ring buffers, and makes none without it"
    } else {
        "use kernel 5.8 or later"
    };
    Check::new("ring buffer", verdict, found, advice)
}

fn check_lockdown() -> Check {
    // Without the file the kernel has no lockdown module. The active mode is the one in brackets: `[none] integrity
    // confidentiality`.
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_else(|_| "[none]".to_owned());
    let mode = text.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
    // kernel_lockdown(7): this mode denies `bpf_probe_read`; `integrity` does not.
    let verdict = if mode == "confidentiality" { Verdict::Missing } else { Verdict::Good };
    Check::new(
        "lockdown",
        verdict,
        mode,
        "boot without lockdown=confidentiality: it forbids BPF programs to read memory",
    )
}

/// Under load a reader of the usual priority waits for its turn while the rings fill.
fn check_priority() -> Check {
    let permitted = priority::permitted();
    let verdict = if permitted == Priority::RealTime { Verdict::Good } else { Verdict::Limited };
    let advice = "on a busy node the thread that reads the rings may get no CPU, and events are lost: grant CAP_SYS_NICE \
                  (with it, SCHED_RR may still be refused to a cgroup without real-time budget, cpu.rt_runtime_us)";
    Check::new("priority", verdict, format!("{} is permitted", permitted.name()), advice)
}

fn check_load() -> Check {
    // The smallest rings: the check must not need the memory of a real run.
    let small =
        Options { data_ring_bytes: 4096, critical_ring_bytes: 4096, notice_ring_bytes: 4096, ..Options::default() };
    match Tracer::load(&small) {
        Ok(tracer) => Check::new("probes", Verdict::Good, format!("load; libraries by {}", tracer.method().name()), ""),
        Err(error) => Check::new("probes", Verdict::Missing, "do not load", &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    //! Kernels whose seccomp filters return probes are recognised.

    use super::{Kernel, Verdict, check_return_probes};

    #[test]
    fn return_probes_are_warned_of_on_the_kernels_whose_seccomp_filters_them() {
        let verdict = |release, architecture| check_return_probes(&Kernel::parse(release), architecture).verdict;
        for release in ["6.11.0-9-generic", "6.12.7", "6.13.0"] {
            assert_eq!(verdict(release, "x86_64"), Verdict::Limited, "{release}");
            assert_eq!(verdict(release, "aarch64"), Verdict::Good, "{release}");
        }
        for release in ["6.10.14", "6.14.0", "5.15.0-101-generic", "7.0.1"] {
            assert_eq!(verdict(release, "x86_64"), Verdict::Good, "{release}");
        }
    }
}
