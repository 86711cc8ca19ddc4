//! The accounts that agents report at their end.

use super::*;

/// What the agent reports at its end: of the thirty records, one is an account itself.
fn ends(attempts: u64, ring_drop: u64, drained: u64) -> BTreeMap<Stream, EpochEnd> {
    BTreeMap::from([(Stream::Data, EpochEnd { attempts, ring_drop, drained }), (Stream::Critical, EpochEnd::default())])
}

/// What is broken in a lake whose agent has reported its end so, after `damage`.
fn broken_at_end((attempts, ring_drop, drained): (u64, u64, u64), damage: impl FnOnce(&mut Facts)) -> Vec<String> {
    broken(|facts| {
        facts.ends.insert(epoch(), ends(attempts, ring_drop, drained));
        damage(facts);
    })
}

#[test]
fn what_the_probes_counted_is_what_the_ledger_counts() {
    assert_eq!(broken_at_end((29, 0, 29), |_| {}), Vec::<String>::new());
    assert_eq!(
        broken_at_end((31, 0, 31), |_| {}),
        [
            "Accounts ops.ledger n1 boot b epoch 0: 31 came out of the rings, but 29 of them landed + 0 shed + 0 spool_drop"
        ]
    );
    assert_eq!(
        broken_at_end((34, 5, 29), |_| {}),
        ["Accounts ops.ledger n1 boot b epoch 0: the probes dropped 5, the ledger says 0 ring_drop"]
    );
    assert_eq!(
        broken_at_end((34, 0, 29), |_| {}),
        ["Accounts ops.ledger n1 boot b epoch 0: 34 attempts, but 29 drained + 0 ring_drop"]
    );
}

/// What is shed may have come out of a ring, or never have been followed into one.
#[test]
fn what_was_shed_may_not_have_been_in_a_ring() {
    let reported = LossCounters { emitted: 13, shed: 3, ..LossCounters::default() };
    for drained in 29..=32 {
        let found = broken_at_end((drained, 0, drained), |facts| facts.ledger[0].losses = reported);
        assert_eq!(found, Vec::<String>::new());
    }
}

/// The two streams travel apart: while one of them is on its way, nothing can be said.
#[test]
fn an_account_of_one_stream_closes_nothing() {
    let mut facts = sound();
    facts.ends.insert(epoch(), ends(31, 0, 31));
    facts.ends.get_mut(&epoch()).unwrap().remove(&Stream::Critical);
    let verdict = check(&facts);
    assert_eq!(verdict.broken, []);
    assert_eq!(verdict.open_epochs, [epoch()]);
}

#[test]
fn a_gap_of_the_log_excuses_only_the_epochs_that_may_have_records_in_it() {
    let lacks_two = (31, 0, 31);
    let gap = |start, end| vec![OffsetRange::new(at(0), start, end)];
    let is_account = |law: &String| law.starts_with("Accounts");
    let complete = broken_at_end(lacks_two, |facts| facts.tables[2].explained = gap(2, 3));
    assert!(complete.iter().any(is_account), "none of its records is missing: {complete:?}");
    let in_gap = broken_at_end(lacks_two, |facts| {
        facts.ledger.remove(2);
        facts.ledger.remove(1);
        facts.tables[2].explained = gap(1, 3);
    });
    assert!(!in_gap.iter().any(is_account), "{in_gap:?}");
}

#[test]
fn an_agent_that_ran_out_of_numbers_is_counted_over_all_its_epochs() {
    let next = Epoch { epoch: 1, ..epoch() };
    let end_in_next = |facts: &mut Facts| {
        facts.ends = BTreeMap::from([(next.clone(), ends(29, 0, 29))]);
        facts.own_events = BTreeMap::from([(next.clone(), 1)]);
        let last = facts.ledger.last_mut().unwrap();
        (last.epoch, last.first_seq) = (next.clone(), event_schema::identity::first_seq(1, Stream::Data).unwrap());
    };
    let is_account = |law: &String| law.starts_with("Accounts");
    assert!(broken(end_in_next).iter().any(is_account), "the first epoch is another run's");
    let found = broken(|facts| {
        end_in_next(facts);
        facts.ledger[1].first_seq = event_schema::identity::SEQS_MAX - 10;
    });
    assert!(!found.iter().any(is_account), "{found:?}");
}

#[test]
fn an_epoch_without_an_account_is_reported_as_open() {
    let mut facts = sound();
    assert_eq!(check(&facts).open_epochs, [epoch()]);
    facts.ends.insert(epoch(), ends(29, 0, 29));
    assert_eq!(check(&facts).open_epochs, []);
}
