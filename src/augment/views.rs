//! The weak and the strong view of one image.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::canvas::Canvas;
use super::contrast::ContrastConfig;
use super::cutout::Cutout;
use super::frame::ReflectCrop;
use super::randaugment::Operation;
use super::tensor::Normalisation;

/// How views are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewConfig {
    /// Pixels added on each side, mirrored, before a picture of the original size is cut at random. Without it, an
    /// eighth of the size: USB's crop ratio of 0.875.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<u32>,
    /// Mirror left to right with probability 1/2. USB: on.
    pub flip: bool,
    /// RandAugment operations in the strong view, drawn with replacement. USB: 3 (FixMatch: 2).
    pub operations: u32,
    /// A grey square in the strong view, after the operations. FixMatch, USB: on.
    pub cutout: bool,
    /// Off, operations that change colours are not drawn: for sets where the colour tells the class.
    pub colour: bool,
    /// What the levels are scaled with on their way to the network.
    pub normalisation: Normalisation,
    /// SimCLR's views, for `harvest cluster`; `flip` and `colour` hold for them too.
    pub contrast: ContrastConfig,
}

impl Default for ViewConfig {
    fn default() -> Self {
        Self {
            padding: None,
            flip: true,
            operations: 3,
            cutout: true,
            colour: true,
            normalisation: Normalisation::default(),
            contrast: ContrastConfig::default(),
        }
    }
}

/// A view configuration that cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewConfigError {
    /// Dividing by such a deviation gives no usable numbers.
    #[error("`normalisation.std` is {found:?}; each of the three must be above 0")]
    Deviation {
        /// What was asked for.
        found: [f32; 3],
    },
    /// The mean is not a number.
    #[error("`normalisation.mean` is {found:?}; each of the three must be a finite number")]
    Mean {
        /// What was asked for.
        found: [f32; 3],
    },
}

impl ViewConfig {
    /// Refuses what would only fail, or give nonsense, during training.
    pub fn check(&self) -> Result<(), ViewConfigError> {
        let Normalisation { mean, std } = self.normalisation;
        if !std.iter().all(|&deviation| deviation > 0.0 && deviation.is_finite()) {
            return Err(ViewConfigError::Deviation { found: std });
        }
        if !mean.iter().all(|level| level.is_finite()) {
            return Err(ViewConfigError::Mean { found: mean });
        }
        Ok(())
    }

    /// Draws where to cut a picture of `size` × `size` and whether to mirror it.
    pub(super) fn draw_crop(&self, size: usize, rng: &mut ChaCha8Rng) -> ReflectCrop {
        let padding = self.padding.unwrap_or(size as u32 / 8);
        let mut offset =
            || i64::from(rng.random_range(0..=u64::from(padding) * 2) as u32) - i64::from(padding);
        let (top, left) = (offset(), offset());
        ReflectCrop { top, left, flip: self.flip && rng.random::<bool>() }
    }

    /// Draws what is done to a strong view once it is cut: operations with their values, and the square.
    pub(super) fn draw_distortion(
        &self,
        size: usize,
        rng: &mut ChaCha8Rng,
    ) -> (Vec<(Operation, f64)>, Option<Cutout>) {
        let operations = (0..self.operations).map(|_| Operation::draw(self.colour, rng)).collect();
        (operations, self.cutout.then(|| Cutout::draw(size, size, rng)))
    }
}

/// Random crop of the reflect-padded picture, then a random mirror.
///
/// `source` and `out`: `size * size * 3` bytes, row by row.
///
/// # Panics
/// If they are not.
pub fn weak_view(source: &[u8], size: usize, config: &ViewConfig, rng: &mut ChaCha8Rng, out: &mut [u8]) {
    assert_eq!(
        (source.len(), out.len()),
        (size * size * 3, size * size * 3),
        "bytes of a {size} x {size} picture"
    );
    config.draw_crop(size, rng).copy(source, size, size, out);
}

/// As [`weak_view`], then `config.operations` operations with values of their own, then [`Cutout`].
///
/// # Panics
/// As [`weak_view`].
pub fn strong_view(source: &[u8], size: usize, config: &ViewConfig, rng: &mut ChaCha8Rng, out: &mut [u8]) {
    weak_view(source, size, config, rng, out);
    let (operations, cutout) = config.draw_distortion(size, rng);
    Canvas::edit(size, size, out, |canvas| {
        operations.into_iter().for_each(|(operation, value)| operation.apply(value, canvas));
        if let Some(cutout) = cutout {
            cutout.apply(canvas);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    fn picture(size: usize) -> Vec<u8> {
        (0..size * size * 3).map(|i| (i * 7 + i / 5) as u8).collect()
    }

    #[test]
    fn without_padding_and_flip_the_weak_view_is_the_picture() {
        let config = ViewConfig { padding: Some(0), flip: false, ..Default::default() };
        let source = picture(9);
        let mut out = vec![0; source.len()];
        weak_view(&source, 9, &config, &mut stream(1, Purpose::View, [0; 3]), &mut out);
        assert_eq!(out, source);
    }

    #[test]
    fn without_operations_and_cutout_the_strong_view_is_a_weak_view() {
        let config = ViewConfig { operations: 0, cutout: false, ..Default::default() };
        let source = picture(16);
        let [mut weak, mut strong] = [vec![0; source.len()], vec![1; source.len()]];
        for image in 0..20 {
            weak_view(&source, 16, &config, &mut stream(1, Purpose::View, [0, image, 0]), &mut weak);
            strong_view(&source, 16, &config, &mut stream(1, Purpose::View, [0, image, 0]), &mut strong);
            assert_eq!(weak, strong);
        }
    }

    #[test]
    fn weak_views_reach_every_offset_and_both_mirrors() {
        let config = ViewConfig { padding: Some(2), ..Default::default() };
        let mut rng = stream(3, Purpose::View, [0; 3]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let crop = config.draw_crop(16, &mut rng);
            seen.insert((crop.top, crop.left, crop.flip));
        }
        assert_eq!(seen.len(), 5 * 5 * 2);
        assert!(seen.iter().all(|(top, left, _)| top.abs() <= 2 && left.abs() <= 2));
    }

    #[test]
    fn unknown_keys_and_useless_statistics_are_refused() {
        assert!(toml::from_str::<ViewConfig>("paddding = 4").is_err());
        let config: ViewConfig =
            toml::from_str("padding = 4\n[normalisation]\nstd = [1.0, 0.0, 1.0]").expect("valid");
        assert_eq!(config.padding, Some(4));
        assert!(matches!(config.check(), Err(ViewConfigError::Deviation { .. })));
        assert_eq!(ViewConfig::default().check(), Ok(()));
    }
}
