//! From a picture to a batch of one, with the code training uses.

use image::RgbImage;

use crate::bundle::Preprocessing;
use crate::error::OpError;
use crate::graph::Input;
use crate::tensor::Tensor;

/// Upright RGB of any size → what the model takes: bytes `[1, S, S, 3]`, or normalised numbers `[1, 3, S, S]`.
pub(crate) fn batch(image: RgbImage, settings: &Preprocessing, input: &Input) -> Result<Tensor, OpError> {
    let size = settings.size as usize;
    let levels = harvest_picture::fit(image, settings.size).into_raw();
    if input.bytes {
        return Tensor::new(vec![1, size, size, 3], levels);
    }
    let mut planes = Vec::with_capacity(levels.len());
    for c in 0..3 {
        let (mean, std) = settings.normalisation.map_or((0.0, 1.0), |n| (n.mean[c], n.std[c]));
        planes.extend(levels.iter().skip(c).step_by(3).map(|&level| (f32::from(level) / 255.0 - mean) / std));
    }
    Tensor::new(vec![1, 3, size, size], planes)
}
