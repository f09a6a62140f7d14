//! JPEGs decoded at a part of their size, for thumbnails.
//!
//! A block of 8 × 8 pixels is stored as frequencies; leaving out the high ones gives the block at 4 × 4, 2 × 2 or 1 × 1 pixels
//! without ever computing the others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use harvest_picture::DecodeLimits;
use image::RgbImage;
use image::metadata::Orientation;
use jpeg_decoder::{Decoder, PixelFormat};

/// The upright picture, at least `side` pixels along its longer side unless it has fewer; with what `admit` gave for its pixels.
///
/// `None` if it is no JPEG of a plain kind, or is damaged: the usual way of decoding then finds words for it.
pub(super) fn reduced<P>(
    bytes: &[u8],
    side: u32,
    limits: &DecodeLimits,
    admit: impl FnOnce(u64) -> P,
) -> Option<(RgbImage, P)> {
    if !bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return None;
    }
    // Decoders see hostile bytes; see `harvest_picture::decode`.
    catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = Decoder::new(bytes);
        decoder.read_info().ok()?;
        let info = decoder.info()?;
        let pixels = u64::from(info.width) * u64::from(info.height);
        if pixels > limits.max_pixels || !matches!(info.pixel_format, PixelFormat::L8 | PixelFormat::RGB24) {
            return None;
        }
        // A progressive picture needs memory for all of its frequencies, whatever comes out.
        let permit = admit(pixels);
        decoder.set_max_decoding_buffer_size(usize::try_from(pixels.saturating_mul(3)).ok()?);
        let side = u16::try_from(side).ok()?;
        // The decoder takes the smallest size that reaches either number.
        let (width, height) = match info.width >= info.height {
            true => decoder.scale(side, u16::MAX),
            false => decoder.scale(u16::MAX, side),
        }
        .ok()?;
        let levels = decoder.decode().ok()?;
        let levels = match info.pixel_format {
            PixelFormat::L8 => levels.into_iter().flat_map(|level| [level; 3]).collect(),
            _ => levels,
        };
        let mut image = image::DynamicImage::from(RgbImage::from_raw(width.into(), height.into(), levels)?);
        image.apply_orientation(orientation(&decoder));
        Some((image.into_rgb8(), permit))
    }))
    .ok()
    .flatten()
}

fn orientation(decoder: &Decoder<&[u8]>) -> Orientation {
    let found = decoder.exif_data().and_then(Orientation::from_exif_chunk);
    found.unwrap_or(Orientation::NoTransforms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{jpeg, with_orientation};

    /// Four fields of different colours.
    fn fields(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| match (2 * x < width, 2 * y < height) {
            (true, true) => image::Rgb([230, 20, 20]),
            (false, true) => image::Rgb([20, 200, 30]),
            (true, false) => image::Rgb([20, 30, 220]),
            (false, false) => image::Rgb([240, 230, 220]),
        })
    }

    fn small(bytes: &[u8], side: u32) -> Option<RgbImage> {
        reduced(bytes, side, &DecodeLimits::default(), |_| ()).map(|(image, ())| image)
    }

    #[test]
    fn the_smallest_size_that_covers_is_taken_and_never_a_larger_one_than_the_picture() {
        for (width, height, expected) in [
            (1600, 900, (200, 113)),
            (1528, 900, (382, 225)),
            (900, 1600, (113, 200)),
            (300, 200, (300, 200)),
            (40, 30, (40, 30)),
            (5000, 1, (625, 1)),
        ] {
            let image = small(&jpeg(&fields(width, height)), 192).expect("a plain JPEG");
            assert_eq!(image.dimensions(), expected, "{width} × {height}");
        }
    }

    #[test]
    fn every_orientation_comes_out_as_the_usual_decoder_has_it() {
        let plain = jpeg(&fields(1600, 1000));
        for orientation in 1..=8 {
            let bytes = with_orientation(&plain, orientation);
            let whole = harvest_picture::decode(&bytes, &DecodeLimits::default()).expect("decodes");
            let image = small(&bytes, 192).expect("a plain JPEG");
            let turned = orientation >= 5;
            assert_eq!(image.dimensions(), if turned { (125, 200) } else { (200, 125) });
            for (x, y) in [(1, 1), (3, 1), (1, 3), (3, 3)] {
                let of = |image: &RgbImage| image.get_pixel(image.width() * x / 4, image.height() * y / 4).0;
                let far = of(&image).iter().zip(of(&whole)).map(|(a, b)| a.abs_diff(b)).max();
                assert!(far < Some(12), "orientation {orientation}: {:?} {:?}", of(&image), of(&whole));
            }
        }
    }

    #[test]
    fn what_is_not_plain_or_damaged_or_too_large_is_left_to_the_usual_decoder() {
        let whole = jpeg(&fields(640, 480));
        assert!(small(b"", 192).is_none() && small(b"\xFF\xD8\xFF", 192).is_none());
        for cut in [20, 300, whole.len() / 8] {
            // Nothing to check but that no cut is fatal: some leave enough for a picture.
            let _ = small(&whole[..cut.min(whole.len())], 192);
        }
        let limits = DecodeLimits { max_pixels: 1000, ..DecodeLimits::default() };
        assert!(reduced(&whole, 192, &limits, |_| ()).is_none());
    }
}
