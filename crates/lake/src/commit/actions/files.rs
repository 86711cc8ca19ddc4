//! Finds files in the manifests of a head.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::{ManifestEntry, ManifestFile};

use super::super::base::Base;
use super::super::outcome::{CommitError, Conflict};
use crate::table::manifests::{ManifestError, holds_deletes, load_entries};

/// Manifests read at the same time.
const MANIFESTS_AT_ONCE: usize = 8;

/// The manifests of a head, and the entries of those that hold files an action looks for.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) manifests: Vec<ManifestFile>,
    /// Entries by the path of their manifest.
    pub(crate) touched: BTreeMap<String, Arc<Vec<ManifestEntry>>>,
}

impl Located {
    /// The live entries of these files, once each.
    pub(crate) fn entries<'a>(&'a self, paths: &'a BTreeSet<String>) -> impl Iterator<Item = &'a ManifestEntry> {
        let entries = self.touched.values().flat_map(|entries| entries.iter());
        entries.filter(|entry| entry.is_alive() && paths.contains(entry.file_path()))
    }
}

/// Every file is live, and listed once.
///
/// # Errors
/// The first file that is not: what was made of it does not fit this head.
pub fn still_live<P: Ord + Clone>(wanted: &BTreeSet<P>, live: impl IntoIterator<Item = P>) -> Result<(), NotLive<P>> {
    let mut missing = wanted.clone();
    for path in live {
        // `remove` finds nothing the second time.
        if wanted.contains(&path) && !missing.remove(&path) {
            return Err(NotLive::Twice(path));
        }
    }
    match missing.pop_first() {
        Some(path) => Err(NotLive::Gone(path)),
        None => Ok(()),
    }
}

/// Why a file is not what an action takes it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLive<P> {
    /// The head does not list it.
    Gone(P),
    /// The head lists it more than once: taking one entry away would leave its rows.
    Twice(P),
}

/// Finds the files that an action takes away, and checks that they are still live.
pub(super) async fn locate(
    base: &Base<'_>,
    wanted: &BTreeSet<String>,
) -> Result<Result<Located, Conflict>, CommitError> {
    let manifests = base.manifests().await?;
    // A rewrite would drop row-level deletes: rows that another program deleted would be back.
    if manifests.iter().any(holds_deletes) {
        return Ok(Err(Conflict::RowLevelDeletes));
    }
    let searches = manifests.iter().map(|manifest| search(base, manifest.clone(), wanted));
    let searches: Vec<_> = searches.collect();
    let found: Vec<_> =
        stream::iter(searches).buffered(MANIFESTS_AT_ONCE).try_collect().await.map_err(CommitError::Manifest)?;
    let touched: BTreeMap<_, _> = found.into_iter().flatten().collect();
    let located = Located { manifests, touched };
    let live: Vec<String> = located.entries(wanted).map(|entry| entry.file_path().to_owned()).collect();
    Ok(match still_live(wanted, live) {
        Ok(()) => Ok(located),
        Err(NotLive::Gone(path)) => Err(Conflict::FileGone { path }),
        Err(NotLive::Twice(path)) => Err(Conflict::FileListedTwice { path }),
    })
}

/// The entries of a manifest that holds wanted files.
async fn search(
    base: &Base<'_>,
    manifest: ManifestFile,
    wanted: &BTreeSet<String>,
) -> Result<Option<(String, Arc<Vec<ManifestEntry>>)>, ManifestError> {
    let path = manifest.manifest_path.clone();
    // Not locked while the manifest is read: a lock of `std` must not be held across an await.
    let known = base.searched.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
    let entries = match known {
        Some(entries) => entries,
        None => {
            let (_, entries) = load_entries(base.store, &manifest).await?;
            let holds = entries.iter().any(|entry| entry.is_alive() && wanted.contains(entry.file_path()));
            let entries = holds.then(|| Arc::new(entries));
            base.searched.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), entries.clone());
            entries
        }
    };
    Ok(entries.map(|entries| (path, entries)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_away_only_where_each_is_listed_once() {
        let wanted = BTreeSet::from([1, 2]);
        assert_eq!(still_live(&wanted, [3, 2, 1]), Ok(()));
        assert_eq!(still_live(&wanted, [3, 2]), Err(NotLive::Gone(1)));
        assert_eq!(still_live(&wanted, [1, 2, 2]), Err(NotLive::Twice(2)));
        assert_eq!(still_live(&wanted, [1, 2, 3, 3]), Ok(()), "another file is not this action's");
    }
}
