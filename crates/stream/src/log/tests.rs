//! The promises of the module's page: exclusive writer, recovery, damage named, readers that see synced records only.

mod model;
mod source;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::source::{LogState, Watermarks, fingerprint};

const MANUAL: LogOptions = LogOptions { segment_bytes: 200, max_bytes: 1 << 30, fsync: Fsync::Manual };

fn tp() -> TopicPartition {
    TopicPartition::new("events", 0)
}

fn open(root: &TempDir, options: LogOptions) -> LogWriter {
    LogWriter::open(root.path(), &tp(), options).unwrap()
}

/// Appends `count` records of 50 bytes of payload each and syncs.
fn fill(writer: &mut LogWriter, count: usize) {
    for _ in 0..count {
        let byte = u8::try_from(writer.watermarks().high.0 % 251).unwrap();
        assert!(matches!(writer.append(Some(b"node"), &[byte; 50], 7).unwrap(), Appended::At(_)));
    }
    writer.sync().unwrap();
}

fn read_all(root: &Path, from: i64) -> Result<Vec<i64>, LogError> {
    let mut reader = LogReader::open(root, &tp(), NextOffset(from))?;
    let mut offsets = Vec::new();
    loop {
        let messages = reader.read(120)?;
        if messages.is_empty() {
            return Ok(offsets);
        }
        for message in messages {
            assert_eq!(message.payload, vec![(message.offset % 251) as u8; 50]);
            assert_eq!(message.key.as_deref(), Some(b"node".as_slice()));
            offsets.push(message.offset);
        }
    }
}

fn flip(path: &Path, position: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
}

fn segments(root: &TempDir) -> Vec<PathBuf> {
    let dir = partition_dir(root.path(), &tp());
    segment::list(&dir).unwrap().into_iter().map(|base| segment::path(&dir, base)).collect()
}

#[test]
fn records_are_read_back_across_segments_from_any_offset() {
    let root = TempDir::new().unwrap();
    fill(&mut open(&root, MANUAL), 20);
    assert!(segments(&root).len() > 3);
    for from in 0..=20 {
        assert_eq!(read_all(root.path(), from).unwrap(), (from..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_record_without_key_or_payload_keeps_its_shape() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, LogOptions { fsync: Fsync::Always, ..MANUAL });
    writer.append(None, b"", -1).unwrap();
    writer.append(Some(b""), b"x", i64::MAX).unwrap();
    let messages = LogReader::open(root.path(), &tp(), NextOffset(0)).unwrap().read(1 << 20).unwrap();
    assert_eq!((messages[0].key.clone(), messages[0].payload.len(), messages[0].timestamp_ms), (None, 0, -1));
    assert_eq!((messages[1].key.as_deref(), messages[1].timestamp_ms), (Some(b"".as_slice()), i64::MAX));
}

#[test]
fn headers_are_read_back_in_their_order_with_and_without_a_key() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(&root, MANUAL);
    let headers = [("a", &b"1"[..]), ("", b""), ("a", b"\xff\0")];
    let headers = headers.map(|(name, value)| (name.to_owned(), bytes::Bytes::from_static(value)));
    let record = |key, payload, headers| Record { timestamp_ms: 7, key, payload, headers };
    let written = [
        record(Some(&b"node"[..]), &b"payload"[..], &headers[..]),
        record(None, b"payload", &headers[..1]),
        record(Some(b""), b"", &headers),
        record(None, b"", &headers[1..]),
        record(None, b"bare", &[]),
    ];
    for record in written {
        writer.append_record(record).unwrap();
    }
    writer.sync().unwrap();
    let messages = LogReader::open(root.path(), &tp(), NextOffset(0)).unwrap().read(1 << 20).unwrap();
    assert_eq!(messages.len(), written.len());
    for (message, record) in messages.iter().zip(written) {
        assert_eq!((message.key.as_deref(), &message.payload[..]), (record.key, record.payload));
        assert_eq!(message.headers, record.headers);
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let root = TempDir::new().unwrap();
    let first = open(&root, MANUAL);
    assert!(matches!(LogWriter::open(root.path(), &tp(), MANUAL), Err(LogError::Locked { .. })));
    drop(first);
    open(&root, MANUAL);
}

#[test]
fn claiming_passes_over_held_partitions_and_makes_the_next() {
    let root = TempDir::new().unwrap();
    let first = claim_partition(root.path(), "events", MANUAL).unwrap();
    let second = claim_partition(root.path(), "events", MANUAL).unwrap();
    assert_eq!((first.partition().partition, second.partition().partition), (0, 1));
    drop(first);
    assert_eq!(claim_partition(root.path(), "events", MANUAL).unwrap().partition().partition, 0);
}

#[test]
fn a_reader_does_not_see_a_record_before_it_is_synced() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    let mut reader = LogReader::open(root.path(), &tp(), NextOffset(0)).unwrap();
    writer.append(Some(b"node"), &[0; 50], 7).unwrap();
    assert!(reader.read(1 << 20).unwrap().is_empty());
    writer.sync().unwrap();
    assert_eq!(reader.read(1 << 20).unwrap().len(), 1);
}

#[test]
fn the_state_of_a_partition_is_known_without_a_position_and_reaches_behind_what_is_synced() {
    let root = TempDir::new().unwrap();
    assert_eq!(state(root.path(), &tp(), NextOffset(1)).unwrap(), None);
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 20);
    fs::remove_file(&segments(&root)[0]).unwrap();
    writer.append(Some(b"node"), &[0; 50], 7).unwrap();
    let mut reader = LogReader::open(root.path(), &tp(), NextOffset(19)).unwrap();
    let Watermarks { low, high } = reader.watermarks().unwrap();
    assert!(low > NextOffset(0) && high == NextOffset(20), "{low} {high}");
    let newest = fingerprint(&reader.read(1).unwrap()[0]);
    // Of what was deleted, what is not synced, and what was never written there is none.
    for (next, fingerprint) in [(low.0, None), (20, Some(newest)), (21, None), (22, None)] {
        let watermarks = Watermarks { low, high: NextOffset(21) };
        let expected = LogState { identity: reader.identity().unwrap(), watermarks, fingerprint };
        assert_eq!(state(root.path(), &tp(), NextOffset(next)).unwrap(), Some(expected), "{next}");
    }
}

