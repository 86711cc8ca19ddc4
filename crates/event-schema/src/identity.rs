//! The origin of a record: node, boot, epoch, stream, sequence number; and the id that users see.

use std::sync::Arc;

use crate::stream::{Lane, Stream};

/// An ordered sequence of records within a node, boot and epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Name of the host; at least one byte.
    pub node: Arc<str>,
    /// The kernel's boot id (a UUID in text form).
    pub boot_id: Arc<str>,
    /// One run of an agent in a boot; later runs have greater numbers.
    pub epoch: i64,
    /// Which of the streams of that run.
    pub stream: Stream,
}

/// What one run of an agent ships to one topic, and therefore to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// Name of the host; at least one byte.
    pub node: Arc<str>,
    /// The kernel's boot id (a UUID in text form).
    pub boot_id: Arc<str>,
    /// One run of an agent in a boot.
    pub epoch: i64,
    /// Which streams of that run: events, or everything else.
    pub lane: Lane,
}

/// Bits of a sequence number that count within one stream: 2^36 records, about 19 hours at a million a second. An agent
/// that has used them up goes on in a new epoch.
const COUNT_BITS: u32 = 36;
/// Sequence numbers a stream has.
pub const SEQS_MAX: i64 = 1 << COUNT_BITS;
/// Bits that name the stream.
const STREAM_BITS: u32 = 4;
const _: () = assert!(Stream::ALL.len() <= 1 << STREAM_BITS, "every stream fits its bits of a sequence number");
/// Epochs a boot may have: what is left of 63 bits.
pub const EPOCHS_MAX: i64 = 1 << (63 - COUNT_BITS - STREAM_BITS);

/// The first sequence number of a stream. Epoch and stream are the high bits, so that a number occurs once per boot and
/// `node:boot8:seq` names one record. `None` when the epoch is out of range.
pub fn first_seq(epoch: i64, stream: Stream) -> Option<i64> {
    let stream_bits = i64::from(stream.number()) << COUNT_BITS;
    // In range, the parts do not overlap and the sign bit stays clear: a greater epoch gives greater numbers, and `seq`
    // is never negative.
    (0..EPOCHS_MAX).contains(&epoch).then_some((epoch << (COUNT_BITS + STREAM_BITS)) | stream_bits)
}

/// The first eight characters of a boot id, as ids show it.
pub fn boot8(boot_id: &str) -> &str {
    // `get`, because an importer's id may be shorter, or have a character across byte 8, where slicing panics.
    boot_id.get(..8).unwrap_or(boot_id)
}

/// The id users see: `node:boot8:seq`.
pub fn event_id(node: &str, boot_id: &str, seq: i64) -> String {
    format!("{node}:{}:{seq}", boot8(boot_id))
}

/// Whether a boot id is that of a recording: a UUID of version 8 in text form. The kernel's are random (version 4).
pub fn is_recording(boot_id: &str) -> bool {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    const VERSION: usize = 14;
    // The text form of RFC 9562, section 4. The length first: the index of the version below lies within it.
    let has_form = boot_id.len() == 36
        && boot_id.bytes().enumerate().all(|(at, byte)| match HYPHENS.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    has_form && boot_id.as_bytes()[VERSION] == b'8'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_of_a_recording_is_a_uuid_of_version_8() {
        assert!(is_recording("0b14e8e2-6a0e-8c3f-9c55-0d7e3a1b2c4d"));
        assert!(!is_recording("0b14e8e2-6a0e-4c3f-9c55-0d7e3a1b2c4d"), "the kernel's");
        for text in [
            "",
            "b",
            "88888888-8888-8888-8888-88888888888",
            "0b14e8e2-6a0e-8c3f-9c55_0d7e3a1b2c4d",
            "0b14e8e26a0e8c3f9c550d7e3a1b2c4d",
        ] {
            assert!(!is_recording(text), "{text}");
        }
    }
}
