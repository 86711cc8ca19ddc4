//! What keeps rows from being made again.

use std::collections::BTreeSet;

use lake::TableSnapshot;
use tables::def::FIELD_ID_KEY;
use tables::registry::Table;

use super::ReprocessError;

/// Columns that this version does not know: a newer one has filled them, and rows made here would be without.
pub(super) fn refuse_unknown_columns(table: &Table, head: &TableSnapshot) -> Result<(), ReprocessError> {
    let known: BTreeSet<String> = table.def.columns.iter().map(|column| column.id.to_string()).collect();
    let fields = head.schema().fields().iter();
    let unknown = fields.filter(|field| field.metadata().get(FIELD_ID_KEY).is_none_or(|id| !known.contains(id)));
    let columns: Vec<&str> = unknown.map(|field| field.name().as_str()).collect();
    match columns.is_empty() {
        true => Ok(()),
        false => Err(ReprocessError::UnknownColumns { table: table.def.name.to_string(), columns: columns.join(", ") }),
    }
}

/// Messages that the table has landed and the ledger has not: which of their rows landed is not known, so that the rows
/// would be taken away and not made again.
pub(super) fn refuse_gaps(table: &Table, head: &TableSnapshot, ledger: &TableSnapshot) -> Result<(), ReprocessError> {
    let offsets = head.offsets();
    let own = head.gaps();
    let missed = ledger.gaps().into_iter().find(|gap| {
        offsets.get(&gap.at).is_some_and(|next| next.0 > gap.start) && !gap.is_empty() && !own.contains(gap)
    });
    match missed {
        None => Ok(()),
        Some(gap) => Err(ReprocessError::NotInLedger { table: table.def.name.to_string(), gap }),
    }
}