#[test]
fn damage_below_the_high_watermark_names_file_and_byte_for_reader_and_writer() {
    let root = TempDir::new().unwrap();
    let options = LogOptions { segment_bytes: 1 << 20, ..MANUAL };
    fill(&mut open(&root, options), 10);
    let record = (segment::PREFIX_BYTES + 20 + 4 + 50) as u64;
    let third = segment::HEADER_BYTES + 2 * record;
    flip(&segments(&root)[0], third + 30);
    let mut reader = LogReader::open(root.path(), &tp(), NextOffset(0)).unwrap();
    assert_eq!(reader.read(1 << 20).unwrap().len(), 2, "what precedes the damage is delivered");
    for error in [reader.read(1 << 20).unwrap_err(), LogWriter::open(root.path(), &tp(), options).unwrap_err()] {
        let LogError::Corrupt { path, position, damage } = error else { panic!("{error}") };
        assert_eq!((path, position, damage), (segments(&root)[0].clone(), third, Damage::Checksum));
    }
}

#[test]
fn damage_in_an_older_segment_is_found_by_the_reader() {
    let root = TempDir::new().unwrap();
    fill(&mut open(&root, MANUAL), 20);
    flip(&segments(&root)[1], 40);
    assert!(matches!(read_all(root.path(), 0), Err(LogError::Corrupt { path, .. }) if path == segments(&root)[1]));
}

#[test]
fn a_truncated_spool_is_an_error_and_not_a_shorter_spool() {
    let root = TempDir::new().unwrap();
    fill(&mut open(&root, MANUAL), 20);
    let newest = segments(&root).pop().unwrap();
    let length = fs::metadata(&newest).unwrap().len();
    OpenOptions::new().write(true).open(&newest).unwrap().set_len(length - 1).unwrap();
    let error = LogWriter::open(root.path(), &tp(), MANUAL).unwrap_err();
    assert!(error.to_string().contains("synced bytes are missing"), "{error}");
    assert!(matches!(read_all(root.path(), 0), Err(LogError::Corrupt { .. })));
    fs::remove_file(&newest).unwrap();
    assert!(matches!(LogWriter::open(root.path(), &tp(), MANUAL), Err(LogError::MissingSegment { .. })));
    assert!(matches!(read_all(root.path(), 0), Err(LogError::MissingSegment { path }) if path == newest));
}

#[test]
fn an_older_segment_cut_at_a_record_boundary_is_found() {
    let root = TempDir::new().unwrap();
    fill(&mut open(&root, MANUAL), 20);
    let record = (segment::PREFIX_BYTES + 20 + 4 + 50) as u64;
    let older = &segments(&root)[1];
    let length = fs::metadata(older).unwrap().len();
    OpenOptions::new().write(true).open(older).unwrap().set_len(length - record).unwrap();
    assert!(matches!(read_all(root.path(), 0), Err(LogError::Corrupt { path, .. }) if path == *older));
}

