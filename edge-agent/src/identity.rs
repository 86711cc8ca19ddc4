//! Who this agent is: cluster, node, boot, and an epoch that no other run of this boot has.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use event_schema::identity::EPOCHS_MAX;
use event_schema::wire::NAME_BYTES_MAX;
use service_kit::durable::make_dir;
use service_kit::program::VERSION;

use crate::clock::{self, ClockError};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// What every message of this run carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cluster; 1 to [`NAME_BYTES_MAX`] bytes, by the configuration.
    pub cluster: String,
    /// Name of the node; 1 to [`NAME_BYTES_MAX`] bytes, by the configuration or the host's.
    pub node: String,
    /// The kernel's random id of this boot.
    pub boot_id: String,
    /// Greater than that of every run before in this boot; see [`clock_epoch`].
    pub epoch: i64,
    /// Name and version of this program.
    pub agent: String,
}

/// Why the identity of the agent cannot be established.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error("{what} `{name}` must have 1 to {NAME_BYTES_MAX} bytes: set `node.{what}`")]
    BadName { what: &'static str, name: String },
    #[error("this boot has used up its {EPOCHS_MAX} epochs: reboot the node")]
    NoEpochLeft,
}

impl Identity {
    /// Reads the identity of this host and takes the next epoch, before anything is numbered with it. `name` is the
    /// configured one; without it the host's name serves.
    pub fn establish(cluster: &str, name: Option<&str>, spool: &Path) -> Result<Self, IdentityError> {
        let boot_id = read_line(Path::new(BOOT_ID))?;
        let node = match name {
            Some(name) => name.to_owned(),
            None => read_line(Path::new(HOSTNAME))?,
        };
        // Before an epoch is taken: a wrong name must not use one up.
        for (what, name) in [("name", node.as_str()), ("cluster", cluster)] {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(IdentityError::BadName { what, name: name.to_owned() });
            }
        }
        let epoch = take_epoch(spool, &boot_id, clock::boot_ns()?)?;
        let agent = format!("causeway-agent {VERSION}");
        Ok(Self { cluster: cluster.to_owned(), node, boot_id, epoch, agent })
    }
}

/// Takes the next epoch of this boot. Several agents may share a spool directory: a lock orders them.
pub(crate) fn take_epoch(spool: &Path, boot_id: &str, boot_ns: i64) -> Result<i64, IdentityError> {
    make_dir(spool).map_err(io_error("make", spool))?;
    let lock_path = spool.join("epoch.lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
    let lock = lock.map_err(io_error("open", &lock_path))?;
    // flock(2): released when the file is closed, at the end of this function or of the process.
    lock.lock().map_err(io_error("lock", &lock_path))?;
    let path = spool.join("epoch");
    let recorded = match fs::read(&path) {
        Ok(text) => recorded_epoch(&String::from_utf8_lossy(&text), boot_id),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let by_clock = clock_epoch(boot_ns);
    // The record orders runs that begin within a second; the clock orders runs whose record was lost.
    let epoch = by_clock.max(recorded.map_or(0, |epoch| epoch.saturating_add(1)));
    if epoch >= EPOCHS_MAX {
        return Err(IdentityError::NoEpochLeft);
    }
    match record_epoch(&path, boot_id, epoch) {
        // An epoch given by the clock needs no record: the clock gives a later run a greater one (`clock_epoch`).
        Err(error) if epoch == by_clock => {
            tracing::warn!(%error, path = %path.display(), epoch, "the epoch is not recorded: it rests on the clock alone");
        }
        recorded => recorded.map_err(io_error("write", &path))?,
    }
    Ok(epoch)
}

/// Overwrites the record in place, which needs no room: an agent must be able to start when the disk is full of its
/// spool. The width is fixed, so that nothing of an older record is left behind. Not synced: a power failure is the end
/// of the boot, too.
fn record_epoch(path: &Path, boot_id: &str, epoch: i64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(format!("{boot_id} {epoch:019}\n").as_bytes(), 0)
}

/// The least epoch a run may have that begins at this time of the boot: the seconds so far. So an agent whose spool is
/// new, lost or damaged does not use an epoch again, which the centre would take for a repetition and drop, unless its
/// runs before were more than one a second. Two agents of one node name with spools of their own are distinguished by
/// the second they began.
///
/// All epochs of a boot would be gone after 97 days; so from the middle on it is one a minute or so, for eight years
/// more.
fn clock_epoch(boot_ns: i64) -> i64 {
    const FINE: i64 = EPOCHS_MAX / 2;
    const SECONDS_BEYOND: i64 = 64;
    let seconds = boot_ns / 1_000_000_000;
    // Continuous at `FINE`, so that epochs never fall: 2^22 seconds are 48 days.
    seconds.min(FINE) + (seconds - FINE).max(0) / SECONDS_BEYOND
}

/// The epoch of the run before, unless that was in another boot or the record is damaged.
fn recorded_epoch(record: &str, boot_id: &str) -> Option<i64> {
    let (boot, epoch) = record.lines().next()?.split_once(' ')?;
    if boot == boot_id { epoch.parse().ok() } else { None }
}

fn read_line(path: &Path) -> Result<String, IdentityError> {
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    Ok(text.trim().to_owned())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
