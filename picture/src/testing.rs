//! Pictures that tests of this crate share.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// Bytes without a pattern, so equal seeds and sizes mean equal pictures and others never.
pub(crate) fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut state = seed;
    RgbImage::from_fn(width, height, |_, _| {
        Rgb(std::array::from_fn(|_| {
            // Knuth's constants for 64 bits; the high bits are the good ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        }))
    })
}

pub(crate) fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("encodes to memory");
    bytes.into_inner()
}

pub(crate) fn jpeg(image: &RgbImage) -> Vec<u8> {
    encode(image.clone(), ImageFormat::Jpeg)
}

pub(crate) fn png(image: &RgbImage) -> Vec<u8> {
    encode(image.clone(), ImageFormat::Png)
}

/// A TIFF header with one entry, the orientation (tag 0x0112, one SHORT); the form EXIF blocks have.
pub(crate) fn exif(orientation: u8) -> Vec<u8> {
    let mut bytes = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    bytes.extend([orientation, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Inserts an APP1 segment behind the start marker of a JPEG.
pub(crate) fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let block = [b"Exif\0\0".as_slice(), &exif(orientation)].concat();
    let length = u16::try_from(block.len() + 2).expect("small");
    [&jpeg[..2], &[0xFF, 0xE1], &length.to_be_bytes(), &block, &jpeg[2..]].concat()
}