#[test]
fn a_stale_or_lost_watermark_file_loses_nothing() {
    let root = TempDir::new().unwrap();
    let mark = partition_dir(root.path(), &tp()).join("high-watermark");
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 3);
    let stale = fs::read(&mark).unwrap();
    fill(&mut writer, 9);
    drop(writer);
    for content in [stale, vec![0; 28], Vec::new()] {
        fs::write(&mark, content).unwrap();
        LogReader::open(root.path(), &tp(), NextOffset(12)).expect("a position the table has is in the log");
        assert!(matches!(read_all(root.path(), 13), Err(LogError::AboveEnd { .. })));
        assert_eq!(open(&root, MANUAL).watermarks().high, NextOffset(12));
        assert_eq!(read_all(root.path(), 0).unwrap().len(), 12);
    }
}

#[test]
fn a_position_in_a_partition_that_is_gone_lies_above_its_end() {
    let root = TempDir::new().unwrap();
    LogReader::open(root.path(), &tp(), NextOffset(0)).expect("a partition that no writer has made yet is empty");
    let opened = LogReader::open(root.path(), &tp(), NextOffset(5));
    assert!(matches!(opened, Err(LogError::AboveEnd { high: NextOffset(0), .. })), "{opened:?}");
}

#[test]
fn deletion_takes_whole_segments_and_moves_the_low_watermark() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 20);
    let before = writer.bytes();
    let freed = writer.delete_below(NextOffset(10)).unwrap();
    assert!(freed > 0 && writer.bytes() == before - freed);
    let Watermarks { low, .. } = writer.watermarks();
    assert!((1..=10).contains(&low.0), "{low}");
    assert!(matches!(read_all(root.path(), low.0 - 1), Err(LogError::BelowLowWatermark { .. })));
    assert_eq!(read_all(root.path(), low.0).unwrap().len() as i64, 20 - low.0);
    writer.delete_below(NextOffset(20)).unwrap();
    assert_eq!(segments(&root).len(), 1, "the newest stays");
    drop(writer);
    assert_eq!(open(&root, MANUAL).watermarks().high, NextOffset(20));
}

#[test]
fn a_full_log_says_so_and_takes_records_again_after_deletion() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, LogOptions { max_bytes: 1000, ..MANUAL });
    let mut written = 0;
    while let Appended::At(offset) = writer.append(Some(b"node"), &[(written % 251) as u8; 50], 7).unwrap() {
        assert_eq!(offset, written);
        written += 1;
    }
    assert!(writer.bytes() <= 1000);
    let full = writer.append(Some(b"node"), &[0; 50], 7).unwrap();
    assert_eq!(full, Appended::Full { bytes: writer.bytes(), by: FullBy::Limit });
    writer.delete_below(NextOffset(written)).unwrap();
    assert_eq!(writer.append(Some(b"node"), &[written as u8; 50], 7).unwrap(), Appended::At(written));
}

#[test]
fn a_record_over_the_limit_is_refused_and_the_log_goes_on() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    let error = writer.append(None, &vec![0; segment::MAX_RECORD_BYTES], 0).unwrap_err();
    assert!(matches!(error, LogError::TooLarge { .. }));
    fill(&mut writer, 1);
}

#[test]
fn a_stale_watermark_whose_segment_was_deleted_hides_no_position() {
    let root = TempDir::new().unwrap();
    let mark = partition_dir(root.path(), &tp()).join("high-watermark");
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 1);
    let stale = fs::read(&mark).unwrap();
    fill(&mut writer, 19);
    writer.delete_below(NextOffset(10)).unwrap();
    let low = writer.watermarks().low.0;
    drop(writer);
    fs::write(&mark, stale).unwrap();
    for next in [low, 15, 20] {
        LogReader::open(root.path(), &tp(), NextOffset(next)).expect("a position the table has is in the log");
    }
    assert!(matches!(read_all(root.path(), 21), Err(LogError::AboveEnd { .. })));
}

#[test]
fn what_has_landed_is_read_back_and_a_damaged_note_says_nothing() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 20);
    let dir = partition_dir(root.path(), &tp());
    assert_eq!(sidecar::read_landed(&dir).unwrap(), None, "made with the partition, and empty");
    for next in [15, 7] {
        LogReader::resume(root.path(), &tp()).unwrap().report_landed(NextOffset(next)).unwrap();
        assert_eq!(LogReader::resume(root.path(), &tp()).unwrap().position(), NextOffset(next));
    }
    flip(&dir.join("landed"), 3);
    assert_eq!(sidecar::read_landed(&dir).unwrap(), None);
    fs::write(dir.join("landed"), "20").unwrap();
    assert_eq!(writer.delete_landed().unwrap(), 0);
    fs::remove_file(dir.join("landed")).unwrap();
    LogReader::resume(root.path(), &tp()).unwrap().report_landed(NextOffset(20)).unwrap();
    assert!(writer.delete_landed().unwrap() > 0);
}

