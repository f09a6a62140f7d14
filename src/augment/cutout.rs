//! Cutout: DeVries and Taylor, arXiv:1708.04552, as FixMatch's code places and colours it.

use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, Pixel};

/// CIFAR-10's mean colour, whatever the data: FixMatch's choice.
pub(super) const FILL: Pixel = [125, 123, 114];

/// The longest side, as a fraction of the picture's width: FixMatch's 0.5.
const LARGEST: f64 = 0.5;

/// One grey square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cutout {
    /// Side of the square as a fraction of the picture's width; 0 leaves the picture as it is.
    pub side: f64,
    /// Column of the centre, in pixels.
    pub centre_x: f64,
    /// Row of the centre, in pixels.
    pub centre_y: f64,
}

impl Cutout {
    /// Side uniform in 0..0.5, centre uniform in the picture.
    pub(super) fn draw(width: usize, height: usize, rng: &mut ChaCha8Rng) -> Self {
        Self {
            side: rng.random::<f64>() * LARGEST,
            centre_x: rng.random::<f64>() * width as f64,
            centre_y: rng.random::<f64>() * height as f64,
        }
    }

    /// The columns and rows of the square, none if it has no side.
    ///
    /// As published, it is one pixel larger than `side` says, and near the left or upper edge it is moved inside
    /// rather than cut short.
    pub(super) fn area(&self, width: usize, height: usize) -> Option<[Range<usize>; 2]> {
        if self.side <= 0.0 {
            return None;
        }
        let side = self.side * width as f64;
        let span = |centre: f64, length: usize| {
            let first = (centre - side / 2.0).max(0.0) as usize;
            let last = (first as f64 + side).min(length as f64) as usize;
            first.min(length)..(last + 1).min(length)
        };
        Some([span(self.centre_x, width), span(self.centre_y, height)])
    }

    /// Paints the square.
    pub fn apply(&self, canvas: &mut Canvas) {
        let Some([columns, rows]) = self.area(canvas.width, canvas.height) else { return };
        for y in rows {
            canvas.pixels[y * canvas.width..][columns.clone()].fill(FILL);
        }
    }
}
