//! Catalogs that are none: a clear message, soon.

use std::time::{Duration, Instant};

use lake::{Lake, LakeOptions};

use crate::place::Place;
use crate::rows::report;
use crate::servers::Servers;

/// What opening the lake over this catalog says.
async fn refusal(catalog_uri: &str) -> String {
    let warehouse = tempfile::tempdir().unwrap();
    let options = LakeOptions {
        catalog_uri: catalog_uri.to_owned(),
        warehouse: warehouse.path().display().to_string(),
        s3: None,
    };
    let started = Instant::now();
    let error = Lake::open(options).await.expect_err(catalog_uri);
    let report = report(&error);
    println!("{catalog_uri}: {report} ({:?})", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(20), "{catalog_uri}: {:?}", started.elapsed());
    assert!(!report.contains("causeway-secret"), "{report}");
    report
}

#[track_caller]
fn assert_says(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "{part:?} in {report}");
    }
}

#[tokio::test]
async fn an_address_of_no_known_form_is_refused_with_the_forms_there_are() {
    for uri in ["", "/var/lib/catalog.sqlite", "mysql://user@host/database", "thrift://host:9083"] {
        assert_says(&refusal(uri).await, &["sqlite:///path", "postgres://user@host/database"]);
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_named() {
    // Reserved by this socket, which accepts no connection.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let report = refusal(&format!("postgres://causeway:causeway-secret@127.0.0.1:{port}/iceberg")).await;
    assert_says(&report, &[&format!("127.0.0.1:{port}/iceberg"), "Connection refused"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_soon() {
    // Connections are completed by the kernel; no byte is ever sent.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let report = refusal(&format!("postgres://causeway:causeway-secret@127.0.0.1:{port}/iceberg")).await;
    assert_says(&report, &[&format!("127.0.0.1:{port}/iceberg"), "timed out"]);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_told_apart() {
    let uri = Servers::shared().postgres.env("DATABASE_URL");
    assert_says(&refusal(&uri.replace("causeway-secret", "wrong")).await, &["password authentication failed"]);
    assert_says(&refusal(&uri.replace("/iceberg", "/absent")).await, &["database \"absent\" does not exist"]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let place = Place::embedded();
    let path = place.dir.path().join("notes.txt");
    std::fs::write(&path, "not a database, but long enough to have a header of one hundred bytes. ".repeat(20))
        .unwrap();
    let report = refusal(&format!("sqlite://{}", path.display())).await;
    assert_says(&report, &["notes.txt", "file is not a database"]);
}

#[tokio::test]
async fn a_database_whose_catalog_tables_are_another_programs_is_refused() {
    let place = Place::embedded();
    place.lake().await;
    place.sql("DROP TABLE iceberg_tables; CREATE TABLE iceberg_tables (id INTEGER)").await;
    let report = refusal(&place.options.catalog_uri).await;
    assert_says(&report, &["catalog.sqlite", "iceberg_tables"]);
}

#[tokio::test]
async fn a_reader_makes_no_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("typo/catalog.sqlite");
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}", file.display()),
        warehouse: dir.path().display().to_string(),
        s3: None,
    };
    let report = report(&Lake::open_existing(options.clone()).await.unwrap_err());
    assert_says(&report, &["there is no catalog", "typo/catalog.sqlite"]);
    assert!(!dir.path().join("typo").exists());
    Lake::open(options.clone()).await.unwrap();
    Lake::open_existing(options.clone()).await.unwrap();
    // As SQLAlchemy writes the address of an absolute path.
    let catalog_uri = format!("sqlite:///{}", file.display());
    Lake::open_existing(LakeOptions { catalog_uri, ..options }).await.unwrap();
}

#[tokio::test]
async fn a_reader_makes_no_warehouse() {
    let place = Place::embedded();
    place.lake().await;
    let absent = place.dir.path().join("typo");
    let options = LakeOptions { warehouse: format!("file://{}/", absent.display()), ..place.options.clone() };
    let report = report(&Lake::open_existing(options).await.unwrap_err());
    assert_says(&report, &["there is no warehouse", "/typo", "`store.warehouse`"]);
    assert!(!absent.exists());
}
