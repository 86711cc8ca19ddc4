//! Calls of CUDA and NCCL libraries: the table of probed functions. A probe of another function is a row of [`CALLS`].
//! The programs are in `c/calls.h`; they are attached to libraries, see [`crate::attach`].

use std::mem::{offset_of, size_of};

use event_schema::catalog::Op;

use super::Family;
use crate::class::Class;
use crate::record::{Head, Measured, Record, RecordError};
use crate::skeleton::types::{cw_call_flag, cw_call_record, cw_field};

#[cfg(test)]
mod tests;

pub(super) const FAMILY: Family = Family { class: Class::Call, decode, tracepoints: |_| Vec::new() };

const RECORD_BYTES: usize = size_of::<cw_call_record>();
const _: () = assert!(RECORD_BYTES == 88, "records of calls are 88 bytes on both sides");

fn decode(head: &Head<'_>) -> Result<Record, RecordError> {
    let record = head.record(Class::Call, RECORD_BYTES)?;
    let ns = head.long(offset_of!(cw_call_record, duration_ns));
    let events = head.unsigned(offset_of!(cw_call_record, duration_calls));
    let bytes = head.long(offset_of!(cw_call_record, bytes));
    let ret_code = head.int(offset_of!(cw_call_record, ret_code));
    Ok(Record {
        // 0 events: the call was recorded at entry, without its end.
        duration: (events != 0).then_some(Measured { ns, events }),
        arg0: head.long(offset_of!(cw_call_record, arg0)),
        arg1: head.long(offset_of!(cw_call_record, arg1)),
        // 0 bytes is a value of its own (an empty copy): the head states whether there is one.
        bytes: head.has(cw_field::CW_HAS_BYTES).then_some(bytes),
        ret_code: head.has(cw_field::CW_HAS_RET).then_some(ret_code),
        ..record
    })
}

/// A library that is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LibraryKind {
    /// CUDA runtime, `libcudart`.
    Cudart,
    /// CUDA driver, `libcuda`.
    Cuda,
    /// Collectives, `libnccl`.
    Nccl,
}

impl LibraryKind {
    /// The kind a file is by its name: `libcudart.so.12`, `libcudart-d0da41ae.so.11.0`, `libcuda.so.1`, `libnccl.so.2`.
    pub fn of_file_name(name: &str) -> Option<Self> {
        const STEMS: [(&str, LibraryKind); 3] =
            [("libcudart", LibraryKind::Cudart), ("libcuda", LibraryKind::Cuda), ("libnccl", LibraryKind::Nccl)];
        let stem = STEMS.iter().find(|(stem, _)| name.strip_prefix(stem).is_some_and(may_follow_stem));
        stem.map(|(_, kind)| *kind)
    }
}

/// A version or, where a packager has put it before that, a hash. Other words make it another library: `libnccl-net.so`
/// and `libnccl-tuner-x.so` are plugins, which have none of the functions.
fn may_follow_stem(rest: &str) -> bool {
    const HASH_DIGITS_MIN: usize = 8;
    match rest.strip_prefix('-').map(|rest| rest.split_once('.').unwrap_or_default()) {
        Some((hash, ending)) => {
            let is_hash = hash.len() >= HASH_DIGITS_MIN && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hash && ending.starts_with("so")
        }
        None => rest.starts_with('.'),
    }
}

/// Where a 64-bit argument is. Words are counted from 1 as the calling convention passes them: a struct by value takes
/// one per 8 bytes; those beyond the registers are read from the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    None,
    Word(u8),
    /// The word is a pointer to the result, which is read when the call has returned 0. Only for `arg1` of timed calls.
    Out(u8),
}

impl Arg {
    /// The number of its word; 0 for none.
    const fn word(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Word(n) | Self::Out(n) => n,
        }
    }
}

/// Where the number of bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    None,
    Word(u8),
    /// Elements of an `ncclDataType_t`.
    Elements {
        count: u8,
        dtype: u8,
    },
}

