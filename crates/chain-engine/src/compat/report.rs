//! The rules themselves: when a chain is reported, how severe it is and in which words. Numbers and words of causes,
//! timelines and summaries are the reference's, so that its users find what they look for: no threshold here is a
//! choice of this crate, and moving one makes the replay differ from what the reference would have reported.

use event_schema::catalog::{Op, Source, op_name};

use super::evidence::Evidence;
use super::ops::{OpStats, Rates};
use crate::chain::{Cause, Chain, Severity, Step};
use crate::format::go_duration;

/// Calls of an operation below which its percentiles say nothing.
const MIN_CALLS: usize = 10;
/// 99th percentile relative to the median from which a tail is long.
const TAIL_RATIO: f64 = 3.0;
/// Stretches off the CPU that count as a cause.
const SWITCHES: u64 = 5;
/// A rate below this share of its peak has dropped.
const DROP_RATIO: f64 = 0.6;
/// Calls a second from which a peak counts.
const PEAK_MIN: f64 = 10.0;
/// Calls a second below which the work has ended.
const RATE_MIN: f64 = 1.0;
/// Block I/O that counts beside a drop.
const DROP_IO_OPS: u64 = 50;
/// TCP segments sent again up to which they are no cause.
const RETRANSMITS: u64 = 5;

const MS: i64 = 1_000_000;
const MIB: f64 = (1_u64 << 20) as f64;
const GIB: i64 = 1 << 30;

/// One look at a node.
pub(super) struct Reporter<'a> {
    evidence: &'a Evidence,
    first_ns: i64,
    now_ns: i64,
}

/// Causes found, with their places in the timeline and what to do about them.
#[derive(Default)]
struct Found {
    causes: Vec<String>,
    steps: Vec<Step>,
    fixes: Vec<String>,
    is_high: bool,
}

impl Found {
    fn add(&mut self, (layer, op): (&str, &str), detail: String, duration_ns: Option<i64>, cause: impl Into<String>) {
        self.steps.push(step(layer, op, detail, duration_ns));
        self.causes.push(cause.into());
    }

    fn fix(&mut self, fix: impl Into<String>) {
        self.fixes.push(fix.into());
    }

    fn severity(&self) -> Severity {
        if self.is_high { Severity::High } else { Severity::Medium }
    }
}

fn step(layer: &str, op: &str, detail: String, duration_ns: Option<i64>) -> Step {
    Step { layer: layer.to_owned(), op: op.to_owned(), detail, at_ns: None, duration_ns }
}

/// As Go rounds a duration to a unit.
fn rounded(ns: i64, unit_ns: i64) -> String {
    // `time.Duration.Round` of Go rounds half away from zero; these durations are not negative.
    go_duration(ns.saturating_add(unit_ns / 2) / unit_ns * unit_ns)
}

impl<'a> Reporter<'a> {
    /// A look at `now_ns` over what went on since `first_ns`, both unix nanoseconds.
    pub(super) fn new(evidence: &'a Evidence, first_ns: i64, now_ns: i64) -> Self {
        Self { evidence, first_ns, now_ns }
    }

    /// Every chain that the rules give now.
    pub(super) fn chains(&self, ops: &[OpStats]) -> Vec<Chain> {
        // One chain per operation: a long tail goes before a drop of throughput.
        let of_ops = ops.iter().filter_map(|op| self.tail(op).or_else(|| self.drop(op)));
        of_ops.chain(self.oom()).chain(self.retransmits()).chain(self.pods()).collect()
    }

