//! From an image to its thumbnail.

use harvest_picture::{Filter, resize};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::data::{ContentHash, ImageRecord, LoadError, Pictures, modified_ns};

/// Pixels of a thumbnail's longer side, at most.
pub const SIDE: u32 = 192;
/// Of JPEG: no blocks to be seen on a screen, about 6 kB each.
const QUALITY: u8 = 82;

/// Why an image has no thumbnail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// It cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its file shows something else now.
    #[error("the image `{path}` is another than when it was scanned; scan again")]
    Changed {
        /// As in the list of images.
        path: String,
    },
    /// It cannot be written as JPEG.
    #[error("the image `{path}` cannot be made a thumbnail of")]
    Encode {
        /// As in the list of images.
        path: String,
        /// What the encoder said.
        source: image::ImageError,
    },
}

/// The thumbnail of an image as a JPEG file: upright, at most [`SIDE`] pixels along its longer side, never enlarged.
///
/// # Errors
/// If the image cannot be read, or its file shows another than `image` says.
pub fn draw(pictures: &Pictures, image: &ImageRecord) -> Result<Vec<u8>, DrawError> {
    draw_at(pictures, image, SIDE, QUALITY)
}

/// As [`draw`], with at most `side` pixels along the longer side, at a quality of JPEG from 1 to 100.
///
/// # Errors
/// As [`draw`].
pub fn draw_at(
    pictures: &Pictures,
    image: &ImageRecord,
    side: u32,
    quality: u8,
) -> Result<Vec<u8>, DrawError> {
    let small = if is_unchanged(pictures, image) {
        pictures.with_reduced(&image.path, side, |picture| shrink(picture, side))?
    } else {
        // A copied folder has new times, a replaced file another picture; only all of its pixels tell.
        let found = pictures.with(&image.path, |picture| {
            (ContentHash::of(&picture) == image.hash).then(|| shrink(picture, side))
        })?;
        found.ok_or_else(|| DrawError::Changed { path: image.path.clone() })?
    };
    to_jpeg(&small, quality).map_err(|source| DrawError::Encode { path: image.path.clone(), source })
}

/// Scaled down to `side` pixels along its longer side, if it has more.
fn shrink(picture: RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longer = width.max(height);
    if longer <= side {
        return picture;
    }
    let scaled = |length: u32| {
        let scaled = (u64::from(length) * u64::from(side) + u64::from(longer) / 2) / u64::from(longer);
        (scaled as u32).max(1)
    };
    resize(&picture, scaled(width), scaled(height), Filter::Bilinear)
}

/// `picture` as a JPEG file.
fn to_jpeg(picture: &RgbImage, quality: u8) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Vec::with_capacity(16 << 10);
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture)?;
    Ok(bytes)
}

/// Whether the file is the one that was scanned, as far as can be seen without decoding all of it.
fn is_unchanged(pictures: &Pictures, image: &ImageRecord) -> bool {
    let Ok(metadata) = std::fs::metadata(pictures.file(&image.path)) else { return false };
    let modified = modified_ns(&metadata);
    modified != 0 && (metadata.len(), modified) == (image.size_bytes, image.modified_ns)
}
