//! Locations of a warehouse, and the paths of its objects below the root.

use object_store::path::Path;

/// A location outside the warehouse.
#[derive(Debug, thiserror::Error)]
#[error(
    "{location} lies outside the warehouse {root}: tables name their files by full path, so that a warehouse that was moved or \
     copied must lie where it was"
)]
pub struct Outside {
    /// The location that was asked for.
    pub location: String,
    /// Location of the warehouse, without a trailing slash.
    pub root: String,
}

/// The path of a location below a root.
///
/// # Errors
/// The location is the root itself, lies elsewhere, or has an empty, `.` or `..` segment.
pub(crate) fn below(root: &str, location: &str) -> Result<Path, Outside> {
    // The slash is required: `s3://bucket/lake2` does not lie below `s3://bucket/lake`.
    let rest = location.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
    // `Path::parse` refuses empty, `.` and `..` segments (path traversal).
    match rest.and_then(|rest| Path::parse(rest).ok()) {
        Some(path) if !path.as_ref().is_empty() => Ok(path),
        _ => Err(Outside { location: location.to_owned(), root: root.to_owned() }),
    }
}
