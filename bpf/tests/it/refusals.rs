//! What cannot be done is said so, with what to do.

use std::process::Command;

use bpf::{AttachError, Library, LibraryKind, LoadError, Options, Tracer, Verdict, preflight};

use crate::harness::{alone_as_root, load};

#[test]
fn a_ring_of_impossible_size_is_refused_by_name() {
    let error = Tracer::load(&Options { data_ring_bytes: 5000, ..Options::default() }).unwrap_err();
    assert!(matches!(error, LoadError::RingSize { option: "data_ring_bytes", value: 5000, .. }), "{error}");
    let error = Tracer::load(&Options { max_threads: 0, ..Options::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Zero { option: "max_threads" }), "{error}");
}

#[test]
fn root_a_file_that_cannot_be_probed_is_named() {
    let Some(_alone) = alone_as_root() else { return };
    let mut tracer = load(&Options::default());
    let mut attach =
        |path: &str| tracer.attach_library(&Library { path: path.into(), kind: LibraryKind::Cudart }).unwrap_err();
    assert!(matches!(attach("/nonexistent/libcudart.so"), AttachError::Open { .. }));
    assert!(matches!(attach("/etc/passwd"), AttachError::Elf { .. }));
    assert!(matches!(attach("/dev/zero"), AttachError::NotAFile { .. }));
    let dir = tempfile::TempDir::new().unwrap();
    let pipe = dir.path().join("libcudart.so");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        matches!(attach(pipe.to_str().unwrap()), AttachError::NotAFile { .. }),
        "and it does not wait for a writer"
    );
    let program = std::env::current_exe().unwrap();
    let error = attach(program.to_str().unwrap());
    assert!(matches!(error, AttachError::NoFunctions { .. }) && error.to_string().contains("Cudart"), "{error}");
    tracer.detach();
    let error = tracer.attach_library(&Library { path: "/x".into(), kind: LibraryKind::Cuda }).unwrap_err();
    assert!(matches!(error, AttachError::Detached { .. }));
}

#[test]
fn root_preflight_finds_this_machine_fit() {
    let Some(_alone) = alone_as_root() else { return };
    for check in preflight() {
        assert_ne!(check.verdict, Verdict::Missing, "{check:?}");
    }
}

/// Run by the next test in a process without capabilities.
#[test]
#[ignore = "a helper of root_missing_capabilities_are_named"]
fn load_and_say_what_is_missing() {
    println!("LOAD {}", Tracer::load(&Options::default()).err().map_or("worked".to_owned(), |e| e.to_string()));
    for check in preflight() {
        println!("CHECK {} {:?} {:?}", check.name, check.verdict, check.advice);
    }
}

#[test]
fn root_missing_capabilities_are_named() {
    let Some(_alone) = alone_as_root() else { return };
    let out = Command::new("setpriv")
        .args(["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "refusals::load_and_say_what_is_missing"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.contains("LOAD not permitted to load BPF programs: this process lacks CAP_BPF and CAP_PERFMON"),
        "{said}"
    );
    assert!(said.contains("CHECK capabilities Missing") && said.contains("CHECK probes Missing"), "{said}");
}

#[test]
fn root_a_pid_namespace_of_its_own_is_refused_with_what_to_do() {
    let Some(_alone) = alone_as_root() else { return };
    let out = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "refusals::load_and_say_what_is_missing"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("LOAD this process is in a PID namespace of its own"), "{said}");
    assert!(said.contains("CHECK pid namespace Missing") && said.contains("hostPID: true"), "{said}");
}
