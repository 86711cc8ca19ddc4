//! What there is: nodes, tables and their columns, completeness.

use std::sync::Arc;

use answers::completeness::Completeness;
use answers::nodes::{Node, Nodes};
use answers::tables::{TableDescription, Tables};
use axum::Json;
use axum::extract::{Query as UrlQuery, State};

use super::App;
use super::parameters::{Given, Parameters};
use super::problem::InPath;
use crate::wire::Problem;

/// Every node that landed anything.
#[utoipa::path(
    get,
    path = "/nodes",
    summary = "nodes and when they last reported",
    responses(
        (status = 200, description = "The nodes", body = Nodes),
        Problem,
    ),
)]
pub(super) async fn nodes(State(app): State<Arc<App>>) -> Result<Json<Nodes>, Problem> {
    Ok(Json(app.answers.nodes().await?))
}

/// One node.
#[utoipa::path(
    get,
    path = "/nodes/{node}",
    summary = "one node",
    params(("node" = String, Path, description = "Name of the node")),
    responses(
        (status = 200, description = "The node", body = Node),
        Problem,
    ),
)]
pub(super) async fn node(State(app): State<Arc<App>>, InPath(name): InPath<String>) -> Result<Json<Node>, Problem> {
    Ok(Json(app.answers.node(&name).await?))
}

/// Of everything, or of the stretch of time that a question to the chains would look at.
#[utoipa::path(
    get,
    path = "/completeness",
    summary = "what is missing, and what was lost",
    params(Parameters),
    responses(
        (status = 200, description = "How complete an answer from the events would be", body = Completeness),
        Problem,
    ),
)]
pub(super) async fn completeness(State(app): State<Arc<App>>, given: Given) -> Result<Json<Completeness>, Problem> {
    let UrlQuery(parameters) = given?;
    let window = parameters.window();
    let extent = window.extent(app.answers.now_ms())?;
    Ok(Json(app.answers.completeness(extent, window.nodes()).await?))
}

/// Every view and every table.
#[utoipa::path(
    get,
    path = "/tables",
    summary = "tables and views",
    responses(
        (status = 200, description = "The tables", body = Tables),
        Problem,
    ),
)]
pub(super) async fn tables(State(app): State<Arc<App>>) -> Json<Tables> {
    Json(app.answers.tables().await)
}

/// The columns of a table or a view; of a table its size and its snapshots too.
#[utoipa::path(
    get,
    path = "/tables/{name}",
    summary = "columns and snapshots of a table",
    params(("name" = String, Path, description = "Name of the table, with its schema unless that is the default one")),
    responses(
        (status = 200, description = "The table", body = TableDescription),
        Problem,
    ),
)]
pub(super) async fn table(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> Result<Json<TableDescription>, Problem> {
    Ok(Json(app.answers.table(&name).await?))
}
