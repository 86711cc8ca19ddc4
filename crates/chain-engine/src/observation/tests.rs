//! The numbers used here against the catalogue.

use super::*;

fn kind_of(op: Op) -> Option<Kind> {
    let row = Observation {
        event_id: "",
        cluster: "",
        node: "",
        boot_id: "",
        ts_ns: 0,
        boot_ns: 0,
        clock_error_ns: 0,
        source: op.source().number(),
        op: op.number(),
        duration_ns: None,
        pid: 1,
        tid: 1,
        rank: None,
        world_size: None,
        job_id: None,
        arg0: 0,
        arg1: 0,
        bytes: None,
        peer_comm: None,
        peer_pid: None,
    };
    row.kind()
}

fn names(wanted: Kind) -> Vec<&'static str> {
    Op::ALL.iter().filter(|op| kind_of(**op) == Some(wanted)).map(|op| op.name()).collect()
}

#[test]
fn the_ops_the_engine_reads_are_those_of_the_catalogue() {
    assert_eq!(names(Kind::Sync), ["cudaStreamSync", "cudaDeviceSync", "cuCtxSynchronize", "cuStreamSynchronize"]);
    assert_eq!(names(Kind::Collective), ["AllReduce", "AllGather", "ReduceScatter", "Bcast", "Send", "Recv"]);
    assert_eq!(names(Kind::Launch), ["cudaLaunchKernel", "cuLaunchKernel", "cuLaunchKernelEx", "launch"]);
    assert_eq!(names(Kind::Runnable(false)), ["runnable_wait"]);
    assert_eq!(names(Kind::Blocked(false)), ["blocked"]);
    let copies = names(Kind::Copy(0));
    assert_eq!(
        copies,
        [
            "cudaMemcpy",
            "cudaMemcpyAsync",
            "cudaMemcpy2D",
            "cudaMemcpy2DAsync",
            "cudaMemcpyPeer",
            "cudaMemcpyPeerAsync",
            "cuMemcpy",
            "cuMemcpyAsync",
        ]
    );
}
