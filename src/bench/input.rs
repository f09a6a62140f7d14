//! Images a second through the input pipeline: one image is one weak and one strong view as normalised `f32` tensors.
//!
//! Three numbers, because the work is done at different times: the scan and the cache are made once, the rest in every
//! epoch. The views come from the trainer's own loader, prepared by its thread ahead of their use.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::Serialize;

use super::process::{peak_host_mib, program};
use super::{BenchError, limit_threads, significant};
use crate::algorithms::Views;
use crate::augment::{View, ViewConfig, measure_views};
use crate::data::{CacheOptions, ImageCache, Order, Sampler, ScanOptions, Silent, Source, scan};
use crate::inference::images_to_tensor;
use crate::training::{HostViews, Intake, Loader};

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct InputOptions {
    /// Folder of images.
    pub dir: PathBuf,
    /// Side of the training images in pixels.
    #[arg(long, default_value_t = 224)]
    pub size: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Threads; without, as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Images a batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InputReport {
    /// Program and version.
    pub program: String,
    /// Usable images.
    pub files: usize,
    /// Side of the training images in pixels.
    pub size: u32,
    /// Threads.
    pub workers: usize,
    /// Both views of an image as tensors, out of the cache: every epoch but the first.
    pub images_per_second: f64,
    /// The same, had the scan and the cache to be made first and each image been seen once: the first epoch.
    pub images_per_second_first_epoch: f64,
    /// Both views as bytes, without tensors.
    pub images_per_second_views: f64,
    /// Both of SimCLR's views as bytes, without tensors.
    pub images_per_second_contrast: f64,
    /// Decoding and hashing all images; once for a data set.
    pub scan_seconds: f64,
    /// Decoding and resizing all images and writing them; once for a size.
    pub cache_seconds: f64,
    /// Most memory of the process, mapped images included.
    pub peak_mib: Option<u64>,
}

/// Measures; see the [module](self). The cache is made in a temporary folder.
///
/// # Errors
/// If the images cannot be read or the cache cannot be made.
pub fn input(options: &InputOptions) -> Result<InputReport, BenchError> {
    let workers = limit_threads(options.threads)?;
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let source = Source::detect(&options.dir)?;
    let manifest = scan(&source, &ScanOptions::default(), &Silent, &stop)?;
    let scan_seconds = start.elapsed().as_secs_f64();
    let files = manifest.images.len();
    let folder = tempfile::tempdir().map_err(BenchError::Temporary)?;
    let start = Instant::now();
    let cache = ImageCache::open_or_build(
        folder.path(),
        &manifest,
        options.size,
        &CacheOptions::default(),
        &Silent,
        &stop,
    )?;
    let cache_seconds = start.elapsed().as_secs_f64();

    let views = ViewConfig::default();
    let time = Duration::from_secs_f64(options.seconds.max(0.0));
    let tensors = measure_tensors(&cache, &views, options.batch as usize, time)?;
    let sources: Vec<&[u8]> = (0..files as u32).map(|index| cache.image(index)).collect();
    let bytes = |pair| measure_views(&sources, options.size as usize, &views, pair, time / 4);
    let first_epoch = scan_seconds + cache_seconds + files as f64 / tensors;
    Ok(InputReport {
        program: program(),
        files,
        size: options.size,
        workers,
        images_per_second: significant(tensors),
        images_per_second_first_epoch: significant(files as f64 / first_epoch),
        images_per_second_views: significant(bytes([View::Weak, View::Strong])),
        images_per_second_contrast: significant(bytes([View::Contrast, View::ContrastSecond])),
        scan_seconds: significant(scan_seconds),
        cache_seconds: significant(cache_seconds),
        peak_mib: peak_host_mib(),
    })
}

/// Images a second from the cache to tensors on the CPU.
fn measure_tensors(
    cache: &ImageCache,
    views: &ViewConfig,
    batch: usize,
    time: Duration,
) -> Result<f64, BenchError> {
    const WARM_UP: usize = 3;
    let size = cache.size() as usize;
    let all: Vec<u32> = (0..cache.len() as u32).collect();
    let loader = Loader {
        cache,
        labels: &[],
        views,
        seed: 0,
        labelled: Intake::whole(Sampler::new(all.clone(), Order::Labelled, 0)?, 0),
        unlabelled: Some(Intake::whole(Sampler::new(all, Order::Unlabelled, 0)?, batch)),
        wanted: Views { weak: 1, strong: 1 },
        planned: false,
    };
    let device = Device::flex();
    Ok(std::thread::scope(|scope| {
        let batches = loader.prefetch(scope, 0..u64::MAX);
        let take = || {
            let Ok(batch) = batches.recv() else { return 0 };
            let HostViews::Made(made) = batch.views else { unreachable!("nothing was planned") };
            for bytes in made.weak.into_iter().chain(made.strong) {
                std::hint::black_box(images_to_tensor(bytes, size, &views.normalisation, &device));
            }
            batch.indices.len()
        };
        (0..WARM_UP).for_each(|_| {
            take();
        });
        let (start, mut images) = (Instant::now(), take());
        while start.elapsed() < time {
            images += take();
        }
        images as f64 / start.elapsed().as_secs_f64()
    }))
}

#[cfg(test)]
mod tests {
    use super::super::{PictureOptions, pictures};
    use super::*;

    #[test]
    fn images_are_counted_from_file_to_tensor() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let dir = folder.path().join("images");
        pictures(&PictureOptions { dir: dir.clone(), count: 5, width: 40, height: 30 }).expect("writable");
        let options = InputOptions { dir, size: 16, seconds: 0.01, threads: None, batch: 4 };
        let report = input(&options).expect("five images");
        assert_eq!((report.files, report.size), (5, 16));
        assert!(report.images_per_second > report.images_per_second_first_epoch);
        assert!(report.images_per_second_first_epoch > 0.0 && report.images_per_second_views > 0.0);
    }

    #[test]
    fn an_empty_folder_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let dir = folder.path().to_owned();
        let options = InputOptions { dir: dir.clone(), size: 16, seconds: 0.01, threads: None, batch: 4 };
        let error = input(&options).expect_err("nothing in there").to_string();
        assert!(error.contains(&dir.display().to_string()), "{error}");
    }
}