/// When a call is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// At entry; half the cost. For launches, whose duration says nothing about the kernel. A sample of the calls may
    /// be timed, see [`Options::launch_sample`](crate::Options::launch_sample).
    Entry,
    /// At return, with duration and return code. A call whose thread ends inside it is recorded then, without the code.
    Duration,
}

/// One row: functions that are recorded alike.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The libraries whose symbols these are.
    pub library: LibraryKind,
    /// All of those that the library has are probed: per-thread-stream variants, versions.
    pub symbols: &'static [&'static str],
    /// The operation that the calls are recorded as.
    pub op: Op,
    /// Whether a call is recorded as it begins or as it ends.
    pub timing: Timing,
    /// Where `arg0` of the event comes from.
    pub arg0: Arg,
    /// Where `arg1` of the event comes from.
    pub arg1: Arg,
    /// Where `bytes` of the event comes from.
    pub bytes: Bytes,
    /// The arguments are C ints, of 32 bits.
    pub ints: bool,
}

const fn probe(library: LibraryKind, op: Op, symbols: &'static [&'static str]) -> Probe {
    let timing = Timing::Duration;
    Probe { library, symbols, op, timing, arg0: Arg::None, arg1: Arg::None, bytes: Bytes::None, ints: false }
}

const fn runtime(op: Op, symbols: &'static [&'static str]) -> Probe {
    probe(LibraryKind::Cudart, op, symbols)
}

const fn driver(op: Op, symbols: &'static [&'static str]) -> Probe {
    probe(LibraryKind::Cuda, op, symbols)
}

const fn nccl(op: Op, symbols: &'static [&'static str]) -> Probe {
    probe(LibraryKind::Nccl, op, symbols)
}

impl Probe {
    const fn entry_only(mut self) -> Self {
        self.timing = Timing::Entry;
        self
    }

    const fn args(mut self, arg0: Arg, arg1: Arg) -> Self {
        self.arg0 = arg0;
        self.arg1 = arg1;
        self
    }

    const fn ints(mut self, arg0: Arg, arg1: Arg) -> Self {
        self.ints = true;
        self.args(arg0, arg1)
    }

    const fn bytes(mut self, bytes: Bytes) -> Self {
        self.bytes = bytes;
        self
    }
}

use Arg::{None as No, Out, Word};

/// Every probed function of every library.
pub const CALLS: &[Probe] = &[
    runtime(Op::CudaMalloc, &["cudaMalloc"]).args(Word(2), Out(1)).bytes(Bytes::Word(2)),
    runtime(Op::CudaFree, &["cudaFree"]).args(Word(1), No),
    // The two dim3 take words 2-3 and 4-5.
    runtime(Op::CudaLaunchKernel, &["cudaLaunchKernel", "cudaLaunchKernel_ptsz"]).entry_only().args(Word(1), Word(8)),
    runtime(Op::CudaLaunchKernel, &["cudaLaunchKernelExC", "cudaLaunchKernelExC_ptsz"]).entry_only().args(Word(2), No),
    runtime(Op::CudaMemcpy, &["cudaMemcpy", "cudaMemcpy_ptds"]).args(Word(3), Word(4)).bytes(Bytes::Word(3)),
    runtime(Op::CudaStreamSync, &["cudaStreamSynchronize", "cudaStreamSynchronize_ptsz"]).args(Word(1), No),
    runtime(Op::CudaDeviceSync, &["cudaDeviceSynchronize"]),
    runtime(Op::CudaMemcpyAsync, &["cudaMemcpyAsync", "cudaMemcpyAsync_ptsz"])
        .args(Word(3), Word(4))
        .bytes(Bytes::Word(3)),
    driver(Op::CuLaunchKernel, &["cuLaunchKernel", "cuLaunchKernel_ptsz"]).entry_only().args(Word(1), Word(9)),
    driver(Op::CuLaunchKernelEx, &["cuLaunchKernelEx", "cuLaunchKernelEx_ptsz"]).entry_only().args(Word(1), Word(2)),
    driver(Op::CuMemcpy, COPIES).args(Word(3), No).bytes(Bytes::Word(3)),
    driver(Op::CuMemcpyAsync, ASYNC_COPIES).args(Word(3), No).bytes(Bytes::Word(3)),
    driver(Op::CuCtxSynchronize, &["cuCtxSynchronize"]),
    driver(Op::CuMemAlloc, &["cuMemAlloc_v2"]).args(Word(2), Out(1)).bytes(Bytes::Word(2)),
    driver(Op::CuMemFree, &["cuMemFree_v2"]).args(Word(1), No),
    driver(Op::CuStreamSynchronize, &["cuStreamSynchronize", "cuStreamSynchronize_ptsz"]).args(Word(1), No),
    // arg0 is the number of ranks, arg1 the rank. The second argument but one is a struct of 128 bytes by value.
    nccl(Op::NcclCommInitRank, &["ncclCommInitRank", "ncclCommInitRankConfig"]).ints(Word(2), Word(AFTER_UNIQUE_ID)),
    nccl(Op::NcclCommInitRank, &["ncclCommInitRankScalable"]).ints(Word(2), Word(3)),
    nccl(Op::NcclCommInitAll, &["ncclCommInitAll"]).ints(Word(2), No),
    // arg0 is the communicator, arg1 the stream. The call only enqueues: the wait shows in the synchronisation after
    // it.
    nccl(Op::NcclAllReduce, &["ncclAllReduce"]).args(Word(6), Word(7)).bytes(Bytes::Elements { count: 3, dtype: 4 }),
];

