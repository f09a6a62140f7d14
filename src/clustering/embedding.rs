//! What a network sees of each image, as plain numbers.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::ClusterError;
use crate::data::ImageCache;

/// One row of features for each image, `[N, D]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    values: Vec<f32>,
    dim: usize,
}

impl Embedding {
    /// Rows of `dim` values each.
    ///
    /// # Errors
    /// If a value is not a number, or values do not make whole rows.
    pub fn new(values: Vec<f32>, dim: usize) -> Result<Self, ClusterError> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(ClusterError::Ragged { values: values.len(), dim });
        }
        let broken = values.par_chunks_exact(dim).position_first(|row| row.iter().any(|v| !v.is_finite()));
        match broken {
            Some(row) => Err(ClusterError::NotFinite { row }),
            None => Ok(Self { values, dim }),
        }
    }

    /// The pixels of the images `indices`, from -0.5 to 0.5.
    ///
    /// # Errors
    /// If images have no pixels.
    pub fn of_pixels(cache: &ImageCache, indices: &[u32]) -> Result<Self, ClusterError> {
        let dim = cache.size() as usize * cache.size() as usize * 3;
        let values = indices.par_iter().flat_map_iter(|index| cache.image(*index));
        Self::new(values.map(|level| f32::from(*level) / 255.0 - 0.5).collect(), dim)
    }

    /// N.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All rows, one behind the other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Row `index`, below [`Self::len`].
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// The given rows, in the given order.
    pub fn select(&self, rows: &[u32]) -> Self {
        Self { values: rows.iter().flat_map(|row| self.row(*row as usize)).copied().collect(), dim: self.dim }
    }

    /// `[N, D]` on a device.
    pub fn to_tensor(self, device: &Device) -> Tensor<2> {
        let shape = [self.len(), self.dim];
        Tensor::from_data(TensorData::new(self.values, shape), device)
    }

    /// Rows scaled to length one, so that their product is the cosine of their angle; a row of zeros stays.
    pub fn normalised(mut self) -> Self {
        self.values.par_chunks_exact_mut(self.dim).for_each(|row| {
            // Scaled first, for squares of huge values overflow.
            let peak = row.iter().fold(0f32, |peak, value| peak.max(value.abs()));
            if peak > 0.0 {
                let length = row.iter().map(|value| (value / peak).powi(2)).sum::<f32>().sqrt();
                row.iter_mut().for_each(|value| *value = *value / peak / length);
            }
        });
        self
    }
}
