//! The view `typed_events`: a column for each name that an argument has, computed from the column that carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::catalog::{Arg, ArgColumn, Op};

/// The name of the arguments that the column `bytes` carries for most operations.
const BYTES: &str = "bytes";

/// What rows have beside their arguments.
const BEFORE: &str = "SELECT event_id, cluster, node, boot_id, ts, ts_ns, source, op, op_name(source, op) AS op_name, \
                      duration_ns, duration_weight, pid, tid, comm, rank, local_rank, world_size, job_id, gpu_id, \
                      ret_code, stack_hash, comm_hash, coll_seq, peer_comm, peer_pid, sample_weight";

/// The Rust source of the view.
pub(super) fn source() -> String {
    // Sorted, so that the file does not change when operations are reordered.
    let names: BTreeSet<&str> = args().map(|(_, arg)| arg.name).collect();
    let mut sql = String::from(BEFORE);
    let mut columns = String::from("    (\"op_name\", \"name of the operation\"),\n");
    for name in names {
        let _ = write!(sql, ", {}", column(name));
        let _ = writeln!(columns, "    ({name:?}, {:?}),", doc(name));
    }
    sql.push_str(" FROM silver.events");
    format!(
        "//! Generated from `catalog/ops.rs`; `BLESS=1 cargo test -p house-tests` writes it anew.\n\n\
         /// The view.\n#[rustfmt::skip]\npub const SQL: &str = {sql:?};\n\n\
         /// What its columns mean that `silver.events` does not have, with the unit.\n\
         #[rustfmt::skip]\npub const COLUMNS: &[(&str, &str)] = &[\n{columns}];\n"
    )
}

fn args() -> impl Iterator<Item = (Op, &'static Arg)> {
    Op::ALL.iter().flat_map(|op| op.args().iter().map(|arg| (*op, arg)))
}

/// The expression of one column.
fn column(name: &str) -> String {
    // By carrier: one arm for each column instead of one for each operation.
    let mut carried_by: BTreeMap<&str, Vec<Op>> = BTreeMap::new();
    for (op, arg) in args() {
        let carrier = arg.column.name();
        if arg.name == name {
            carried_by.entry(carrier).or_default().push(op);
        } else if name == BYTES && arg.column == ArgColumn::Bytes {
            // The column has another meaning there, such as `drained` of `epoch_end`.
            carried_by.entry("NULL").or_default().push(op);
        }
    }
    let arms: String =
        carried_by.iter().map(|(carrier, ops)| format!(" WHEN {} THEN {carrier}", is_one_of(ops))).collect();
    let otherwise = if name == BYTES { " ELSE bytes" } else { "" };
    let value = format!("CASE{arms}{otherwise} END");
    let kind = args().find(|(_, arg)| arg.name == name).map_or("long", |(_, arg)| arg.kind.sql_type());
    // A recording may hold any number: `CAST` would fail the statement for one row that does not fit.
    if kind == "int" { format!("TRY_CAST({value} AS INTEGER) AS \"{name}\"") } else { format!("{value} AS \"{name}\"") }
}

/// The condition that a row is of one of these operations.
fn is_one_of(ops: &[Op]) -> String {
    let mut by_source: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for op in ops {
        by_source.entry(op.source().number()).or_default().push(op.number().to_string());
    }
    let of_sources = by_source.iter().map(|(source, ops)| format!("source = {source} AND op IN ({})", ops.join(", ")));
    of_sources.collect::<Vec<_>>().join(" OR ")
}

/// The unit and every meaning of a name.
fn doc(name: &str) -> String {
    let of_name: Vec<&Arg> = args().map(|(_, arg)| arg).filter(|arg| arg.name == name).collect();
    let units: BTreeSet<&str> = of_name.iter().map(|arg| arg.kind.unit()).collect();
    let mut meanings: Vec<&str> = Vec::new();
    for arg in of_name {
        if !meanings.contains(&arg.doc) {
            meanings.push(arg.doc);
        }
    }
    format!("{}: {}", units.into_iter().collect::<Vec<_>>().join(" or "), meanings.join("; "))
}
