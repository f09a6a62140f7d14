//! Pictures and records that tests of this room share.

use std::io::{Cursor, Write};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use rand::RngExt;

use super::{ContentHash, ImageRecord};
use crate::random::{Purpose, stream};

/// Independent bytes, so equal seeds and sizes mean equal pictures and others never.
pub(crate) fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut rng = stream(seed, Purpose::Demo, [0, 0, 0]);
    RgbImage::from_fn(width, height, |_, _| Rgb(rng.random()))
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

/// A record whose pixels are told apart by `content`.
pub(crate) fn record(path: &str, content: u64) -> ImageRecord {
    ImageRecord {
        path: path.into(),
        hash: ContentHash(*blake3::hash(&content.to_le_bytes()).as_bytes()),
        width: 4,
        height: 3,
        size_bytes: 100,
        modified_ns: 0,
        duplicate_of: None,
        label: None,
        part: None,
    }
}

/// Byte `i` of the content is `i`, modulo 256.
pub(crate) fn idx_images(count: u32, rows: u32, columns: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3];
    bytes.extend([count, rows, columns].iter().flat_map(|number| number.to_be_bytes()));
    bytes.extend((0..count * rows * columns).map(|byte| byte as u8));
    bytes
}

pub(crate) fn idx_labels(labels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend((labels.len() as u32).to_be_bytes());
    bytes.extend(labels);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
