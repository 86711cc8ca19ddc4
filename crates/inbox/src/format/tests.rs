use std::io::Write;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use async_trait::async_trait;
use event_schema::stream::Stream as Sequence;
use parquet::arrow::ArrowWriter;
use recordings::{Destination, Landed, Sample};
use service_kit::run::Drain;
use stream::log::{LogOptions, LogWriter};
use tables::seen::Seen;

use super::*;
use crate::packer::boot_id;

/// A message with the kind of its rows and its node.
type Message = (RecordKind, String, Bytes);

/// A destination that keeps what it is sent.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Message>>>);

#[async_trait]
impl Destination for Kept {
    async fn landed(&mut self) -> Result<Seen, DestinationError> {
        Ok(Seen::new())
    }

    fn send(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        self.0.lock().unwrap().push((kind, node.to_owned(), message.clone()));
        Ok(())
    }

    async fn land(&mut self, _: &Drain) -> Result<(), DestinationError> {
        Ok(())
    }

    async fn landed_events(&mut self, _: &Sample) -> Result<Landed, DestinationError> {
        Ok(Landed::unknown())
    }

    fn keep(&mut self) -> Result<(), DestinationError> {
        Ok(())
    }

    async fn finish(&mut self, _: &Drain) -> Result<(), DestinationError> {
        Ok(())
    }
}

/// Rows of an object, and what was sent of it in both readings.
fn read(object: &[u8]) -> Result<(u64, Vec<Message>), FormatError> {
    let Format::Stream(format) = Format::of(&object[..object.len().min(BEGINNING)])? else {
        panic!("it is read from a file")
    };
    twice(|output| format.read(object, output))
}

fn read_parquet(file: &[u8]) -> Result<(u64, Vec<Message>), FormatError> {
    let mut temporary = tempfile::tempfile().unwrap();
    temporary.write_all(file).unwrap();
    twice(|output| columns::read(&temporary, output))
}

