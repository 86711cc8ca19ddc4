//! A segment that was carried away from its partition, read from its first byte to its last. There is no high
//! watermark beside it: whole records are what it holds, and one that is incomplete means that the copy is.

use std::io::{self, Read};

use bytes::Bytes;
use event_schema::position::TopicPartition;

use super::segment::{self, Damage, HEADER_LENGTH, MAGIC, PREFIX_BYTES};

/// Whether bytes are the beginning of a segment.
pub fn is_segment(beginning: &[u8]) -> bool {
    beginning.starts_with(&MAGIC)
}

/// A record of the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedRecord {
    /// What its writer keyed it by: the node.
    pub key: Option<Bytes>,
    /// The message.
    pub payload: Bytes,
}

/// Why a segment cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum CarriedError {
    /// Its bytes cannot be read.
    #[error("the segment cannot be read")]
    Read(#[from] io::Error),
    /// It is no segment, or not a whole one.
    #[error("the segment is damaged at byte {position}: {damage}; copy it again once its agent has ended")]
    Damaged {
        /// Byte position of the record.
        position: u64,
        /// What is wrong there.
        damage: Damage,
    },
}

/// The records of a segment, in order. Nothing is read behind an error.
#[derive(Debug)]
pub struct CarriedSegment<R> {
    bytes: R,
    at: TopicPartition,
    next: i64,
    /// Byte position of the next record.
    position: u64,
}

impl<R: Read> CarriedSegment<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The bytes cannot be read, or are no segment.
    pub fn open(mut bytes: R) -> Result<Self, CarriedError> {
        let mut header = [0; HEADER_LENGTH];
        let damaged = CarriedError::Damaged { position: 0, damage: Damage::Header };
        if read_full(&mut bytes, &mut header)? < HEADER_LENGTH {
            return Err(damaged);
        }
        let mut base = [0; 8];
        base.copy_from_slice(&header[8..]);
        let base = i64::from_le_bytes(base);
        if base < 0 || header != segment::header(base) {
            return Err(damaged);
        }
        // The partition is not known and not needed: it only names the messages that `parse` makes.
        Ok(Self { bytes, at: TopicPartition::new("", 0), next: base, position: HEADER_LENGTH as u64 })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// The bytes cannot be read, or the record is damaged or incomplete.
    pub fn next_record(&mut self) -> Result<Option<CarriedRecord>, CarriedError> {
        let mut record = vec![0; PREFIX_BYTES];
        match read_full(&mut self.bytes, &mut record)? {
            0 => return Ok(None),
            PREFIX_BYTES => {}
            _ => return Err(self.damaged(Damage::Incomplete)),
        }
        // `record_size` bounds what a damaged length makes this allocate.
        let size = segment::record_size(&record).map_err(|damage| self.damaged(damage))?.unwrap_or(PREFIX_BYTES);
        record.resize(size, 0);
        if read_full(&mut self.bytes, &mut record[PREFIX_BYTES..])? < size - PREFIX_BYTES {
            return Err(self.damaged(Damage::Incomplete));
        }
        let parsed = segment::parse(&Bytes::from(record), &self.at, self.next);
        let message = parsed.map_err(|damage| self.damaged(damage))?.0;
        self.next += 1;
        self.position += size as u64;
        Ok(Some(CarriedRecord { key: message.key, payload: message.payload }))
    }

    fn damaged(&self, damage: Damage) -> CarriedError {
        CarriedError::Damaged { position: self.position, damage }
    }
}

/// Fills the buffer as far as there are bytes; returns how many there were.
fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogOptions, LogWriter};

    /// The bytes of the first segment of a log with these messages.
    fn segment_of(messages: &[&[u8]]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let at = TopicPartition::new("t", 0);
        let mut log = LogWriter::open(dir.path(), &at, LogOptions::default()).unwrap();
        for message in messages {
            log.append(Some(b"node"), message, 7).unwrap();
        }
        log.sync().unwrap();
        std::fs::read(segment::path(&dir.path().join("t/0"), 0)).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<CarriedRecord>, CarriedError> {
        let mut segment = CarriedSegment::open(bytes)?;
        let mut records = Vec::new();
        while let Some(record) = segment.next_record()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn what_a_writer_appended_is_read_in_order() {
        let bytes = segment_of(&[b"one", b"", b"three"]);
        assert!(is_segment(&bytes));
        let records = read(&bytes).unwrap();
        let payloads: Vec<&[u8]> = records.iter().map(|record| record.payload.as_ref()).collect();
        assert_eq!(payloads, [b"one".as_slice(), b"", b"three"]);
        assert!(records.iter().all(|record| record.key.as_deref() == Some(b"node")));
        assert!(read(&segment_of(&[])).unwrap().is_empty());
    }

    #[test]
    fn a_copy_that_ends_early_or_was_changed_is_damaged_at_the_byte_of_its_record() {
        let bytes = segment_of(&[b"one", b"two"]);
        let second = (bytes.len() - (PREFIX_BYTES + 20 + 4 + 3)) as u64;
        let ends_early = [second as usize + 1, bytes.len() - 1];
        for end in ends_early {
            let damaged = read(&bytes[..end]).unwrap_err();
            assert!(
                matches!(damaged, CarriedError::Damaged { position, damage: Damage::Incomplete } if position == second),
                "{end}: {damaged:?}"
            );
        }
        // At the end of a record a shorter copy is a whole segment of fewer records.
        assert_eq!(read(&bytes[..second as usize]).unwrap().len(), 1);
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        let damaged = read(&changed).unwrap_err();
        assert!(matches!(damaged, CarriedError::Damaged { position, damage: Damage::Checksum } if position == second));
        for bytes in [b"".as_slice(), b"CWLOG", b"SQLite format 3\0"] {
            assert!(matches!(read(bytes), Err(CarriedError::Damaged { position: 0, damage: Damage::Header })));
        }
    }
}
