//! Compiles the probes with clang and generates their skeleton; both stay in `OUT_DIR`.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    let sources = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("c");
    let skeleton = PathBuf::from(env::var("OUT_DIR")?).join("tracer.skel.rs");
    println!("cargo::rerun-if-changed={}", sources.display());
    SkeletonBuilder::new()
        .source(sources.join("tracer.bpf.c"))
        .clang_args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-mcpu=v3"])
        .build_and_generate(skeleton)
        .map_err(|e| format!("the probes did not compile (is clang 14 or later installed?): {e:#}").into())
}
