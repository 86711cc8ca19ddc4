//! The head that an action would land on, with what reading it needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use iceberg::spec::{ManifestEntry, ManifestFile};
use objects::Store;

use super::change::LastList;
use super::outcome::CommitError;
use crate::catalog::Head;
use crate::environment::Environment;
use crate::table::positions::HeadFacts;
use crate::table::{TableIdent, Token, manifests};

/// Entries of manifests that hold files an action looks for, by path; `None` for manifests that hold none of them. Kept
/// from attempt to attempt of one action, because manifests never change: an attempt after a lost race reads the new
/// ones only.
pub(crate) type Searched = Mutex<BTreeMap<String, Option<Arc<Vec<ManifestEntry>>>>>;

/// A head, and what one attempt on it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) ident: &'a TableIdent,
    pub(crate) head: &'a Head,
    pub(crate) facts: &'a HeadFacts,
    pub(crate) token: Token,
    pub(crate) store: &'a Store,
    pub(crate) environment: &'a Environment,
    pub(crate) last: Option<&'a LastList>,
    pub(crate) searched: &'a Searched,
}

impl Base<'_> {
    /// The manifests of the current snapshot; none of a table without one.
    pub(crate) async fn manifests(&self) -> Result<Vec<ManifestFile>, CommitError> {
        let Some(snapshot) = self.head.metadata.current_snapshot() else { return Ok(Vec::new()) };
        match self.last.filter(|list| list.location == snapshot.manifest_list()) {
            // The list that this process wrote last. Manifest lists are immutable: the location identifies the content.
            Some(list) => Ok(list.manifests.clone()),
            None => manifests::load_list(self.store, snapshot.manifest_list()).await.map_err(CommitError::Manifest),
        }
    }
}
