//! One writer at a time: a lock that ends with its process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::files::WriteError;

/// A lock that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else has it.
    #[error("`{path}` is in use by {holder}; wait for it to end, or stop it", path = path.display())]
    Held {
        /// What is locked.
        path: PathBuf,
        /// Who has it, in words.
        holder: String,
    },
    /// Its file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Held until it is dropped or the process ends. The file stays behind; only the lock on it counts.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock whose file is `file`, for the use of `what`.
    ///
    /// On a file system without locks (some clusters mount theirs so) it always succeeds: refusing to work there
    /// would be worse.
    pub fn take(file: &Path, what: &Path) -> Result<Self, LockError> {
        let mut handle = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(file)
            .map_err(WriteError::at(file))?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(WriteError::at(file)(error).into()),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message, and being written this moment perhaps.
                let _ = handle.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_string(),
                    holder => holder.to_string(),
                };
                return Err(LockError::Held { path: what.to_path_buf(), holder });
            }
        }
        let holder = format!("process {} on {}", std::process::id(), host());
        let mut write = || {
            handle.set_len(0)?;
            handle.rewind()?;
            writeln!(handle, "{holder}")
        };
        write().map_err(WriteError::at(file))?;
        Ok(Self { _file: handle })
    }
}

/// Name of this machine.
pub(super) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .map(|name| name.trim().to_string())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "this machine".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder_and_a_dropped_one_is_free() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("lock");
        let first = Lock::take(&file, folder.path()).expect("it is free");
        let error = Lock::take(&file, folder.path()).expect_err("it is held").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Lock::take(&file, folder.path()).expect("it is free again");
    }
}
