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

/// The path of a location below a root. Of a local root, `file:/path` is the same as `file:///path`: both are valid (RFC
/// 8089, appendix B), and Hadoop's `Path`, through which Spark writes, makes the first of the second.
///
/// # Errors
/// The location is the root itself, lies elsewhere, or has an empty, `.` or `..` segment.
pub(crate) fn below(root: &str, location: &str) -> Result<Path, Outside> {
    let below = location.strip_prefix(root).or_else(|| local(location)?.strip_prefix(local(root)?));
    // The slash is required: `s3://bucket/lake2` does not lie below `s3://bucket/lake`.
    let rest = below.and_then(|rest| rest.strip_prefix('/'));
    // `Path::parse` refuses empty, `.` and `..` segments (path traversal).
    match rest.and_then(|rest| Path::parse(rest).ok()) {
        Some(path) if !path.as_ref().is_empty() => Ok(path),
        _ => Err(Outside { location: location.to_owned(), root: root.to_owned() }),
    }
}

/// The absolute path in a `file` URL without a host; `None` of any other location.
fn local(location: &str) -> Option<&str> {
    let path = location.strip_prefix("file:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    path.starts_with('/').then_some(path)
}
