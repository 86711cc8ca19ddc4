//! Each refusal is distinguished from the others.

use libbpf_rs::Error;

use super::*;

const EACCES: i32 = 13;

/// As libbpf prints it, shortened at the front.
const VERIFIER: &str = "\
libbpf: prog 'sched_switched': BPF program load failed: Permission denied
libbpf: prog 'sched_switched': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
; int sched_switched(u64 *ctx) @ sched.h:233
17: (79) r3 = *(u64 *)(r1 +64)
func 'sched_switch' doesn't have 5-th argument
invalid bpf_context access off=64 size=8
processed 18 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'sched_switched': failed to load: -13
libbpf: failed to load object 'tracer_bpf'
";

#[test]
fn what_the_verifier_rejects_is_told_with_its_reason() {
    let error = explain(Error::from_raw_os_error(EACCES), VERIFIER, &[]);
    assert!(matches!(error, LoadError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("invalid bpf_context access off=64"), "{error}");
}

#[test]
fn of_a_long_log_the_end_is_told() {
    let long = format!("{}{VERIFIER}", "r1 = 0\n".repeat(100_000));
    let error = explain(Error::from_raw_os_error(EACCES), &long, &[]).to_string();
    assert!(error.contains("invalid bpf_context access") && error.len() < 2000, "{} bytes", error.len());
}

#[test]
fn a_missing_capability_comes_before_everything_and_silence_is_a_lockdown() {
    let denied = || Error::from_raw_os_error(EACCES);
    let error = explain(denied(), VERIFIER, &["CAP_BPF", "CAP_PERFMON"]).to_string();
    assert!(error.contains("lacks CAP_BPF and CAP_PERFMON"), "{error}");
    let quiet = "libbpf: prog 'sched_switched': BPF program load failed: Operation not permitted\n";
    assert!(matches!(explain(denied(), quiet, &[]), LoadError::Forbidden { .. }));
}

#[test]
fn a_session_program_that_the_kernel_refuses_is_done_without() {
    let refusal = || explain(Error::from_raw_os_error(EACCES), VERIFIER, &[]);
    let refuses = |sampling| if sampling == Sampling::Session { Err(refusal()) } else { Ok(()) };
    let sampling = or_without_session(Sampling::Session, refuses).unwrap().1;
    assert_eq!(sampling, Sampling::ReturnProbes);
    assert!(or_without_session(Sampling::Off, |_| Err::<(), _>(refusal())).is_err(), "something else is refused");
    let lacks = |_| Err::<(), _>(explain(Error::from_raw_os_error(EACCES), "", &["CAP_BPF"]));
    assert!(matches!(or_without_session(Sampling::Session, lacks), Err(LoadError::MissingCapabilities { .. })));
}