/// The word after an `ncclUniqueId` that is the third argument. On x86-64 it lies on the stack and takes no register;
/// on arm64 a register holds its address.
const AFTER_UNIQUE_ID: u8 = if cfg!(target_arch = "x86_64") { 3 } else { 4 };

const COPIES: &[&str] = &[
    "cuMemcpy",
    "cuMemcpy_ptds",
    "cuMemcpyHtoD_v2",
    "cuMemcpyHtoD_v2_ptds",
    "cuMemcpyDtoH_v2",
    "cuMemcpyDtoH_v2_ptds",
    "cuMemcpyDtoD_v2",
    "cuMemcpyDtoD_v2_ptds",
];

const ASYNC_COPIES: &[&str] = &[
    "cuMemcpyAsync",
    "cuMemcpyAsync_ptsz",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyHtoDAsync_v2_ptsz",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoHAsync_v2_ptsz",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoDAsync_v2_ptsz",
];

impl Probe {
    /// What the probe programs get with the function: `struct cw_call` of `c/record.h` as an integer.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers of the catalogue and flags of calls are below 256: `struct cw_call` has a byte for each"
    )]
    pub(crate) fn cookie(&self) -> u64 {
        let mut flags = 0;
        if self.timing == Timing::Duration {
            flags |= cw_call_flag::CW_CALL_TIMED.0;
        } else {
            flags |= cw_call_flag::CW_CALL_SAMPLED.0;
        }
        if self.ints {
            flags |= cw_call_flag::CW_CALL_ARGS_ARE_INTS.0;
        }
        if matches!(self.arg1, Out(_)) {
            flags |= cw_call_flag::CW_CALL_ARG1_IS_OUT.0;
        }
        let (bytes_word, scale_word) = match self.bytes {
            Bytes::None => (0, 0),
            Bytes::Word(n) => (n, 0),
            Bytes::Elements { count, dtype } => {
                flags |= cw_call_flag::CW_CALL_SCALE_IS_DTYPE.0;
                (count, dtype)
            }
        };
        let source = self.op.source().number() as u8;
        let op = self.op.number() as u8;
        let [arg0, arg1] = [self.arg0.word(), self.arg1.word()];
        // In memory order: the probe copies these eight bytes onto the struct.
        u64::from_ne_bytes([source, op, flags as u8, arg0, arg1, bytes_word, scale_word, 0])
    }
}
