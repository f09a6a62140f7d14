//! A network in evaluation mode over many images.

use burn::tensor::{DType, Device, Tensor, TensorData};
use harvest_models::{Classifier, Mode, Output};

use crate::augment::{Normalisation, normalise_batch};

/// `[count, 3, size, size]` normalised floats on `device`, from `count` images of `size · size · 3` bytes each.
///
/// Levels travel to a GPU as bytes, a quarter of the traffic, and become floats there; on the CPU a table does it faster.
pub fn images_to_tensor(
    bytes: Vec<u8>,
    size: usize,
    normalisation: &Normalisation,
    device: &Device,
) -> Tensor<4> {
    let count = bytes.len() / (size * size * 3).max(1);
    if crate::device::is_cpu(device) {
        let mut floats = vec![0.0; bytes.len()];
        normalise_batch(&bytes, size, normalisation, &mut floats);
        return Tensor::from_data(TensorData::new(floats, [count, 3, size, size]), device);
    }
    let levels = Tensor::<4, burn::tensor::Int>::from_data(
        TensorData::new(bytes, [count, size, size, 3]),
        (device, DType::U8),
    );
    normalise(levels.permute([0, 3, 1, 2]).float(), normalisation)
}

/// Levels from 0 to 255, `[N, 3, S, S]`, as the network reads them, where they are.
pub(crate) fn normalise(images: Tensor<4>, normalisation: &Normalisation) -> Tensor<4> {
    let device = images.device();
    let channel = |values: [f32; 3]| Tensor::<1>::from_data(values, &device).reshape([1, 3, 1, 1]);
    let scale = normalisation.std.map(|std| 1.0 / (255.0 * std));
    let shift = [0, 1, 2].map(|c| -normalisation.mean[c] / normalisation.std[c]);
    images * channel(scale) + channel(shift)
}

/// What a network says of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The most likely class.
    pub class: usize,
    /// Its probability, in [0, 1]; calibrated if a [`super::Confidence`] said so.
    pub confidence: f32,
    /// Probability of every class.
    pub probabilities: Vec<f32>,
    /// Whether the confidence is too low for the class to count. The class is told all the same.
    pub abstained: bool,
}

impl Prediction {
    /// From one row of logits, as they are.
    pub fn from_logits(logits: &[f32]) -> Self {
        let probabilities = softmax_row(logits);
        let class = crate::metrics::argmax(logits);
        Self { class, confidence: probabilities[class], probabilities, abstained: false }
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
        take: impl FnMut(usize, Vec<f32>) -> bool,
    ) {
        self.each_batch(images, |output| output.logits, take);
    }

    /// What the linear classifier sees of each image, in order, as [`Self::logits`].
    pub fn features<'i>(
        &self,
        images: impl IntoIterator<Item = &'i [u8]>,
        take: impl FnMut(usize, Vec<f32>) -> bool,
    ) {
        self.each_batch(images, |output| output.features, take);
    }

    fn each_batch<'i>(
        &self,
        images: impl IntoIterator<Item = &'i [u8]>,
        choose: impl Fn(Output) -> Tensor<2> + Sync,
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
            let values = crate::device::compute(&device, || {
                let batch = images_to_tensor(bytes, self.size, self.normalisation, &device);
                choose(self.network.forward(batch, Mode::Evaluate)).into_data()
            });
            if !take(position, values.iter::<f32>().collect()) {
                return;
            }
            position += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use harvest_models::ClassifierConfig;
    use rand::RngExt;

    use super::*;
    use crate::augment::normalise_batch;
    use crate::random::{Purpose, stream};

    fn images(count: usize, size: usize) -> Vec<u8> {
        let mut rng = stream(4, Purpose::Demo, [0; 3]);
        (0..count * size * size * 3).map(|_| rng.random()).collect()
    }

    fn net() -> Classifier {
        let config = ClassifierConfig::preset("resnet8", 3).expect("a preset");
        config.init(1, &Device::flex().autodiff()).expect("a valid network")
    }

    #[test]
    fn a_device_normalises_as_the_host_does() {
        let device = Device::flex();
        let odd = Normalisation { mean: [0.1, 0.5, 0.9], std: [0.05, 1.0, 3.0] };
        for normalisation in [Normalisation::IMAGENET, Normalisation::HALF, odd] {
            for (count, size) in [(1, 1), (3, 5), (2, 16)] {
                let bytes = images(count, size);
                let mut expected = vec![0.0; bytes.len()];
                normalise_batch(&bytes, size, &normalisation, &mut expected);
                let found = images_to_tensor(bytes, size, &normalisation, &device);
                assert_eq!(found.dims(), [count, 3, size, size]);
                for (f, e) in found.into_data().iter::<f32>().zip(expected) {
                    // One rounding more than a division, of numbers up to mean / std.
                    assert!((f - e).abs() <= 1e-6 + 1e-6 * e.abs().max(18.0), "{f} {e}");
                }
            }
        }
        assert_eq!(images_to_tensor(Vec::new(), 5, &odd, &device).dims(), [0, 3, 5, 5]);
    }

    #[test]
    fn the_batch_does_not_change_what_an_image_is_given() {
        let (net, size, normalisation) = (net(), 8, Normalisation::IMAGENET);
        let bytes = images(7, size);
        let images: Vec<&[u8]> = bytes.chunks(size * size * 3).collect();
        let run = |batch: usize| {
            let mut all: Vec<f32> = Vec::new();
            let predictor = Predictor::new(&net, size, &normalisation, batch);
            predictor.logits(images.iter().copied(), |position, logits| {
                assert_eq!(position * 3, all.len());
                all.extend(logits);
                true
            });
            all
        };
        let expected = run(7);
        assert_eq!(expected.len(), 7 * 3);
        let before = net.to_tensors();
        for batch in [0, 1, 2, 100] {
            for (f, e) in run(batch).iter().zip(&expected) {
                assert!((f - e).abs() <= 1e-5 * e.abs().max(1.0), "{f} {e}");
            }
        }
        assert_eq!(net.to_tensors(), before, "predicting moves no running statistics");
    }

    #[test]
    fn no_images_give_no_logits_and_a_caller_can_stop() {
        let (net, size, normalisation) = (net(), 8, Normalisation::IMAGENET);
        let predictor = Predictor::new(&net, size, &normalisation, 2);
        predictor.logits([], |_, _| panic!("there is nothing to take"));
        let bytes = images(6, size);
        let mut taken = 0;
        predictor.logits(bytes.chunks(size * size * 3), |_, _| {
            taken += 1;
            taken < 2
        });
        assert_eq!(taken, 2);
    }

    #[test]
    fn probabilities_sum_to_one_for_any_logits() {
        for logits in [[1000.0, 999.0, -1000.0], [-1e30, 0.0, 1e30], [0.0; 3]] {
            let prediction = Prediction::from_logits(&logits);
            assert!((prediction.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert_eq!(prediction.confidence, prediction.probabilities[prediction.class]);
            assert!(prediction.probabilities.iter().all(|p| *p <= prediction.confidence));
        }
        assert_eq!(Prediction::from_logits(&[0.0, 0.0]).class, 0, "the first of equals");
    }
}
