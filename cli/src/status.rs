//! `causeway status`: whether the server is ready, how complete its answers are, and how far they lag.

use answers::completeness::Completeness;
use answers::nodes::{Node, NodeStatus, Nodes};
use answers::tables::{TableEntry, TableKind, Tables};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use service_kit::run::Exit;

use crate::client::{AskError, Client};
use crate::nodes::lag;
use crate::output::table::TextTable;
use crate::{output, table_list};

/// Reports whether the server is ready, how complete its answers are and how far they lag
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status<'a> {
    server: &'a str,
    ready: bool,
    /// Why it is not ready.
    reason: Option<&'a str>,
    completeness: &'a Completeness,
    slowest: Option<&'a Node>,
    tables: &'a [TableEntry],
}

/// Runs the command: exit 1 when the server is not ready.
pub(crate) async fn run(args: &StatusArgs, client: &Client) -> Result<Exit, AskError> {
    let (is_ready, reason) = client.readiness().await?;
    let completeness: Completeness = client.get("api/v1/completeness", &[]).await?;
    let tables: Tables = client.get("api/v1/tables", &[]).await?;
    let nodes: Nodes = client.get("api/v1/nodes", &[]).await?;
    let status = Status {
        server: client.server(),
        ready: is_ready,
        reason: (!is_ready).then_some(&reason),
        completeness: &completeness,
        slowest: slowest(&nodes.nodes),
        tables: &tables.tables,
    };
    if args.json {
        output::json(&status)?;
    } else {
        let only_tables: Vec<TableEntry> = tables.tables.iter().filter(|entry| is_table(entry)).cloned().collect();
        output::text(&format!("{}\n{}", summary(&status), table_list::listed(&only_tables)))?;
    }
    Ok(if is_ready { Exit::Done } else { Exit::Failed })
}

/// The reporting node that lags most; a silent node is listed as missing.
fn slowest(nodes: &[Node]) -> Option<&Node> {
    // `None` orders below every number: a node without a lag is taken only where no reporting node has one.
    nodes.iter().filter(|node| node.status == NodeStatus::Reporting).max_by_key(|node| node.lag_ms)
}

fn is_table(entry: &TableEntry) -> bool {
    matches!(entry.kind, TableKind::Table(_))
}

fn summary(status: &Status<'_>) -> String {
    let Completeness { missing, nodes_reporting, nodes_expected, lost_events, complete_to, as_of, .. } =
        status.completeness;
    let mut table = TextTable::new(["status", "value"]);
    table.row(["server", status.server]);
    let mut lines = status.reason.unwrap_or("yes").lines();
    table.row(["ready", lines.next().unwrap_or("no")]);
    lines.for_each(|line| table.row(["", line.trim()]));
    table.row(["nodes reporting", &format!("{nodes_reporting} of {nodes_expected}")]);
    table.row(["missing", if missing.is_empty() { "none" } else { "" }]);
    missing.iter().for_each(|node| table.row(["", node]));
    table.row(["lost events", &lost_events.to_string()]);
    let lag = status.slowest.map_or_else(|| "none".to_owned(), |node| format!("{} ({})", lag(node), node.node));
    table.row(["lag", &lag]);
    table.row(["complete to", complete_to.as_deref().unwrap_or("no live node")]);
    table.row(["newest commit", &as_of.as_deref().and_then(aged).unwrap_or_else(|| "none".to_owned())]);
    table.render()
}

/// A time in RFC 3339 and how long ago it was; `None` when it is not one.
fn aged(time: &str) -> Option<String> {
    let at = DateTime::parse_from_rfc3339(time).ok()?;
    // The time is of the server's clock and now is of this host's: the age may be negative by their difference.
    Some(format!("{time} ({} s ago)", Utc::now().signed_duration_since(at).num_seconds()))
}
