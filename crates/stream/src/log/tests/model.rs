//! Random histories of append, sync, roll, delete and crash against a list in memory.

use std::fs;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Sync,
    Delete(i64),
    /// An orderly end, then a new writer.
    Reopen,
    /// The machine dies: of what was not synced, a part of the file remains, perhaps damaged.
    Crash {
        keep: prop::sample::Index,
        flip: Option<prop::sample::Index>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..400usize).prop_map(Step::Append),
        3 => Just(Step::Sync),
        1 => (0..40i64).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
        2 => (any::<prop::sample::Index>(), any::<Option<prop::sample::Index>>()).prop_map(|(keep, flip)| Step::Crash { keep, flip }),
    ]
}

/// What the log must hold: payloads by offset, of which those below `synced` may never be lost.
#[derive(Debug, Default)]
struct Model {
    payloads: Vec<Vec<u8>>,
    synced: usize,
    low: usize,
}

fn payload(offset: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (offset * 31 + i) as u8).collect()
}

fn check_readable(root: &TempDir, model: &Model) -> Result<(), TestCaseError> {
    let mut reader = LogReader::open(root.path(), &tp(), NextOffset(model.low as i64)).unwrap();
    let mut next = model.low;
    loop {
        let messages = reader.read(300).unwrap();
        if messages.is_empty() {
            break;
        }
        for message in messages {
            prop_assert_eq!(message.offset as usize, next);
            prop_assert_eq!(&message.payload[..], &model.payloads[next][..]);
            next += 1;
        }
    }
    prop_assert_eq!(next, model.synced);
    Ok(())
}

/// Damages the newest segment above what is synced, as a power failure may.
fn crash(root: &TempDir, synced_position: u64, keep: &prop::sample::Index, flip_at: &Option<prop::sample::Index>) {
    let newest = segments(root).pop().unwrap();
    let length = fs::metadata(&newest).unwrap().len();
    let unsynced = (length - synced_position) as usize;
    let kept = synced_position + keep.index(unsynced + 1) as u64;
    OpenOptions::new().write(true).open(&newest).unwrap().set_len(kept).unwrap();
    if let Some(index) = flip_at
        && kept > synced_position
    {
        flip(&newest, synced_position + index.index((kept - synced_position) as usize) as u64);
    }
}

fn synced_position(root: &TempDir) -> u64 {
    let dir = partition_dir(root.path(), &tp());
    watermark::WatermarkFile::open(&dir).unwrap().unwrap().read(&dir).unwrap().unwrap().position
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn after_any_history_the_log_is_a_prefix_that_holds_all_that_was_synced(steps in prop::collection::vec(step(), 1..60)) {
        let root = TempDir::new().unwrap();
        let mut writer = open(&root, MANUAL);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    let rolls = segments(&root).len();
                    let offset = model.payloads.len();
                    let payload = payload(offset, bytes);
                    prop_assert_eq!(writer.append(None, &payload, 1).unwrap(), Appended::At(offset as i64));
                    if segments(&root).len() > rolls {
                        model.synced = offset;
                    }
                    model.payloads.push(payload);
                }
                Step::Sync => {
                    writer.sync().unwrap();
                    model.synced = model.payloads.len();
                }
                Step::Delete(below) => {
                    writer.delete_below(NextOffset(below)).unwrap();
                    let low = writer.watermarks().low.0 as usize;
                    prop_assert!(low >= model.low && (low as i64 <= below || low == model.low));
                    model.low = low;
                }
                Step::Reopen => {
                    drop(writer);
                    writer = open(&root, MANUAL);
                    prop_assert_eq!(writer.recovery().cut_bytes, 0);
                    model.synced = model.payloads.len();
                }
                Step::Crash { keep, flip } => {
                    drop(writer);
                    crash(&root, synced_position(&root), &keep, &flip);
                    writer = open(&root, MANUAL);
                    let next = writer.watermarks().high.0 as usize;
                    prop_assert!((model.synced..=model.payloads.len()).contains(&next));
                    model.payloads.truncate(next);
                    model.synced = next;
                }
            }
            check_readable(&root, &model)?;
        }
    }
}
