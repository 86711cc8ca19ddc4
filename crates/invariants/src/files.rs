//! Compares every file of every table with its checksums.

use futures::TryStreamExt;
use lake::{HeadError, Lake, ReadError};
use objects::Verified;
use serde::Serialize;
use tables::registry;

/// What the check found of the files of all tables.
#[derive(Debug, Default, Serialize)]
pub struct FileFacts {
    /// Data files that are what was written.
    pub sound: u64,
    /// Data files that another program, or an older version of this one, wrote without checksums.
    pub without_checksum: u64,
    /// Files that are not what was written.
    pub damaged: Vec<Damaged>,
}

/// A file that is not what was written.
#[derive(Debug, Serialize)]
pub struct Damaged {
    /// The table, as `namespace.name`.
    pub table: String,
    /// Where the file is, as the table names it.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads all files of all tables.
///
/// # Errors
/// The catalog or the store does not answer.
pub async fn check(lake: &Lake) -> Result<FileFacts, ReadError> {
    let mut facts = FileFacts::default();
    for table in registry::all() {
        let name = table.def.name;
        match check_table(lake, name.namespace, name.name, &mut facts).await {
            Err(ReadError::Head(HeadError::NotFound(_))) | Ok(()) => {}
            Err(error) => match error.damage() {
                Some((file, problem)) => {
                    facts.damaged.push(Damaged { table: name.to_string(), file: file.to_owned(), problem });
                }
                None => return Err(error),
            },
        }
    }
    Ok(facts)
}

async fn check_table(lake: &Lake, namespace: &str, name: &str, facts: &mut FileFacts) -> Result<(), ReadError> {
    let snapshot = lake.table(namespace, name).snapshot().await?;
    let mut files = snapshot.verify_files().await?;
    while let Some(file) = files.try_next().await? {
        match file.outcome {
            Ok(Verified::Sound) => facts.sound += 1,
            Ok(Verified::NoChecksum) => facts.without_checksum += 1,
            Err(problem) => {
                facts.damaged.push(Damaged { table: format!("{namespace}.{name}"), file: file.location, problem });
            }
        }
    }
    Ok(())
}
