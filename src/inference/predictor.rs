//! A network in evaluation mode over many images.

use burn::tensor::{DType, Device, Tensor, TensorData};
use harvest_models::{Classifier, Mode};

use crate::augment::Normalisation;

/// `[count, 3, size, size]` normalised floats on `device`, from `count` images of `size · size · 3` bytes each.
///
/// Levels travel to the device as bytes, a quarter of the traffic, and become floats there.
pub fn images_to_tensor(
    bytes: Vec<u8>,
    size: usize,
    normalisation: &Normalisation,
    device: &Device,
) -> Tensor<4> {
    let count = bytes.len() / (size * size * 3).max(1);
    let levels = Tensor::<4, burn::tensor::Int>::from_data(
        TensorData::new(bytes, [count, size, size, 3]),
        (device, DType::U8),
    );
    let images = levels.permute([0, 3, 1, 2]).float();
    let channel = |values: [f32; 3]| Tensor::<1>::from_data(values, device).reshape([1, 3, 1, 1]);
    let scale = normalisation.std.map(|std| 1.0 / (255.0 * std));
    let shift = [0, 1, 2].map(|c| -normalisation.mean[c] / normalisation.std[c]);
    images * channel(scale) + channel(shift)
}

/// What a network says of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The most likely class.
    pub class: usize,
    /// Its probability, in [0, 1].
    pub confidence: f32,
    /// Probability of every class.
    pub probabilities: Vec<f32>,
}

impl Prediction {
    /// From one row of logits.
    pub fn from_logits(logits: &[f32]) -> Self {
        let probabilities = softmax_row(logits);
        let class = crate::metrics::argmax(logits);
        Self { class, confidence: probabilities[class], probabilities }
    }
}

/// Probabilities of one row of logits.
pub fn softmax_row(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

/// Runs a network over images in batches.
pub struct Predictor<'a> {
    network: Classifier,
    size: usize,
    normalisation: &'a Normalisation,
    batch: usize,
}

impl<'a> Predictor<'a> {
    /// For images of `size` × `size` pixels, `batch` at a time. The network is taken off autodiff.
    pub fn new(network: &Classifier, size: usize, normalisation: &'a Normalisation, batch: usize) -> Self {
        Self { network: network.detached(), size, normalisation, batch: batch.max(1) }
    }

    /// Logits of each image in order, `classes` values each, given to `take` batch by batch with the position of the
    /// batch's first image. Stops when `take` returns false.
    pub fn logits<'i>(
        &self,
        images: impl IntoIterator<Item = &'i [u8]>,
        mut take: impl FnMut(usize, Vec<f32>) -> bool,
    ) {
        let device = self.network.device().inner();
        let bytes_each = self.size * self.size * 3;
        let mut images = images.into_iter().peekable();
        let mut position = 0;
        while images.peek().is_some() {
            let mut bytes = Vec::with_capacity(self.batch * bytes_each);
            images.by_ref().take(self.batch).for_each(|image| bytes.extend_from_slice(image));
            let count = bytes.len() / bytes_each;
            let batch = images_to_tensor(bytes, self.size, self.normalisation, &device);
            let logits = self.network.forward(batch, Mode::Evaluate).logits;
            if !take(position, logits.into_data().iter::<f32>().collect()) {
                return;
            }
            position += count;
        }
    }
}
