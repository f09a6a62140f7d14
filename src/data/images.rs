//! Any image of a manifest, decoded, wherever its source keeps it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use harvest_picture::{decode_admitted, read_file};
use image::RgbImage;

use super::gate::PixelGate;
use super::{DecodeError, DecodeLimits, IdxError, IdxImages, Manifest, Source};

/// Loads images of one manifest from many threads; IDX files are read once and kept.
pub struct Images<'a> {
    manifest: &'a Manifest,
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
        path: std::path::PathBuf,
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
        Self { manifest, limits, gate: PixelGate::new(limits.pixels_in_flight), idx: Mutex::default() }
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
        let record = &self.manifest.images[index as usize];
        if let Source::Idx { .. } = self.manifest.source {
            let gone = || LoadError::Gone { path: record.path.clone() };
            let (file, position) = record.path.rsplit_once('#').ok_or_else(gone)?;
            let position = position.parse().map_err(|_| gone())?;
            return self.idx(file)?.image(position).map(use_image).ok_or_else(gone);
        }
        let path = self.manifest.full_path(index);
        read_file(&path, &self.limits)
            .and_then(|bytes| {
                decode_admitted(&bytes, &self.limits, |pixels| self.gate.admit(pixels), use_image)
            })
            .map_err(|source| LoadError::Decode { path, source })
    }

    fn idx(&self, file: &str) -> Result<Arc<IdxImages>, IdxError> {
        let mut kept = self.idx.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = kept.get(file) {
            return Ok(images.clone());
        }
        let images = Arc::new(IdxImages::read(&self.manifest.root.join(file))?);
        kept.insert(file.to_owned(), images.clone());
        Ok(images)
    }
}
