//! Cropping, padding, mirroring and turning whole pictures without resampling.

use image::RgbImage;

use super::affine;
use super::canvas::{Canvas, Pixel};

/// Mirrored left to right.
pub fn hflip(image: &RgbImage) -> RgbImage {
    let mut flipped = image.clone();
    let stride = image.width() as usize * 3;
    for row in flipped.chunks_exact_mut(stride.max(1)) {
        row.as_chunks_mut::<3>().0.reverse();
    }
    flipped
}

/// Mirrored top to bottom.
pub fn vflip(image: &RgbImage) -> RgbImage {
    let mut flipped = image.clone();
    let stride = image.width() as usize * 3;
    let rows = image.as_raw().chunks_exact(stride.max(1)).rev();
    for (to, from) in flipped.chunks_exact_mut(stride.max(1)).zip(rows) {
        to.copy_from_slice(from);
    }
    flipped
}

/// Counter-clockwise by so many right angles. The canvas keeps its size: of a picture that is not square, the ends
/// are lost and the sides become black.
pub fn rotate_right_angle(image: &RgbImage, turns: u32) -> RgbImage {
    let mut turned = image.clone();
    Canvas::edit(image.width() as usize, image.height() as usize, &mut turned, |canvas| {
        affine::rotate(canvas, f64::from(turns % 4) * 90.0);
    });
    turned
}

/// The middle of the picture; black beside it where `width` or `height` is larger than the picture. Of an odd
/// number of spare pixels, as torchvision has it, the half is rounded to the even number.
pub fn center_crop(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let offset = |have: u32, want: u32| {
        if want > have {
            -i64::from((want - have) / 2)
        } else {
            (f64::from(have - want) / 2.0).round_ties_even() as i64
        }
    };
    let (left, top) = (offset(image.width(), width), offset(image.height(), height));
    RgbImage::from_fn(width, height, |x, y| {
        let place = (u32::try_from(i64::from(x) + left), u32::try_from(i64::from(y) + top));
        match place {
            (Ok(x), Ok(y)) => image.get_pixel_checked(x, y).copied().unwrap_or(image::Rgb([0; 3])),
            _ => image::Rgb([0; 3]),
        }
    })
}

/// Pads by `padding` pixels on each side, mirrored without repeating the edge, and cuts a picture of the original
/// size whose upper left corner is at (`left`, `top`) of the padded one.
pub fn pad_reflect_crop(image: &RgbImage, padding: u32, top: u32, left: u32) -> RgbImage {
    let mut cropped = image.clone();
    let offset = |start: u32| i64::from(start) - i64::from(padding);
    let crop = ReflectCrop { top: offset(top), left: offset(left), flip: false };
    crop.copy(image.as_raw(), image.width() as usize, image.height() as usize, &mut cropped);
    cropped
}

/// A window of the picture's own size over the picture, which continues mirrored on all sides; then a mirror.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReflectCrop {
    /// The picture's row that comes first; negative above it.
    pub top: i64,
    /// The picture's column that comes first.
    pub left: i64,
    /// Mirror left to right after cutting.
    pub flip: bool,
}

impl ReflectCrop {
    /// `source` and `out`: `height * width * 3` bytes.
    pub fn copy(self, source: &[u8], width: usize, height: usize, out: &mut [u8]) {
        if width == 0 || height == 0 {
            return;
        }
        let source = source.as_chunks::<3>().0;
        // Output columns first..end lie inside the picture, the others in its mirror.
        let first = (-self.left).clamp(0, width as i64) as usize;
        let end = (width as i64 - self.left).clamp(first as i64, width as i64) as usize;
        for (y, row) in out.as_chunks_mut::<3>().0.chunks_exact_mut(width).enumerate() {
            let from = &source[mirrored(y as i64 + self.top, height) * width..][..width];
            let mirror = |row: &mut [Pixel], start: usize| {
                for (x, pixel) in (start as i64..).zip(row) {
                    *pixel = from[mirrored(x + self.left, width)];
                }
            };
            mirror(&mut row[..first], 0);
            if first < end {
                let begin = (first as i64 + self.left) as usize;
                row[first..end].copy_from_slice(&from[begin..][..end - first]);
            }
            mirror(&mut row[end..], end);
            if self.flip {
                row.reverse();
            }
        }
    }
}

/// The place in `0..length` that `place` shows when the line goes on mirrored, its ends not repeated.
fn mirrored(place: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    if (0..=last).contains(&place) {
        return place as usize;
    }
    if last <= 0 {
        return 0;
    }
    let folded = place.rem_euclid(2 * last);
    folded.min(2 * last - folded) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrored_repeats_no_end() {
        let places: Vec<usize> = (-4..8).map(|place| mirrored(place, 3)).collect();
        assert_eq!(places, [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]);
        assert_eq!(mirrored(-7, 1), 0);
    }

    #[test]
    fn a_padding_wider_than_the_picture_is_mirrored_again() {
        let image = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 0]));
        let crop = pad_reflect_crop(&image, 9, 0, 0);
        assert_eq!(crop.get_pixel(0, 0).0, [mirrored(-9, 3) as u8, mirrored(-9, 2) as u8, 0]);
        assert_eq!(crop.dimensions(), (3, 2));
    }

    #[test]
    fn a_larger_centre_crop_has_black_sides() {
        let image = RgbImage::from_pixel(2, 2, image::Rgb([9; 3]));
        let crop = center_crop(&image, 5, 3);
        let filled: Vec<bool> = crop.pixels().map(|p| p.0 == [9; 3]).collect();
        let expected = [[false, true, true, false, false], [false, true, true, false, false], [false; 5]];
        assert_eq!(filled, expected.concat());
    }
}
