use event_schema::loss::LossCounters;
use event_schema::position::OffsetRange;
use event_schema::stream::Stream;

use super::*;
use crate::facts::EpochEnd;
use crate::runs::Range;

mod ends;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn runs(ranges: &[Range]) -> Vec<Range> {
    ranges.to_vec()
}

fn epoch() -> Epoch {
    Epoch { node: "n1".to_owned(), boot_id: "b".to_owned(), epoch: 0 }
}

fn landed(offset: i64, first_seq: i64, rows: i64) -> LedgerRow {
    LedgerRow {
        at: at(0),
        offset,
        is_dead_letter: false,
        kind: Some("event".to_owned()),
        epoch: epoch(),
        stream: Stream::Data,
        first_seq,
        rows,
        landed: rows,
        duplicates: 0,
        losses: LossCounters { emitted: u64::try_from(rows).unwrap(), ..LossCounters::default() },
    }
}

fn table(name: &str, next: i64) -> TableFacts {
    TableFacts {
        name: name.to_owned(),
        next: BTreeMap::from([(at(0), NextOffset(next))]),
        commits: vec![vec![OffsetRange::new(at(0), 0, 1)], vec![OffsetRange::new(at(0), 1, next)]],
        ..TableFacts::default()
    }
}

/// All facts of a lake.
#[derive(Default)]
struct Facts {
    tables: Vec<TableFacts>,
    bronze: BTreeMap<TopicPartition, Vec<Range>>,
    dead_letters: BTreeMap<TopicPartition, Vec<Range>>,
    skipped: Vec<OffsetRange>,
    ledger: Vec<LedgerRow>,
    records: Vec<Records>,
    ends: BTreeMap<Epoch, BTreeMap<Stream, EpochEnd>>,
    own_events: BTreeMap<Epoch, i64>,
    events: Counts,
    aggregated: Counts,
}

#[derive(Clone)]
struct Records {
    table: &'static str,
    kind: &'static str,
    rows: BTreeMap<TopicPartition, BTreeMap<i64, i64>>,
    seqs: BTreeMap<(String, String), Vec<Range>>,
    misnamed: Vec<String>,
}

/// Three messages of ten rows each, the second of which came twice.
fn sound() -> Facts {
    let repeated = LedgerRow { landed: 0, duplicates: 10, losses: LossCounters::default(), ..landed(2, 10, 10) };
    Facts {
        tables: ["bronze.messages", "silver.events", "ops.ledger", "ops.dlq", "gold.op_minute"]
            .map(|name| table(name, 4))
            .to_vec(),
        bronze: BTreeMap::from([(at(0), runs(&[(0, 4)]))]),
        dead_letters: BTreeMap::new(),
        skipped: Vec::new(),
        ledger: vec![landed(0, 0, 10), landed(1, 10, 10), repeated, landed(3, 20, 10)],
        records: vec![Records {
            table: "silver.events",
            kind: "event",
            rows: BTreeMap::from([(at(0), BTreeMap::from([(0, 10), (1, 10), (3, 10)]))]),
            seqs: BTreeMap::from([(("n1".to_owned(), "b".to_owned()), runs(&[(0, 30)]))]),
            misnamed: Vec::new(),
        }],
        ends: BTreeMap::new(),
        own_events: BTreeMap::from([(epoch(), 1)]),
        events: BTreeMap::from([(launches(), 30)]),
        aggregated: BTreeMap::from([(launches(), 30)]),
    }
}

/// In which order facts are added.
#[derive(Debug, Clone, Copy)]
enum Order {
    Forward,
    Backward,
    /// From the middle on, then the rest.
    Split(usize),
}

impl Order {
    fn of<T>(self, mut items: Vec<T>) -> Vec<T> {
        match self {
            Self::Forward => {}
            Self::Backward => items.reverse(),
            Self::Split(at) => {
                let at = at.min(items.len());
                items.rotate_left(at);
            }
        }
        items
    }
}

impl Facts {
    /// Every row of the tables of records as log, offset, rows.
    fn rows_of(of_table: &Records) -> Vec<(&TopicPartition, i64, i64)> {
        let rows =
            of_table.rows.iter().flat_map(|(at, rows)| rows.iter().map(move |(offset, rows)| (at, *offset, *rows)));
        rows.collect()
    }

