//! The files a process has mapped, and the ways that lead to one of them from here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mappings of one process that are looked at: many times what one that trains has.
pub(super) const MAPPINGS_MAX: usize = 1 << 18;

/// One mapping of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) is_executable: bool,
    /// In the file.
    pub(crate) offset: u64,
    /// As `/proc/PID/maps` writes it.
    pub(crate) device: String,
    pub(crate) inode: u64,
    pub(crate) is_deleted: bool,
    /// As `/proc/PID/maps` writes it, without the note that it is deleted.
    path: Vec<u8>,
}

impl Mapping {
    /// Reads a line of `/proc/PID/maps`. `None` for a mapping of no file.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        // address perms offset device inode path, the last after padding. A path is bytes; all before it is ASCII.
        let mut words = line.splitn(6, |byte| *byte == b' ');
        let range = str::from_utf8(words.next()?).ok()?;
        let permissions = words.next()?;
        let offset = str::from_utf8(words.next()?).ok()?;
        let device = str::from_utf8(words.next()?).ok()?;
        let inode = str::from_utf8(words.next()?).ok()?;
        let path = words.next()?.trim_ascii_start();
        if !path.starts_with(b"/") {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        // proc(5): the note follows the path of a file that was unlinked. A file whose name ends so is taken for
        // deleted as well, and is then reached through its mapping.
        let named = path.strip_suffix(b" (deleted)");
        Some(Self {
            start: hexadecimal(start)?,
            end: hexadecimal(end)?,
            is_executable: permissions.contains(&b'x'),
            offset: hexadecimal(offset)?,
            device: device.to_owned(),
            inode: inode.parse().ok()?,
            is_deleted: named.is_some(),
            path: named.unwrap_or(path).to_vec(),
        })
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &OsStr {
        Path::new(OsStr::from_bytes(&self.path)).file_name().unwrap_or_default()
    }

    /// Paths below the process's directory in `/proc` that may lead to the file, the likeliest first. `root` is what
    /// `/proc/PID/root` links to. The last goes through the mapping itself and needs CAP_CHECKPOINT_RESTORE or
    /// CAP_SYS_ADMIN.
    pub(crate) fn paths(&self, root: &Path) -> Vec<PathBuf> {
        let of_mapping = PathBuf::from(format!("map_files/{:x}-{:x}", self.start, self.end));
        if self.is_deleted {
            return vec![of_mapping];
        }
        let mut paths = Vec::new();
        for spelling in spellings(&self.path) {
            let path = Path::new(OsStr::from_bytes(&spelling));
            // Maps show a path from the root of the mount namespace, the link `root` leads to the process's own root.
            let below_root = path.strip_prefix(root).ok().filter(|_| root != Path::new("/"));
            let from_top = path.strip_prefix("/").ok();
            paths.extend(below_root.into_iter().chain(from_top).map(|rest| Path::new("root").join(rest)));
        }
        paths.push(of_mapping);
        paths
    }

    /// Opens the file. `dir` is the process's directory in `/proc`.
    pub(crate) fn open(&self, dir: &Path) -> Option<File> {
        self.paths(&root_of(dir)).into_iter().find_map(|path| File::open(dir.join(path)).ok())
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// A line break in a path is written as `\012`, and a backslash as itself: the path may be spelled in two ways.
fn spellings(path: &[u8]) -> Vec<Vec<u8>> {
    const ESCAPED: &[u8] = b"\\012";
    let mut unescaped = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = rest.strip_prefix(ESCAPED).map_or((*first, after), |after| (b'\n', after));
        unescaped.push(byte);
        rest = after;
    }
    if unescaped == path { vec![unescaped] } else { vec![unescaped, path.to_vec()] }
}

/// What a process has as its root directory, as seen from here.
pub(super) fn root_of(dir: &Path) -> PathBuf {
    fs::read_link(dir.join("root")).unwrap_or_else(|_| PathBuf::from("/"))
}

/// Reads up to [`MAPPINGS_MAX`] lines, and passes the file mapping of each line that `is_wanted` to `take`, which
/// returns false to end the reading. Returns how many lines were read.
pub(super) fn read(
    mut maps: impl BufRead,
    is_wanted: impl Fn(&[u8]) -> bool,
    mut take: impl FnMut(Mapping) -> bool,
) -> usize {
    let mut line = Vec::new();
    let mut lines = 0;
    while lines < MAPPINGS_MAX {
        line.clear();
        // A process that ends meanwhile has no more maps.
        if !maps.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            break;
        }
        lines += 1;
        let line = line.trim_ascii_end();
        // The cheap test comes first: a process may have thousands of lines, of which a few are parsed.
        if is_wanted(line) && Mapping::parse(line).is_some_and(|mapping| !take(mapping)) {
            break;
        }
    }
    lines
}

/// The mappings of files of a process. `None` when they cannot be read.
pub(crate) fn mappings(pid: i32) -> Option<Vec<Mapping>> {
    let maps = open(pid).ok()?;
    let mut mappings = Vec::new();
    read(
        maps,
        |_| true,
        |mapping| {
            mappings.push(mapping);
            true
        },
    );
    Some(mappings)
}

/// Opens the maps of a process.
pub(super) fn open(pid: i32) -> io::Result<BufReader<File>> {
    File::open(format!("/proc/{pid}/maps")).map(BufReader::new)
}

#[cfg(test)]
mod tests {
    //! What is written in maps against the paths that lead to the file.

    use super::*;

    fn paths(path: &str, root: &str) -> Vec<String> {
        let line = format!("00007f30-00007f40 r-xp 00001000 fd:01 79                         {path}");
        let mapping = Mapping::parse(line.as_bytes()).unwrap();
        mapping.paths(Path::new(root)).into_iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_path_leads_through_the_root_of_the_process() {
        assert_eq!(paths("/usr/lib/libcuda.so.1", "/"), ["root/usr/lib/libcuda.so.1", "map_files/7f30-7f40"]);
        let in_chroot = ["root/opt/libcuda.so.1", "root/srv/rootfs/opt/libcuda.so.1", "map_files/7f30-7f40"];
        assert_eq!(paths("/srv/rootfs/opt/libcuda.so.1", "/srv/rootfs"), in_chroot);
        let outside = ["root/usr/lib/libcuda.so.1", "map_files/7f30-7f40"];
        assert_eq!(paths("/usr/lib/libcuda.so.1", "/srv/rootfs"), outside, "it was mapped before chroot");
        assert_eq!(paths("/srv/rootfs-2/libcuda.so.1", "/srv/rootfs")[0], "root/srv/rootfs-2/libcuda.so.1");
    }

    #[test]
    fn an_escaped_line_break_is_one_or_is_not() {
        let both = ["root/nl\nx/libcuda.so.1", "root/nl\\012x/libcuda.so.1", "map_files/7f30-7f40"];
        assert_eq!(paths("/nl\\012x/libcuda.so.1", "/"), both);
    }

    #[test]
    fn a_file_without_a_name_is_reached_through_its_mapping_alone() {
        assert_eq!(paths("/usr/lib/libcuda.so.1 (deleted)", "/"), ["map_files/7f30-7f40"]);
    }
}
