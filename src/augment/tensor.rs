//! From levels to the numbers a network reads, and float resampling in PyTorch's two ways.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Filter;

/// Mean and standard deviation of each channel, for levels scaled to 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Normalisation {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by; above 0.
    pub std: [f32; 3],
}

impl Normalisation {
    /// ImageNet's statistics, which pretrained weights expect.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// To -1..=1, for weights trained that way.
    pub const HALF: Self = Self { mean: [0.5; 3], std: [0.5; 3] };

    /// The number for each channel's each level.
    fn tables(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| {
            std::array::from_fn(|level| (level as f32 / 255.0 - self.mean[c]) / self.std[c])
        })
    }
}

/// torchvision's and USB's default: [`Normalisation::IMAGENET`].
impl Default for Normalisation {
    fn default() -> Self {
        Self::IMAGENET
    }
}

/// Levels `[N, S, S, 3]` → normalised numbers `[N, 3, S, S]`.
///
/// For devices that take no 8-bit tensors, and for the CPU, where the table is faster than arithmetic on a tensor.
///
/// # Panics
/// If `out` is not as long as `levels`, or these are no whole pictures.
pub fn normalise_batch(levels: &[u8], size: usize, normalisation: &Normalisation, out: &mut [f32]) {
    let length = size * size * 3;
    assert!(
        levels.len() == out.len() && levels.len().is_multiple_of(length.max(1)),
        "whole pictures of {size} x {size}"
    );
    let tables = normalisation.tables();
    let pictures = levels.par_chunks_exact(length.max(1));
    out.par_chunks_exact_mut(length.max(1))
        .zip(pictures)
        .for_each(|(out, levels)| to_planes(levels, &tables, out));
}

/// Levels `[H, W, 3]` → numbers in 0..=1, `[3, H, W]`.
pub fn to_tensor(levels: &[u8]) -> Vec<f32> {
    let unit = Normalisation { mean: [0.0; 3], std: [1.0; 3] };
    let mut out = vec![0.0; levels.len() / 3 * 3];
    to_planes(levels, &unit.tables(), &mut out);
    out
}

fn to_planes(levels: &[u8], tables: &[[f32; 256]; 3], out: &mut [f32]) {
    let pixels = levels.as_chunks::<3>().0;
    for (c, plane) in out.chunks_exact_mut(pixels.len().max(1)).enumerate() {
        for (number, pixel) in plane.iter_mut().zip(pixels) {
            *number = tables[c][usize::from(pixel[c])];
        }
    }
}

/// Numbers on a grid: `[channels, height, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `channels * height * width`.
    pub values: Vec<f32>,
}

/// Resamples to `width` × `height` as `torch.nn.functional.interpolate` does, pixel centres at halves.
///
/// `antialias` lets the filter grow when shrinking, and makes bicubic Pillow's (a = -1/2); without it bicubic is
/// PyTorch's own (a = -3/4), and edges are repeated.
pub fn interpolate(planes: &Planes, width: usize, height: usize, filter: Filter, antialias: bool) -> Planes {
    let (columns, rows) =
        (taps(planes.width, width, filter, antialias), taps(planes.height, height, filter, antialias));
    let area = planes.width * planes.height;
    let mut values = Vec::new();
    if let Some(channels) = planes.values.len().checked_div(area) {
        values.reserve(channels * width * height);
        for plane in planes.values.chunks_exact(area) {
            let wide: Vec<f32> = plane
                .chunks_exact(planes.width)
                .flat_map(|row| columns.iter().map(|taps| taps.iter().map(|&(x, w)| row[x] * w).sum::<f32>()))
                .collect();
            for taps in &rows {
                values.extend(
                    (0..width).map(|x| taps.iter().map(|&(y, w)| wide[y * width + x] * w).sum::<f32>()),
                );
            }
        }
    }
    Planes { width, height, values }
}

/// For each output place the input places it reads, with weights that sum to 1.
fn taps(have: usize, want: usize, filter: Filter, antialias: bool) -> Vec<Vec<(usize, f32)>> {
    if have == 0 {
        return Vec::new();
    }
    let (support, cubic) = match filter {
        Filter::Bilinear => (1.0, None),
        Filter::Bicubic => (2.0, Some(if antialias { -0.5 } else { -0.75 })),
    };
    let scale = have as f64 / want as f64;
    let stretch = if antialias { scale.max(1.0) } else { 1.0 };
    (0..want)
        .map(|place| {
            let centre = (place as f64 + 0.5) * scale - 0.5;
            let reach = support * stretch;
            let near = (centre - reach).ceil() as i64..=(centre + reach).floor() as i64;
            // An antialiasing filter is cut at the edge, the others read the edge again.
            let read = near.filter(|&x| !antialias || (0..have as i64).contains(&x));
            let mut taps: Vec<(usize, f64)> = read
                .map(|x| (x.clamp(0, have as i64 - 1) as usize, weight((x as f64 - centre) / stretch, cubic)))
                .collect();
            let sum: f64 = taps.iter().map(|tap| tap.1).sum();
            taps.iter_mut().for_each(|tap| tap.1 /= sum);
            taps.into_iter().map(|(x, w)| (x, w as f32)).collect()
        })
        .collect()
}

/// The triangle, or Keys' cubic with parameter `a`: IEEE Trans. ASSP 29 (1981), equations 4 and 15.
fn weight(distance: f64, cubic: Option<f64>) -> f64 {
    let t = distance.abs();
    match cubic {
        None => (1.0 - t).max(0.0),
        Some(a) if t < 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
        Some(a) if t < 2.0 => (((t - 5.0) * t + 8.0) * t - 4.0) * a,
        Some(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_normalised_picture_by_picture() {
        let levels: Vec<u8> = (0..2 * 4 * 4 * 3).map(|i| i as u8).collect();
        let mut out = vec![0.0; levels.len()];
        normalise_batch(&levels, 4, &Normalisation::HALF, &mut out);
        for (i, &value) in out.iter().enumerate() {
            let (n, c, place) = (i / 48, i / 16 % 3, i % 16);
            let level = f32::from(levels[n * 48 + place * 3 + c]);
            assert_eq!(value, (level / 255.0 - 0.5) / 0.5);
        }
    }

    #[test]
    fn interpolating_to_nothing_or_from_nothing_gives_nothing() {
        let empty = Planes { width: 0, height: 3, values: Vec::new() };
        assert!(interpolate(&empty, 2, 2, Filter::Bicubic, true).values.is_empty());
        let planes = Planes { width: 2, height: 1, values: vec![1.0, 2.0] };
        assert!(interpolate(&planes, 0, 2, Filter::Bilinear, false).values.is_empty());
    }
}
