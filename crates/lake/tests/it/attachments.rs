//! Content that is kept with a table, and what other programs see and do of it.

use std::time::Duration;

use bytes::Bytes;
use event_schema::position::NextOffset;
use lake::commit::{
    ActionOutcome, DeleteFiles, Evolve, Expire, KEEP_DAYS, KEEP_EVERY, KEEP_HOURS, KEEP_MINUTES, Maintenance, Replace,
    RowCount, SetProperties,
};
use lake::{Attached, Attachment, TableHandle, Token};

use crate::place::Place;
use crate::rows::{batch, def, land, range, swaps};

on_both!(
    attachments_are_listed_for_other_programs_and_replaced_ones_are_deleted,
    every_action_carries_attachments_on_and_a_roll_back_takes_those_back_that_it_must,
    attachments_outlive_their_snapshots,
    an_attachment_that_another_program_took_out_is_gone_and_its_log_goes_on,
);

pub(crate) const KIND: &str = "test-seen-v1";

fn content(next: i64) -> Bytes {
    Bytes::from(format!("what was seen below {next}"))
}

/// Lands one offset of partition 0, and attaches what was seen below the next one.
pub(crate) async fn attach(table: &TableHandle, start: i64) {
    let next = start + 1;
    let mut request = batch(table, &[range(0, start, next)]).await;
    let at = range(0, 0, 1).at;
    request.attachments.push(Attachment { kind: KIND, at, next: NextOffset(next), bytes: content(next) });
    assert_eq!(swaps(table.commit(request).await), 1);
}

/// What the table lists, newest first; each is read and compared.
pub(crate) async fn attached(place: &Place) -> Vec<Attached> {
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let attached = snapshot.attachments(KIND, &range(0, 0, 1).at);
    for attached in &attached {
        assert_eq!(snapshot.read_attachment(attached).await.unwrap(), content(attached.next.0));
    }
    attached
}

pub(crate) fn nexts(attached: &[Attached]) -> Vec<i64> {
    attached.iter().map(|attached| attached.next.0).collect()
}

/// The statistics files in the store, once there are so many: replaced ones are deleted behind the commit.
pub(crate) async fn files(place: &Place, count: usize) -> Vec<String> {
    let few = async {
        loop {
            let mut objects = place.objects().await;
            objects.retain(|name| name.ends_with(".stats"));
            if objects.len() <= count {
                return objects;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), few).await.expect("replaced statistics files are deleted")
}

/// PyIceberg lists the statistics files of exactly these attachments.
fn assert_listed(place: &Place, attached: &[Attached]) {
    let locations: Vec<_> = attached.iter().map(|attached| attached.location.as_str()).collect();
    place.pyiceberg(&format!(
        "files = sorted(f.statistics_path for f in catalog.load_table('silver.t').metadata.statistics)\n\
         assert files == sorted({locations:?}), files"
    ));
}

async fn attachments_are_listed_for_other_programs_and_replaced_ones_are_deleted(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    attach(&table, 0).await;
    land(&table, &[range(1, 0, 10)]).await;
    attach(&table, 1).await;
    let two = attached(&place).await;
    assert_eq!(nexts(&two), [2, 1]);
    assert_listed(&place, &two);
    attach(&table, 2).await;
    let newest = attached(&place).await;
    assert_eq!((nexts(&newest), files(&place, 2).await.len()), (vec![3, 2], 2));
    assert_listed(&place, &newest);
    let gone = place.lake().await.store().get(&two[1].location).await.unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
    place.assert_landed(&[3, 10]);
}

async fn every_action_carries_attachments_on_and_a_roll_back_takes_those_back_that_it_must(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    attach(&table, 0).await;
    let snapshot = table.reader().snapshot().await.unwrap();
    let first = snapshot.snapshot_id().unwrap();
    attach(&table, 1).await;
    let before = attached(&place).await;
    let locations = |plan: &[std::sync::Arc<lake::ScanFile>]| plan.iter().map(|f| f.location.clone()).collect();
    let inputs = locations(&table.reader().snapshot().await.unwrap().plan(&[]).await.unwrap());
    let outputs = batch(&table, &[range(0, 0, 2)]).await.files;
    let rewritten = outputs.iter().map(|file| file.file_path().to_owned()).collect();
    let set = [("causeway.note".to_owned(), "7".to_owned())].into();
    for action in [
        Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept }),
        Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() }),
        Maintenance::Evolve(Box::new(Evolve { def: def() })),
        Maintenance::Expire(Expire { snapshots: [7].into() }),
        Maintenance::DeleteFiles(DeleteFiles { files: rewritten }),
    ] {
        let outcome = table.maintain(&action, Token::random()).await;
        assert!(matches!(outcome, ActionOutcome::Committed(_)), "{action:?}: {outcome:?}");
        assert_eq!(attached(&place).await, before, "{action:?}");
    }
    let from = table.reader().snapshot().await.unwrap().snapshot_id();
    let outcome = table.roll_back(first, from, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    let after = attached(&place).await;
    assert_eq!((nexts(&after), files(&place, 1).await.len()), (vec![1], 1));
    assert_listed(&place, &after);
}

async fn attachments_outlive_their_snapshots(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    attach(&table, 0).await;
    let first = table.reader().snapshot().await.unwrap().snapshot_id().unwrap();
    attach(&table, 1).await;
    let before = attached(&place).await;
    land(&table, &[range(0, 2, 3)]).await;
    let expire = Maintenance::Expire(Expire { snapshots: [first].into() });
    let outcome = table.maintain(&expire, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    let mut set =
        std::collections::BTreeMap::from([("history.expire.min-snapshots-to-keep".to_owned(), "2".to_owned())]);
    set.extend([KEEP_EVERY, KEEP_MINUTES, KEEP_HOURS, KEEP_DAYS].map(|age| (age.to_owned(), "0s".to_owned())));
    let keep_two = Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() });
    let outcome = table.maintain(&keep_two, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    for start in 3..6 {
        land(&table, &[range(0, start, start + 1)]).await;
    }
    assert_eq!(table.reader().snapshot().await.unwrap().history().len(), 2, "those of the attachments have expired");
    assert_eq!((attached(&place).await, files(&place, 2).await.len()), (before.clone(), 2));
    assert_listed(&place, &before);
}

async fn an_attachment_that_another_program_took_out_is_gone_and_its_log_goes_on(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    attach(&table, 0).await;
    attach(&table, 1).await;
    place.pyiceberg(
        "table = catalog.load_table('silver.t')\n\
         newest = table.current_snapshot().snapshot_id\n\
         with table.update_statistics() as change:\n    change.remove_statistics(newest)",
    );
    let left = attached(&place).await;
    assert_eq!(nexts(&left), [1]);
    attach(&table, 2).await;
    let newest = attached(&place).await;
    assert_eq!(nexts(&newest), [3, 1]);
    assert_listed(&place, &newest);
    place.assert_landed(&[3]);
}
