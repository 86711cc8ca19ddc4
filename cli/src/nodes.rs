//! `causeway nodes`: the nodes that report, and the processes that are not traced.

use answers::nodes::{Node, Nodes};
use answers::untraced::Untraced;
use clap::Args;
use service_kit::run::{Exit, note};

use crate::client::{AskError, Client};
use crate::output::{self, table::TextTable};

/// Lists the nodes that report, and those that fell silent
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Print the server's document as it is
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &NodesArgs, client: &Client) -> Result<Exit, AskError> {
    let document = client.document::<Nodes>("api/v1/nodes", &[]).await?;
    if args.json {
        output::json(&document.json)?;
        return Ok(Exit::Done);
    }
    let Nodes { nodes, untraced, .. } = document.answer;
    output::text(&format!("{}{}", listed(&nodes), not_traced(&untraced)))?;
    note(&format!("{} node(s)", nodes.len()));
    Ok(Exit::Done)
}

fn listed(nodes: &[Node]) -> String {
    let mut table =
        TextTable::new(["node", "cluster", "status", "rows", "lost", "last seen", "lag", "agent"]).numbers([3, 4, 6]);
    for node in nodes {
        table.row([
            node.node.clone(),
            node.cluster.clone(),
            node.status.name().to_owned(),
            node.rows.to_string(),
            node.lost_events.to_string(),
            node.last_event.clone().unwrap_or_default(),
            lag(node),
            node.agent.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

/// The processes that map a CUDA or NCCL library and are not traced; nothing when there are none.
fn not_traced(processes: &[Untraced]) -> String {
    let mut table = TextTable::new(["node", "process", "name", "not traced, because"]).numbers([1]);
    for Untraced { node, pid, name, reason, .. } in processes {
        table.row([node, &pid.to_string(), name, reason]);
    }
    // Without processes a heading alone would read as a fault of the listing.
    if processes.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

/// From the time up to which everything of a node has landed until now; empty for one that makes nothing more.
pub(crate) fn lag(node: &Node) -> String {
    node.lag_ms.map_or_else(String::new, |ms| format!("{:.1} s", ms as f64 / 1_000.0))
}
