//! What kind of file a path names, as its first bytes show. What is not an SQLite database is refused with its own kind
//! and with what to import instead.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// The first bytes of every SQLite file (sqlite.org/fileformat2.html, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the header of an SQLite file, bytes.
const HEADER_BYTES: usize = 100;

/// Why a file is not an SQLite database that can be read.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// A directory.
    #[error("{} is a directory: name the recordings in it, such as {}", path.display(), path.join("*.db").display())]
    Directory {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// A pipe, a socket or a device.
    #[error("{} is {what}, not a regular file: save the recording to a file first", path.display())]
    Special {
        /// The file, as it was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The header cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// It has no bytes.
    #[error("{} is empty: no tracer recorded anything into it, or the copy failed", path.display())]
    Empty {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// A file of another kind that is found beside recordings.
    #[error("{} is {what}: {advice}", path.display())]
    Other {
        /// The file, as it was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to import instead.
        advice: &'static str,
    },
    /// A file of an unknown kind.
    #[error(
        "{} is not an SQLite file: expected a database that `ingero trace` recorded (SQLite, not encrypted, with the tables \
         `events` and `schema_info`)",
        path.display()
    )]
    NotSqlite {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// It is shorter than its header announces.
    #[error(
        "{} is truncated: its header announces {expected} bytes, the file has {found}; copy it again from the node",
        path.display()
    )]
    Truncated {
        /// The file, as it was named.
        path: PathBuf,
        /// Bytes that the header announces.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
}

/// The fields of the header of an SQLite file that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The database is in write-ahead mode.
    is_wal: bool,
    /// Bytes of the file; `None` when an old writer left the count behind.
    bytes: Option<u64>,
}

impl Header {
    /// Whether the database is in write-ahead mode.
    pub(super) fn is_wal(self) -> bool {
        self.is_wal
    }

    /// Refuses a file that is shorter than its header announces.
    ///
    /// # Errors
    /// [`FormError::Truncated`].
    pub(super) fn check_length(self, path: &Path, found: u64) -> Result<(), FormError> {
        match self.bytes {
            Some(expected) if found < expected => Err(FormError::Truncated { path: path.to_owned(), expected, found }),
            _ => Ok(()),
        }
    }
}

/// Refuses what is not a regular file.
///
/// # Errors
/// Names what it is.
pub(super) fn check_type(path: &Path, kind: FileType) -> Result<(), FormError> {
    let path = path.to_owned();
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => return Err(FormError::Directory { path }),
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_block_device() => "a block device",
        _ if kind.is_char_device() => "a character device",
        _ => "a special file",
    };
    Err(FormError::Special { path, what })
}

/// Reads the header of an SQLite file.
///
/// # Errors
/// The file is of another kind, which is named.
pub(super) fn read_header(path: &Path, file: &File) -> Result<Header, FormError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let mut piece = [0; HEADER_BYTES];
    while bytes.len() < HEADER_BYTES {
        // read(2) may return fewer bytes than asked for, and a shorter file is of another kind, not an error of
        // reading.
        match file.read_at(&mut piece, bytes.len() as u64) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(FormError::Unreadable { path: path.to_owned(), source }),
        }
    }
    bytes.truncate(HEADER_BYTES);
    if bytes.is_empty() {
        return Err(FormError::Empty { path: path.to_owned() });
    }
    if !bytes.starts_with(MAGIC) {
        return Err(foreign(path, &bytes));
    }
    let Ok(header) = <[u8; HEADER_BYTES]>::try_from(bytes) else {
        return Err(FormError::NotSqlite { path: path.to_owned() });
    };
    // Offset 16: the page size in two bytes, which cannot hold 65,536: 1 stands for it.
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    // The page count holds only if the writer that set it was the last one (file change counter = version-valid-for).
    let bytes = (word(&header, 24) == word(&header, 92)).then(|| page_bytes * u64::from(word(&header, 28)));
    // Offsets 18 and 19: the versions for writing and reading; 2 is write-ahead mode.
    Ok(Header { is_wal: header[18] == 2 || header[19] == 2, bytes })
}

/// The big-endian number in the four bytes at `at`.
fn word(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Kinds of files that are found beside recordings: first bytes, what it is, what to do.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (b"\x1f\x8b", "compressed with gzip", "decompress it and import the database"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it and import the database"),
    (b"\xfd7zXZ\0", "compressed with xz", "decompress it and import the database"),
    (b"BZh", "compressed with bzip2", "decompress it and import the database"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it and import the databases in it"),
    (b"PAR1", "a Parquet file", "Parquet is not imported; import the database that `ingero trace` recorded"),
    (b"\x37\x7f\x06\x82", "the write-ahead log of a database", "import the database it lies beside"),
    (b"\x37\x7f\x06\x83", "the write-ahead log of a database", "import the database it lies beside"),
    (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", "the rollback journal of a database", "import the database it lies beside"),
    (b"** This file contains an SQLite 2", "an SQLite 2 database", "convert it to SQLite 3"),
    (b"CSWY", "a Causeway message", "import the database that `ingero trace` recorded"),
];

fn foreign(path: &Path, bytes: &[u8]) -> FormError {
    let path = path.to_owned();
    if let Some((_, what, advice)) = FOREIGN.iter().find(|(first, ..)| bytes.starts_with(first)) {
        return FormError::Other { path, what, advice };
    }
    // A byte order mark and white space may precede JSON, which has no first bytes of its own.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    if text.starts_with(b"{") || text.starts_with(b"[") {
        let what = "a JSON file";
        let advice = "traces and JSON lines are not imported, for they lack what the recording holds; import the database \
                      that `ingero trace` recorded";
        return FormError::Other { path, what, advice };
    }
    FormError::NotSqlite { path }
}
