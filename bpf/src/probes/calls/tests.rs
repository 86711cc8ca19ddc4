//! The table agrees with the event catalogue and with the C side.

use std::collections::HashSet;
use std::mem::offset_of;

use super::*;
use crate::skeleton::types::cw_call;

#[test]
fn every_symbol_begins_with_the_name_of_its_operation() {
    for probe in CALLS {
        let name = probe.op.name();
        for symbol in probe.symbols {
            let symbol = symbol.strip_prefix("nccl").unwrap_or(symbol);
            let stem = symbol.replace("HtoD", "").replace("DtoH", "").replace("DtoD", "");
            assert!(stem.starts_with(name), "{symbol} is recorded as {name}");
        }
    }
}

#[test]
fn no_function_is_probed_twice() {
    let mut seen = HashSet::new();
    for symbol in CALLS.iter().flat_map(|p| p.symbols) {
        assert!(seen.insert(symbol), "{symbol} is in two rows");
    }
}

#[test]
fn a_cookie_puts_every_field_where_the_probes_read_it() {
    let probe = CALLS.iter().find(|p| p.symbols.contains(&"ncclAllReduce")).unwrap();
    let bytes = probe.cookie().to_ne_bytes();
    assert_eq!(i32::from(bytes[offset_of!(cw_call, source)]), Op::NcclAllReduce.source().number());
    assert_eq!(i32::from(bytes[offset_of!(cw_call, op)]), Op::NcclAllReduce.number());
    assert_eq!(bytes[offset_of!(cw_call, arg0_word)], 6);
    assert_eq!(bytes[offset_of!(cw_call, arg1_word)], 7);
    assert_eq!(bytes[offset_of!(cw_call, bytes_word)], 3);
    assert_eq!(bytes[offset_of!(cw_call, scale_word)], 4);
    let flags = cw_call_flag::CW_CALL_TIMED.0 | cw_call_flag::CW_CALL_SCALE_IS_DTYPE.0;
    assert_eq!(u32::from(bytes[offset_of!(cw_call, flags)]), flags);
}

#[test]
fn the_rank_of_a_communicator_is_an_int_behind_the_unique_id() {
    let probe = CALLS.iter().find(|p| p.symbols.contains(&"ncclCommInitRankConfig")).unwrap();
    let bytes = probe.cookie().to_ne_bytes();
    let expected = if cfg!(target_arch = "x86_64") { 3 } else { 4 };
    assert_eq!([bytes[offset_of!(cw_call, arg0_word)], bytes[offset_of!(cw_call, arg1_word)]], [2, expected]);
    let flags = cw_call_flag::CW_CALL_TIMED.0 | cw_call_flag::CW_CALL_ARGS_ARE_INTS.0;
    assert_eq!(u32::from(bytes[offset_of!(cw_call, flags)]), flags);
}

#[test]
fn results_are_only_read_from_calls_that_are_seen_returning() {
    for probe in CALLS {
        assert!(!matches!(probe.arg0, Out(_)), "{:?}", probe.symbols);
        assert!(!matches!(probe.arg1, Out(_)) || probe.timing == Timing::Duration, "{:?}", probe.symbols);
    }
}

#[test]
fn libraries_are_known_by_their_file_names() {
    let kind = LibraryKind::of_file_name;
    assert_eq!(kind("libcudart.so.12"), Some(LibraryKind::Cudart));
    assert_eq!(kind("libcudart-d0da41ae.so.11.0"), Some(LibraryKind::Cudart));
    assert_eq!(kind("libcuda.so.535.54.03"), Some(LibraryKind::Cuda));
    assert_eq!(kind("libnccl.so.2"), Some(LibraryKind::Nccl));
    assert_eq!(kind("libcudadevrt.a"), None);
    for plugin in
        ["libnccl-net.so", "libnccl-net.so.0", "libnccl-tuner-aws-ofi.so", "libnccl-profiler.so", "libnccl-fa.so"]
    {
        assert_eq!(kind(plugin), None, "{plugin}");
    }
    assert_eq!(kind("libcudnn.so.8"), None);
}
