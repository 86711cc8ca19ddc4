//! Compares every file of every table with its checksums: rows of a damaged file prove nothing.

use futures::TryStreamExt;
use lake::{HeadError, Lake, ReadError};
use objects::Verified;
use serde::Serialize;
use tables::registry;

/// What the audit says about the files of all tables.
#[derive(Debug, Default, Serialize)]
pub(crate) struct FileFacts {
    /// Data files that are what was written.
    pub(crate) sound: u64,
    /// Data files that another program, or an older version of this one, wrote without checksums.
    pub(crate) without_checksum: u64,
    pub(crate) damaged: Vec<Damaged>,
}

/// A file that is not what was written.
#[derive(Debug, Serialize)]
pub(crate) struct Damaged {
    table: String,
    file: String,
    problem: String,
}

/// Reads all files of all tables.
///
/// # Errors
/// The catalog or the store does not answer.
pub(crate) async fn check(lake: &Lake) -> Result<FileFacts, ReadError> {
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

/// The report when files are damaged: the laws are not checked then.
pub(crate) fn as_text(facts: &FileFacts) -> String {
    let mut text = "BROKEN  every file is what was written to it\n".to_owned();
    for Damaged { table, file, problem } in &facts.damaged {
        text += &format!("        {table} {file}: {problem}\n");
    }
    let count = facts.damaged.len();
    text + &format!(
        "note    the laws are not checked while files are damaged: restore them, or roll the tables back to a snapshot without \
         them\naudit FAILED: {count} damaged, {} sound, {} without checksums\n",
        facts.sound, facts.without_checksum
    )
}
