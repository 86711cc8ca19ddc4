//! Finds columns by field id, as Iceberg requires (spec, Column Projection): a renamed column keeps its old name in old
//! files, and a new column may have the name of a dropped one. DataFusion maps columns by name; this adapter precedes
//! its own.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use tables::def::FIELD_ID_KEY;

/// The field id of a column; `None` when the schema has none.
pub(crate) fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID_KEY)?.parse().ok()
}

#[derive(Debug)]
pub(crate) struct FieldIds;

impl PhysicalExprAdapterFactory for FieldIds {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let renamed = Arc::new(renamed_by_id(&logical, &physical));
        let by_name = DefaultPhysicalExprAdapterFactory.create(logical, renamed)?;
        Ok(Arc::new(ByFieldId { by_name, physical }))
    }
}

/// The file's schema with the names that the table gives its field ids. A column that the table does not have (dropped,
/// or without an id beside others that have one) gets a name that no column of a table can have.
fn renamed_by_id(logical: &Schema, physical: &Schema) -> Schema {
    // A file without any field id, as other programs write: names are the only way to map it.
    if physical.fields().iter().all(|field| field_id(field).is_none()) {
        return physical.clone();
    }
    let names: HashMap<i32, &str> =
        logical.fields().iter().filter_map(|field| Some((field_id(field)?, field.name().as_str()))).collect();
    let fields = physical.fields().iter().enumerate().map(|(index, field)| {
        let name = field_id(field).and_then(|id| names.get(&id).map(|name| (*name).to_owned()));
        // The NUL character keeps a dropped column from matching a new column of the same name.
        field.as_ref().clone().with_name(name.unwrap_or_else(|| format!("\u{0}dropped {index}")))
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), physical.metadata().clone())
}

/// DataFusion's adapter over the renamed schema. It then restores the file's own names, by which pruning looks up
/// statistics.
#[derive(Debug)]
struct ByFieldId {
    by_name: Arc<dyn PhysicalExprAdapter>,
    physical: SchemaRef,
}

impl PhysicalExprAdapter for ByFieldId {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let adapted = self.by_name.rewrite(expr)?;
        adapted
            .transform(|expr| {
                let Some(column) = expr.downcast_ref::<Column>() else {
                    return Ok(Transformed::no(expr));
                };
                // Renaming keeps the order of fields, so that the index is that of the file's own schema.
                let name = self.physical.field(column.index()).name();
                if name == column.name() {
                    return Ok(Transformed::no(expr));
                }
                Ok(Transformed::yes(Arc::new(Column::new(name, column.index())) as Arc<dyn PhysicalExpr>))
            })
            .data()
    }
}

#[cfg(test)]
mod tests;