    fn offsets_of(ranges: &BTreeMap<TopicPartition, Vec<Range>>) -> Vec<(&TopicPartition, i64)> {
        let mut offsets = Vec::new();
        for (at, ranges) in ranges {
            for (start, end) in ranges {
                offsets.extend((*start..*end).map(|offset| (at, offset)));
            }
        }
        offsets
    }

    fn verdict(&self, order: Order) -> Verdict {
        let mut proof = Proof::begin(
            self.tables.clone(),
            self.tables.iter().map(|table| table.name.clone()),
            self.records.iter().map(|records| (records.table.to_owned(), records.kind.to_owned())),
        );
        for row in order.of(self.ledger.iter().collect()) {
            proof.add_ledger(row);
        }
        self.skipped.iter().for_each(|range| proof.add_skipped(range));
        order.of(Self::offsets_of(&self.bronze)).into_iter().for_each(|(at, offset)| proof.add_bronze(at, offset));
        order.of(Self::offsets_of(&self.dead_letters)).into_iter().for_each(|(at, o)| proof.add_dead_letter(at, o));
        for of_table in &self.records {
            for (at, offset, rows) in order.of(Self::rows_of(of_table)) {
                proof.add_rows(of_table.table, at, offset, rows);
            }
            for ((node, boot_id), ranges) in &of_table.seqs {
                let boot = Boot { node, boot_id };
                let numbers = order.of(ranges.clone()).into_iter().map(|range| [range].into_iter().collect());
                numbers.for_each(|numbers| proof.add_numbers(of_table.table, boot, &numbers));
            }
            of_table.misnamed.iter().for_each(|id| proof.add_misnamed(of_table.table, id));
        }
        for mut suspects in proof.take_suspects() {
            let table = proof.table(&suspects.table).unwrap().clone();
            order.of(self.ledger.iter().collect()).into_iter().for_each(|row| suspects.add_ledger(row, &table));
            let records = self.records.iter().find(|records| records.table == suspects.table).unwrap();
            Self::rows_of(records).into_iter().for_each(|(at, offset, rows)| suspects.add_found(at, offset, rows));
            proof.look_at(suspects);
        }
        proof.add_minutes(&self.events, &self.aggregated);
        for table in &self.tables {
            proof.report_late(&table.name, &table.next);
        }
        proof.finish(&OwnEvents { ends: self.ends.clone(), counts: self.own_events.clone() })
    }
}

/// The verdict, which is the same in whichever order facts are added.
fn check(facts: &Facts) -> Verdict {
    let whole = facts.verdict(Order::Forward);
    for order in [Order::Backward, Order::Split(1), Order::Split(2), Order::Split(3)] {
        let other = facts.verdict(order);
        let sorted = |verdict: &Verdict| {
            let mut broken: Vec<_> = verdict.broken.iter().map(|b| (b.law, &b.table, &b.place, &b.what)).collect();
            broken.sort();
            broken.into_iter().map(|broken| format!("{broken:?}")).collect::<Vec<_>>()
        };
        assert_eq!(sorted(&other), sorted(&whole), "{order:?}");
        assert_eq!(
            (other.messages, other.rows, other.open_epochs),
            (whole.messages, whole.rows, whole.open_epochs.clone()),
            "{order:?}"
        );
    }
    whole
}

fn launches() -> OpMinute {
    OpMinute { node: "n1".to_owned(), minute_us: 120_000_000, source: 1, op: 3 }
}

/// Rows of the events of the one log, by offset.
fn of_log(facts: &mut Facts) -> &mut BTreeMap<i64, i64> {
    facts.records[0].rows.get_mut(&at(0)).unwrap()
}

/// What is broken after `damage`, as `law table place: what`.
fn broken(damage: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = sound();
    damage(&mut facts);
    check(&facts).broken.into_iter().map(|b| format!("{:?} {} {}: {}", b.law, b.table, b.place, b.what)).collect()
}

