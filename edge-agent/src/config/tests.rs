//! Settings from a file, and all that is wrong with them at once.

use service_kit::config::ConfigSource;
use tempfile::TempDir;

use super::*;

fn load(toml: &str) -> Result<AgentSettings, String> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("causeway.toml");
    std::fs::write(&file, toml).unwrap();
    ConfigSource::of_file(Some(file), &sections::SECTIONS).load().map_err(|error| error.to_string())
}

#[test]
fn a_file_sets_what_the_agent_does() {
    let settings = load("[node]\nname = 'gpu-7'\n[agent]\nbatch_rows = 4096\n[kafka]\nbrokers = 'k:9092'\n").unwrap();
    let options = settings.options();
    assert_eq!((options.node.as_deref(), options.batch.rows), (Some("gpu-7"), 4096));
    assert_eq!(options.kafka.unwrap().brokers, "k:9092");
    assert!(!options.spool.shared);
}

#[test]
fn every_problem_is_told_at_once() {
    let error =
        load("[node]\nname = ''\ncluster = ''\n[agent]\ndata_ring = '5MiB'\nbatch_rows = 0\n[kafka]\nbrokers = ''\n[spool]\nmax_size = '1MiB'\n")
            .unwrap_err();
    for key in ["node.name", "node.cluster", "agent.data_ring", "agent.batch_rows", "kafka.brokers", "spool.max_size"] {
        assert!(error.contains(key), "{key} in {error}");
    }
}

#[test]
fn a_password_in_the_file_is_not_shown() {
    let sasl = "[kafka.sasl]\nmechanism = 'SCRAM-SHA-512'\nusername = 'u'\npassword = 'hunter2'\n";
    let settings = load(sasl).unwrap();
    let shown = serde_json::to_string(&settings).unwrap();
    assert!(shown.contains("SCRAM-SHA-512") && !shown.contains("hunter2"), "{shown}");
}
