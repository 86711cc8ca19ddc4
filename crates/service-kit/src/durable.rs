//! Directories that survive a power cut. The name of a directory is an entry of its parent: flushing the directory
//! itself does not make it durable (fsync(2)), and what was flushed in it is gone with its name.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Makes a directory and those above it, where they are absent, and flushes the names of all. Returns the canonical
/// path.
///
/// # Errors
/// A directory cannot be made, or a new one or what names it cannot be flushed.
pub fn make_dir(path: &Path) -> io::Result<PathBuf> {
    make(path, 0o777, sync_dir)
}

/// As [`make_dir`]; new directories can be entered by their owner alone.
///
/// # Errors
/// As [`make_dir`].
pub fn make_private_dir(path: &Path) -> io::Result<PathBuf> {
    make(path, 0o700, sync_dir)
}

/// Flushes a directory: the names of the files and directories in it.
///
/// # Errors
/// It cannot be opened, or the disk fails.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// `mode` are the permissions of new directories, before the umask.
fn make(path: &Path, mode: u32, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    // The parent of a bare file name is empty.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let absent = path.ancestors().take_while(|level| !level.is_dir()).count();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    let root = path.canonicalize()?;
    for (height, level) in root.ancestors().enumerate() {
        match sync(level) {
            // A level that was there may have been made a moment ago, by another part of the program for example. Most
            // were not, and some cannot be synced: those of other users that may not be opened, or an automounter's.
            Err(error) if height > absent.max(1) => tracing::debug!(directory = %level.display(), %error, "not synced"),
            synced => synced?,
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_names_of_all_new_levels_are_flushed_and_those_above_them_where_they_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().canonicalize().unwrap();
        let path = there.join("a/b/c");
        let mut synced = Vec::new();
        let root = make(&path, 0o700, |level| {
            synced.push(level.to_owned());
            if level.starts_with(&there) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
        });
        assert_eq!(root.unwrap(), path);
        assert_eq!(synced, path.ancestors().collect::<Vec<_>>());
        for level in ["a", "a/b", "a/b/c"] {
            let permissions = there.join(level).metadata().unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, 0o700, "{level}");
        }
    }

    #[test]
    fn a_new_level_and_what_names_it_must_be_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().canonicalize().unwrap();
        // The last directory is there already: what names it must be flushed all the same.
        for (path, refused) in [("a/b/c", "a/b/c"), ("d/e/f", "d"), ("g/h/i", ""), ("g/h/i", "g/h")] {
            let refused = there.join(refused);
            let denied = io::ErrorKind::PermissionDenied;
            let made = make(&there.join(path), 0o777, |level| (level != refused).then_some(()).ok_or(denied.into()));
            assert_eq!(made.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{path} {refused:?}");
        }
    }

    #[test]
    fn the_parent_of_a_bare_file_name_is_the_working_directory() {
        let made = make_dir(Path::new("catalog.sqlite").parent().unwrap()).unwrap();
        assert_eq!(made, std::env::current_dir().unwrap().canonicalize().unwrap());
    }
}