    /// The 99th percentile is three times the median or more, and a possible cause was seen.
    fn tail(&self, op: &OpStats) -> Option<Chain> {
        // By 0 this is infinite or NaN; the condition on the median refuses both.
        let ratio = op.p99_ns as f64 / op.p50_ns as f64;
        if op.p50_ns <= 0 || op.count < MIN_CALLS || ratio < TAIL_RATIO {
            return None;
        }
        let mut found = Found::default();
        self.system(&mut found, true);
        self.host(&mut found);
        self.block_io(&mut found, op.p99_ns);
        self.network(&mut found);
        let p99 = go_duration(op.p99_ns);
        let p50 = go_duration(op.p50_ns);
        let (layer, name) = layer_and_name(op);
        let symptom = step(layer, name, format!("p99={p99} ({ratio:.1}x p50={p50})"), Some(op.p99_ns));
        let causes = found.causes.join(" + ");
        let summary = format!("{name} p99={p99} ({ratio:.1}x p50) — {causes}");
        let explanation = format!(
            "At the 99th percentile {name} took {p99}, {ratio:.1} times its median of {p50}, while there was: {causes}."
        );
        let severity = found.severity();
        let id = format!("tail-{}-{name}", severity.name().to_lowercase());
        let chain = self.chain(found, severity, (id, summary, explanation), symptom)?;
        Some(Chain { p50_ns: Some(op.p50_ns), p99_ns: Some(op.p99_ns), ratio: Some(ratio), ..chain })
    }

    /// The rate fell to less than six tenths of its peak, and a possible cause was seen.
    fn drop(&self, op: &OpStats) -> Option<Chain> {
        let Rates { now, peak } = op.rates?;
        if peak < PEAK_MIN || now < RATE_MIN || now / peak >= DROP_RATIO {
            return None;
        }
        let dropped_pct = (1.0 - now / peak) * 100.0;
        let Evidence { switches, io, retransmits, .. } = self.evidence;
        // A rate falls for many reasons. Without activity of the host beside it there is nothing to report.
        if *switches < SWITCHES && io.ops < DROP_IO_OPS && *retransmits <= RETRANSMITS {
            return None;
        }
        let mut found = Found { is_high: dropped_pct > 60.0, ..Found::default() };
        self.system(&mut found, false);
        self.switches(&mut found);
        if io.ops >= DROP_IO_OPS {
            let detail = format!("{} I/O ops ({} total)", io.ops, rounded(io.total_ns, MS));
            found.add(("INFRA", "block_io"), detail, None, format!("{} block I/O operations", io.ops));
        }
        self.tcp(&mut found, false);
        let (layer, name) = layer_and_name(op);
        let symptom =
            step(layer, name, format!("throughput dropped {dropped_pct:.0}% ({peak:.0} → {now:.0} ops/s)"), None);
        let causes = found.causes.join(" + ");
        let summary = format!("{name} throughput dropped {dropped_pct:.0}% — {causes}");
        let explanation = format!("{name} fell from {peak:.0} to {now:.0} calls a second while there was: {causes}.");
        let severity = found.severity();
        let id = format!("drop-{}-{name}", severity.name().to_lowercase());
        self.chain(found, severity, (id, summary, explanation), symptom)
    }

    fn system(&self, found: &mut Found, for_tail: bool) {
        let Some(system) = self.evidence.system else { return };
        if system.cpu_pct > 90.0 {
            let detail = format!("CPU {:.0}%", system.cpu_pct);
            found.add(("SYSTEM", "cpu"), detail, None, "high CPU utilization");
            found.is_high = true;
        }
        if system.mem_pct > 95.0 {
            let detail = format!("Memory {:.0}% ({} MB available)", system.mem_pct, system.mem_avail_mb);
            found.add(("SYSTEM", "memory"), detail, None, "memory pressure");
            found.is_high |= for_tail;
        }
        if for_tail && system.swap_mb > 0 {
            found.add(("SYSTEM", "swap"), format!("Swap {} MB in use", system.swap_mb), None, "swap activity");
            found.is_high = true;
            found.fix("Find what takes the memory, or add RAM");
        }
        if for_tail && system.load_avg > 10.0 {
            found.add(("SYSTEM", "load"), format!("Load average {:.1}", system.load_avg), None, "high system load");
        }
    }

    fn host(&self, found: &mut Found) {
        self.switches(found);
        let Evidence { page_allocs, page_alloc_bytes, .. } = self.evidence;
        if *page_alloc_bytes > GIB {
            let detail = format!("{page_allocs} allocations ({:.1} GB)", *page_alloc_bytes as f64 / GIB as f64);
            found.add(of(Op::MmPageAlloc), detail, None, "large host memory allocations");
            found.fix("Find the process that allocates host memory during GPU work");
        }
    }

