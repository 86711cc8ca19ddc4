//! Opens a library that was found in the maps of a process, or explains why it cannot be reached.

use std::path::PathBuf;

use bpf::{AttachError, Library, LibraryFile};

use super::FoundLibrary;

/// Opens a library by the first of its paths that leads to it. The error is that of the likeliest one.
pub(super) fn open(found: &FoundLibrary) -> Result<LibraryFile, AttachError> {
    let mut first_error = None;
    for path in &found.paths {
        match LibraryFile::open(&Library { path: path.clone(), kind: found.kind }) {
            Ok(file) => return Ok(file),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    // There is always a path: the last of `Mapping::paths` leads through the mapping itself.
    Err(first_error.unwrap_or_else(|| AttachError::NotAFile { path: PathBuf::new() }))
}