/// Reads all from the start, passing damage; returns the offsets read, and where reading went on after damage.
fn read_passing_damage(root: &TempDir, end: i64) -> (Vec<i64>, Vec<i64>) {
    let mut reader = LogReader::open(root.path(), &tp(), NextOffset(0)).unwrap();
    let (mut offsets, mut passed) = (Vec::new(), Vec::new());
    while reader.position() < NextOffset(end) {
        match reader.read(120) {
            Ok(messages) => offsets.extend(messages.iter().map(|message| message.offset)),
            Err(_) => passed.push(reader.pass_damaged().unwrap().0),
        }
    }
    (offsets, passed)
}

/// Of the records that [`fill`] writes.
const RECORD: u64 = (segment::PREFIX_BYTES + 20 + 4 + 50) as u64;

#[test]
fn a_reader_told_to_pass_damage_goes_on_with_the_next_segment() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 20);
    let bases = segment::list(&partition_dir(root.path(), &tp())).unwrap();
    // The length of a record: where the next one begins is not known.
    flip(&segments(&root)[1], segment::HEADER_BYTES);
    fs::remove_file(&segments(&root)[3]).unwrap();
    let (offsets, passed) = read_passing_damage(&root, 20);
    assert_eq!(passed, [bases[2], bases[4]]);
    assert_eq!(offsets, (0..bases[1]).chain(bases[2]..bases[3]).chain(bases[4]..20).collect::<Vec<_>>());
    flip(segments(&root).last().unwrap(), segment::HEADER_BYTES);
    let mut reader = LogReader::open(root.path(), &tp(), NextOffset(*bases.last().unwrap())).unwrap();
    reader.read(120).unwrap_err();
    assert_eq!(reader.pass_damaged().unwrap(), NextOffset(20), "there is no next segment: the end");
}

#[test]
fn one_bad_record_costs_itself_and_nothing_behind_it() {
    let root = TempDir::new().unwrap();
    fill(&mut open(&root, LogOptions { segment_bytes: 1 << 20, ..MANUAL }), 20);
    let record = |n: u64| segment::HEADER_BYTES + n * RECORD;
    let log = &segments(&root)[0];
    flip(log, record(0) + 30);
    flip(log, record(7) + 40);
    flip(log, record(19) + 40);
    let (offsets, passed) = read_passing_damage(&root, 20);
    assert_eq!(passed, [1, 8, 20]);
    assert_eq!(offsets, (1..7).chain(8..19).collect::<Vec<_>>());
    // With two of them side by side nothing says how long the first is.
    flip(log, record(8) + 40);
    assert_eq!(read_passing_damage(&root, 20), ((1..7).collect(), vec![1, 20]));
}

#[test]
fn what_was_not_synced_is_written_again_before_it_is_vouched_for() {
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, LogOptions { segment_bytes: 1 << 30, ..MANUAL });
    fill(&mut writer, 3);
    let touched = |unsynced: usize| {
        // More than is written at once.
        let payload = vec![7; (3 << 20) / unsynced.max(1)];
        let mut writer = open(&root, LogOptions { segment_bytes: 1 << 30, ..MANUAL });
        for _ in 0..unsynced {
            writer.append(None, &payload, 7).unwrap();
        }
        drop(writer);
        let log = &segments(&root)[0];
        let before = fs::read(log).unwrap();
        OpenOptions::new().write(true).open(log).unwrap().set_modified(long_ago).unwrap();
        let next = open(&root, LogOptions { segment_bytes: 1 << 30, ..MANUAL }).watermarks().high;
        assert!(fs::read(log).unwrap() == before, "the same bytes");
        (next.0, fs::metadata(log).unwrap().modified().unwrap() != long_ago)
    };
    drop(writer);
    assert_eq!(touched(0), (3, false), "all was synced");
    assert_eq!(touched(2), (5, true));
    assert_eq!(touched(0), (5, false), "now it is");
}

#[test]
fn a_record_is_written_over_itself_byte_for_byte_wherever_it_begins() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    let content: Vec<u8> = (0..(2 << 20) + 12_345_u32).map(|i| (i * 7 % 251) as u8).collect();
    fs::write(&path, &content).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for range in [0..content.len() as u64, 16..17, 5000..(1 << 20) + 5000, 9..9] {
        writer::write_again(&file, range).unwrap();
        assert!(fs::read(&path).unwrap() == content);
    }
}