#[test]
fn a_sound_lake_breaks_no_law() {
    assert_eq!(broken(|_| {}), Vec::<String>::new());
    assert_eq!(check(&Facts::default()).broken, []);
    let sums = check(&sound());
    assert_eq!((sums.messages, sums.rows, sums.tables, sums.holds()), (4, 30, 5, true));
}

#[test]
fn a_gap_between_commits_is_named() {
    let found = broken(|facts| facts.tables[1].commits[1][0].start = 2);
    assert_eq!(found, ["Commits silver.events t/0: offsets 1-2 are in no commit"]);
}

#[test]
fn a_gap_that_was_explained_is_none() {
    let found = broken(|facts| {
        facts.tables[3].commits[1][0].start = 2;
        facts.tables[3].explained = vec![OffsetRange::new(at(0), 1, 2)];
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn records_that_were_in_a_recorded_gap_are_not_missed() {
    let found = broken(|facts| {
        facts.bronze.insert(at(0), runs(&[(1, 4)]));
        facts.ledger.remove(0);
        // The message that was sent again is new where its first sending was not read.
        of_log(facts).remove(&0);
        facts.records[0].seqs.insert(("n1".to_owned(), "b".to_owned()), runs(&[(10, 30)]));
        (facts.events, facts.aggregated) = Default::default();
        for table in &mut facts.tables {
            table.explained = vec![OffsetRange::new(at(0), 0, 1)];
            table.commits = vec![vec![OffsetRange::new(at(0), 1, 4)]];
        }
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn an_old_gap_is_not_held_against_a_table_whose_snapshots_expired() {
    let found = broken(|facts| {
        facts.bronze.insert(at(0), runs(&[(1, 4)]));
        facts.ledger.remove(0);
        facts.ledger[0].losses.emitted = 20;
        of_log(facts).remove(&0);
        for table in &mut facts.tables {
            table.explained = vec![OffsetRange::new(at(0), 0, 1)];
            table.commits = vec![vec![OffsetRange::new(at(0), 2, 4)]];
            table.gone = vec![OffsetRange::new(at(0), 1, 2)];
        }
    });
    assert!(found.iter().all(|law| !law.starts_with("Commits") && !law.starts_with("Messages")), "{found:?}");
}

#[test]
fn offsets_committed_twice_are_named() {
    let found = broken(|facts| facts.tables[1].commits.push(vec![OffsetRange::new(at(0), 2, 4)]));
    assert_eq!(found, ["Commits silver.events t/0: offsets 2-4 were committed more than once"]);
}

#[test]
fn an_offset_property_that_runs_ahead_is_named() {
    let found = broken(|facts| {
        facts.tables[0].next.insert(at(0), NextOffset(6));
    });
    assert_eq!(
        found,
        [
            "Commits bronze.messages t/0: commits end at offset 4, the offset property says 6",
            "Messages bronze.messages t/0: offsets 4-6 are missing",
        ]
    );
}

#[test]
fn a_table_whose_old_snapshots_expired_may_begin_later() {
    let cut = |gone: &[OffsetRange]| {
        broken(|facts| {
            facts.tables[1].gone = gone.to_vec();
            facts.tables[1].commits.remove(0);
        })
    };
    assert_eq!(cut(&[OffsetRange::new(at(0), 0, 1)]), Vec::<String>::new());
    assert_eq!(cut(&[]), ["Commits silver.events t/0: offsets 0-1 are in no commit"]);
}

#[test]
fn a_message_that_is_missing_or_doubled_is_named() {
    let found = broken(|facts| drop(facts.bronze.insert(at(0), runs(&[(0, 2), (3, 4), (3, 4)]))));
    assert_eq!(
        found,
        [
            "Messages bronze.messages t/0: offsets 2-3 are missing",
            "Messages bronze.messages t/0: offsets 3-4 occur more than once",
        ]
    );
    let found = broken(|facts| drop(facts.ledger.remove(2)));
    assert_eq!(found, ["Messages ops.ledger t/0: offsets 2-3 are missing"]);
}

#[test]
fn offsets_that_hold_no_message_are_not_missed_once_the_ledger_has_them() {
    let skip = |recorded: bool| {
        broken(|facts| {
            facts.bronze.insert(at(0), runs(&[(0, 2), (3, 4)]));
            facts.ledger.remove(2);
            if recorded {
                facts.skipped.push(OffsetRange::new(at(0), 2, 3));
            }
        })
    };
    assert_eq!(skip(true), Vec::<String>::new());
    assert_eq!(
        skip(false),
        ["Messages bronze.messages t/0: offsets 2-3 are missing", "Messages ops.ledger t/0: offsets 2-3 are missing"]
    );
    let twice = broken(|facts| facts.skipped.push(OffsetRange::new(at(0), 2, 3)));
    assert!(twice.iter().all(|broken| broken.ends_with("offsets 2-3 occur more than once")), "{twice:?}");
    assert_eq!(twice.len(), 2);
}

#[test]
fn a_row_too_few_or_too_many_is_named_with_its_message() {
    let found = broken(|facts| of_log(facts).extend([(1, 9)]));
    assert_eq!(found, ["Rows silver.events t/0: offset 1: 9 rows, the ledger says 10"]);
    let found = broken(|facts| of_log(facts).extend([(2, 10)]));
    assert_eq!(found, ["Rows silver.events t/0: offset 2: 10 rows, the ledger says 0"]);
}

#[test]
fn rows_of_one_log_do_not_stand_for_those_of_another_at_the_same_offset() {
    let found = broken(|facts| {
        let other = TopicPartition::new("u", 0);
        of_log(facts).remove(&1);
        facts.records[0].rows.insert(other, BTreeMap::from([(1, 10)]));
    });
    assert_eq!(
        found,
        [
            "Rows silver.events t/0: offset 1: 0 rows, the ledger says 10",
            "Rows silver.events u/0: offset 1: 10 rows, the ledger says 0"
        ]
    );
}

#[test]
fn a_table_that_is_behind_the_ledger_is_said_to_be() {
    let found = broken(|facts| {
        facts.tables[1] = table("silver.events", 3);
        of_log(facts).remove(&3);
    });
    assert_eq!(
        found,
        [
            "Rows silver.events t/0: 1 messages that have rows for it have not landed, from offset 3 on; start ingest, let it \
          catch up, audit again"
        ]
    );
}

#[test]
fn a_table_is_late_only_for_messages_that_have_rows_for_it() {
    let facts = sound();
    let messages = |name: &str, next: Option<i64>| {
        let tables: Vec<TableFacts> = next.map(|next| table(name, next)).into_iter().collect();
        let mut late = Late::begin(&tables, [name.to_owned()]);
        facts.ledger.iter().for_each(|row| late.add(row));
        let next = tables.first().map(|table| table.next.clone()).unwrap_or_default();
        let mut report = Report::default();
        late.report(name, &next, &mut report);
        let broken = report.into_broken();
        assert_eq!(late.is_late(name, &next), !broken.is_empty());
        let counts = broken.iter().map(|late| late.what.split(' ').next().unwrap().parse::<u64>().unwrap());
        counts.sum::<u64>()
    };
    assert_eq!(
        ["bronze.messages", "silver.events", "gold.op_minute", "silver.stacks", "ops.dlq"]
            .map(|t| messages(t, Some(2))),
        [2, 1, 1, 0, 0]
    );
    assert_eq!(messages("silver.events", None), 3, "a table that does not exist");
}

#[test]
fn a_table_that_has_caught_up_since_is_not_late() {
    let mut late = Late::begin(&[table("silver.events", 1)], ["silver.events".to_owned()]);
    sound().ledger.iter().for_each(|row| late.add(row));
    for (next, is_late) in [(1, true), (3, true), (4, false), (9, false)] {
        assert_eq!(late.is_late("silver.events", &BTreeMap::from([(at(0), NextOffset(next))])), is_late, "{next}");
    }
}

#[test]
fn messages_with_events_that_one_of_the_two_tables_lacks_set_them_apart() {
    let are_apart = |gold: i64| {
        let mut facts = sound();
        facts.tables[4] = table("gold.op_minute", gold);
        let mut proof = Proof::begin(facts.tables.clone(), [], []);
        facts.ledger.iter().for_each(|row| proof.add_ledger(row));
        proof.are_events_apart()
    };
    // The message at offset 2 has landed no row.
    assert_eq!([1, 2, 3, 4].map(are_apart), [true, true, true, false]);
}

#[test]
fn rows_of_a_gap_that_a_table_has_recorded_are_not_missed() {
    let found = broken(|facts| {
        facts.tables[1].explained = vec![OffsetRange::new(at(0), 0, 2)];
        facts.tables[1].commits = vec![vec![OffsetRange::new(at(0), 2, 4)]];
        of_log(facts).retain(|offset, _| *offset >= 2);
    });
    assert_eq!(found, Vec::<String>::new());
    let found = broken(|facts| {
        facts.tables[3].explained = vec![OffsetRange::new(at(0), 0, 4)];
        facts.tables[3].commits.clear();
        facts.ledger[2] = LedgerRow { is_dead_letter: true, kind: None, ..facts.ledger[2].clone() };
        facts.ledger[2].duplicates = 10;
    });
    assert_eq!(found, Vec::<String>::new());
}

/// A gap of the log excuses what may have been in it, and nothing else.
#[test]
fn a_recorded_gap_excuses_no_record_that_was_not_in_it() {
    let lose = |gap: Range, lost: usize| {
        broken(|facts| {
            facts.ledger.remove(2);
            facts.ledger.remove(lost);
            facts.tables[2].explained = vec![OffsetRange::new(at(0), gap.0, gap.1)];
        })
    };
    let is_missed = |found: &[String]| found.iter().any(|law| law.starts_with("Sequence "));
    assert!(!is_missed(&lose((0, 1), 0)), "the first message was in the gap");
    assert!(!is_missed(&lose((1, 3), 1)));
    assert!(is_missed(&lose((0, 1), 1)), "lost behind the gap");
    assert!(is_missed(&lose((2, 3), 0)), "lost before the gap");
}

#[test]
fn a_ledger_row_that_does_not_add_up_is_named() {
    let found = broken(|facts| facts.ledger[2].duplicates = 9);
    assert_eq!(found, ["Rows ops.ledger t/0: offset 2: 10 rows announced, but 0 landed and 9 were seen before"]);
}

#[test]
fn a_record_that_occurs_twice_is_named() {
    let found = broken(|facts| {
        let seqs = facts.records[0].seqs.values_mut().next().unwrap();
        seqs.push((5, 7));
    });
    assert_eq!(found, ["Identity silver.events n1 boot b: sequence numbers 5-7 occur more than once"]);
}

#[test]
fn a_recording_may_leave_numbers_out() {
    let gap_of = |boot_id: &str| {
        broken(|facts| {
            facts.ledger[3].first_seq = 25;
            facts.ledger.iter_mut().for_each(|row| boot_id.clone_into(&mut row.epoch.boot_id));
        })
    };
    assert_eq!(gap_of("184b9dd9-972f-8f7b-b26f-19cc3404f8fc"), Vec::<String>::new());
    let of_a_kernel = gap_of("184b9dd9-972f-4f7b-b26f-19cc3404f8fc");
    assert!(matches!(&of_a_kernel[..], [one] if one.contains("5 records 20-25 never arrived")), "{of_a_kernel:?}");
}

#[test]
fn records_that_never_arrived_are_named_unless_the_spool_dropped_them() {
    let shrink = |dropped| {
        broken(|facts| {
            facts.ledger[3].first_seq = 25;
            facts.ledger[3].losses.spool_drop = dropped;
            facts.ledger[3].losses.emitted += dropped;
        })
    };
    assert_eq!(shrink(5), Vec::<String>::new());
    assert_eq!(
        shrink(0),
        [
            "Sequence ops.ledger n1 boot b epoch 0: stream 0: 5 records 20-25 never arrived, 0 are accounted for as spool_drop"
        ]
    );
}

#[test]
fn the_first_records_of_a_stream_are_missed_too() {
    let found = broken(|facts| {
        facts.ledger.remove(0);
        facts.bronze.insert(at(0), runs(&[(1, 4)]));
    });
    assert!(found.iter().any(|b| b.starts_with("Sequence ") && b.contains("10 records 0-10")), "{found:?}");
}

#[test]
fn a_ledger_that_does_not_close_is_named_with_its_sums() {
    let found = broken(|facts| facts.ledger[0].losses.emitted = 13);
    assert_eq!(
        found,
        ["Ledger ops.ledger n1 boot b epoch 0: 33 emitted, but 30 landed + 0 ring_drop + 0 shed + 0 sampled_out + \
          0 spool_drop = 30"]
    );
    let closed = broken(|facts| {
        facts.ledger[0].losses = LossCounters { emitted: 13, ring_drop: 1, shed: 2, ..LossCounters::default() };
    });
    assert_eq!(closed, Vec::<String>::new());
}

#[test]
fn a_dead_letter_hides_no_gap_and_is_named_as_what_may_fill_it() {
    let found = broken(|facts| {
        facts.ledger[1] = LedgerRow { is_dead_letter: true, kind: None, epoch: Epoch::default(), ..landed(1, 0, 0) };
        facts.ledger[2].landed = 0;
        facts.dead_letters.insert(at(0), runs(&[(1, 2)]));
        of_log(facts).remove(&1);
        facts.ledger.remove(2);
        facts.ledger.push(LedgerRow {
            kind: Some("stack".to_owned()),
            stream: Stream::Critical,
            ..landed(2, 1 << 36, 0)
        });
    });
    assert_eq!(
        found,
        [
            "Sequence ops.ledger n1 boot b epoch 0: stream 0: 10 records 10-20 never arrived, 0 are accounted for as spool_drop; \
          1 dead letters of its partitions may hold them"
        ]
    );
}

#[test]
fn a_minute_that_gold_counts_wrongly_is_named() {
    let found = broken(|facts| facts.aggregated.clear());
    assert_eq!(found, ["Aggregates gold.op_minute n1 minute 2 source 1 op 3: counts 0 events, silver.events holds 30"]);
}

#[test]
fn a_law_whose_table_is_absent_is_not_proved_and_the_others_are() {
    use Law::{Accounts, Aggregates, DeadLetters, Ledger, Messages, Rows, Sequence};
    let without = |absent: &[&str]| {
        let mut facts = sound();
        facts.tables.retain(|table| !absent.contains(&&*table.name));
        facts.records.retain(|records| !absent.contains(&records.table));
        if absent.contains(&"ops.ledger") {
            facts.ledger.clear();
        }
        // Of a table by itself it is known all the same.
        let gold = facts.tables.iter_mut().find(|table| table.name == "gold.op_minute");
        gold.unwrap().commits.remove(0);
        let verdict = facts.verdict(Order::Forward);
        assert!(!verdict.holds() && verdict.open_epochs.is_empty(), "{verdict:?}");
        let broken: Vec<_> = verdict.broken.iter().map(|broken| (broken.law, &*broken.table)).collect();
        assert_eq!(broken, [(Law::Commits, "gold.op_minute")]);
        verdict.unproved.into_iter().map(|unproved| (unproved.law, unproved.table)).collect::<Vec<_>>()
    };
    let by_events = [(Accounts, "silver.events"), (Aggregates, "silver.events")];
    assert_eq!(without(&["silver.events"]), by_events);
    let by_ledger =
        [Messages, Rows, DeadLetters, Sequence, Ledger, Accounts, Aggregates].map(|law| (law, "ops.ledger"));
    assert_eq!(without(&["ops.ledger"]), by_ledger);
}

#[test]
fn dead_letters_must_be_in_the_dead_letter_table() {
    let reject = |kept: &[Range]| {
        broken(|facts| {
            let dead = LedgerRow { is_dead_letter: true, kind: None, epoch: Epoch::default(), ..landed(2, 0, 0) };
            facts.ledger[2] = LedgerRow { losses: LossCounters::default(), ..dead };
            if !kept.is_empty() {
                facts.dead_letters.insert(at(0), runs(kept));
            }
        })
    };
    assert_eq!(reject(&[(2, 3)]), Vec::<String>::new());
    assert_eq!(reject(&[]), ["DeadLetters ops.dlq t/0: holds nothing, the ledger says offsets 2-3"]);
    assert_eq!(reject(&[(2, 3), (2, 3)]), ["DeadLetters ops.dlq t/0: offsets 2-3 occur more than once"]);
}
