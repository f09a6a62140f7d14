//! Any image of a manifest, decoded, wherever its source keeps it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use harvest_picture::{decode_admitted, read_file};
use image::RgbImage;

use super::gate::PixelGate;
use super::reduced::reduced;
use super::{DecodeError, DecodeLimits, IdxError, IdxImages, Manifest, Source};

/// Loads images of one manifest from many threads.
pub struct Images<'a> {
    manifest: &'a Manifest,
    pictures: Pictures,
}

/// Loads pictures of a source by their paths in its manifest, from many threads; IDX files are read once and kept.
pub struct Pictures {
    idx_source: bool,
    root: PathBuf,
    limits: DecodeLimits,
    gate: PixelGate,
    idx: Mutex<HashMap<String, Arc<IdxImages>>>,
}

/// Why an image of a manifest cannot be loaded, although the scan could.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file.
    #[error("the image `{path}`: {source}")]
    Decode {
        /// Its full path.
        path: PathBuf,
        /// The reason.
        source: DecodeError,
    },
    /// The IDX file it is in.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// The IDX file has fewer images than the manifest.
    #[error("there is no image `{path}` any more; scan again")]
    Gone {
        /// Path in the manifest.
        path: String,
    },
}

impl<'a> Images<'a> {
    /// Nothing is read yet.
    pub fn new(manifest: &'a Manifest, limits: DecodeLimits) -> Self {
        Self { manifest, pictures: Pictures::new(&manifest.source, &manifest.root, limits) }
    }

    /// Image `index`, upright RGB. Panics if the manifest has fewer images.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self, index: u32) -> Result<RgbImage, LoadError> {
        self.with(index, |image| image)
    }

    /// As [`Images::load`]; while `use_image` runs, the image counts against [`DecodeLimits::pixels_in_flight`].
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn with<T>(&self, index: u32, use_image: impl FnOnce(RgbImage) -> T) -> Result<T, LoadError> {
        self.pictures.with(&self.manifest.images[index as usize].path, use_image)
    }
}

impl Pictures {
    /// Nothing is read yet. `root`: the manifest's.
    pub fn new(source: &Source, root: &Path, limits: DecodeLimits) -> Self {
        let idx_source = matches!(source, Source::Idx { .. });
        let gate = PixelGate::new(limits.pixels_in_flight);
        Self { idx_source, root: root.to_owned(), limits, gate, idx: Mutex::default() }
    }

    /// The folder that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that the picture is, or is in.
    pub fn file(&self, path: &str) -> PathBuf {
        let file = if self.idx_source { path.rsplit_once('#').map_or(path, |(file, _)| file) } else { path };
        self.root.join(file)
    }

    /// What of `path` names a picture in its file: `#7`; empty where each is a file of its own.
    pub fn within<'p>(&self, path: &'p str) -> &'p str {
        if self.idx_source { path.rfind('#').map_or("", |at| &path[at..]) } else { "" }
    }

    /// The picture at `path`, upright RGB; while `use_image` runs, it counts against [`DecodeLimits::pixels_in_flight`].
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn with<T>(&self, path: &str, use_image: impl FnOnce(RgbImage) -> T) -> Result<T, LoadError> {
        if self.idx_source {
            return self.of_idx(path).map(use_image);
        }
        self.read(path).and_then(|bytes| self.decode(path, &bytes, use_image))
    }

    /// As [`Pictures::with`], but smaller if it can be decoded so: at least `side` pixels along its longer side, unless the whole
    /// picture has fewer. A JPEG is decoded at an eighth, a quarter or half of its size, which is several times faster.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn with_reduced<T>(
        &self,
        path: &str,
        side: u32,
        use_image: impl FnOnce(RgbImage) -> T,
    ) -> Result<T, LoadError> {
        if self.idx_source {
            return self.of_idx(path).map(use_image);
        }
        let bytes = self.read(path)?;
        match reduced(&bytes, side, &self.limits, |pixels| self.gate.admit(pixels)) {
            Some((image, _permit)) => Ok(use_image(image)),
            None => self.decode(path, &bytes, use_image),
        }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        let file = self.file(path);
        read_file(&file, &self.limits).map_err(|source| LoadError::Decode { path: file, source })
    }

    fn decode<T>(
        &self,
        path: &str,
        bytes: &[u8],
        use_image: impl FnOnce(RgbImage) -> T,
    ) -> Result<T, LoadError> {
        decode_admitted(bytes, &self.limits, |pixels| self.gate.admit(pixels), use_image)
            .map_err(|source| LoadError::Decode { path: self.file(path), source })
    }

    fn of_idx(&self, path: &str) -> Result<RgbImage, LoadError> {
        let gone = || LoadError::Gone { path: path.to_owned() };
        let (file, position) = path.rsplit_once('#').ok_or_else(gone)?;
        let position = position.parse().map_err(|_| gone())?;
        self.idx(file)?.image(position).ok_or_else(gone)
    }

    fn idx(&self, file: &str) -> Result<Arc<IdxImages>, IdxError> {
        let mut kept = self.idx.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = kept.get(file) {
            return Ok(images.clone());
        }
        let images = Arc::new(IdxImages::read(&self.root.join(file))?);
        kept.insert(file.to_owned(), images.clone());
        Ok(images)
    }
}
