//! RandAugment's operations with FixMatch's ranges: Sohn et al., arXiv:2001.07685, appendix D, table 12.
//!
//! Ranges are those of the code that USB shares with most PyTorch versions of FixMatch.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::canvas::Canvas;
use super::{affine, blend, tone};

/// What may be done to a picture; the first fourteen are drawn by RandAugment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Stretches each channel to the full range. The value is not used.
    AutoContrast,
    /// Blend with black; 1 changes nothing.
    Brightness,
    /// Blend with the grey picture; 1 changes nothing.
    Color,
    /// Blend with the mean grey; 1 changes nothing.
    Contrast,
    /// Makes the levels of each channel about equally frequent. The value is not used.
    Equalize,
    /// Changes nothing. The value is not used.
    Identity,
    /// Keeps so many bits of each level.
    Posterize,
    /// Turns counter-clockwise, in degrees.
    Rotate,
    /// Blend with the smoothed picture; 1 changes nothing.
    Sharpness,
    /// Columns move by so many pixels for each row.
    ShearX,
    /// Rows move by so many pixels for each column.
    ShearY,
    /// Inverts levels at or above the value.
    Solarize,
    /// Moves to the left by a fraction of the width.
    TranslateX,
    /// Moves up by a fraction of the height.
    TranslateY,
    /// The negative. The value is not used, and RandAugment does not draw it.
    Invert,
}

impl Operation {
    /// Those that RandAugment draws from, in the order of the published list.
    pub const ALL: [Self; 14] = [
        Self::AutoContrast,
        Self::Brightness,
        Self::Color,
        Self::Contrast,
        Self::Equalize,
        Self::Identity,
        Self::Posterize,
        Self::Rotate,
        Self::Sharpness,
        Self::ShearX,
        Self::ShearY,
        Self::Solarize,
        Self::TranslateX,
        Self::TranslateY,
    ];

    /// Those drawn from where the colour tells the class: USB's list for such sets.
    pub const WITHOUT_COLOUR: [Self; 9] = [
        Self::Brightness,
        Self::Equalize,
        Self::Identity,
        Self::Rotate,
        Self::Sharpness,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
    ];

    /// The name in the published lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::AutoContrast => "AutoContrast",
            Self::Brightness => "Brightness",
            Self::Color => "Color",
            Self::Contrast => "Contrast",
            Self::Equalize => "Equalize",
            Self::Identity => "Identity",
            Self::Posterize => "Posterize",
            Self::Rotate => "Rotate",
            Self::Sharpness => "Sharpness",
            Self::ShearX => "ShearX",
            Self::ShearY => "ShearY",
            Self::Solarize => "Solarize",
            Self::TranslateX => "TranslateX",
            Self::TranslateY => "TranslateY",
            Self::Invert => "Invert",
        }
    }

    /// The smallest and the largest value that RandAugment gives it.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::AutoContrast | Self::Equalize | Self::Identity | Self::Invert => (0.0, 1.0),
            Self::Brightness | Self::Color | Self::Contrast | Self::Sharpness => (0.05, 0.95),
            Self::Posterize => (4.0, 8.0),
            Self::Rotate => (-30.0, 30.0),
            Self::ShearX | Self::ShearY | Self::TranslateX | Self::TranslateY => (-0.3, 0.3),
            Self::Solarize => (0.0, 256.0),
        }
    }

    /// Any operation of the list with the same chance, its value uniform in its range.
    pub(super) fn draw(colour: bool, rng: &mut ChaCha8Rng) -> (Self, f64) {
        let choices: &[Self] = if colour { &Self::ALL } else { &Self::WITHOUT_COLOUR };
        let operation = choices[rng.random_range(0..choices.len() as u32) as usize];
        let (least, most) = operation.range();
        (operation, least + (most - least) * rng.random::<f64>())
    }

    /// Changes the picture; values outside [`range`](Self::range) are meaningful too.
    pub fn apply(self, value: f64, canvas: &mut Canvas) {
        match self {
            Self::AutoContrast => tone::auto_contrast(canvas),
            Self::Brightness => tone::brightness(canvas, value),
            Self::Color => blend::colour(canvas, value),
            Self::Contrast => tone::contrast(canvas, value),
            Self::Equalize => tone::equalize(canvas),
            Self::Identity => {}
            Self::Posterize => tone::posterize(canvas, value),
            Self::Rotate => affine::rotate(canvas, value),
            Self::Sharpness => blend::sharpness(canvas, value),
            Self::ShearX => affine::shear_x(canvas, value),
            Self::ShearY => affine::shear_y(canvas, value),
            Self::Solarize => tone::solarize(canvas, value),
            Self::TranslateX => affine::translate_x(canvas, value),
            Self::TranslateY => affine::translate_y(canvas, value),
            Self::Invert => tone::invert(canvas),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_operation_panics_at_any_size_or_value(
            width in 0usize..9, height in 0usize..9, value in -300.0f64..300.0, fill in any::<u8>()
        ) {
            for operation in Operation::ALL.into_iter().chain([Operation::Invert]) {
                let mut bytes: Vec<u8> =
                    (0..width * height * 3).map(|i| fill.wrapping_mul(i as u8).wrapping_add(i as u8)).collect();
                Canvas::edit(width, height, &mut bytes, |canvas| operation.apply(value, canvas));
            }
        }
    }
}
