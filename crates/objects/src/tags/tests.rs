use bytes::Bytes;

use super::*;
use crate::config::S3Options;
use crate::store::{Store, StoreError};
use crate::upload::UploadError;

#[test]
fn tags_that_s3_does_not_take_are_refused() {
    let long = "x".repeat(129);
    let name_of_128 = "é".repeat(128);
    for (name, value) in [("", "v"), (&*long, "v"), ("a<b", "v"), ("a", "b&c"), ("a", " b"), ("a", "line\nline")] {
        let refused = Tags::new([(name, value)]).unwrap_err();
        assert!(matches!(refused, InvalidTags::Tag { .. }), "{name:?} {value:?}");
    }
    assert!(Tags::new([("a", "x".repeat(257))]).is_err());
    assert!(Tags::new([(name_of_128.as_str(), "")]).is_ok());
    assert!(Tags::new([("team/cost-center", "a b+c=d.e_f:g@h")]).is_ok());
    let tags = |count: usize| (0..count).map(|i| (format!("t{i}"), "v"));
    assert!(Tags::new(tags(10)).is_ok());
    assert_eq!(Tags::new(tags(11)), Err(InvalidTags::Count { count: 11 }));
    assert_eq!(Tags::new([COMPLETE]).unwrap(), Tags::complete());
}

#[tokio::test]
async fn a_directory_refuses_tags_and_writes_nothing_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), None).unwrap();
    let location = format!("{}/a", store.root());
    let tags = Tags::new([("tier", "cold")]).unwrap();
    assert!(!store.supports_tags());
    let put = store.put_tagged(&location, Bytes::from_static(b"x"), &tags).await.unwrap_err();
    assert!(matches!(put, StoreError::TagsNotSupported(_)), "{put:?}");
    let upload = store.upload(&location, &tags).await.unwrap_err();
    assert!(matches!(upload, UploadError::TagsNotSupported(_)), "{upload:?}");
    assert!(store.head(&location).await.unwrap_err().is_not_found());
    store.put(&location, Bytes::from_static(b"x")).await.unwrap();
    for refused in [store.tags(&location).await.map(|_| ()), store.set_tags(&location, &tags).await] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, TagError::NotSupported(_)) && !refused.is_transient(), "{refused:?}");
    }
}

#[tokio::test]
async fn an_s3_that_cannot_be_reached_is_transient() {
    let s3 = S3Options {
        // Nothing listens on the discard port.
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        access_key_id: Some("k".to_owned()),
        secret_access_key: Some("s".into()),
        path_style: true,
        ..S3Options::default()
    };
    let store = Store::open("s3://bucket/w", Some(&s3)).unwrap();
    let error = store.tags("s3://bucket/w/a").await.unwrap_err();
    assert!(matches!(error, TagError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    assert!(matches!(store.tags("s3://bucket/other/a").await, Err(TagError::Outside(_))));
}

#[test]
fn answers_of_s3_are_read() {
    let with = br#"<?xml version="1.0"?><Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet>
        <Tag><Key>a</Key><Value>1</Value></Tag><Tag><Key>b</Key><Value></Value></Tag></TagSet></Tagging>"#;
    let tagging: Tagging = quick_xml::de::from_reader(with.as_slice()).unwrap();
    let found: Vec<_> = tagging.set.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    assert_eq!(found, [("a", "1"), ("b", "")]);
    let none: Tagging = quick_xml::de::from_reader(b"<Tagging><TagSet/></Tagging>".as_slice()).unwrap();
    assert!(none.set.tags.is_empty());
}
