//! `causeway doctor`: checks of this host and of the configured servers, with advice for those that fail.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bpf::LibraryKind;
use clap::Args;
use edge_agent::discover::{MappedLibrary, survey};
use event_schema::topics;
use lake::{CatalogError, OpenError};
use serde_json::{Value, json};
use service_kit::config::ConfigSource;
use service_kit::run::{Exit, report};
use stream::kafka::{KafkaConfig, KafkaSource};

use crate::embedded::EmbeddedError;
use crate::output::{self, OutputError, table::TextTable};
use crate::place::{Place, PlaceArgs, PlaceError};

/// How long a catalog or a store may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(15);

const EXAMPLES: &str = "\
Examples:
  causeway doctor
  causeway doctor --config /etc/causeway/causeway.toml";

/// Checks kernel, BTF, capabilities, libraries, Kafka, catalog and store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Why there is no result of the checks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoctorError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("the checks of the kernel did not end")]
    Checks(#[source] tokio::task::JoinError),
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    Limited,
    Fails,
    /// Nothing uses it.
    Unused,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Limited => "limited",
            Self::Fails => "fails",
            Self::Unused => "unused",
        }
    }
}

/// One check.
#[derive(Debug)]
struct Check {
    area: &'static str,
    name: String,
    verdict: Verdict,
    found: String,
    advice: Option<String>,
}

/// Runs the command: exit 1 when something fails that is in use.
pub(crate) async fn run(args: &DoctorArgs, config: &ConfigSource) -> Result<Exit, DoctorError> {
    // Loading the probes and reading `/proc` of every process block.
    let mut checks = tokio::task::spawn_blocking(|| {
        let mut checks = kernel();
        checks.extend(libraries(Path::new("/proc")));
        checks
    })
    .await
    .map_err(DoctorError::Checks)?;
    match Place::of(&args.place, config) {
        Ok(place) => {
            checks.push(kafka(&place).await?);
            checks.extend(lake(&place).await);
        }
        // A result like the others: the checks of the host are valid without a configuration.
        Err(error) => checks.push(failed("config", "configuration", &error, None)),
    }
    let text = if args.json { format!("{}\n", as_json(&checks)) } else { as_text(&checks) };
    output::text(&text)?;
    let fails = checks.iter().any(|check| check.verdict == Verdict::Fails);
    Ok(if fails { Exit::Failed } else { Exit::Done })
}

fn kernel() -> Vec<Check> {
    let mut checks = Vec::new();
    for check in bpf::preflight() {
        checks.push(Check {
            area: "probes",
            name: check.name.to_owned(),
            verdict: match check.verdict {
                bpf::Verdict::Good => Verdict::Works,
                bpf::Verdict::Limited => Verdict::Limited,
                bpf::Verdict::Missing => Verdict::Fails,
            },
            found: check.found,
            advice: check.advice,
        });
    }
    checks
}

/// Largest number of processes that are listed one by one because they cannot be traced.
const UNTRACED_MAX: usize = 20;

/// Which processes have mapped the libraries that calls are traced in, and which of those cannot be traced.
fn libraries(proc: &Path) -> Vec<Check> {
    const LIBRARIES: [(LibraryKind, &str); 3] =
        [(LibraryKind::Cudart, "libcudart"), (LibraryKind::Cuda, "libcuda"), (LibraryKind::Nccl, "libnccl")];
    let mapped = survey(proc);
    let mut checks: Vec<Check> = LIBRARIES.into_iter().map(|(kind, name)| library(kind, name, &mapped)).collect();
    checks.extend(mapped.iter().filter_map(untraced).take(UNTRACED_MAX));
    checks
}

fn library(kind: LibraryKind, name: &str, mapped: &[MappedLibrary]) -> Check {
    let of_kind = mapped.iter().filter(|library| library.kind == kind);
    let users: BTreeSet<i32> = of_kind.map(|library| library.pid).collect();
    Check {
        area: "libraries",
        name: name.to_owned(),
        verdict: if users.is_empty() { Verdict::Unused } else { Verdict::Works },
        found: match users.len() {
            0 => "no running process uses it".to_owned(),
            n => format!("{n} process(es)"),
        },
        advice: users.is_empty().then(|| "nothing to do: processes that start later are found".to_owned()),
    }
}

/// A process whose calls into a library are not recorded.
fn untraced(library: &MappedLibrary) -> Option<Check> {
    let fault = library.fault.as_ref()?;
    Some(Check {
        area: "libraries",
        name: format!("process {} ({})", library.pid, library.process),
        verdict: Verdict::Limited,
        found: format!("is not traced: {fault}"),
        advice: Some(
            "run the agent as root, or with CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN, which \
                      reaches every mapped file; a file without the functions to trace is not a supported library"
                .to_owned(),
        ),
    })
}

