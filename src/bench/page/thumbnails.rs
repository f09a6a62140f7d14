//! How fast photographs become thumbnails, and what decoding at a part of the size is worth.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::PageError;
use crate::bench::pictures::{PictureOptions, pictures};
use crate::bench::{median, significant};
use crate::data::{DecodeLimits, Pictures, ScanOptions, Silent, Source, scan};
use crate::thumbs::{SIDE, draw};

/// Photographs; few, since each takes a good part of a second to decode.
const COUNT: u32 = 12;
/// Of twelve million pixels, as of a telephone or a small camera.
const SIZE: (u32, u32) = (4000, 3000);

/// Milliseconds for one photograph on one thread; medians.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThumbnailSpeed {
    /// Photographs.
    pub count: u32,
    /// Millions of pixels of each.
    pub megapixels: f64,
    /// Decoding all of it.
    pub whole_ms: f64,
    /// Decoding it at a part of its size.
    pub reduced_ms: f64,
    /// From file to thumbnail: reading, decoding so, scaling, compressing.
    pub thumbnail_ms: f64,
}

/// Measures on drawn photographs in `folder`, which is made.
pub(super) fn thumbnails(folder: &Path) -> Result<ThumbnailSpeed, PageError> {
    let (width, height) = SIZE;
    pictures(&PictureOptions { dir: folder.to_owned(), count: COUNT, width, height }).map_err(Box::new)?;
    let source = Source::Folder { root: folder.to_owned() };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let manifest = scan(&source, &ScanOptions::default(), &Silent, &stop)?;
    let loader = Pictures::new(&manifest.source, &manifest.root, DecodeLimits::default());
    let (mut whole, mut reduced, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for image in &manifest.images {
        let time = |times: &mut Vec<f64>, work: &dyn Fn() -> Result<(), PageError>| {
            let begin = Instant::now();
            work()?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            Ok::<(), PageError>(())
        };
        time(&mut whole, &|| {
            loader.with(&image.path, drop)?;
            Ok(())
        })?;
        time(&mut reduced, &|| {
            loader.with_reduced(&image.path, SIDE, drop)?;
            Ok(())
        })?;
        time(&mut all, &|| {
            draw(&loader, image)?;
            Ok(())
        })?;
    }
    let middle = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        significant(median(&times))
    };
    Ok(ThumbnailSpeed {
        count: COUNT,
        megapixels: f64::from(width) * f64::from(height) / 1e6,
        whole_ms: middle(whole),
        reduced_ms: middle(reduced),
        thumbnail_ms: middle(all),
    })
}
