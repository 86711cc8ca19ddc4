//! What there is: nodes, tables and their columns, completeness.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query as UrlQuery, State};
use lake::ScanFile;
use serde_json::{Value, json};
use tables::registry;

use super::App;
use super::chains::Given;
use super::problem::{InPath, Problem};
use super::untraced::{About, untraced};
use crate::completeness::{Extent, NodeFacts, Question, Subject};
use query_engine::Query;
use query_engine::QueryError;
use query_engine::UsedSnapshot;
use query_engine::names::DEFAULT_SCHEMA;
use query_engine::time::rfc3339;
use query_engine::types::sql_type;
use query_engine::views::{self, CONSTANTS, VIEWS};

const LIST_NODES: &str = "list them with `causeway nodes` or GET /api/v1/nodes";
const LIST_TABLES: &str = "list them with `causeway tables` or GET /api/v1/tables";

/// `GET /api/v1/nodes`
pub(super) async fn nodes(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let extent = Extent::now(app.clock.now_ms());
    let nodes = app.completeness.nodes(&app.engine, extent).await?;
    let list: Vec<Value> = nodes.iter().map(|node| describe(node, &extent)).collect();
    let everything = Question { subject: Subject::everything(), ..Question::of_events(extent) };
    let completeness = app.completeness.of(&app.engine, &[], &everything, None).await;
    let now_ms = app.clock.now_ms();
    let untraced = untraced(&app.engine, (now_ms, now_ms), About::default(), None).await?;
    Ok(Json(json!({ "nodes": list, "untraced": untraced, "completeness": completeness })))
}

/// `GET /api/v1/nodes/{node}`
pub(super) async fn node(State(app): State<Arc<App>>, InPath(name): InPath<String>) -> Result<Json<Value>, Problem> {
    let extent = Extent::now(app.clock.now_ms());
    let nodes = app.completeness.look_back(&app.engine, extent, &[&name]).await?;
    let found = nodes.iter().find(|node| node.node == name);
    let unknown = || Problem::not_found(format!("no node `{name}` has landed anything"), LIST_NODES);
    let found = found.ok_or_else(unknown)?;
    Ok(Json(describe(found, &extent)))
}

fn describe(node: &NodeFacts, extent: &Extent) -> Value {
    let mut value = json!(node);
    value["first_event"] = json!(rfc3339(node.first_event_ms));
    value["last_event"] = json!(rfc3339(node.last_event_ms));
    value["last_landed"] = json!(rfc3339(node.landed_ms));
    value["complete_to"] = json!(rfc3339(node.complete_to_ms));
    value["ended_at"] = json!(node.ended_ms.and_then(rfc3339));
    // From the time up to which all its streams have landed until now; one that makes nothing more lags behind nothing.
    let goes_on = node.live && node.ended_ms.is_none();
    value["lag_ms"] = json!(goes_on.then_some((extent.to_ms - node.complete_to_ms).max(0)));
    value["status"] = json!(match node {
        node if !node.live => "recording",
        node if node.ended_ms.is_some() => "ended",
        node if node.is_missing_from(extent) => "silent",
        _ => "reporting",
    });
    value
}

/// `GET /api/v1/completeness`: of everything, or of the stretch of time that a question to the chains would look at.
pub(super) async fn completeness(State(app): State<Arc<App>>, given: Given) -> Result<Json<Value>, Problem> {
    let UrlQuery(parameters) = given?;
    let extent = parameters.extent(app.clock.now_ms())?;
    let events = app.engine.snapshot("silver", "events").await?;
    let used: Vec<UsedSnapshot> = events.iter().map(|snapshot| UsedSnapshot::of(snapshot)).collect();
    let question = Question::of_events(extent).about(parameters.wanted());
    let found = app.completeness.find(&app.engine, &used, &question, None).await?;
    Ok(Json(json!(found)))
}

