//! Batches of views, made by all threads, independent of their number.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::contrast::contrast_view;
use super::views::{ViewConfig, strong_view, weak_view};
use crate::random::{Purpose, stream};

/// Which view of an image; part of the key of its stream of randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum View {
    /// Of an unlabelled image, crop and mirror only: gives the pseudo-label.
    Weak = 0,
    /// Of an unlabelled image, distorted: is trained to agree with it.
    Strong = 1,
    /// Of a labelled image, crop and mirror only.
    Labelled = 2,
    /// A second [`View::Weak`] of the same image.
    WeakSecond = 3,
    /// A second [`View::Strong`] of the same image.
    StrongSecond = 4,
    /// SimCLR's, of an unlabelled image.
    Contrast = 5,
    /// A second [`View::Contrast`] of the same image: one is to be found by the other.
    ContrastSecond = 6,
}

/// One view to make.
#[derive(Debug, Clone, Copy)]
pub struct ViewRequest<'a> {
    /// The cached image: `size * size * 3` bytes.
    pub source: &'a [u8],
    /// The image's number in the manifest; part of the key of the stream.
    pub image: u64,
    /// How often the image has been seen before; part of the key of the stream.
    pub epoch: u64,
    /// Which view.
    pub view: View,
}

impl ViewRequest<'_> {
    /// Where all that is random about the view comes from.
    pub(super) fn stream(&self, seed: u64) -> ChaCha8Rng {
        stream(seed, Purpose::View, [self.epoch, self.image, self.view as u64])
    }
}

/// Makes `requests[i]` into `out[i]`, `out` being `[requests, size, size, 3]`.
///
/// A view is a function of (`seed`, epoch, image, view) and the image alone.
///
/// # Panics
/// If `out` or a source is not of the length that `size` asks for.
pub fn fill_views(requests: &[ViewRequest], size: usize, config: &ViewConfig, seed: u64, out: &mut [u8]) {
    let length = size * size * 3;
    assert_eq!(out.len(), requests.len() * length, "bytes for {} views of {size} x {size}", requests.len());
    out.par_chunks_exact_mut(length.max(1)).zip(requests).for_each(|(out, request)| {
        let mut rng = request.stream(seed);
        match request.view {
            View::Weak | View::WeakSecond | View::Labelled => {
                weak_view(request.source, size, config, &mut rng, out)
            }
            View::Strong | View::StrongSecond => strong_view(request.source, size, config, &mut rng, out),
            View::Contrast | View::ContrastSecond => {
                contrast_view(request.source, size, config, &mut rng, out)
            }
        }
    });
}

/// Images a second, one image being one of each of `views`, in batches of 64 images for at least `time`.
/// 0 where there is no source.
///
/// # Panics
/// As [`fill_views`].
pub fn measure_views(
    sources: &[&[u8]],
    size: usize,
    config: &ViewConfig,
    views: [View; 2],
    time: Duration,
) -> f64 {
    const BATCH: usize = 64;
    if sources.is_empty() {
        return 0.0;
    }
    let mut out = vec![0; 2 * BATCH * size * size * 3];
    let mut batch = |number: usize| {
        let images = (number * BATCH..(number + 1) * BATCH).map(|image| {
            let source = sources[image % sources.len()];
            views.map(|view| ViewRequest { source, image: image as u64, epoch: 0, view })
        });
        let requests: Vec<ViewRequest> = images.flatten().collect();
        fill_views(&requests, size, config, 0, &mut out);
        std::hint::black_box(&mut out);
    };
    (0..2).for_each(&mut batch); // threads started, memory touched
    let start = Instant::now();
    let batches = (2..).take_while(|&number| {
        batch(number);
        start.elapsed() < time
    });
    let images = (batches.count() + 1) * BATCH;
    images as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_do_not_depend_on_threads_or_neighbours() {
        let size = 24;
        let sources: Vec<Vec<u8>> = (0..10u32)
            .map(|image| (0..size * size * 3).map(|i| (i as u32 * (3 + image) / 2) as u8).collect())
            .collect();
        let requests: Vec<ViewRequest> = (0..60)
            .map(|i| ViewRequest {
                source: &sources[i % 10],
                image: (i % 10) as u64,
                epoch: (i / 30) as u64,
                view: [View::Weak, View::Strong, View::Contrast][i / 10 % 3],
            })
            .collect();
        let config = ViewConfig::default();
        let made = |requests: &[ViewRequest], threads| {
            let mut out = vec![0; requests.len() * size * size * 3];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| fill_views(requests, size, &config, 5, &mut out));
            out
        };
        let all = made(&requests, 1);
        assert_eq!(all, made(&requests, 2));
        assert_eq!(all, made(&requests, 3));
        let mut views: Vec<&[u8]> = all.chunks_exact(size * size * 3).collect();
        assert_eq!(made(&requests[7..8], 1), views[7]);
        views.sort();
        views.dedup();
        assert!(views.len() > 55, "epoch, image and view each change the draw: {} of 60 differ", views.len());
    }

    #[test]
    fn empty_batches_and_empty_pictures_are_fine() {
        fill_views(&[], 32, &ViewConfig::default(), 0, &mut []);
        let request = ViewRequest { source: &[], image: 0, epoch: 0, view: View::Strong };
        fill_views(&[request], 0, &ViewConfig::default(), 0, &mut []);
        assert_eq!(measure_views(&[], 8, &ViewConfig::default(), [View::Weak; 2], Duration::ZERO), 0.0);
    }
}
