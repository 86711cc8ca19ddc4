//! Checksums of a data file that is uploaded while it is written. Its name is in use before its content is complete, so
//! that the checksum in the name is chosen first. At the end, four bytes that no reader reads are set so that the table
//! of checksums has the chosen checksum.

use bytes::Bytes;
use uuid::Uuid;

use super::{BLOCK_BYTES, BlockSums, Damage, footer_start, stamp};

/// Bytes at the end of the last block that decide the checksum of the table.
const FILL_BYTES: usize = 4;

/// Makes the table of checksums of one data file from its bytes, given in their order.
#[derive(Debug)]
pub struct Sealer {
    name: Uuid,
    checksum: u32,
    sums: BlockSums,
}

impl Sealer {
    /// `id` decides the file's name, and with it the checksum of its table.
    pub fn new(id: Uuid) -> Self {
        // Computed over the whole id, also over its low bytes, which are random (RFC 9562) and which the checksum then
        // replaces in the name.
        let checksum = crc32c::crc32c(id.as_bytes());
        Self { name: stamp(id, checksum), checksum, sums: BlockSums::default() }
    }

    /// The UUID for the name of the file.
    pub fn name(&self) -> Uuid {
        self.name
    }

    /// Takes the next bytes of the file that lie in front of its footer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.sums.push(bytes);
    }

    /// The end of the sealed file. `tail` is the end of the Parquet file: its footer and what was not pushed in front
    /// of it.
    ///
    /// # Errors
    /// The tail does not end as a Parquet file does, or does not have all of its footer.
    pub fn finish(mut self, mut tail: Vec<u8>) -> Result<Bytes, Damage> {
        let start = footer_start(&tail, tail.len() as u64)?;
        let footer = tail.split_off(usize::try_from(start).unwrap_or(usize::MAX).min(tail.len()));
        self.sums.push(&tail);
        // The four bytes lie in one block, so that they decide one checksum of the table, and each value of it can be
        // reached.
        let filler = self.sums.room_for(FILL_BYTES);
        self.sums.push(&vec![0; filler]);
        tail.resize(tail.len() + filler, 0);
        let fill = solve(|fill| self.sums.checksum_with(fill, &footer), self.checksum)?;
        self.sums.push(&fill.to_le_bytes());
        let table = self.sums.table(&footer)?;
        for part in [fill.to_le_bytes().as_slice(), &table, &footer] {
            tail.extend_from_slice(part);
        }
        Ok(tail.into())
    }
}

/// The input for which a checksum has the wanted value. A CRC is affine over the bits of its input, and so is the CRC
/// of a text with a CRC in it; each is a bijection on four bytes, so that there is exactly one.
fn solve(checksum_of: impl Fn(u32) -> Result<u32, Damage>, wanted: u32) -> Result<u32, Damage> {
    let zero = checksum_of(0)?;
    // Gaussian elimination: at place `i` a change of the input whose change of the checksum has `i` as its highest bit.
    let mut basis = [(0_u32, 0_u32); 32];
    for bit in 0..u32::BITS {
        let mut input = 1 << bit;
        let mut image = checksum_of(input)? ^ zero;
        while image != 0 {
            let place = &mut basis[image.ilog2() as usize];
            if place.0 == 0 {
                *place = (image, input);
                break;
            }
            image ^= place.0;
            input ^= place.1;
        }
    }
    // Expresses the wanted change by the basis, from its highest bit down.
    let mut rest = wanted ^ zero;
    let mut found = 0;
    while rest != 0 {
        let (image, input) = basis[rest.ilog2() as usize];
        if image == 0 {
            return Err(Damage::new("no bytes in front of its footer give it the checksum of its name"));
        }
        rest ^= image;
        found ^= input;
    }
    Ok(found)
}

impl BlockSums {
    /// The checksum of the table when these bytes come last in front of the footer.
    fn checksum_with(&self, fill: u32, footer: &[u8]) -> Result<u32, Damage> {
        let mut sums = self.clone();
        sums.push(&fill.to_le_bytes());
        Ok(crc32c::crc32c(&sums.table(footer)?))
    }

    /// Bytes that the last block lacks when `bytes` more would not fit into it.
    fn room_for(&self, bytes: usize) -> usize {
        let room = BLOCK_BYTES as usize - self.filled;
        if room < bytes { room } else { 0 }
    }
}

#[cfg(test)]
mod tests;
