//! Numbers from the bytes of a C struct, in the byte order of this machine. The offsets come from the struct; the bytes
//! are the value of a map of that struct, or their size was compared with it before.

/// The bytes at an offset. Zeros where there are none, which does not happen once the size was checked.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

pub(crate) fn byte(bytes: &[u8], at: usize) -> u8 {
    u8::from_ne_bytes(array(bytes, at))
}

pub(crate) fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_ne_bytes(array(bytes, at))
}

pub(crate) fn unsigned(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(array(bytes, at))
}

pub(crate) fn long(bytes: &[u8], at: usize) -> i64 {
    i64::from_ne_bytes(array(bytes, at))
}

pub(crate) fn unsigned_long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(array(bytes, at))
}