    fn switches(&self, found: &mut Found) {
        let Evidence { switches, off_cpu_ns, .. } = self.evidence;
        if *switches >= SWITCHES {
            let detail = format!("{switches} context switches ({} off-CPU)", rounded(*off_cpu_ns, MS));
            found.add(of(Op::SchedSwitch), detail, Some(*off_cpu_ns), format!("{switches} sched_switch events"));
            found.fix("Pin the training process to cores of its own with taskset");
            found.fix("Run background jobs with nice -n 19");
        }
    }

    fn block_io(&self, found: &mut Found, p99_ns: i64) {
        let io = &self.evidence.io;
        // One request of a hundredth of the slow call already counts, as in the reference.
        let is_long = io.longest_ns > 0 && p99_ns > 0 && io.longest_ns >= p99_ns / 100;
        if io.ops < 200 && io.total_ns < 1_000 * MS && !is_long {
            return;
        }
        let mut detail = format!("{} I/O ops", io.ops);
        if io.reads + io.writes > 0 {
            detail += &format!(" ({} reads, {} writes)", io.reads, io.writes);
        }
        detail += &format!(", {} total", rounded(io.total_ns, MS));
        if io.bytes > 0 {
            detail += &format!(", {:.1} MB", io.bytes as f64 / MIB);
        }
        if io.longest_ns > 0 {
            detail += &format!(", peak {}", rounded(io.longest_ns, 1_000));
        }
        found.add(("IO", "block_io"), detail, Some(io.total_ns), "heavy block I/O");
        found.is_high |= io.longest_ns > 50 * MS || io.total_ns > 2_000 * MS;
        if io.longest_ns > 20 * MS {
            let peak = rounded(io.longest_ns, MS);
            found.fix(format!("A peak of {peak} looks like a spinning or network disk: use NVMe"));
        }
        found.fix(match io.writes.cmp(&io.reads) {
            std::cmp::Ordering::Greater => "Save checkpoints asynchronously or to a volume of their own",
            std::cmp::Ordering::Less => "Load data ahead: /dev/shm, more page cache, or NVMe for the DataLoader",
            std::cmp::Ordering::Equal => "Look for checkpoints, model loads or DataLoader reads during GPU work",
        });
    }

    fn network(&self, found: &mut Found) {
        self.tcp(found, true);
        let Evidence { socket_ops, socket_bytes, .. } = self.evidence;
        if *socket_ops > 100 && *socket_bytes > 1 << 20 {
            let detail = format!("{socket_ops} socket ops ({:.1} MB)", *socket_bytes as f64 / MIB);
            found.add(("NET", "socket_io"), detail, None, "heavy network socket I/O");
            found.fix("Profile network calls: HTTP, gRPC, NCCL");
        }
    }

    fn tcp(&self, found: &mut Found, for_tail: bool) {
        let retransmits = self.evidence.retransmits;
        if retransmits > RETRANSMITS {
            let cause = format!("{retransmits} TCP retransmits");
            found.add(
                (Source::Net.name(), Op::TcpRetransmit.name()),
                format!("{retransmits} retransmits"),
                None,
                cause,
            );
            found.is_high |= for_tail && retransmits > 50;
            found.fix("Check the network: switch errors, ethtool -S, MTU");
        }
    }

    fn oom(&self) -> Option<Chain> {
        let kills = self.evidence.oom_kills;
        let mut found = Found { is_high: true, ..Found::default() };
        let cause = "host memory exhaustion triggered OOM killer";
        found.add(of(Op::OomKill), format!("OOM killer invoked {kills} time(s)"), None, cause);
        ["Use less host memory", "Add swap as a buffer", "Add RAM"].into_iter().for_each(|fix| found.fix(fix));
        let summary = format!("OOM killer triggered {kills} time(s)");
        (kills > 0)
            .then(|| self.of_all(found, "oom".to_owned(), summary, "all GPU operations affected by memory pressure"))
            .flatten()
    }

