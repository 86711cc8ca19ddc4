//! First instructions are judged as the kernel treats them.

use super::*;

fn first(bytes: &[u8]) -> (u64, FirstInstruction) {
    let mut code = [0xcc; 16];
    code[..bytes.len()].copy_from_slice(bytes);
    judge(&code)
}

#[test]
fn push_and_nop_and_branches_are_emulated() {
    for code in [
        &[0x55][..],                     // push %rbp
        &[0x41, 0x57],                   // push %r15
        &[0x90],                         // nop
        &[0x0f, 0x1f, 0x44, 0x00, 0x00], // nopl 0(%rax,%rax,1)
        &[0x66, 0x0f, 0x1f, 0x44, 0, 0], // nopw
        &[0xe9, 1, 2, 3, 4],             // jmp
    ] {
        assert_eq!(first(code), (0, FirstInstruction::Emulated), "{code:x?}");
    }
}

#[test]
fn sub_mov_and_lea_are_single_stepped() {
    for code in [&[0x48, 0x83, 0xec, 0x08][..], &[0x48, 0x89, 0xe5], &[0x48, 0x8d, 0x3d], &[0x49, 0xb8]] {
        assert_eq!(first(code), (0, FirstInstruction::SingleStepped), "{code:x?}");
    }
}

#[test]
fn endbr64_is_skipped_and_what_follows_is_judged() {
    assert_eq!(first(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55]), (4, FirstInstruction::Emulated));
    assert_eq!(first(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08]), (4, FirstInstruction::SingleStepped));
}