/// `GET /api/v1/tables`
pub(super) async fn tables(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let mut list = Vec::new();
    for (name, doc) in VIEWS.iter().map(|view| (view.name, view.doc)).chain(CONSTANTS.iter().copied()) {
        list.push(json!({ "name": name, "schema": DEFAULT_SCHEMA, "kind": "view", "doc": doc }));
    }
    for table in registry::all() {
        let name = table.def.name;
        let mut entry =
            json!({ "name": name.to_string(), "schema": name.namespace, "kind": "table", "doc": table.def.doc });
        // One table that cannot be read does not hide the others.
        match state_of(&app, name.namespace, name.name).await {
            Ok(state) => merge(&mut entry, state),
            Err(error) => entry["error"] = json!(error.to_string()),
        }
        list.push(entry);
    }
    Ok(Json(json!({ "tables": list })))
}

/// Rows, files and snapshot of a table; all zero before its first commit.
async fn state_of(app: &App, namespace: &str, name: &str) -> Result<Value, QueryError> {
    let Some(snapshot) = app.engine.snapshot(namespace, name).await? else {
        return Ok(json!({ "rows": 0, "files": 0, "bytes": 0, "snapshot_id": null, "committed": null }));
    };
    let total = |name: &str| snapshot.summary().get(name)?.parse::<u64>().ok();
    let totals = total("total-records").zip(total("total-data-files")).zip(total("total-files-size"));
    let (rows, files, bytes) = match totals {
        Some(((rows, files), bytes)) => (rows, files, bytes),
        // Another program's snapshot may leave them out: they are counted then.
        None => {
            let files = snapshot.plan(&[]).await.map_err(|error| QueryError::lake(&error))?;
            let sum = |of: fn(&ScanFile) -> u64| files.iter().map(|file| of(file)).sum::<u64>();
            (sum(|file| file.record_count), files.len() as u64, sum(|file| file.size_bytes))
        }
    };
    Ok(json!({
        "rows": rows,
        "files": files,
        "bytes": bytes,
        "snapshot_id": snapshot.snapshot_id(),
        "committed": snapshot.timestamp_ms().and_then(rfc3339),
        "metadata_location": snapshot.metadata_location(),
    }))
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// `GET /api/v1/tables/{name}`: columns, and for a table its snapshots, newest first.
pub(super) async fn table(State(app): State<Arc<App>>, InPath(name): InPath<String>) -> Result<Json<Value>, Problem> {
    let parts: Vec<&str> = name.split('.').collect();
    let valid =
        parts.iter().all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let sql = match parts[..] {
        [table] if valid => format!("SELECT * FROM {DEFAULT_SCHEMA}.{table} LIMIT 0"),
        [schema, table] if valid => format!("SELECT * FROM {schema}.{table} LIMIT 0"),
        _ => return Err(Problem::not_found(format!("`{name}` is not the name of a table"), LIST_TABLES)),
    };
    let answer = app.engine.query(Query::housekeeping(&sql)?).await.map_err(|error| match error {
        QueryError::UnknownTable { .. } => Problem::not_found(error.to_string(), LIST_TABLES),
        other => other.into(),
    })?;
    let doc = |column: &str| match parts[..] {
        [DEFAULT_SCHEMA, view] | [view] => views::column_doc(view, column),
        [schema, table] => registry::find(schema, table)?.def.column(column).map(|column| column.doc),
        _ => None,
    };
    let columns: Vec<Value> = answer
        .schema()
        .fields()
        .iter()
        .map(|field| {
            json!({ "name": field.name(), "type": sql_type(field.data_type()).text, "nullable": field.is_nullable(),
                    "doc": doc(field.name()) })
        })
        .collect();
    let mut value = json!({ "name": name, "columns": columns });
    if let [schema, table] = parts[..] {
        merge(&mut value, state_of(&app, schema, table).await?);
        value["snapshots"] = snapshots(&app, schema, table).await?;
    }
    Ok(Json(value))
}

async fn snapshots(app: &App, schema: &str, table: &str) -> Result<Value, QueryError> {
    let Some(snapshot) = app.engine.snapshot(schema, table).await? else {
        return Ok(json!([]));
    };
    let entry = |(id, time_ms, summary): (i64, i64, std::collections::HashMap<String, String>)| {
        json!({ "snapshot_id": id, "committed": rfc3339(time_ms), "operation": summary.get("operation"),
                "added_rows": summary.get("added-records"), "total_rows": summary.get("total-records") })
    };
    Ok(snapshot.history().into_iter().rev().take(100).map(entry).collect())
}