    fn retransmits(&self) -> Option<Chain> {
        let retransmits = self.evidence.retransmits;
        let mut found = Found { is_high: retransmits > 100, ..Found::default() };
        let cause = "TCP retransmit burst indicates network congestion or packet loss";
        found.add((Source::Net.name(), Op::TcpRetransmit.name()), format!("{retransmits} retransmits"), None, cause);
        let fixes = [
            "Check switches for errors and congestion",
            "Check speed and errors of the NIC (ethtool -S)",
            "For NCCL: NCCL_SOCKET_IFNAME, NCCL_IB_DISABLE",
        ];
        fixes.into_iter().for_each(|fix| found.fix(fix));
        let id = format!("tcp-retransmit-{}", found.severity().name().to_lowercase());
        let summary = format!("{retransmits} TCP retransmits during trace window");
        let symptom = "GPU operations may stall waiting for network data (NCCL, gRPC)";
        (retransmits > 10).then(|| self.of_all(found, id, summary, symptom)).flatten()
    }

    fn pods(&self) -> impl Iterator<Item = Chain> {
        let Evidence { pod_restarts, pod_evictions, .. } = self.evidence;
        let restart = self.pod(
            (*pod_restarts, "restart"),
            "pod container restart concurrent with GPU workload",
            (
                "GPU operations may have been interrupted by pod restart",
                "kubectl logs --previous, and OOM kills among the events",
            ),
        );
        let eviction = self.pod(
            (*pod_evictions, "eviction"),
            "pod evicted by K8s scheduler during GPU workload",
            (
                "GPU workload terminated by eviction",
                "Check the node's pressure, requests and limits, and the PriorityClass",
            ),
        );
        restart.into_iter().chain(eviction)
    }

    fn pod(&self, (times, what): (u64, &str), cause: &str, (symptom, fix): (&str, &str)) -> Option<Chain> {
        let mut found = Found { is_high: true, ..Found::default() };
        found.add(("HOST", &format!("pod_{what}")), format!("{times} {what}(s) detected"), None, cause);
        found.fix(fix);
        let summary = format!("K8s pod {what} detected ({times} {what}(s))");
        (times > 0).then(|| self.of_all(found, format!("pod-{what}"), summary, symptom)).flatten()
    }

    /// A chain that concerns every operation.
    fn of_all(&self, found: Found, id: String, summary: String, symptom: &str) -> Option<Chain> {
        let severity = found.severity();
        let explanation = format!("{summary}: {}.", found.causes.join(" + "));
        self.chain(found, severity, (id, summary, explanation), step("CUDA", "all", symptom.to_owned(), None))
    }

    /// `None` without a cause.
    fn chain(
        &self,
        found: Found,
        severity: Severity,
        (id, summary, explanation): (String, String, String),
        symptom: Step,
    ) -> Option<Chain> {
        let Found { causes, mut steps, fixes, .. } = found;
        if causes.is_empty() {
            return None;
        }
        // Cause before symptom: the symptom is the last step, by which `NodeReplay::look` recognises the chain.
        let op = symptom.op.clone();
        steps.push(symptom);
        let chain = Chain::reported(id, "", severity, summary, self.now_ns);
        Some(Chain {
            cause: Cause::ReferenceRule,
            root_cause: causes.join(" + "),
            explanation: Some(explanation),
            fixes,
            op: Some(op),
            first_seen_ns: self.first_ns,
            timeline: steps,
            ..chain
        })
    }
}

/// Layer and name of a step that is an operation.
const fn of(op: Op) -> (&'static str, &'static str) {
    (op.source().name(), op.name())
}

fn layer_and_name(op: &OpStats) -> (&'static str, &'static str) {
    // Only calls of these two sources are counted (`Ops::observe`).
    let layer = if op.source == Source::Driver.number() { Source::Driver } else { Source::Cuda };
    (layer.name(), op_name(op.source, op.op).unwrap_or("unknown"))
}
