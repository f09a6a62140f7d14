//! Resampling as Pillow does it: the filter grows when the picture shrinks; columns first, then rows; each pass in
//! 8 bits with weights of 22 fractional bits.
//!
//! Pillow 13 takes rows first for some pictures whose height shrinks more than their width. Its rule is not known
//! here; rows come first where the height shrinks and the width grows, as in all recorded cases. Where the orders
//! differ, levels differ by their rounding.
//!
//! `fast_image_resize` is faster with its 16-bit weights, but was up to 3 grey levels away for the bicubic filter.

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Red, green, blue.
type Pixel = [u8; 3];

/// How levels between pixels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle over two pixels. torchvision's and USB's default.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -1/2 (Catmull-Rom) over four pixels.
    Bicubic,
}

/// A rectangle of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// The picture at `width` × `height`. Of a picture without pixels the result is black.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    if image.dimensions() == (width, height) {
        return image.clone();
    }
    let (columns, rows) = (image.width() as usize, image.height() as usize);
    let mut resized = RgbImage::new(width, height);
    if columns == 0 || rows == 0 || width == 0 || height == 0 {
        return resized;
    }
    let source = image.as_raw().as_chunks().0;
    let target = resized.as_chunks_mut().0;
    let (new_columns, new_rows) = (width as usize, height as usize);
    if columns == new_columns {
        resize_rows(source, columns, &Weights::new(rows, new_rows, filter), target);
    } else if rows == new_rows {
        resize_columns(source, columns, &Weights::new(columns, new_columns, filter), target);
    } else if new_rows < rows && new_columns > columns {
        let mut low = vec![[0; 3]; new_rows * columns];
        resize_rows(source, columns, &Weights::new(rows, new_rows, filter), &mut low);
        resize_columns(&low, columns, &Weights::new(columns, new_columns, filter), target);
    } else {
        let mut narrow = vec![[0; 3]; rows * new_columns];
        resize_columns(source, columns, &Weights::new(columns, new_columns, filter), &mut narrow);
        resize_rows(&narrow, new_columns, &Weights::new(rows, new_rows, filter), target);
    }
    resized
}

/// The picture with `size` as its shorter side; the longer one is rounded down, and at least 1.
pub fn resize_shorter_side(image: &RgbImage, size: u32, filter: Filter) -> RgbImage {
    let (width, height) = image.dimensions();
    let longer = |long: u32, short: u32| {
        let exact = u64::from(size) * u64::from(long) / u64::from(short.max(1));
        u32::try_from(exact).unwrap_or(u32::MAX).max(1)
    };
    if width <= height {
        resize(image, size, longer(height, width), filter)
    } else {
        resize(image, longer(width, height), size, filter)
    }
}

/// Cuts `crop`, limited to the picture, and resizes it to `width` × `height`; pixels outside it have no influence.
pub fn resized_crop(image: &RgbImage, crop: CropBox, width: u32, height: u32, filter: Filter) -> RgbImage {
    let (left, top) = (crop.left.min(image.width()), crop.top.min(image.height()));
    let (columns, rows) = (crop.width.min(image.width() - left), crop.height.min(image.height() - top));
    let cut = image::imageops::crop_imm(image, left, top, columns, rows).to_image();
    resize(&cut, width, height, filter)
}

/// Fractional bits of a weight: 32 less 8 for the level and 2 for sums outside 0..=255.
const FRACTION: u32 = 22;

/// A half, so that dropping the fraction rounds.
const HALF: i32 = 1 << (FRACTION - 1);

/// For each place of an output line, the first input place it reads and the weights from there on.
struct Weights {
    /// (first input place, end of its weights in `all`)
    spans: Vec<(usize, usize)>,
    all: Vec<i32>,
}

