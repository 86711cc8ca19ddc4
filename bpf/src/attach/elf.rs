//! Where functions are in an ELF file, and what a probe on their first instruction will cost.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::read::{Object, ObjectSegment, ObjectSymbol, ReadCache, ReadRef};
use object::{Architecture, ObjectKind, SymbolKind};
use thiserror::Error;

use super::Function;

#[cfg(test)]
mod tests;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Most bytes of one file that are read: headers, symbols and names. Libraries that are in use have a few MiB of them.
const READ_BYTES_MAX: u64 = 64 << 20;

/// Why functions cannot be found in a file.
#[derive(Debug, Error)]
pub enum ElfError {
    #[error(transparent)]
    Malformed(#[from] object::Error),
    #[error("its tables of symbols and names have more than {READ_BYTES_MAX} bytes: no library has, it is not probed")]
    TooLarge,
}

/// How the kernel gets past the instruction under a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstInstruction {
    /// `push`, `nop`, a jump or a call: the kernel does what it does itself, about 1 µs in all.
    Emulated,
    /// Anything else is executed out of line with a debug trap after it: several times the cost.
    SingleStepped,
    /// Not judged on this architecture.
    Unknown,
}

/// Finds the wanted functions in `.symtab` and `.dynsym`. Only the parts of the file that are needed are read.
///
/// # Errors
/// The file is not ELF, or has tables that no library has: everything that is read stays in memory meanwhile.
pub(super) fn functions(file: &File, wanted: &HashSet<&'static str>) -> Result<Vec<Function>, ElfError> {
    bounded(file, |data| search(file, data, wanted))
}

/// Where a variable of a program or library lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSymbol {
    /// Its address as the file states it.
    pub address: u64,
    /// The address at which the file states that its first byte lies: 0 of a shared library, as a rule.
    pub base: u64,
    /// The file lies where it states; if not, at an address of the loader's choice.
    pub is_fixed: bool,
}

/// Finds the first of some variables that the file defines for others (`.dynsym`).
///
/// # Errors
/// The file is not ELF, or has tables that no library has.
pub fn data_symbol(file: &File, names: &[&str]) -> Result<Option<DataSymbol>, ElfError> {
    bounded(file, |data| search_data(data, names))
}

/// Searches a file of which at most [`READ_BYTES_MAX`] are read.
fn bounded<T>(file: &File, search: impl FnOnce(Bounded<'_, '_>) -> Result<T, object::Error>) -> Result<T, ElfError> {
    let cache = ReadCache::new(file);
    let read = Cell::new(0);
    // Processes choose the files: without a limit, a crafted one makes the agent read gigabytes.
    let found = search(Bounded { cache: &cache, read: &read });
    // A read over the limit fails like any other, and may even be passed over: the bytes asked for distinguish it.
    if read.get() > READ_BYTES_MAX { Err(ElfError::TooLarge) } else { Ok(found?) }
}

fn search_data(data: Bounded<'_, '_>, names: &[&str]) -> Result<Option<DataSymbol>, object::Error> {
    let elf = object::File::parse(data)?;
    let symbol = elf
        .dynamic_symbols()
        .find(|symbol| symbol.is_definition() && symbol.name().is_ok_and(|name| names.contains(&unversioned(name))));
    let first = elf.segments().min_by_key(|segment| segment.address());
    // The lowest segment need not begin at the start of the file: its own offset is subtracted.
    let base = first.map_or(0, |segment| segment.address().saturating_sub(segment.file_range().0));
    let is_fixed = elf.kind() == ObjectKind::Executable;
    Ok(symbol.map(|symbol| DataSymbol { address: symbol.address(), base, is_fixed }))
}

/// A file of which a limited number of bytes is read.
#[derive(Clone, Copy)]
struct Bounded<'a, 'f> {
    cache: &'a ReadCache<&'f File>,
    /// Bytes read so far, or asked for.
    read: &'a Cell<u64>,
}

impl Bounded<'_, '_> {
    fn spend(self, bytes: u64) -> Result<(), ()> {
        self.read.set(self.read.get().saturating_add(bytes));
        if self.read.get() > READ_BYTES_MAX { Err(()) } else { Ok(()) }
    }
}

impl<'a> ReadRef<'a> for Bounded<'a, '_> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.spend(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        /// What the cache keeps beside a name, and the least it reads.
        const OVERHEAD: u64 = 64;
        // Names are charged even when empty, so that very many of them reach the limit as well.
        self.spend(OVERHEAD)?;
        let name = self.cache.read_bytes_at_until(range, delimiter)?;
        self.spend(name.len() as u64)?;
        Ok(name)
    }
}

fn search(file: &File, data: Bounded<'_, '_>, wanted: &HashSet<&'static str>) -> Result<Vec<Function>, object::Error> {
    let elf = object::File::parse(data)?;
    let is_x86 = elf.architecture() == Architecture::X86_64;
    let mut found: Vec<Function> = Vec::new();
    for symbol in elf.symbols().chain(elf.dynamic_symbols()) {
        // An undefined symbol is an import: its code is in another file.
        if symbol.kind() != SymbolKind::Text || !symbol.is_definition() {
            continue;
        }
        let Some(&name) = symbol.name().ok().and_then(|name| wanted.get(unversioned(name))) else { continue };
        let Some(start) = file_offset(&elf, symbol.address()) else { continue };
        // The same function in both tables. The first entry counts.
        if found.iter().any(|f| f.symbol == name) {
            continue;
        }
        let mut code = [0; 16];
        let (skipped, first_instruction) = match file.read_exact_at(&mut code, start) {
            Ok(()) if is_x86 => judge(&code),
            _ => (0, FirstInstruction::Unknown),
        };
        found.push(Function { symbol: name, offset: start + skipped, first_instruction });
    }
    Ok(found)
}

/// `.symtab` may carry a symbol's version in its name.
fn unversioned(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn file_offset<'data>(elf: &impl Object<'data>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        // Of a segment, memory beyond its bytes in the file (.bss) has no offset.
        let (start, size) = segment.file_range();
        let into = address.checked_sub(segment.address())?;
        (into < size).then_some(start + into)
    })
}

/// Bytes to skip, and how the instruction there is executed. `endbr64` marks a jump target and does nothing else, so a
/// probe may as well sit behind it.
fn judge(code: &[u8; 16]) -> (u64, FirstInstruction) {
    let (skipped, code) = match code.strip_prefix(&ENDBR64) {
        Some(rest) => (ENDBR64.len() as u64, rest),
        None => (0, code.as_slice()),
    };
    let emulated = match code {
        [0x50..=0x57 | 0x90 | 0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..] => true, // push, nop, call, jmp, jcc
        [0x41, 0x50..=0x57, ..] => true,                                     // push %r8 and up
        [0x0f, 0x1f | 0x80..=0x8f, ..] => true,                              // long nop, jcc
        [0x66, 0x90, ..] | [0x66, 0x0f, 0x1f, ..] => true,                   // prefixed nop
        _ => false,
    };
    (skipped, if emulated { FirstInstruction::Emulated } else { FirstInstruction::SingleStepped })
}
