//! 64-bit hashes of values, by which two sets of rows are compared. They show a fault and are no defence against an
//! attacker: who knows the function finds values of equal hashes.

/// 2^64 divided by the golden ratio: multiples of it are far apart.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of a number over all bits (the finalizer of splitmix64, a bijection).
pub const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(STEP);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The hash of a sequence of numbers: of two hashes, or of a hash and a number.
pub const fn join(hash: u64, number: u64) -> u64 {
    // Not symmetric: the first is multiplied, so that exchanged numbers give another hash.
    mix(hash.wrapping_mul(STEP).rotate_left(29) ^ number)
}

/// The hash of bytes.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let chunks = bytes.chunks_exact(8);
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    for chunk in chunks {
        // The length of a chunk is 8, so that the fallback is not taken.
        let number = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        hash = (hash ^ number).wrapping_mul(STEP);
        hash ^= hash >> 32;
    }
    join(hash, u64::from_le_bytes(rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn values_that_differ_in_little_have_other_hashes() {
        let texts =
            ["", "\0", "\0\0", "a", "b", "aaaaaaaa", "aaaaaaaab", "baaaaaaa", "aaaaaaaaaaaaaaaa", "aaaaaaaabbbbbbbb"];
        let hashes: BTreeSet<u64> = texts.iter().map(|text| of_bytes(text.as_bytes())).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_ne!(join(1, 2), join(2, 1));
        let numbers: BTreeSet<u64> = (0..10_000).chain((0..64).map(|bit| 1 << bit)).map(mix).collect();
        assert_eq!(numbers.len(), (0..10_000).chain((0..64).map(|bit| 1 << bit)).collect::<BTreeSet<u64>>().len());
    }
}
