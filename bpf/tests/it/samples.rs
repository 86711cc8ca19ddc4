//! Launches of which a random sample is timed.

use std::path::{Path, PathBuf};
use std::process::Command;

use bpf::{Class, Library, LibraryKind, Method, Options, Sampling};
use tempfile::TempDir;

use crate::harness::{Job, Seen, alone_as_root, load};

/// Each launch is recorded once, and the sample stands for all of them.
fn check_sample(options: &Options, sampling: Sampling) {
    const LAUNCHES: usize = 30_000;
    let job = Job::new();
    let mut tracer = load(&Options { launch_sample: 10, data_ring_bytes: 64 << 20, ..options.clone() });
    assert_eq!(tracer.sampling(), sampling);
    job.attach(&mut tracer);
    let mut seen = Seen::default();
    let mut child = job.start("--ranks 1 --iterations 100 --launches 300 --gpu-us 0 --cpu-us 0");
    assert!(seen.follow(&mut tracer, &mut child).success());
    let counters = seen.finish(&mut tracer);
    assert_eq!((counters.of(Class::Call).ring_drop, counters.of(Class::Call).untracked), (0, 0));
    for name in ["cudaLaunchKernel", "cuLaunchKernel"] {
        let launches: Vec<_> = seen.of(name).into_iter().filter(|r| r.arg1 != 0).collect();
        assert!((LAUNCHES..LAUNCHES + 10).contains(&launches.len()), "{name}: {}", launches.len());
        let timed: Vec<_> = launches.iter().filter_map(|r| r.duration).collect();
        assert!(timed.iter().all(|duration| duration.events == 10 && duration.ns > 0));
        // Six standard deviations of a binomial of 30,000 and a tenth.
        let stands_for = timed.len() * 10;
        assert!(stands_for.abs_diff(LAUNCHES) < 3_200, "{name}: {} are timed", timed.len());
        let is_timed = |r: &&&bpf::Record| r.ret_code == Some(0);
        assert_eq!(launches.iter().filter(is_timed).count(), timed.len());
    }
}

#[test]
fn root_a_random_sample_of_launches_is_timed_and_stands_for_all() {
    let Some(_alone) = alone_as_root() else { return };
    let single = Options { method: Some(Method::Uprobe), ..Options::default() };
    check_sample(&single, Sampling::ReturnProbes);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let has_session = (numbers.next(), numbers.next()) >= (Some(6), Some(13));
    check_sample(&Options::default(), if has_session { Sampling::Session } else { Sampling::ReturnProbes });
}

/// Compiles C in a directory; `arguments` follow the name of what is made.
fn compile(dir: &Path, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let (made, file) = (dir.join(name), dir.join(format!("{name}.c")));
    std::fs::write(&file, source).unwrap();
    let status = Command::new("cc").current_dir(dir).arg("-o").args([&made, &file]).args(arguments).status().unwrap();
    assert!(status.success());
    made
}

#[test]
fn root_a_sampled_launch_that_was_left_by_a_jump_does_not_end_with_another() {
    const LAUNCHES: u64 = 2000;
    const LIBRARY: &str = "#include <setjmp.h>
        int cudaLaunchKernel(jmp_buf *back) { if (back) longjmp(*back, 1); return 0; }";
    const PROGRAM: &str = "#include <setjmp.h>
        int cudaLaunchKernel(jmp_buf *back);
        int main(void) {
            jmp_buf back;
            for (volatile int i = 0; i < 2000; i++)
                if (!setjmp(back))
                    cudaLaunchKernel(i % 2 ? &back : 0);
            return 0;
        }";
    let Some(_alone) = alone_as_root() else { return };
    let dir = TempDir::new().unwrap();
    let path = compile(dir.path(), "libcudart.so.12", LIBRARY, &["-shared", "-fPIC"]);
    let program = compile(dir.path(), "jump", PROGRAM, &["-L.", "-l:libcudart.so.12", "-Wl,-rpath,$ORIGIN"]);
    let mut tracer = load(&Options { launch_sample: 2, method: Some(Method::Uprobe), ..Options::default() });
    tracer.attach_library(&Library { path, kind: LibraryKind::Cudart }).unwrap();
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut Command::new(program).spawn().unwrap()).success());
    let counters = seen.finish(&mut tracer);
    let (recorded, untracked) = (seen.of("cudaLaunchKernel").len() as u64, counters.of(Class::Call).untracked);
    assert!(untracked > 0);
    assert_eq!(recorded + untracked, LAUNCHES, "{recorded} recorded, {untracked} not followed");
    let jumped = seen.of("cudaLaunchKernel").into_iter().filter(|record| record.arg0 != 0);
    assert_eq!(jumped.filter(|record| record.ret_code.is_some()).count(), 0, "they never returned");
}
