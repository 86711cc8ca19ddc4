//! `causeway tables NAME --plan` and `--maintain`: what the compactor would do with a table and what that costs, and
//! doing it now. Which files are chosen is decided in the crate `maintenance`; here are the request and what is
//! printed.

use std::sync::Arc;

use compactor::settings::CompactorConfig;
use compactor::{Done, Metrics, Options, Parts};
use lake::{EnsureError, Lake, ReadError};
use maintenance::plan::{Health, Plan};
use maintenance::task::{Day, Rewrite, Work};
use maintenance::{Survey, Task, survey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::clock::{Clock, SystemClock};
use service_kit::config::{ConfigError, ConfigSource, Problem, Settings};
use service_kit::run::{Drain, Exit, Fatal};
use tables::registry::{self, Table};

use crate::output::table::{TextTable, bytes};
use crate::output::{self, OutputError};
use crate::place::{Place, PlaceError};
use crate::table_list::TablesArgs;

/// Why a table was not planned or maintained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaintainError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no table `{name}` to maintain: name one as `silver.events`; `causeway tables` lists them")]
    NoTable { name: String },
    #[error("the table cannot be opened")]
    Open(#[from] EnsureError),
    #[error("the table cannot be read")]
    Read(#[from] ReadError),
    #[error("the table cannot be maintained")]
    Maintain(#[from] compactor::MaintainError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for MaintainError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Config(error) => error.exit(),
            Self::NoTable { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// The section of the configuration by which files are chosen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Chosen {
    compactor: CompactorConfig,
}

impl Settings for Chosen {
    fn validate(&self) -> Vec<Problem> {
        self.compactor.problems()
    }
}

/// Runs the command: exit 1 when a task failed.
pub(crate) async fn run(
    args: &TablesArgs,
    place: &Place,
    config: &ConfigSource,
    drain: &Drain,
) -> Result<Exit, MaintainError> {
    let name = args.name.clone().unwrap_or_default();
    let table = name.split_once('.').and_then(|(namespace, name)| registry::find(namespace, name));
    let Some(table) = table else { return Err(MaintainError::NoTable { name }) };
    // The section alone: the place may be a directory, and the rest of the file another one's.
    let options = config.load::<Chosen>()?.compactor.options();
    let lake = place.open().await?;
    // `ensure_table` would make it: a plan changes nothing.
    lake.table(table.def.name.namespace, table.def.name.name).snapshot().await?;
    let before = look(&lake, table, &options).await?;
    if args.plan {
        let text = if args.json { None } else { Some(plan_as_text(table, &before)) };
        print(text, || plan_as_json(table, &before))?;
        return Ok(Exit::Done);
    }
    // No port serves the metrics of this run: they are dropped with it.
    let metrics = Metrics::new(&mut service_kit::telemetry::registry("compactor", service_kit::program::VERSION));
    // Under the same leases as the service: a compactor that runs does none of its tasks twice.
    let tables = std::slice::from_ref(table);
    let parts = Parts { lake: &lake, tables, clock: Arc::new(SystemClock), metrics };
    let done = compactor::maintain(parts, options.clone(), drain).await?;
    let after = look(&lake, table, &options).await?;
    let text = if args.json { None } else { Some(done_as_text(table, done, (&before, &after))) };
    print(text, || done_as_json(table, done, (&before, &after)))?;
    // Tasks of another compactor are no failure: it does them.
    Ok(match done {
        Done { failed: 1.., .. } => Exit::Failed,
        _ if drain.is_cancelled() => Exit::Interrupted,
        _ => Exit::Done,
    })
}

async fn look(lake: &Lake, table: &Table, options: &Options) -> Result<Survey, MaintainError> {
    let handle = lake.ensure_table(&table.def).await?;
    Ok(survey(&handle, &options.policy, SystemClock.now_ms()).await?)
}

fn print(text: Option<String>, json: impl FnOnce() -> Value) -> Result<(), OutputError> {
    match text {
        Some(text) => output::text(&text),
        None => output::json(&json()),
    }
}

fn plan_as_json(table: &Table, found: &Survey) -> Value {
    let name = table.def.name.to_string();
    match found {
        Survey::Empty => json!({ "table": name, "health": null, "left_alone": null, "tasks": [] }),
        Survey::LeftAlone(reason) => {
            json!({ "table": name, "health": null, "left_alone": reason.to_string(), "tasks": [] })
        }
        Survey::Planned(plan) => {
            let tasks: Vec<Value> = plan.tasks.iter().map(task_as_json).collect();
            json!({ "table": name, "health": health_as_json(&plan.health), "left_alone": null, "tasks": tasks })
        }
    }
}

fn health_as_json(health: &Health) -> Value {
    json!({
        "score": health.score,
        "files": health.files,
        "bytes": health.bytes,
        "ideal_files": health.ideal_files,
        "unsorted_files": health.unsorted_files,
        "foreign_files": health.foreign_files,
    })
}

fn task_as_json(task: &Task) -> Value {
    let Work::Rewrite(rewrite) = &task.work;
    json!({
        "day": rewrite.day.map(|day| Day(Some(day)).to_string()),
        "base_snapshot": task.base.to_string(),
        "why": rewrite.why.to_string(),
        "files": rewrite.inputs.iter().map(|input| &input.location).collect::<Vec<_>>(),
        "files_after": rewrite.outputs,
        "bytes": rewrite.bytes(),
        "rows": rewrite.rows(),
        "gain": rewrite.gain(),
        "lease": task.lease(),
    })
}

/// How a table stands, in one line.
fn stands(table: &Table, found: &Survey) -> String {
    let name = table.def.name;
    match found {
        Survey::Empty => format!("{name} has no rows"),
        Survey::LeftAlone(reason) => format!("{name} is left alone: {reason}"),
        Survey::Planned(Plan { health, .. }) => {
            let Health { files, bytes: size, ideal_files, unsorted_files, foreign_files, score } = health;
            let mut text =
                format!("{name}: {files} files, {}, health {score} of 100; {ideal_files} files at best", bytes(*size));
            if *unsorted_files > 0 {
                text += &format!("; {unsorted_files} not sorted");
            }
            if *foreign_files > 0 {
                text += &format!("; {foreign_files} of another partitioning are left alone");
            }
            text
        }
    }
}

fn plan_as_text(table: &Table, found: &Survey) -> String {
    let mut text = format!("{}\n", stands(table, found));
    let Survey::Planned(plan) = found else { return text };
    if plan.tasks.is_empty() {
        return text + "nothing is to be done\n";
    }
    let mut rows = TextTable::new(["day", "files", "become", "size", "rows", "gain", "why"]).numbers([1, 2, 3, 4, 5]);
    for Task { work: Work::Rewrite(rewrite), .. } in &plan.tasks {
        let Rewrite { day, inputs, outputs, why } = rewrite;
        rows.row([
            Day(*day).to_string(),
            inputs.len().to_string(),
            outputs.to_string(),
            bytes(rewrite.bytes()),
            rewrite.rows().to_string(),
            format!("{:.1}", rewrite.gain()),
            why.to_string(),
        ]);
    }
    text += &rows.render();
    text
}

fn done_as_json(table: &Table, done: Done, (before, after): (&Survey, &Survey)) -> Value {
    json!({
        "table": table.def.name.to_string(),
        "replaced": done.replaced,
        "failed": done.failed,
        "left": done.left,
        "before": plan_as_json(table, before)["health"],
        "after": plan_as_json(table, after)["health"],
        "left_alone": plan_as_json(table, after)["left_alone"],
    })
}

fn done_as_text(table: &Table, done: Done, (before, after): (&Survey, &Survey)) -> String {
    let Done { replaced, failed, left } = done;
    let mut text = format!("before  {}\nafter   {}\n", stands(table, before), stands(table, after));
    text += &format!("{replaced} commits");
    if failed > 0 {
        text += &format!(", {failed} tasks failed: the log has the reasons");
    }
    if left > 0 {
        text += &format!(", {left} tasks are left: another compactor has them, or a signal came");
    }
    text + "\n"
}