async fn kafka(place: &Place) -> Result<Check, DoctorError> {
    let Place::Remote(remote) = place else {
        let found = "the embedded lake needs none".to_owned();
        return Ok(Check { area: "stream", name: "kafka".to_owned(), verdict: Verdict::Unused, found, advice: None });
    };
    let config = KafkaConfig {
        topics: topics::READ.map(str::to_owned).to_vec(),
        // A consumer group of its own: joining the group of ingest would trigger a rebalance, which takes partitions
        // from its members.
        group: format!("{}-doctor-{}", remote.kafka.group, std::process::id()),
        ..remote.kafka.clone()
    };
    let brokers = config.brokers.clone();
    // librdkafka waits for the brokers up to `connect_timeout_ms` on the calling thread.
    let opened = tokio::task::spawn_blocking(move || KafkaSource::open(&config).map(drop)).await;
    Ok(match opened.map_err(DoctorError::Checks)? {
        Ok(()) => works("stream", "kafka", format!("{brokers} answers, topics {}", topics::READ.join(" and "))),
        Err(error) => failed("stream", "kafka", &error, Some("see `[kafka]` of the configuration")),
    })
}

/// Asks the catalog for its tables, and the store for an object.
async fn lake(place: &Place) -> Vec<Check> {
    let lake = match within(place.open()).await {
        Ok(lake) => lake,
        Err(error) => {
            // Not a fault: a lake is made by what writes to it first.
            return vec![match absence(error.as_ref()) {
                Some(found) => {
                    let name = "catalog and store".to_owned();
                    Check { area: "lake", name, verdict: Verdict::Unused, found, advice: None }
                }
                None => failed("lake", "catalog and store", error.as_ref(), None),
            }];
        }
    };
    let catalog = match within(lake.list()).await {
        Ok(tables) => works("lake", "catalog", format!("{} table(s)", tables.len())),
        Err(error) => failed("lake", "catalog", error.as_ref(), Some("see `[catalog]` of the configuration")),
    };
    let root = lake.store().root();
    // A listing and a request for one object: address, credentials, bucket and both rights are checked, and nothing is
    // written.
    let store = match within(lake.store().any_object()).await {
        Ok(Some(object)) => works("lake", "store", format!("{root} answers, it has {object}")),
        Ok(None) => works("lake", "store", format!("{root} answers, it is empty")),
        Err(error) => failed("lake", "store", error.as_ref(), Some("see `[store]` of the configuration")),
    };
    vec![catalog, store]
}

/// Says so where the lake has not been made, which is how every machine begins. A warehouse that is absent while its
/// catalog is there is another matter.
fn absence(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match error.downcast_ref()? {
        PlaceError::Embedded(EmbeddedError::Absent { .. }) => {
            Some("not there yet: `causeway up` or `causeway import` makes it".to_owned())
        }
        PlaceError::Open(OpenError::Catalog(error @ CatalogError::Absent { .. })) => Some(error.to_string()),
        _ => None,
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn within<T, E: Into<AnyError>>(asked: impl Future<Output = Result<T, E>>) -> Result<T, AnyError> {
    // A firewall that drops packets gives no error: without the limit the command would wait for TCP, for minutes
    // (tcp(7), `tcp_syn_retries`).
    match tokio::time::timeout(TIME_LIMIT, asked).await {
        Ok(answered) => answered.map_err(Into::into),
        Err(_) => Err(format!("no answer within {} s", TIME_LIMIT.as_secs()).into()),
    }
}

fn works(area: &'static str, name: &str, found: String) -> Check {
    Check { area, name: name.to_owned(), verdict: Verdict::Works, found, advice: None }
}

fn failed(area: &'static str, name: &str, error: &dyn std::error::Error, advice: Option<&str>) -> Check {
    // In one line, since a row of the table escapes line breaks.
    let found = report(error).trim_start_matches("error: ").replace("\n  caused by: ", ": ");
    Check { area, name: name.to_owned(), verdict: Verdict::Fails, found, advice: advice.map(str::to_owned) }
}

fn as_json(checks: &[Check]) -> Value {
    let mut list = Vec::new();
    for Check { area, name, verdict, found, advice } in checks {
        list.push(json!({ "area": area, "name": name, "verdict": verdict.word(), "found": found, "advice": advice }));
    }
    json!(list)
}

fn as_text(checks: &[Check]) -> String {
    let mut table = TextTable::new(["area", "check", "verdict", "found"]);
    for check in checks {
        table.row([check.area, &check.name, check.verdict.word(), &check.found]);
    }
    let mut text = table.render();
    for check in checks {
        let advice = check.advice.as_ref().filter(|_| matches!(check.verdict, Verdict::Fails | Verdict::Limited));
        if let Some(advice) = advice {
            text += &format!("\n{}: {advice}", check.name);
        }
    }
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_library_is_found_under_every_name_that_discovery_knows() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, path) in [("7", "/opt/torch/lib/libcudart-d0da41ae.so.11.0"), ("8", "/usr/lib/libcudnn.so.8")] {
            fs::create_dir(proc.path().join(pid)).unwrap();
            let maps = format!("7f00-7f01 r-xp 00000000 08:01 42                 {path}\n7f02-7f03 rw-p 0 00:00 0\n");
            fs::write(proc.path().join(pid).join("maps"), maps).unwrap();
            fs::write(proc.path().join(pid).join("comm"), "python3\n").unwrap();
        }
        let found: Vec<_> = libraries(proc.path()).into_iter().map(|check| (check.name, check.verdict)).collect();
        let expected = [
            ("libcudart", Verdict::Works),
            ("libcuda", Verdict::Unused),
            ("libnccl", Verdict::Unused),
            ("process 7 (python3)", Verdict::Limited),
        ];
        assert_eq!(found, expected.map(|(name, verdict)| (name.to_owned(), verdict)));
    }
}
