use super::*;

#[test]
fn a_bad_filter_is_named() {
    let error = filter("ingest=loudly").unwrap_err();
    assert!(error.to_string().contains("`ingest=loudly`"), "{error}");
    assert!(filter("info,ingest=debug").is_ok());
}

#[test]
fn the_registry_tells_the_build() {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry("ingest", "1.2.3")).unwrap();
    assert!(text.contains("causeway_ingest_build_info{version=\"1.2.3\"} 1"), "{text}");
}
