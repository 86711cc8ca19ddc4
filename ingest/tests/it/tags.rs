//! In S3, the files that a commit names are tagged, so that a rule of the bucket may move them.

use std::path::PathBuf;
use std::process::Command;

use objects::S3Options;
use tables::registry;

use super::*;

/// An S3 of this test, gone with it.
struct S3 {
    dir: tempfile::TempDir,
    env: String,
}

impl S3 {
    fn up() -> Self {
        let dir = tempfile::tempdir().unwrap();
        script("up", dir.path(), &["--port", "auto"]);
        let env = script("env", dir.path(), &[]);
        Self { dir, env }
    }

    fn env(&self, key: &str) -> &str {
        let value = self.env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{key} in {}", self.env)).trim_matches(['\'', '"'])
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        script("kill", self.dir.path(), &[]);
    }
}

fn script(command: &str, dir: &Path, more: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infra/dev/s3.sh");
    let output = Command::new("bash").arg(path).arg(command).arg(dir.join("s3")).args(more).output().unwrap();
    assert!(output.status.success(), "s3.sh {command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_commit_names_are_tagged_where_their_table_tiers_and_no_others() {
    let s3 = S3::up();
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 20)]);
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}/catalog.sqlite", place.dir.path().display()),
        warehouse: format!("s3://{}/warehouse", s3.env("S3_BUCKET")),
        s3: Some(S3Options {
            endpoint: Some(s3.env("AWS_ENDPOINT_URL").to_owned()),
            access_key_id: Some("test".to_owned()),
            secret_access_key: Some("test".into()),
            path_style: true,
            ..S3Options::default()
        }),
    };
    let lake = Lake::open(options).await.unwrap();
    let once = Options { until: Until::CaughtUp, commit_interval: Duration::from_millis(20), ..Options::default() };
    let readiness = Readiness::new();
    let ingest = Ingest::open(parts(&lake, &readiness), once).await.unwrap();
    ingest.run(Box::new(LogSource::new(place.spool(), topics::READ)), Drain::new()).await.unwrap();
    let mut with_files = Vec::new();
    for table in registry::all() {
        let name = table.def.name;
        let snapshot = lake.table(name.namespace, name.name).snapshot().await.unwrap();
        for file in snapshot.plan(&[]).await.unwrap() {
            let tags = lake.store().tags(&file.location).await.unwrap();
            let expected = table.def.tiers.then_some("complete");
            assert_eq!(tags.get("processing_status"), expected, "{name} {}", file.location);
            with_files.push(name.to_string());
        }
    }
    for name in ["bronze.messages", "silver.events", "ops.ledger"] {
        assert!(with_files.iter().any(|found| found == name), "{name} in {with_files:?}");
    }
}
