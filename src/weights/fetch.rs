//! Published weights into the store, from the address where they are published. A person asks for it, on a machine with a
//! way out; no run ever does.

use std::fs::{self, OpenOptions, TryLockError};
use std::path::Path;

use harvest_models::LoadOptions;

use super::download::download;
use super::store::{Added, Origin};
use super::{DownloadError, Entry, Known, Limits, Store, WeightsError};
use crate::files::WriteError;
use crate::report::Progress;

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name to keep it under.
    pub name: String,
    /// Where it is: `https://…` or `http://…`.
    pub url: String,
    /// What it must hash to.
    pub checksum: Checksum,
    /// Preset that it must fit.
    pub model: Option<String>,
}

impl From<&Known> for Wanted {
    fn from(known: &Known) -> Self {
        Self {
            name: known.name.to_owned(),
            url: known.url.to_owned(),
            checksum: Checksum(known.sha256.to_owned()),
            model: Some(known.model.to_owned()),
        }
    }
}

/// A SHA-256 in hexadecimal, or as many of its first digits as a publisher tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum(String);

impl Checksum {
    /// All 64 digits.
    ///
    /// # Errors
    /// If it is something else.
    pub fn whole(text: &str) -> Result<Self, FetchError> {
        let digits = text.trim().to_ascii_lowercase();
        match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            true => Ok(Self(digits)),
            false => Err(FetchError::NoChecksum { text: text.to_owned() }),
        }
    }

    fn is_of(&self, sha256: &str) -> bool {
        sha256.starts_with(&self.0)
    }
}

/// Weights that cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not an address.
    #[error("`{url}` is no address of a file; it begins with https:// or http://")]
    NoUrl {
        /// As asked for.
        url: String,
    },
    /// Not a checksum.
    #[error("`{text}` is no SHA-256; it has 64 hexadecimal digits, as `sha256sum FILE` prints them")]
    NoChecksum {
        /// As asked for.
        text: String,
    },
    /// Someone else is at it.
    #[error("another process is fetching `{url}` at this moment")]
    Busy {
        /// Where.
        url: String,
    },
    /// The file could not be had.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// It is another file, or a damaged one.
    #[error(
        "what `{url}` sends has the SHA-256 {found}, not {expected}{}; it was removed. Give the same command again; if that \
         changes nothing, it is another file than expected", if expected.len() < 64 { "…" } else { "" }
    )]
    Mismatch {
        /// Where.
        url: String,
        /// Its digits, or the first of them.
        expected: String,
        /// All of them.
        found: String,
    },
    /// It is the right file, but of no use.
    #[error("what `{url}` sends cannot be used, and was removed")]
    Refused {
        /// Where.
        url: String,
        /// Why.
        source: Box<WeightsError>,
    },
    /// The store.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// What became of it.
#[derive(Debug)]
pub enum Fetched {
    /// It was fetched.
    New(Added),
    /// It had been before; nothing was asked of the network.
    Kept(Entry),
}

impl Store {
    /// Fetches `wanted` and stores it after the checks of [`Store::add`]. `show` begins to show how far the work of that
    /// name is, as [`Progress::new`] does.
    ///
    /// # Errors
    /// [`FetchError`]. After a broken connection what was received stays, for the next attempt; else nothing does.
    pub fn fetch(
        &self,
        wanted: &Wanted,
        limits: &Limits,
        show: impl Fn(&str, u64) -> Progress,
    ) -> Result<Fetched, FetchError> {
        let Wanted { name, url, checksum, model } = wanted;
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(FetchError::NoUrl { url: url.clone() });
        }
        match self.get(name) {
            Ok(kept) if kept.origin_sha256.as_ref().is_some_and(|found| checksum.is_of(found)) => {
                return Ok(Fetched::Kept(kept));
            }
            Ok(other) => return Err(self.taken(other).into()),
            Err(WeightsError::NotStored { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        fs::create_dir_all(self.folder()).map_err(at(self.folder()))?;
        // Named for the address, so that only the same file is gone on with.
        let key = blake3::hash(url.as_bytes()).to_hex();
        let path = self.folder().join(format!(".fetching-{}", &key[..16]));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            // Some clusters mount file systems without locks.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(at(&path)(error).into()),
            Err(TryLockError::WouldBlock) => return Err(FetchError::Busy { url: url.clone() }),
        }
        let label = format!("fetching {name}, MB");
        let sha256 = match download(url, &mut file, limits, &|total| show(&label, total)) {
            Ok(sha256) => sha256,
            Err(error) => {
                let useless = matches!(error, DownloadError::TooLarge { .. });
                if useless || file.metadata().is_ok_and(|file| file.len() == 0) {
                    remove(&path);
                }
                return Err(error.into());
            }
        };
        let result = if checksum.is_of(&sha256) {
            let origin = Origin { text: url.clone(), sha256: Some(sha256) };
            self.keep(name, &path, origin, model.as_deref(), LoadOptions::default())
                .map(Fetched::New)
                .map_err(|source| FetchError::Refused { url: url.clone(), source: Box::new(source) })
        } else {
            Err(FetchError::Mismatch { url: url.clone(), expected: checksum.0.clone(), found: sha256 })
        };
        remove(&path);
        result
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> WeightsError {
    |source| WriteError { path: path.to_owned(), source }.into()
}

/// A file left behind costs space and a second look at its checksum, nothing else.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
