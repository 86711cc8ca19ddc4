use super::*;

const KIND: &str = "seen-v1";

fn empty() -> TableMetadata {
    let def = crate::tests::def();
    crate::table::schema::new_table(&def, "file:///w/t", Uuid::nil(), 0).unwrap()
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("a.topic", partition)
}

fn attachment(partition: i32, next: i64) -> Attachment {
    let bytes = Bytes::from(format!("{partition}:{next}"));
    Attachment { kind: KIND, at: at(partition), next: NextOffset(next), bytes }
}

/// The Puffin file that the snapshot of this number lists.
async fn file(number: i64, attachments: &[Attachment]) -> NewFile {
    let snapshot = OfSnapshot { id: number, sequence_number: number };
    write(&empty(), attachments, snapshot, Uuid::from_u128(number as u128)).await.unwrap()
}

/// The table after a commit with these attachments; also the snapshots whose files it dropped.
async fn after(table: TableMetadata, number: i64, attachments: &[Attachment]) -> (TableMetadata, Vec<i64>) {
    let relisted = attach(&table, attachments, number);
    let mut builder = table.into_builder(None).set_statistics(file(number, attachments).await.statistics);
    for snapshot in relisted.dropped.keys() {
        builder = builder.remove_statistics(*snapshot);
    }
    let builder = builder.set_properties(relisted.set).unwrap().remove_properties(&relisted.remove).unwrap();
    (builder.build().unwrap().metadata, relisted.dropped.into_keys().collect())
}

fn nexts(table: &TableMetadata, partition: i32) -> Vec<i64> {
    list(table, KIND, &at(partition)).iter().map(|attached| attached.next.0).collect()
}

#[tokio::test]
async fn what_was_attached_is_read_back_by_kind_log_and_offset() {
    let new = file(7, &[attachment(0, 5), attachment(1, 9)]).await;
    assert_eq!(new.statistics.file_size_in_bytes, new.bytes.len() as i64);
    let footer = new.bytes.len() - new.statistics.file_footer_size_in_bytes as usize;
    assert_eq!(&new.bytes[footer..footer + 5], b"PFA1{", "the footer begins there");
    let location = new.statistics.statistics_path.clone();
    let wanted = |partition, next| Attached {
        kind: KIND.to_owned(),
        at: at(partition),
        next: NextOffset(next),
        location: location.clone(),
    };
    assert_eq!(read(new.bytes.clone(), &wanted(1, 9)).await.unwrap().unwrap(), "1:9");
    assert_eq!(read(new.bytes.clone(), &wanted(0, 5)).await.unwrap().unwrap(), "0:5");
    assert_eq!(read(new.bytes.clone(), &wanted(0, 6)).await.unwrap(), None);
    assert!(read(Bytes::from_static(b"no puffin file"), &wanted(0, 5)).await.is_err());
}

#[tokio::test]
async fn the_two_newest_of_each_log_are_kept_and_a_file_while_it_holds_one_of_them() {
    let (table, dropped) = after(empty(), 1, &[attachment(0, 10), attachment(1, 10)]).await;
    assert_eq!((nexts(&table, 0), nexts(&table, 2), dropped), (vec![10], vec![], vec![]));
    let (table, _) = after(table, 2, &[attachment(0, 20)]).await;
    let (table, dropped) = after(table, 3, &[attachment(0, 30)]).await;
    assert_eq!((nexts(&table, 0), nexts(&table, 1)), (vec![30, 20], vec![10]));
    assert_eq!(dropped, [0i64; 0], "the first file holds the newest of partition 1");
    let (table, dropped) = after(table, 4, &[attachment(0, 40)]).await;
    assert_eq!((nexts(&table, 0), dropped), (vec![40, 30], vec![2]));
    let (table, _) = after(table, 5, &[attachment(1, 50)]).await;
    let (table, dropped) = after(table, 6, &[attachment(1, 60)]).await;
    assert_eq!((nexts(&table, 1), dropped), (vec![60, 50], vec![1]));
}

#[tokio::test]
async fn what_holds_more_than_the_table_has_landed_leaves_with_a_roll_back() {
    let (table, _) = after(empty(), 1, &[attachment(0, 10), attachment(1, 5)]).await;
    let (table, _) = after(table, 2, &[attachment(0, 20)]).await;
    let offsets = |ends: &[(i32, i64)]| ends.iter().map(|(p, end)| (at(*p), NextOffset(*end))).collect();
    assert_eq!(take_back(&table, &offsets(&[(0, 20), (1, 5)])), Relisted::default());
    let back = take_back(&table, &offsets(&[(0, 19), (1, 5)]));
    assert_eq!(back.set, HashMap::from([("causeway.attached.seen-v1.a.topic/0".to_owned(), "10:1".to_owned())]));
    assert_eq!((back.remove, back.dropped.into_keys().collect::<Vec<_>>()), (vec![], vec![2]));
    let to_nothing = take_back(&table, &offsets(&[]));
    assert_eq!((to_nothing.remove.len(), to_nothing.dropped.len()), (2, 2));
}

#[tokio::test]
async fn an_entry_that_another_program_removed_is_passed_over() {
    let (table, _) = after(empty(), 1, &[attachment(0, 10)]).await;
    let (table, _) = after(table, 2, &[attachment(0, 20)]).await;
    let table = table.into_builder(None).remove_statistics(2).build().unwrap().metadata;
    assert_eq!(nexts(&table, 0), [10]);
    let (table, dropped) = after(table, 3, &[attachment(0, 30)]).await;
    assert_eq!((nexts(&table, 0), dropped), (vec![30, 10], vec![]));
}
