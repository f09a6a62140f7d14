//! Seconds that lists of very many images take: write, read, split, sample. No image is touched.

use std::time::Instant;

use rand::Rng;
use serde::Serialize;

use super::process::{peak_host_mib, program};
use super::{BenchError, significant};
use crate::data::{ContentHash, ImageRecord, Manifest, Order, Sampler, Source, Split, SplitConfig};
use crate::random::{Purpose, stream};

/// Unlabelled images a step: 64 labelled ones and seven times as many, as in the largest published recipes.
const BATCH: usize = 448;
const CLASSES: u32 = 20;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ManifestOptions {
    /// Number of images; one in ten is labelled, one in a hundred a copy.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    pub rows: u32,
}

/// What was measured, in seconds where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ManifestReport {
    /// Program and version.
    pub program: String,
    /// Number of images.
    pub rows: u32,
    /// Finding exact copies by their hashes.
    pub link_seconds: f64,
    /// Writing the file, flushed to the disk.
    pub write_seconds: f64,
    /// Size of the file.
    pub file_mib: f64,
    /// Reading it.
    pub read_seconds: f64,
    /// Dividing into labelled, evaluation, test and unlabelled images.
    pub split_seconds: f64,
    /// Choosing the images of every step of an epoch.
    pub sample_seconds: f64,
    /// Steps of that epoch.
    pub sampled_steps: u64,
    /// Most memory of the process.
    pub peak_mib: Option<u64>,
}

/// Measures; see the [module](self).
///
/// # Errors
/// If the list cannot be written to a temporary folder.
pub fn manifest(options: &ManifestOptions) -> Result<ManifestReport, BenchError> {
    let mut made = generate(options.rows);
    let link_seconds = seconds(|| made.link_duplicates()).1;
    let folder = tempfile::tempdir().map_err(BenchError::Temporary)?;
    let file = folder.path().join("manifest.jsonl");
    let (written, write_seconds) = seconds(|| made.write(&file));
    written?;
    drop(made);
    let (read, read_seconds) = seconds(|| Manifest::read(&file));
    let read = read?;
    let config = SplitConfig { labels_per_class: Some(80), ..SplitConfig::default() };
    let (split, split_seconds) = seconds(|| Split::new(&read, &config));
    let (steps, sample_seconds) = seconds(|| sample_epoch(split?.unlabelled));
    Ok(ManifestReport {
        program: program(),
        rows: options.rows,
        link_seconds: significant(link_seconds),
        write_seconds: significant(write_seconds),
        file_mib: std::fs::metadata(&file)
            .map_or(f64::NAN, |file| significant(file.len() as f64 / 2f64.powi(20))),
        read_seconds: significant(read_seconds),
        split_seconds: significant(split_seconds),
        sample_seconds: significant(sample_seconds),
        sampled_steps: steps?,
        peak_mib: peak_host_mib(),
    })
}

fn seconds<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

fn sample_epoch(unlabelled: Vec<u32>) -> Result<u64, BenchError> {
    let mut sampler = Sampler::new(unlabelled, Order::Unlabelled, 0)?;
    let steps = sampler.epoch_len().div_ceil(BATCH) as u64;
    (0..steps).for_each(|step| {
        std::hint::black_box(sampler.batch(step, BATCH));
    });
    Ok(steps)
}

/// A list as a scan of a large archive gives it: folders of a thousand images, hashes without a pattern.
fn generate(rows: u32) -> Manifest {
    let hash = |image: u32| {
        let mut bytes = [0; 32];
        stream(0, Purpose::Demo, [u64::from(image), 0, 0]).fill_bytes(&mut bytes);
        ContentHash(bytes)
    };
    let images = (0..rows).map(|image| ImageRecord {
        path: format!("field {}/row {}/IMG_{image:07}.jpg", image / 100_000, image / 1000 % 100),
        hash: hash(image - u32::from(image % 100 == 1)),
        width: 4000,
        height: 3000,
        size_bytes: 3_000_000,
        modified_ns: 1_700_000_000_000_000_000 + i64::from(image),
        duplicate_of: None,
        label: image.is_multiple_of(10).then_some((image / 10 % CLASSES) as u16),
        part: None,
    });
    Manifest {
        source: Source::Folder { root: "/images".into() },
        root: "/images".into(),
        classes: (0..CLASSES).map(|class| format!("class {class}")).collect(),
        images: images.collect(),
        set_aside: Vec::new(),
        hidden: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_through_every_step() {
        let report = manifest(&ManifestOptions { rows: 20_000 }).expect("a temporary folder can be written");
        assert!(report.sampled_steps as usize * BATCH < 20_000, "test images are not learned from");
        assert!(report.file_mib > 1.0 && report.read_seconds > 0.0);
    }
}
