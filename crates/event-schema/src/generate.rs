//! The files generated from the catalogue: the probes' C header, the event reference, and the view `typed_events`. A
//! test compares the files in the tree with what is made here.

use std::fmt::Write;

use crate::catalog::{Arg, Op, Source};
use crate::kind::{Field, FieldType, Place, RecordKind};

mod typed_events;

/// Path from the root of the repository, and contents, of each generated file.
pub fn all() -> Vec<(&'static str, String)> {
    vec![
        ("bpf/c/event_ids.h", c_header()),
        ("docs/EVENTS.md", event_reference()),
        ("crates/event-schema/src/catalog/typed_events.rs", typed_events::source()),
    ]
}

/// The C enums of sources and operations.
fn c_header() -> String {
    let mut out = String::from(
        "/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */\n\
         /* Generated from crates/event-schema; `BLESS=1 cargo test -p house-tests` writes it anew. */\n\
         #ifndef CAUSEWAY_EVENT_IDS_H\n#define CAUSEWAY_EVENT_IDS_H\n\nenum cw_source {\n",
    );
    for source in Source::ALL {
        // Writing into a `String` cannot fail, here and below.
        let _ = writeln!(out, "\tCW_SOURCE_{} = {},", source.name(), source.number());
    }
    out.push_str("};\n");
    for source in Source::ALL {
        let ops: Vec<&Op> = Op::ALL.iter().filter(|op| op.source() == source).collect();
        // C has no empty enum (C11, 6.7.2.2).
        if ops.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\nenum cw_op_{} {{", source.name().to_lowercase());
        for op in ops {
            let _ = writeln!(out, "\t{} = {},", c_op_name(source, op.name()), op.number());
        }
        out.push_str("};\n");
    }
    out.push_str("\n#endif\n");
    out
}

/// `CW_OP_CUDA_LAUNCH_KERNEL`, `CW_OP_HOST_RUNNABLE_WAIT`: the source is not repeated when the name begins with it.
fn c_op_name(source: Source, name: &str) -> String {
    let name = upper_snake(name);
    let prefix = format!("{}_", source.name());
    let name = name.strip_prefix(&prefix).unwrap_or(&name);
    format!("CW_OP_{prefix}{name}")
}

fn upper_snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|b| letters[b]);
        let next_is_lower = letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
        // A capital begins a word after a small letter, and after another capital where a small letter follows:
        // `cudaMemcpy2DAsync` is split before `Memcpy` and `Async`.
        let starts_word = before.is_some_and(|b| b.is_ascii_lowercase() || (b.is_ascii_uppercase() && next_is_lower));
        if c.is_ascii_uppercase() && starts_word {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

const OPERATIONS: &str = "
## Operations

The column `duration` says which events of an operation have a `duration_ns` when the agent records them. The others have
null, never 0, and so have no part in averages, percentiles, minima or maxima. Launches are recorded at entry; with
`agent.launch_sample` a random sample of them is timed as well. `duration_weight` is then the number of events that each
duration stands for: `sum(duration_ns * duration_weight)` estimates the time of all launches without bias, and
`sum(duration_ns * duration_weight) / sum(duration_weight)` their mean. Imported events hold what the recording holds, 0
included.

| source | op | name | duration | what |
|---|---|---|---|---|
";

const ARGUMENTS: &str = "
### Arguments

A row of an operation carries each argument in the column named here; a column that the operation does not have is 0 (`arg0`,
`arg1`) or null (`bytes`). Where `bytes` or `sectors` of a call, copy or request come in `arg0` or `arg1`, the column `bytes` has
them as well, in bytes. Arguments of one name have one meaning and one type whatever the operation. The view `typed_events` has
a column for each name, null in rows of operations without it.

| operation | argument | column | type | unit | meaning |
|---|---|---|---|---|---|
";

/// `docs/EVENTS.md`.
fn event_reference() -> String {
    let mut out = String::from(
        "# Event reference\n\n\
         Generated from `crates/event-schema`; do not edit (`BLESS=1 cargo test -p house-tests` writes it anew).\n\n\
         Numbers up to the reference tracer's own are its numbers, so that its data and queries carry over; ours continue after\n\
         them, and a number is never used twice.\n\n\
         ## Sources\n\n| number | name | what |\n|---|---|---|\n",
    );
    for source in Source::ALL {
        let _ = writeln!(out, "| {} | {} | {} |", source.number(), source.name(), source.doc());
    }
    out.push_str(OPERATIONS);
    for op in Op::ALL {
        let timing = op.timing().name();
        let _ = writeln!(out, "| {} | {} | `{}` | {timing} | {} |", op.source(), op.number(), op.name(), op.doc());
    }
    out.push_str(ARGUMENTS);
    for op in Op::ALL {
        for arg in op.args() {
            let _ = writeln!(out, "| `{}` {}", op.name(), argument_cells(arg));
        }
    }
    for kind in RecordKind::ALL {
        let _ = write!(
            out,
            "\n## Fields of `{}` records (kind {})\n\n| id | field | type | null | comes from | meaning |\n|---|---|---|---|---|---|\n",
            kind.name(),
            kind.number()
        );
        for field in kind.fields() {
            let _ = writeln!(out, "{}", field_line(field));
        }
    }
    out
}

fn argument_cells(arg: &Arg) -> String {
    let Arg { name, column, kind, doc } = arg;
    format!("| `{name}` | `{}` | {} | {} | {doc} |", column.name(), kind.sql_type(), kind.unit())
}

fn field_line(field: &Field) -> String {
    let kind = match field.kind {
        FieldType::Int => "int",
        FieldType::Long | FieldType::Rising => "long",
        FieldType::Float => "float",
        FieldType::Double => "double",
        FieldType::Timestamp => "timestamptz",
        FieldType::Word | FieldType::Id | FieldType::Text => "string",
    };
    let place = match field.place {
        Place::Header => "message header",
        Place::Row => "row",
        Place::Centre => "centre",
    };
    let null = if field.nullable { "yes" } else { "" };
    format!("| {} | `{}` | {kind} | {null} | {place} | {} |", field.id, field.name, field.doc)
}
