//! How like one image all others are, by the features that clustering has written down.
//!
//! The features of a million images are larger than all else together, so they stay on disk: every search streams the file,
//! which the operating system keeps at hand, through small buffers. That takes about as long as reading memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::CatalogueError;
use crate::experiment::ExperimentError;

/// Bytes a thread reads at a time.
const PIECE: usize = 1 << 20;
/// Most bytes of the list of tensors.
const MAX_HEADER: u64 = 1 << 20;

/// The product of row `row` with each of `rows` rows, which are of length one: the cosine of their angle.
pub(super) fn to_all(path: &Path, rows: usize, row: u32) -> Result<Vec<f32>, CatalogueError> {
    let damaged = |reason: String| {
        CatalogueError::Experiment(ExperimentError::Damaged { path: path.to_owned(), reason })
    };
    let table = Table::open(path, rows).map_err(damaged)?;
    let wanted = table.row(row).map_err(|error| damaged(error.to_string()))?;
    let bytes = table.dim * 4;
    let in_piece = (PIECE / bytes).max(1);
    let mut likeness = vec![0f32; rows];
    likeness
        .par_chunks_mut(in_piece)
        .enumerate()
        .try_for_each_init(
            || vec![0u8; in_piece * bytes],
            |buffer, (piece, likeness)| {
                let buffer = &mut buffer[..likeness.len() * bytes];
                table.file.read_exact_at(buffer, table.start + (piece * in_piece * bytes) as u64)?;
                for (likeness, row) in likeness.iter_mut().zip(buffer.chunks_exact(bytes)) {
                    *likeness = product(&wanted, row);
                }
                Ok(())
            },
        )
        .map_err(|error: std::io::Error| damaged(error.to_string()))?;
    Ok(likeness)
}

/// A number whose order as an integer is that of the values.
pub(super) fn sortable(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// Sums of sixteen columns side by side, which processors have instructions for.
fn product(wanted: &[f32], row: &[u8]) -> f32 {
    let mut sums = [0f32; 16];
    let (wide, rest) = wanted.as_chunks::<16>();
    let (wide_row, rest_row) = row.as_chunks::<64>();
    for (wanted, row) in wide.iter().zip(wide_row) {
        for (sum, (wanted, value)) in sums.iter_mut().zip(wanted.iter().zip(row.as_chunks::<4>().0)) {
            *sum += wanted * f32::from_le_bytes(*value);
        }
    }
    let rest = rest.iter().zip(rest_row.as_chunks::<4>().0);
    sums.iter().sum::<f32>() + rest.map(|(wanted, value)| wanted * f32::from_le_bytes(*value)).sum::<f32>()
}

/// The rows in a file of safetensors.
struct Table {
    file: File,
    /// Where the first row begins.
    start: u64,
    dim: usize,
}

impl Table {
    fn open(path: &Path, rows: usize) -> Result<Self, String> {
        let words = |error: std::io::Error| error.to_string();
        let mut file = File::open(path).map_err(words)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(words)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err("its list of tensors is too long".to_owned());
        }
        file.seek(SeekFrom::Start(0)).map_err(words)?;
        let mut header = vec![0; 8 + length as usize];
        file.read_exact(&mut header).map_err(words)?;
        let tensors: Metadata = serde_json::from_slice(&header[8..]).map_err(|error| error.to_string())?;
        let found = tensors.info("features").ok_or("it holds no features")?;
        let &[count, dim] = found.shape.as_slice() else {
            return Err("its features are no table".to_owned());
        };
        if found.dtype != Dtype::F32 || count != rows || dim == 0 {
            return Err(format!("its features are not those of {rows} images"));
        }
        Ok(Self { file, start: header.len() as u64 + found.data_offsets.0 as u64, dim })
    }

    fn row(&self, row: u32) -> std::io::Result<Vec<f32>> {
        let mut bytes = vec![0; self.dim * 4];
        let at = self.start + u64::from(row) * bytes.len() as u64;
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }
}