fn twice(read: impl Fn(&mut Output<'_>) -> Result<(), FormatError>) -> Result<(u64, Vec<Message>), FormatError> {
    let kept = Kept::default();
    let mut target = Target::unread(Box::new(kept.clone()));
    let packer = || Packer::new(boot_id("b", "k", "e"), "home");
    let mut output = Output::new(packer(), None);
    read(&mut output)?;
    let surveyed = output.finish()?;
    assert!(kept.0.lock().unwrap().is_empty(), "the first reading sends nothing");
    let mut output = Output::new(packer(), Some(&mut target));
    read(&mut output)?;
    assert_eq!(output.finish()?, surveyed);
    let messages = std::mem::take(&mut *kept.0.lock().unwrap());
    Ok((surveyed, messages))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lines(count: usize) -> String {
    let line = |at| format!(r#"{{"node":"n{}","ts_ns":{at},"source":1,"op":1,"pid":7,"tid":8}}"#, at % 3) + "\n";
    (0..count).map(line).collect()
}

#[test]
fn an_object_is_recognised_by_its_first_bytes() {
    let streams = [
        (b"CWLOG\0\0\x01rest".as_slice(), Stream::Segment),
        (b"\x1f\x8b\x08", Stream::Gzip),
        (b"\x28\xb5\x2f\xfd", Stream::Zstd),
        (b"{\"node\"", Stream::Lines),
        (b"\n\n  {", Stream::Lines),
    ];
    for (bytes, stream) in streams {
        assert_eq!(Format::of(bytes).unwrap(), Format::Stream(stream));
    }
    assert_eq!(Format::of(b"SQLite format 3\0").unwrap(), Format::Database);
    assert_eq!(Format::of(b"PAR1\x15").unwrap(), Format::Parquet);
    for bytes in [b"[{\"node\"".as_slice(), b"node,ts_ns", b"\x7fELF", b"PK\x03\x04"] {
        assert!(matches!(Format::of(bytes), Err(FormatError::Unknown { .. })), "{bytes:?}");
    }
    assert!(matches!(Format::of(b""), Err(FormatError::Empty)));
}

#[test]
fn lines_become_messages_of_their_nodes_in_every_compression() {
    let text = lines(1000);
    let parts = text.split_at(text.len() / 2);
    let members = [gzip(parts.0.as_bytes()), gzip(parts.1.as_bytes())].concat();
    let objects = [
        text.clone().into_bytes(),
        text.trim_end().as_bytes().to_vec(),
        gzip(text.as_bytes()),
        members,
        zstd::encode_all(text.as_bytes(), 3).unwrap(),
    ];
    let first = read(&objects[0]).unwrap();
    assert_eq!((first.0, first.1.len()), (1000, 3));
    for object in &objects[1..] {
        assert_eq!(read(object).unwrap(), first, "the same rows have the same identity");
    }
    let decoded = wire::decode(&first.1[1].2).unwrap();
    assert_eq!(
        (decoded.header.node.as_str(), decoded.header.rows, decoded.header.cluster.as_str()),
        ("n1", 333, "home")
    );
    assert_eq!((decoded.header.stream, decoded.header.losses.emitted), (Sequence::Data, 333));
}

#[test]
fn a_line_has_the_fields_of_silver_events_and_its_own_id_is_kept() {
    let line = r#"{"event_id":"gpu-1:0b14e8e2:7","cluster":"c","node":"gpu-1","boot_id":"x","epoch":1,"stream":0,"seq":7,
        "ts":"2026-01-01T00:00:00Z","ts_ns":1763000000000000000,"boot_ns":5,"clock_error_ns":0,"source":9,"op":1,
        "duration_ns":1500,"duration_weight":8.0,"sample_weight":2.0,"pid":1,"tid":2,"comm":"python","rank":3,"log_name":"l",
        "log_partition":0,"log_offset":1,"peer_pid":null,"bytes":4096,"comm_hash":-1,"coll_seq":12}"#;
    let (rows, messages) = read(line.replace('\n', " ").as_bytes()).unwrap();
    let decoded = wire::decode(&messages[0].2).unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(&decoded.batch)).unwrap().to_string();
    assert_eq!((rows, decoded.header.cluster.as_str()), (1, "c"));
    for value in ["1763000000000000000", "gpu-1:0b14e8e2:7", "python", "4096", "8.0", "2.0", "1500"] {
        assert!(shown.contains(value), "{value} in\n{shown}");
    }
}

#[test]
fn a_bad_line_is_named_by_its_number_and_what_is_wrong() {
    let good = lines(2);
    for (line, wrong) in [
        (r#"{"node":"n","when":1}"#, "line 3: unknown field `when` (column "),
        (r#"{"node":"n"}"#, "line 3: missing field `ts_ns`"),
        (r#"{"node":"n","ts_ns":"now"}"#, "line 3: invalid type: string \"now\", expected i64"),
        (r#"{"node":" ","ts_ns":1,"source":1,"op":1,"pid":1,"tid":1}"#, "line 3: `node` is empty"),
        (r#"{"node":"n","ts_ns":1,"source":1,"op":1,"pid":1,"tid":1,"sample_weight":0}"#, "line 3: `sample_weight`"),
        ("{\"node\":\"n\"", "line 3: EOF while parsing"),
        ("[1]", "line 3: "),
    ] {
        let error = read(format!("{good}{line}\n").as_bytes()).unwrap_err();
        assert!(
            matches!(error, FormatError::Line { number: 3, .. }) && error.to_string().starts_with(wrong),
            "{error}"
        );
    }
    let long = format!("{good}{{\"comm\":\"{}\"}}", "x".repeat(2 << 20));
    let error = read(long.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("is longer than 1048576 bytes"), "{error}");
}

#[test]
fn a_compressed_object_that_ends_early_is_damaged() {
    let text = lines(1000);
    for packed in [gzip(text.as_bytes()), zstd::encode_all(text.as_bytes(), 3).unwrap()] {
        for end in [packed.len() - 1, packed.len() / 2, 20] {
            let error = read(&packed[..end]).unwrap_err();
            assert!(matches!(error, FormatError::Read { .. }) && error.cause() == "damaged", "{end}: {error:?}");
        }
    }
}

#[test]
fn what_cannot_be_read_as_a_stream_is_refused_inside_a_compression() {
    for (inner, what) in [
        (b"SQLite format 3\0rest of it".to_vec(), "SQLite database"),
        (b"PAR1 and the rest of it".to_vec(), "Parquet file"),
        (gzip(b"{}"), "compressed file"),
    ] {
        let error = read(&gzip(&inner)).unwrap_err();
        assert!(matches!(error, FormatError::Nested { what: found } if found == what), "{error:?}");
    }
    assert!(matches!(read(&gzip(b"")), Err(FormatError::Empty)));
}

#[test]
fn the_messages_of_a_segment_go_on_as_they_are() {
    let made = read(lines(30).as_bytes()).unwrap().1;
    let dir = tempfile::tempdir().unwrap();
    let at = event_schema::position::TopicPartition::new("t", 0);
    let mut log = LogWriter::open(dir.path(), &at, LogOptions::default()).unwrap();
    for (_, node, message) in &made {
        log.append(Some(node.as_bytes()), message, 0).unwrap();
    }
    log.append(Some(b"n9"), b"not one of ours", 0).unwrap();
    log.sync().unwrap();
    let segment = std::fs::read(dir.path().join("t/0/00000000000000000000.log")).unwrap();
    for object in [segment.clone(), gzip(&segment)] {
        let (rows, messages) = read(&object).unwrap();
        assert_eq!((rows, &messages[..3]), (30, made.as_slice()));
        assert_eq!(messages[3], (RecordKind::Event, "n9".to_owned(), Bytes::from_static(b"not one of ours")));
    }
    let error = read(&segment[..segment.len() - 1]).unwrap_err();
    assert_eq!(error.cause(), "bad_segment");
}

fn parquet_of(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

fn required_columns() -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("node", Arc::new(StringArray::from(vec!["n0", "n1", "n2"])) as ArrayRef),
        ("ts_ns", Arc::new(Int64Array::from(vec![0, 1, 2]))),
        ("source", Arc::new(Int64Array::from(vec![1; 3]))),
        ("op", Arc::new(UInt32Array::from(vec![1; 3]))),
        ("pid", Arc::new(Int64Array::from(vec![7; 3]))),
        ("tid", Arc::new(Int64Array::from(vec![8; 3]))),
    ]
}

#[test]
fn parquet_with_the_columns_of_silver_events_gives_the_same_messages_as_lines() {
    assert_eq!(read_parquet(&parquet_of(required_columns())).unwrap(), read(lines(3).as_bytes()).unwrap());
    let more = [
        ("ts", Arc::new(Int64Array::from(vec![0; 3])) as ArrayRef),
        ("sample_weight", Arc::new(Float64Array::from(vec![2.0; 3]))),
        ("comm", Arc::new(StringArray::from(vec![None, Some("a"), None]))),
    ];
    let (rows, messages) = read_parquet(&parquet_of([required_columns(), more.to_vec()].concat())).unwrap();
    assert_eq!((rows, messages.len()), (3, 3));
}

#[test]
fn a_parquet_file_that_does_not_fit_is_refused_by_name() {
    let changed = |name: &'static str, column: ArrayRef| {
        let kept = required_columns().into_iter().filter(|(found, _)| *found != name);
        parquet_of(kept.chain([(name, column)]).collect())
    };
    let without = parquet_of(required_columns().into_iter().filter(|(name, _)| *name != "tid").collect());
    let cases = [
        (changed("step", Arc::new(Int64Array::from(vec![1; 3]))), "column `step` is none of `silver.events`"),
        (without, "column `tid` is missing"),
        (changed("pid", Arc::new(StringArray::from(vec!["1"; 3]))), "column `pid` has the type Utf8"),
        (changed("pid", Arc::new(Int64Array::from(vec![1, 2, 1 << 40]))), "column `pid`: "),
        (
            changed("pid", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            "row 2 of the Parquet file: `pid` is null",
        ),
    ];
    for (file, wrong) in cases {
        let error = read_parquet(&file).unwrap_err();
        assert!(error.to_string().contains(wrong) && error.cause() == "bad_columns", "{error}");
    }
}

#[test]
fn damaged_parquet_is_an_error_wherever_it_is_damaged() {
    let file = parquet_of(required_columns());
    for end in [4, 12, file.len() / 2, file.len() - 1] {
        let error = read_parquet(&file[..end]).unwrap_err();
        assert!(["bad_parquet", "damaged", "bad_columns"].contains(&error.cause()), "{end}: {error:?}");
    }
    let found = (0..file.len()).filter(|at| {
        let mut changed = file.clone();
        changed[*at] ^= 0x55;
        read_parquet(&changed).is_err()
    });
    assert!(found.count() > file.len() / 4, "and no change ends the process");
}

#[test]
fn a_message_that_kafka_never_takes_is_refused_in_the_first_reading() {
    let kept = Kept::default();
    let mut target = Target::unread(Box::new(kept.clone()));
    let mut output = Output::new(Packer::new(boot_id("b", "k", "e"), "home"), Some(&mut target));
    let largest = Bytes::from(vec![0; MESSAGE_BYTES_MAX - "n".len()]);
    output.message(RecordKind::Event, "n", &largest).unwrap();
    assert_eq!(kept.0.lock().unwrap().len(), 1);
    let mut first = Output::new(Packer::new(boot_id("b", "k", "e"), "home"), None);
    for output in [&mut first, &mut output] {
        let error = output.message(RecordKind::Event, "nn", &largest).unwrap_err();
        assert_eq!(error.cause(), "message_too_large", "{error}");
    }
    assert_eq!(kept.0.lock().unwrap().len(), 1);
}
