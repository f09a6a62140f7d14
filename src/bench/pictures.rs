//! JPEG images to measure on where no data set is at hand: clouds of colour at every scale.
//!
//! Random grids from coarse to fine are resized to the picture's size and added, each half as strong as the one before.
//! Such a spectrum is that of photographs, so files are about as large and as slow to decode as those of a camera.

use std::path::{Path, PathBuf};

use image::{ImageError, RgbImage};
use rand::Rng;
use rayon::prelude::*;

use super::BenchError;
use crate::augment::{Filter, resize};
use crate::files::WriteError;
use crate::random::{Purpose, stream};

/// What to draw.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct PictureOptions {
    /// Folder to write to; made if needed.
    pub dir: PathBuf,
    /// Number of pictures.
    #[arg(long, default_value_t = 512)]
    pub count: u32,
    /// Pixels of a row.
    #[arg(long, default_value_t = 640, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub width: u32,
    /// Number of rows.
    #[arg(long, default_value_t = 480, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub height: u32,
}

/// Writes `picture-00000.jpg` and so on. The same options give the same files.
///
/// # Errors
/// If the folder or a file cannot be written.
pub fn pictures(options: &PictureOptions) -> Result<(), BenchError> {
    std::fs::create_dir_all(&options.dir).map_err(WriteError::at(&options.dir))?;
    (0..options.count).into_par_iter().try_for_each(|number| {
        let picture = draw(number, options.width, options.height);
        let path = options.dir.join(format!("picture-{number:05}.jpg"));
        write(&picture, &path).map_err(|source| BenchError::Picture { path, source })
    })
}

fn draw(number: u32, width: u32, height: u32) -> RgbImage {
    let mut rng = stream(0, Purpose::Demo, [u64::from(number), 0, 0]);
    let mut sum = vec![0u16; width as usize * height as usize * 3];
    for octave in 1..8 {
        let side = 1 << octave;
        let mut grid = RgbImage::new(side, side);
        rng.fill_bytes(&mut grid);
        let layer = resize(&grid, width, height, Filter::Bilinear);
        for (sum, level) in sum.iter_mut().zip(layer.as_raw()) {
            *sum += u16::from(*level) >> octave;
        }
    }
    let levels = sum.into_iter().map(|level| level.min(255) as u8).collect();
    RgbImage::from_raw(width, height, levels).expect("three levels for each pixel")
}

fn write(picture: &RgbImage, path: &Path) -> Result<(), ImageError> {
    const QUALITY: u8 = 90;
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    image::codecs::jpeg::JpegEncoder::new_with_quality(file, QUALITY).encode_image(picture)
}
