//! Hashes of what rows hold.

use std::sync::Arc;

use event_schema::batch::Value;
use sha2::{Digest as _, Sha256};

/// A SHA-256 of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// The digest that stands for no content.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// Of cells by name. Nulls leave no trace, so that a column that an older schema lacks changes nothing.
    pub(crate) fn of_cells<'a>(label: &str, cells: impl Iterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut hash = Sha256::new();
        add(&mut hash, label.as_bytes());
        for (name, cell) in cells {
            let bytes: &[u8] = match cell {
                // No trace: an older schema that lacks the column gives the same hash as a newer one where it is NULL.
                Value::Null => continue,
                Value::Long(number) => &number.to_le_bytes(),
                Value::Double(number) => &number.to_bits().to_le_bytes(),
                Value::Text(text) => text.as_bytes(),
            };
            add(&mut hash, name.as_bytes());
            // An integer and a text of the same eight bytes are different contents.
            hash.update([type_tag(cell)]);
            add(&mut hash, bytes);
        }
        Self(hash.finalize().into())
    }

    /// Of this and more.
    pub(crate) fn with(&self, more: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        more.iter().for_each(|bytes| add(&mut hash, bytes));
        Self(hash.finalize().into())
    }

    /// Of this and another.
    pub(crate) fn with_digest(&self, other: &Self) -> Self {
        self.with(&[&other.0])
    }

    /// In hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A boot id made of the digest: the boot in which the rows were recorded is not known, but always the same. It is
    /// a UUID of version 8, which [`event_schema::identity::is_recording`] recognises.
    pub(crate) fn boot_id(&self) -> Arc<str> {
        let mut id = [0; 16];
        // Version and variant take 6 bits (RFC 9562, section 5.8): 122 bits of the hash remain.
        id.copy_from_slice(&self.0[..16]);
        uuid::Builder::from_custom_bytes(id).into_uuid().to_string().into()
    }

    /// The number in the eight bytes that begin at `at`.
    pub(crate) fn number(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    /// A number from 0 to below `end`, from the eight bytes that begin at `at`.
    pub(crate) fn below(&self, at: usize, end: i64) -> i64 {
        let end = u64::try_from(end).unwrap_or(1).max(1);
        // Below an `i64`, so that the conversion is exact. Both bounds in use are powers of two: the remainder has no
        // bias.
        i64::try_from(self.number(at) % end).unwrap_or(0)
    }
}

/// Adds bytes with their length before them: "ab", "c" and "a", "bc" must differ.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(bytes);
}

fn type_tag(cell: &Value) -> u8 {
    match cell {
        Value::Null => 0,
        Value::Long(_) => 1,
        Value::Double(_) => 2,
        Value::Text(_) => 3,
    }
}
