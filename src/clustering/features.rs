//! What a network sees of each image, computed once and kept on disk by content.
//!
//! ```text
//! FOLDER/6f1a…/      weights and preprocessing
//!   09bc….safetensors   features of 2048 images, named by their pixels
//! ```
//!
//! A run that was stopped finds the shards it had finished; one over more images finds those of the images that were there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::TensorData;
use harvest_models::{Classifier, NamedTensors, read_safetensors, write_safetensors};

use super::Embedding;
use super::course::LearnError;
use crate::augment::{Normalisation, View, ViewConfig, ViewRequest, fill_views};
use crate::data::ImageCache;
use crate::files::WriteError;
use crate::inference::Predictor;
use crate::report::Progress;

/// Images of a file.
const SHARD: usize = 2048;
/// Images of a forward pass.
const BATCH: usize = 64;
/// The one tensor of a file.
const NAME: &str = "features";

/// Which views' features are wanted instead of the images' own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AugmentedCopy<'a> {
    /// How views are made.
    pub views: &'a ViewConfig,
    /// The kind of view.
    pub view: View,
    /// Which of several such views.
    pub number: u64,
    /// Seed of the views.
    pub seed: u64,
}

/// Features of the images `indices` of `cache`, one row each, out of `folder` or by `network`; `progress` counts images.
///
/// # Errors
/// [`LearnError::NotFinite`] names an image whose features are no numbers. [`super::ClusterError::Interrupted`]: what is done is
/// kept.
pub fn embed(
    network: &Classifier,
    cache: &ImageCache,
    indices: &[u32],
    normalisation: &Normalisation,
    folder: &Path,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Embedding, LearnError> {
    Store { network, cache, normalisation, copy: None }.embed(indices, folder, stop, progress)
}

/// [`embed`] of augmented copies of the images.
///
/// # Errors
/// As [`embed`].
pub fn embed_copy(
    network: &Classifier,
    cache: &ImageCache,
    indices: &[u32],
    copy: AugmentedCopy<'_>,
    folder: &Path,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Embedding, LearnError> {
    let normalisation = &copy.views.normalisation;
    Store { network, cache, normalisation, copy: Some(copy) }.embed(indices, folder, stop, progress)
}

/// Identifies weights: the first half of a hash of all of them.
pub(super) fn fingerprint(network: &Classifier) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, data) in network.to_tensors() {
        hasher.update(name.as_bytes()).update(data.as_bytes());
    }
    short(&hasher)
}

fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..32].to_owned()
}

/// What features are made of.
struct Store<'a> {
    network: &'a Classifier,
    cache: &'a ImageCache,
    normalisation: &'a Normalisation,
    copy: Option<AugmentedCopy<'a>>,
}

impl Store<'_> {
    fn embed(
        &self,
        indices: &[u32],
        folder: &Path,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<Embedding, LearnError> {
        let folder = folder.join(self.recipe());
        std::fs::create_dir_all(&folder).map_err(WriteError::at(&folder))?;
        let dim = self.network.feature_size();
        let mut values = Vec::with_capacity(indices.len() * dim);
        for shard in indices.chunks(SHARD) {
            let path = folder.join(format!("{}.safetensors", self.content(shard)));
            let stored = read_safetensors(&path).ok().and_then(|tensors| sound(tensors, shard.len(), dim));
            let found = match stored {
                Some(found) => found,
                None => {
                    let found = self.compute(shard, stop, progress)?;
                    let data = TensorData::new(found.clone(), [shard.len(), dim]);
                    write_safetensors(&path, &NamedTensors::from([(NAME.to_owned(), data)]), HashMap::new())?;
                    found
                }
            };
            values.extend(found);
            progress.set((values.len() / dim) as u64);
        }
        Ok(Embedding::new(values, dim)?)
    }

    /// Identifies weights and preprocessing.
    fn recipe(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint(self.network).as_bytes());
        hasher.update(&self.cache.size().to_le_bytes());
        hasher.update(&serde_json::to_vec(self.normalisation).expect("plain data"));
        if let Some(AugmentedCopy { views, view, number, seed }) = self.copy {
            hasher.update(&serde_json::to_vec(views).expect("plain data"));
            hasher.update(format!("{view:?} {number} {seed}").as_bytes());
        }
        short(&hasher)
    }

    /// Identifies images.
    fn content(&self, shard: &[u32]) -> String {
        let mut hasher = blake3::Hasher::new();
        for index in shard {
            hasher.update(self.cache.image(*index));
            if self.copy.is_some() {
                // The stream of a view is keyed by the image's number.
                hasher.update(&index.to_le_bytes());
            }
        }
        short(&hasher)
    }

    fn compute(&self, shard: &[u32], stop: &AtomicBool, progress: &Progress) -> Result<Vec<f32>, LearnError> {
        let (size, dim) = (self.cache.size() as usize, self.network.feature_size());
        let predictor = Predictor::new(self.network, size, self.normalisation, BATCH);
        let mut values: Vec<f32> = Vec::with_capacity(shard.len() * dim);
        for batch in shard.chunks(BATCH) {
            if stop.load(Ordering::Relaxed) {
                return Err(LearnError::interrupted());
            }
            let mut views = Vec::new();
            let images: Vec<&[u8]> = match self.copy {
                None => batch.iter().map(|index| self.cache.image(*index)).collect(),
                Some(copy) => {
                    views = self.copies(batch, copy);
                    views.chunks_exact(size * size * 3).collect()
                }
            };
            predictor.features(images, |_, found| {
                values.extend(found);
                true
            });
            drop(views);
            progress.advance(batch.len() as u64);
        }
        let broken = values.chunks_exact(dim).position(|row| row.iter().any(|value| !value.is_finite()));
        match broken {
            Some(row) => Err(LearnError::NotFinite { image: shard[row] }),
            None => Ok(values),
        }
    }

    fn copies(&self, batch: &[u32], copy: AugmentedCopy<'_>) -> Vec<u8> {
        let request = |index: &u32| ViewRequest {
            source: self.cache.image(*index),
            image: u64::from(*index),
            epoch: copy.number,
            view: copy.view,
        };
        let requests: Vec<ViewRequest<'_>> = batch.iter().map(request).collect();
        let size = self.cache.size() as usize;
        let mut out = vec![0; batch.len() * size * size * 3];
        fill_views(&requests, size, copy.views, copy.seed, &mut out);
        out
    }
}

/// The values of a stored shard, if they are what they should be; of anything else features are computed again.
fn sound(mut tensors: NamedTensors, rows: usize, dim: usize) -> Option<Vec<f32>> {
    let data = tensors.remove(NAME).filter(|data| data.shape().to_vec() == [rows, dim])?;
    let values: Vec<f32> = data.iter::<f32>().collect();
    values.iter().all(|value| value.is_finite()).then_some(values)
}
