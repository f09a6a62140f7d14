//! Pictures and records that tests of this room share.

use std::io::Write;

use super::{ContentHash, ImageRecord};

#[path = "../../picture/src/testing.rs"]
#[allow(dead_code, reason = "those of the crate of pictures; not all are needed here")]
mod pictures;

pub(crate) use pictures::{encode, jpeg, noise, png, with_orientation};

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
