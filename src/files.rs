//! Files that are either the old ones or the new ones, whatever happens in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file or folder that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{path}`{advice}", path = path.display(), advice = advice(source))]
pub struct WriteError {
    /// What was to be written.
    pub path: PathBuf,
    /// Why it was not.
    pub source: io::Error,
}

impl WriteError {
    /// For use in `map_err`.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { path, source }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (the disk is full or the quota used up: free some space and give the same command again)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (you may not write there: choose another folder or ask its owner)"
        }
        io::ErrorKind::NotFound => " (its folder does not exist)",
        _ => "",
    }
}

/// Puts `bytes` into the file `path`, replacing what was there.
///
/// Written beside it, flushed to the disk, renamed, and the rename flushed too: a crash, a kill or a full disk at
/// any moment leaves the old content, or the new, never a part.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write_with(path, |file| file.write_all(bytes))
}

/// [`atomic_write`] for content that is made while it is written.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
    let write = || {
        let folder = folder_of(path);
        // Deleted again unless it is renamed. Its permissions are the user's default, not a temporary file's.
        let mut builder = tempfile::Builder::new();
        builder.prefix(".writing-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        fill(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(WriteError::at(path))
}

/// Renames a finished folder to its final name, which must be free or an empty folder.
pub fn publish_folder(from: &Path, to: &Path) -> Result<(), WriteError> {
    let rename = || {
        sync_folder(from)?;
        fs::rename(from, to)?;
        sync_folder(folder_of(to))
    };
    rename().map_err(WriteError::at(to))
}

/// Makes names in `folder` survive a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened as a file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_rubbish() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("file");
        atomic_write(&path, b"old").expect("the folder is writable");
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        let error = write_with(&path, |file| file.write_all(b"half of the ne").and_then(|()| full()))
            .expect_err("the disk is full");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).expect("it is still there"), b"old");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
        atomic_write(&path, b"new").expect("the folder is writable");
        assert_eq!(fs::read(&path).expect("readable"), b"new");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error =
            atomic_write(Path::new("/no/such/folder/file"), b"").expect_err("there is no such folder");
        assert_eq!(error.to_string(), "cannot write `/no/such/folder/file` (its folder does not exist)");
    }
}
