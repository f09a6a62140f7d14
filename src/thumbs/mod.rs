//! Thumbnails: made in parallel, packed in few files, found by the content of their image.
//!
//! ```text
//! thumbs/
//!   index        8 bytes of magic, then 56 bytes for each thumbnail: whose it is, where it lies, checksums
//!   000000.pack  thumbnails, one behind the other
//!   000001.pack
//!   lock         held by the process that makes some
//! ```
//!
//! Everything is appended, pictures before the lines of the index that name them, so that a kill at any moment costs the last
//! few megabytes and nothing else: a line that is not whole or whose checksum is wrong does not count, and what no line names is
//! written over. Readers need no lock and see new thumbnails as they come.

mod draw;
mod pack;
mod read;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

pub use draw::{DrawError, SIDE, draw, draw_at};
pub(crate) use pack::write_repeated;
pub use read::Thumbs;

use crate::data::{ContentHash, DecodeLimits, ImageRecord, Manifest, Pictures, Progress};
use crate::files::WriteError;
use crate::project::LockError;
use pack::Writer;

/// The folder of thumbnails in a project's folder.
pub const FOLDER: &str = "thumbs";

/// Why thumbnails cannot be made or read. Trouble with single images never ends here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThumbError {
    /// Another process makes some.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// They cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// They cannot be read.
    #[error("cannot read thumbnails from `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not ours, or of another version.
    #[error("`{path}` is no index of thumbnails of this version; delete its folder, and thumbnails are made anew",
        path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The caller asked to stop; what is made stays.
    #[error("interrupted; thumbnails made so far are kept")]
    Interrupted,
}

impl ThumbError {
    fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

/// What [`make`] has done.
#[derive(Debug, Default)]
pub struct Made {
    /// Thumbnails that are new.
    pub new: usize,
    /// Thumbnails that were there before.
    pub known: usize,
    /// Images that have none, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Makes the thumbnails that `folder` lacks, one for each content of the list, in parallel. Images whose files cannot be read
/// any more are left out, with the reason.
///
/// # Errors
/// If another process makes some, they cannot be written, or `stop` is set.
pub fn make(
    manifest: &Manifest,
    folder: &Path,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Made, ThumbError> {
    let (writer, present) = Writer::open(folder)?;
    let firsts = manifest.images.iter().filter(|image| image.duplicate_of.is_none());
    let missing: Vec<&ImageRecord> = firsts.filter(|image| !present.contains(&image.hash)).collect();
    let known = manifest.images.iter().filter(|image| image.duplicate_of.is_none()).count() - missing.len();
    let pictures = Pictures::new(&manifest.source, &manifest.root, DecodeLimits::default());
    let writer = Mutex::new(writer);
    let failed = Mutex::new(Vec::new());
    let new = AtomicUsize::new(0);
    progress.start("making thumbnails", missing.len() as u64);
    let work = missing.par_iter().try_for_each(|image| {
        if stop.load(Ordering::Relaxed) {
            return Err(ThumbError::Interrupted);
        }
        match draw(&pictures, image) {
            Ok(thumbnail) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.append(image.hash, &thumbnail)?;
                new.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let reason = crate::errors::chain(&error);
                failed.lock().unwrap_or_else(PoisonError::into_inner).push((image.path.clone(), reason));
            }
        }
        progress.advance(1);
        Ok(())
    });
    progress.finish();
    // Also after an interruption: what is made is made.
    writer.into_inner().unwrap_or_else(PoisonError::into_inner).finish()?;
    work?;
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort();
    Ok(Made { new: new.into_inner(), known, failed })
}

/// Contents that thumbnails are of.
type Present = HashSet<ContentHash>;