impl Weights {
    /// From a line of `have` > 0 to one of `want` > 0 places.
    fn new(have: usize, want: usize, filter: Filter) -> Self {
        let scale = have as f64 / want as f64;
        let stretch = scale.max(1.0);
        let (support, weight): (f64, fn(f64) -> f64) = match filter {
            Filter::Bilinear => (1.0, triangle),
            Filter::Bicubic => (2.0, cubic),
        };
        let (reach, per_pixel) = (support * stretch, 1.0 / stretch);
        let mut weights = Self { spans: Vec::with_capacity(want), all: Vec::new() };
        let mut line: Vec<f64> = Vec::new();
        for place in 0..want {
            let centre = (place as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5) as usize; // `as` limits to 0..
            let end = ((centre + reach + 0.5) as usize).min(have);
            line.clear();
            line.extend((first..end).map(|x| weight((x as f64 - centre + 0.5) * per_pixel)));
            let sum: f64 = line.iter().sum();
            let fixed = |weight: f64| (weight / sum * f64::from(1 << FRACTION)).round() as i32;
            weights.all.extend(line.iter().map(|&weight| fixed(weight)));
            weights.spans.push((first, weights.all.len()));
        }
        weights
    }

    /// (first input place, weights) for each output place.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut start = 0;
        self.spans.iter().map(move |&(first, end)| {
            let weights = &self.all[start..end];
            start = end;
            (first, weights)
        })
    }
}

fn triangle(distance: f64) -> f64 {
    (1.0 - distance.abs()).max(0.0)
}

fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.5;
    let t = distance.abs();
    match t {
        ..1.0 => ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0,
        ..2.0 => (((t - 5.0) * t + 8.0) * t - 4.0) * A,
        _ => 0.0,
    }
}

/// Drops the fraction of a weighted sum and limits it to 0..=255.
fn level(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// Every row of `source`, of `width` pixels, to one of `weights.spans.len()` pixels.
fn resize_columns(source: &[Pixel], width: usize, weights: &Weights, target: &mut [Pixel]) {
    for (row, out) in source.chunks_exact(width).zip(target.chunks_exact_mut(weights.spans.len())) {
        for (out, (first, weights)) in out.iter_mut().zip(weights.iter()) {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in row[first..].iter().zip(weights) {
                for c in 0..3 {
                    sums[c] += i32::from(pixel[c]) * weight;
                }
            }
            *out = sums.map(level);
        }
    }
}

/// The rows of `source`, of `width` pixels, to `weights.spans.len()` rows.
fn resize_rows(source: &[Pixel], width: usize, weights: &Weights, target: &mut [Pixel]) {
    let mut sums = vec![HALF; width * 3];
    for (out, (first, weights)) in target.chunks_exact_mut(width).zip(weights.iter()) {
        sums.fill(HALF);
        for (row, &weight) in source[first * width..].chunks_exact(width).zip(weights) {
            for (sum, &level) in sums.iter_mut().zip(row.as_flattened()) {
                *sum += i32::from(level) * weight;
            }
        }
        for (out, &sum) in out.as_flattened_mut().iter_mut().zip(&sums) {
            *out = level(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        let image = RgbImage::from_pixel(13, 7, image::Rgb([200, 3, 255]));
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for (width, height) in [(1, 1), (5, 31), (100, 2), (13, 7), (13, 9), (5, 7)] {
                let resized = resize(&image, width, height, filter);
                assert_eq!(resized.dimensions(), (width, height));
                assert!(resized.pixels().all(|pixel| pixel.0 == [200, 3, 255]));
            }
        }
    }

    #[test]
    fn pictures_without_pixels_do_no_harm() {
        assert_eq!(resize(&RgbImage::new(0, 4), 3, 3, Filter::Bilinear), RgbImage::new(3, 3));
        assert_eq!(resize(&RgbImage::new(4, 4), 0, 3, Filter::Bicubic).dimensions(), (0, 3));
        assert_eq!(resize_shorter_side(&RgbImage::new(0, 0), 3, Filter::Bilinear).dimensions(), (3, 1));
        let far = CropBox { top: 9, left: 9, height: 2, width: 2 };
        assert_eq!(resized_crop(&RgbImage::new(4, 4), far, 2, 2, Filter::Bilinear), RgbImage::new(2, 2));
    }
}
