//! First instructions are judged as the kernel treats them, and no file makes us read without end.

use tempfile::tempfile;

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

/// A file that says it has a symbol table of so many bytes, all of them zero and most of them holes.
fn with_symbols(bytes: u64) -> File {
    const TABLE_AT: u64 = 4096;
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01"); // 64 bit, little endian, version 1
    header[16] = 3; // a shared object
    header[18] = 62; // x86-64
    header[20] = 1; // version
    header[40] = 64; // section headers follow
    header[52] = 64; // this header's size
    header[58] = 64; // a section header's size
    header[60] = 3; // sections: none, symbols, strings
    header[62] = 2; // whose names are the strings
    let section = |kind: u32, link: u32, at: u64, size: u64, entry: u64| {
        let mut section = [0; 64];
        section[4..8].copy_from_slice(&kind.to_le_bytes());
        section[24..32].copy_from_slice(&at.to_le_bytes());
        section[32..40].copy_from_slice(&size.to_le_bytes());
        section[40..44].copy_from_slice(&link.to_le_bytes());
        section[56..].copy_from_slice(&entry.to_le_bytes());
        section
    };
    let symbols = section(2, 2, TABLE_AT, bytes, 24);
    let file = tempfile().unwrap();
    file.set_len(TABLE_AT + bytes).unwrap();
    file.write_all_at(&[header, [0; 64], symbols, section(3, 0, 256, 1, 0)].concat(), 0).unwrap();
    file
}

#[test]
fn a_file_with_tables_that_no_library_has_is_refused() {
    let wanted = HashSet::from(["cudaMalloc"]);
    assert!(functions(&with_symbols(24 << 10), &wanted).unwrap().is_empty());
    let error = functions(&with_symbols(24 << 22), &wanted).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge) && error.to_string().contains("67108864"), "{error}");
    // Over the end of the file: malformed, and nothing is read for it.
    let short = with_symbols(24 << 22);
    short.set_len(8192).unwrap();
    functions(&short, &wanted).unwrap_err();
}
