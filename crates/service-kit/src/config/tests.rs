use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kafka {
    brokers: Vec<String>,
    partitions: Vec<u16>,
    security: Security,
    sasl: Sasl,
    sasl_mechanism: Option<String>,
    login: Login,
    account: Option<Account>,
    options: BTreeMap<String, String>,
    linger: HumanDuration,
    batch: ByteSize,
    ratio: f64,
    listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Sasl {
    user: String,
    password: Secret<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Security {
    #[default]
    Plaintext,
    SaslSsl,
}

/// A section that may be left out, and whose options have no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    security: Security,
    name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
enum Login {
    #[default]
    None,
    Scram {
        username: String,
        password: Secret<String>,
    },
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".to_owned()],
            partitions: Vec::new(),
            security: Security::default(),
            sasl: Sasl::default(),
            sasl_mechanism: None,
            login: Login::default(),
            account: None,
            options: BTreeMap::new(),
            linger: HumanDuration::from_millis(5),
            batch: ByteSize::mib(1),
            ratio: 0.5,
            listen: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Everything {
    kafka: Kafka,
    ingest: Ingest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Ingest {
    commit_rows: u32,
    verify: bool,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { commit_rows: 1000, verify: true }
    }
}

impl Settings for Everything {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.kafka.brokers.is_empty() {
            problems.push(Problem::new("kafka.brokers", "is empty: name at least one host:port"));
        }
        if self.ingest.commit_rows == 0 {
            problems.push(Problem::new("ingest.commit_rows", "must be at least 1"));
        }
        problems
    }
}

/// Those that the settings of these tests read, and two of other programs.
const SECTIONS: Sections = &["kafka", "ingest", "agent", "query"];

struct File {
    // Deletes the file when dropped.
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

fn source(file: &File, env: &[(&str, &str)]) -> ConfigSource {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    ConfigSource::of_file(Some(file.path.clone()), SECTIONS).with_environment(env)
}

/// The problems, without the directory of the file.
fn problems(file: &File, env: &[(&str, &str)]) -> Vec<String> {
    let error = source(file, env).load::<Everything>().unwrap_err();
    let dir = format!("{}/", file.path.parent().unwrap().display());
    error.to_string().replace(&dir, "").lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = file("[kafka]\nbrokers = ['file:1']\nlinger = '1s'\nratio = 1\n[ingest]\ncommit_rows = 7\n");
    let env = [("CAUSEWAY_KAFKA_BROKERS", "env:1, env:2"), ("CAUSEWAY_INGEST_COMMIT_ROWS", "8"), ("PATH", "/bin")];
    let source = source(&file, &env).with_flag("--commit-rows", "ingest.commit_rows", Some(9));
    let settings: Everything = source.load().unwrap();
    assert_eq!(settings.kafka.brokers, ["env:1", "env:2"]);
    assert_eq!(settings.kafka.linger, HumanDuration::from_secs(1));
    assert_eq!(settings.kafka.ratio, 1.0);
    assert_eq!(settings.kafka.batch, ByteSize::mib(1));
    assert_eq!(settings.ingest, Ingest { commit_rows: 9, verify: true });
}

#[test]
fn variables_reach_every_shape_of_option() {
    let env = [
        ("CAUSEWAY_KAFKA_SASL_PASSWORD", "hush"),
        ("CAUSEWAY_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
        ("CAUSEWAY_KAFKA_SECURITY", "sasl_ssl"),
        ("CAUSEWAY_KAFKA_OPTIONS", "a.b=1,c=d"),
        ("CAUSEWAY_KAFKA_LOGIN_PASSWORD", "hush"),
        ("CAUSEWAY_KAFKA_PARTITIONS", "1,2"),
        ("CAUSEWAY_KAFKA_LISTEN", "127.0.0.1:9"),
        ("CAUSEWAY_KAFKA_BATCH", "64KiB"),
        ("CAUSEWAY_INGEST_VERIFY", "false"),
    ];
    let file = file("[kafka.login]\nprotocol = 'scram'\nusername = 'ann'\n");
    let settings: Everything = source(&file, &env).load().unwrap();
    let login = Login::Scram { username: "ann".to_owned(), password: Secret::new("hush".to_owned()) };
    assert_eq!(settings.kafka.login, login);
    assert_eq!(settings.kafka.sasl.password.expose(), "hush");
    assert_eq!(settings.kafka.sasl_mechanism.as_deref(), Some("SCRAM-SHA-512"));
    assert_eq!(settings.kafka.security, Security::SaslSsl);
    assert_eq!(settings.kafka.options["a.b"], "1");
    assert_eq!(settings.kafka.options["c"], "d");
    assert_eq!(settings.kafka.partitions, [1, 2]);
    assert_eq!(settings.kafka.listen.unwrap().port(), 9);
    assert_eq!(settings.kafka.batch, ByteSize::kib(64));
    assert!(!settings.ingest.verify);
}

#[test]
fn all_problems_of_all_layers_are_reported_at_once_with_their_places() {
    let file = file(
        "[kafka]\nbrokrs = ['a:1']\nlinger = 'soon'\n  batch = -1\nsecurity = 'tls'\n[kafka.sasl]\nuser = 3\n[ingest]\n\
         commit_rows = 0\n[querry]\nlisten = 1\n",
    );
    let env =
        [("CAUSEWAY_KAFKA_PARTITIONS", "1,x"), ("CAUSEWAY_KAFKA_LINGRE", "1s"), ("CAUSEWAY_KAFAK_BROKERS", "b:1")];
    let mut found = problems(&file, &env);
    assert_eq!(found.remove(0), "10 problems in the configuration");
    found.sort();
    assert_eq!(
        found,
        [
            "c.toml:10:2: querry is not known; did you mean `query`?",
            "c.toml:2:1: kafka.brokrs is not known; did you mean `brokers`?",
            "c.toml:3:10: kafka.linger is wrong: `soon` is not a duration: write one as `250ms`, `30s`, `5m`, `12h` or `7d`",
            "c.toml:4:11: kafka.batch is wrong: is negative",
            "c.toml:5:12: kafka.security is wrong: unknown variant `tls`, expected `plaintext` or `sasl_ssl`",
            "c.toml:7:8: kafka.sasl.user is wrong: invalid type: integer `3`, expected a string",
            "c.toml:9:15: ingest.commit_rows must be at least 1",
            "environment CAUSEWAY_KAFAK_BROKERS: no such option; did you mean `kafka`?",
            "environment CAUSEWAY_KAFKA_LINGRE: no such option; did you mean `linger`?",
            "environment CAUSEWAY_KAFKA_PARTITIONS: kafka.partitions.1 is wrong: `x` is not a whole number",
        ]
    );
}

#[test]
fn an_option_without_a_default_that_is_wrong_or_missing_hides_no_other() {
    let file = file("[ingest]\ncommit_rows = 'x'\n[kafka]\nlinger = 'soon'\n[kafka.account]\nsecurity = 'tls'\n");
    let env = [("CAUSEWAY_INGEST_VERIFY", "perhaps")];
    let found = problems(&file, &env);
    assert_eq!(
        found[1..],
        [
            "c.toml:2:15: ingest.commit_rows is wrong: invalid type: string \"x\", expected u32",
            "c.toml:4:10: kafka.linger is wrong: `soon` is not a duration: write one as `250ms`, `30s`, `5m`, `12h` or `7d`",
            "c.toml:6:12: kafka.account.security is wrong: unknown variant `tls`, expected `plaintext` or `sasl_ssl`",
            "environment CAUSEWAY_INGEST_VERIFY: ingest.verify is wrong: `perhaps` is neither `true` nor `false`",
        ],
        "in the order in which they are corrected"
    );
}

#[test]
fn every_syntax_error_of_a_file_has_its_place() {
    let found = problems(&file("[kafka\nbrokers = ['a']\n\nlinger = = 3\n"), &[]);
    assert!(found[1].starts_with("c.toml:1:7: "), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("c.toml:4:")), "{found:?}");
}

#[test]
fn sections_of_other_services_are_left_alone() {
    let file = file("[query]\nlisten = 'x'\n[agent]\nwhatever = 1\n");
    let env = [("CAUSEWAY_QUERY_LISTEN", "y"), ("CAUSEWAY_SERVER", "http://x"), ("CAUSEWAY_CACHE", "/x")];
    assert_eq!(source(&file, &env).load::<Everything>().unwrap(), Everything::default());
}

#[test]
fn variables_that_kubernetes_makes_for_services_are_not_options() {
    let env = [
        ("CAUSEWAY_INGEST_SERVICE_HOST", "10.0.0.1"),
        ("CAUSEWAY_INGEST_SERVICE_PORT_HTTP", "9471"),
        ("CAUSEWAY_INGEST_PORT", "tcp://10.0.0.1:9471"),
        ("CAUSEWAY_INGEST_PORT_9471_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(source(&file(""), &env).load::<Everything>().unwrap(), Everything::default());
}

#[test]
fn a_variable_that_goes_on_behind_an_option_is_refused() {
    let found = problems(&file(""), &[("CAUSEWAY_INGEST_VERIFY_ALL", "1")]);
    assert_eq!(
        found[1],
        "environment CAUSEWAY_INGEST_VERIFY_ALL: ingest.verify is wrong: it has no option of this name"
    );
}

#[test]
fn a_problem_with_an_option_that_nobody_set_says_where_to_set_it() {
    let file = file("[kafka]\nbrokers = []\n");
    assert_eq!(problems(&file, &[])[1], "c.toml:2:11: kafka.brokers is empty: name at least one host:port");
    let problem = Problem::new("kafka.brokers", "is required");
    let text = "kafka.brokers is required (not set: set it in the file or as CAUSEWAY_KAFKA_BROKERS)";
    assert_eq!(problem.to_string(), text);
}

#[test]
fn a_value_where_a_section_belongs_is_refused() {
    assert_eq!(problems(&file("kafka = 1\n"), &[])[1], "c.toml:1:9: kafka is wrong: it is a section, not a value");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let source = ConfigSource::of_file(Some(PathBuf::from("/nowhere/c.toml")), SECTIONS);
    let error = source.load::<Everything>().unwrap_err();
    assert_eq!(error.to_string(), "configuration file /nowhere/c.toml cannot be read");
}

#[test]
fn set_flags_are_checked_too() {
    let args = |set: &str| ConfigArgs { config: Some(file_path()), set: vec![set.to_owned()] };
    let settings: Everything = ConfigSource::of_process(&args("ingest.commit_rows=5"), SECTIONS).load().unwrap();
    assert_eq!(settings.ingest.commit_rows, 5);
    let error = ConfigSource::of_process(&args("ingest.commit_rows"), SECTIONS).load::<Everything>().unwrap_err();
    assert!(error.to_string().contains("`--set ingest.commit_rows` is not of the form KEY=VALUE"), "{error}");
    let error = ConfigSource::of_process(&args("ingest.commit_rows=many"), SECTIONS).load::<Everything>().unwrap_err();
    assert!(error.to_string().contains("flag --set ingest.commit_rows: ingest.commit_rows is wrong"), "{error}");
}

fn file_path() -> PathBuf {
    PathBuf::from("/dev/null")
}

#[test]
fn show_prints_what_is_in_force_and_where_it_comes_from_without_secrets() {
    let file = file("[kafka]\nlinger = '1s'\n[kafka.sasl]\npassword = 'hush'\n");
    let source = source(&file, &[("CAUSEWAY_INGEST_VERIFY", "0")]);
    let mut out = Vec::new();
    ConfigCommand::Show { json: false }.run::<Everything>(&source, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(&format!("linger = \"1s\"  # {}:2:10\n", file.path.display())), "{text}");
    assert!(text.contains("verify = false  # environment CAUSEWAY_INGEST_VERIFY\n"), "{text}");
    assert!(text.contains("password = \"***\"") && !text.contains("hush"), "{text}");
    assert!(text.contains("commit_rows = 1000\n"), "{text}");
}

#[test]
fn check_says_that_a_file_is_valid() {
    let file = file("");
    let mut out = Vec::new();
    ConfigCommand::Check { json: false }.run::<Everything>(&source(&file, &[]), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), format!("{}: valid\n", file.path.display()));
}

#[test]
fn show_prints_what_it_can_of_a_configuration_that_is_wrong() {
    let file = file("[kafka]\nlinger = 'soon'\n[ingest]\ncommit_rows = 7\n");
    let mut out = Vec::new();
    let refused = ConfigCommand::Show { json: false }.run::<Everything>(&source(&file, &[]), &mut out).unwrap_err();
    assert!(refused.to_string().contains("c.toml:2:10: kafka.linger"), "{refused}");
    assert!(String::from_utf8(out).unwrap().contains("commit_rows = 7  # "));
    let mut out = Vec::new();
    let refused = ConfigCommand::Show { json: true }.run::<Everything>(&source(&file, &[]), &mut out);
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(refused.is_err() && shown["valid"] == false, "{shown}");
    assert_eq!(
        (&shown["settings"]["ingest"]["commit_rows"], &shown["problems"][0]["key"]),
        (&7.into(), &"kafka.linger".into())
    );
}

/// A writer that fails.
struct Failing(std::io::ErrorKind);

impl std::io::Write for Failing {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(self.0.into())
    }
}

fn shown_to(kind: std::io::ErrorKind, text: &str) -> Result<(), ConfigError> {
    let file = file(text);
    ConfigCommand::Show { json: false }.run::<Everything>(&source(&file, &[]), &mut Failing(kind))
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_failure_and_hides_none() {
    shown_to(std::io::ErrorKind::BrokenPipe, "").unwrap();
    assert!(matches!(shown_to(std::io::ErrorKind::StorageFull, ""), Err(ConfigError::Write(_))));
    let wrong = shown_to(std::io::ErrorKind::BrokenPipe, "[kafka]\nlinger = 'soon'\n");
    assert!(matches!(wrong, Err(ConfigError::Invalid(_))), "{wrong:?}");
}

#[test]
fn a_variable_that_names_nothing_is_named() {
    let file = file("");
    let variables = [("CAUSEWAY_FOO", "1"), ("CAUSEWAY_FOO_BAR", "1"), ("CAUSEWAY_SERVER", "http://x"), ("FOO", "1")];
    let mut out = Vec::new();
    ConfigCommand::Check { json: true }.run::<Everything>(&source(&file, &variables), &mut out).unwrap();
    let checked: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(checked["ignored_variables"], serde_json::json!(["CAUSEWAY_FOO", "CAUSEWAY_FOO_BAR"]));
}

#[test]
fn sizes_and_durations_read_back_what_they_print() {
    for (text, bytes) in [("0", 0), ("512", 512), ("64KiB", 65536), ("1.5 GiB", 3 << 29), ("10mb", 10_000_000)] {
        let size: ByteSize = text.parse().unwrap();
        assert_eq!(size, ByteSize(bytes), "{text}");
        assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
    }
    for wrong in ["", "x", "5 parsecs", "99999999TiB", "-1", "1.2.3"] {
        assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
    }
    let day: HumanDuration = "1d 2h".parse().unwrap();
    assert_eq!(day.to_string().parse::<HumanDuration>().unwrap(), HumanDuration::from_secs(26 * 3600));
}

#[test]
fn a_secret_is_masked_wherever_it_is_shown() {
    let secret = Secret::new("hush".to_owned());
    assert_eq!(format!("{secret:?}"), "***");
    assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
}

#[test]
fn an_address_shows_itself_without_its_password() {
    for (uri, shown) in [
        ("postgres://ann:hush@db:5432/iceberg", "postgres://ann:***@db:5432/iceberg"),
        ("postgres://db/iceberg?user=ann&password=hush", "postgres://db/iceberg?user=ann&password=***"),
        ("postgres://ann:hush@db/i?PASSWORD=hush", "postgres://ann:***@db/i?PASSWORD=***"),
        ("ann:hu@sh@db", "***@db"),
        ("postgres://ann@db/iceberg", "postgres://ann@db/iceberg"),
        ("sqlite:///data/catalog.sqlite", "sqlite:///data/catalog.sqlite"),
        ("", ""),
    ] {
        let secret = SecretUri::from(uri.to_owned());
        assert_eq!(secret.to_string(), shown);
        assert_eq!(format!("{secret:?}"), format!("{shown:?}"));
        assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
        assert_eq!(secret.expose(), uri);
    }
}
