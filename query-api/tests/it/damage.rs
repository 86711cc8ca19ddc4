//! Rotten bits: whatever a data file, a manifest or a metadata file was changed to, an answer is right or an error names the file.

use std::path::{Path, PathBuf};

use arrow::util::pretty::pretty_format_batches;
use event_schema::batch::EventRows;
use lake::{Lake, LakeOptions};
use query_engine::Limits;
use query_engine::QueryError;
use query_engine::{Engine, Query};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::fixture::{Fixture, event};

/// Bits flipped, one after another, in data files and in metadata.
const FLIPS: usize = 150;

/// What is asked after each flip: all columns, some of them under a condition, and what the manifests alone answer.
const QUESTIONS: [&str; 3] = [
    "SELECT * FROM silver.events ORDER BY event_id",
    "SELECT node, op, sum(duration_ns), max(arg0) FROM silver.events WHERE ts_ns % 7 < 3 GROUP BY node, op ORDER BY node, op",
    "SELECT count(*), min(duration_ns), max(comm), count(rank) FROM silver.events",
];

/// Two files of several blocks, whose values are all over the place.
async fn lake_of_random_events(random: &mut StdRng, rows_of_node: i64) -> Fixture {
    let mut fixture = Fixture::empty().await;
    for node in ["a", "b"] {
        let mut rows = EventRows::new();
        for nth in 0..rows_of_node {
            let mut event = event(3, random.random_range(1..9), random.random_range(0..1 << 40), nth);
            event.arg0 = random.random();
            rows.push(&event);
        }
        fixture.land_together(node, &[rows.finish().unwrap()]).await;
    }
    fixture
}

/// The answers of an engine that has read nothing before.
async fn answers(fixture: &Fixture) -> Result<Vec<String>, QueryError> {
    let at = fixture.dir.path().display();
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{at}/catalog.sqlite"),
        warehouse: format!("{at}/warehouse"),
        s3: None,
    };
    let engine = Engine::new(Lake::open(options).await.unwrap(), Limits::default()).unwrap();
    let mut answers = Vec::new();
    for sql in QUESTIONS {
        let batches = engine.query(Query::parse(sql)?).await?.collect().await?;
        answers.push(pretty_format_batches(&batches).unwrap().to_string());
    }
    Ok(answers)
}

/// Flips random bits of the files, each on its own; gives back how many were found.
async fn flip_and_ask(fixture: &Fixture, files: &[PathBuf], random: &mut StdRng) -> usize {
    let sound = answers(fixture).await.unwrap();
    let mut found = 0;
    for _ in 0..FLIPS {
        let file = &files[random.random_range(0..files.len())];
        let bytes = std::fs::read(file).unwrap();
        let bit = random.random_range(0..bytes.len() * 8);
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(file, flipped).unwrap();
        match answers(fixture).await {
            Ok(answers) => assert!(answers == sound, "bit {bit} of {} changes an answer", file.display()),
            Err(QueryError::DataFile { file: named, .. }) => {
                found += 1;
                assert!(named.ends_with(name(file)), "bit {bit} of {}: {named} is blamed", file.display());
            }
            Err(other) => panic!("bit {bit} of {}: {other:?}", file.display()),
        }
        std::fs::write(file, bytes).unwrap();
    }
    found
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_of_a_data_file_changes_an_answer() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let fixture = lake_of_random_events(&mut random, 6_000).await;
    let files = fixture.data_files("silver.events");
    assert!(files.iter().all(|file| std::fs::metadata(file).unwrap().len() > 100_000), "files have several blocks");
    let found = flip_and_ask(&fixture, &files, &mut random).await;
    assert_eq!(found, FLIPS, "all columns are read, so that every flip is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_of_a_manifest_or_of_metadata_changes_an_answer() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let fixture = lake_of_random_events(&mut random, 20).await;
    let directory = fixture.dir.path().join("warehouse/silver/events/metadata");
    let files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let found = flip_and_ask(&fixture, &files, &mut random).await;
    assert!(found > 0, "the newest metadata, its list and its manifests are read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_empty_cut_long_or_has_another_end_is_named() {
    let mut random = StdRng::seed_from_u64(7);
    let fixture = lake_of_random_events(&mut random, 6_000).await;
    let file = fixture.data_files("silver.events")[0].clone();
    let bytes = std::fs::read(&file).unwrap();
    let size = bytes.len();
    let with_end = |end: &[u8]| [&bytes[..size - end.len()], end].concat();
    let named = name(&file).to_owned();
    let damages = [
        ("empty", Vec::new()),
        ("cut by a byte", bytes[..size - 1].to_vec()),
        ("cut in the middle", bytes[..size / 2].to_vec()),
        ("nothing but the magic", b"PAR1PAR1".to_vec()),
        ("longer by a byte", [&bytes[..], b"x"].concat()),
        ("another magic", with_end(b"PARE")),
        ("footer length 0", with_end(b"\0\0\0\0PAR1")),
        ("footer length 65,535 and more", with_end(b"\xff\xffPAR1")),
        ("footer length 4,294,967,295", with_end(b"\xff\xff\xff\xffPAR1")),
        ("zeros", vec![0; size]),
    ];
    let served = fixture.serve().await;
    for (damage, content) in damages {
        std::fs::write(&file, content).unwrap();
        let (status, problem) = served.sql("SELECT sum(duration_ns), max(comm) FROM silver.events").await;
        assert_eq!((status, &problem["type"]), (500, &json!("urn:causeway:problem:data-file")), "{damage}: {problem}");
        assert!(problem["file"].as_str().unwrap().ends_with(&named), "{damage}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("is damaged"), "{damage}: {problem}");
    }
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(served.rows("SELECT count(duration_ns) FROM silver.events").await, json!([[12_000]]));
    // What is wrong with one column is said of that column, and the others are read.
    let mut middle = bytes.clone();
    middle[size / 2] ^= 1;
    std::fs::write(&file, middle).unwrap();
    let (_, problem) = served.sql("SELECT * FROM silver.events").await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("do not match their checksum (column ") && detail.contains(" of row group 0"), "{detail}");
}
