//! Pictures of clothes, installed with the tests, and separated clouds of points.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest::clustering::{Embedding, Neighbours, Search};
use harvest::data::{CacheOptions, ImageCache, ScanOptions, Silent, Source, SourceKind, scan};
use harvest::random::{Purpose, stream};
use harvest_models::{Classifier, ClassifierConfig};
use rand::RngExt;

/// Debian's dataset-fashion-mnist, which scripts/test installs.
const FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";
/// Side of the pictures.
pub const SIZE: usize = 16;

/// The first pictures of Fashion-MNIST.
pub struct Clothes {
    // Deleted when dropped.
    _folder: tempfile::TempDir,
    pub cache: ImageCache,
    pub indices: Vec<u32>,
    pub labels: Vec<u32>,
}

/// The head of a packed IDX file, with its count of items made `count`.
fn head(file: &str, start: usize, each: usize, count: usize) -> Vec<u8> {
    let packed = std::fs::File::open(Path::new(FASHION_MNIST).join(file)).expect("dataset-fashion-mnist");
    let mut bytes = vec![0; start + each * count];
    flate2::read::GzDecoder::new(packed).read_exact(&mut bytes).expect("as many items");
    bytes[4..8].copy_from_slice(&(count as u32).to_be_bytes());
    bytes
}

impl Clothes {
    pub fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("writable");
        let images = head("train-images-idx3-ubyte.gz", 16, 28 * 28, count);
        std::fs::write(data.join("train-images-idx3-ubyte"), images).expect("writable");
        let labels = head("train-labels-idx1-ubyte.gz", 8, 1, count);
        std::fs::write(data.join("train-labels-idx1-ubyte"), labels).expect("writable");
        let source = Source::of_kind(SourceKind::Idx, &data).expect("IDX files");
        let go_on = AtomicBool::new(false);
        let manifest = scan(&source, &ScanOptions::default(), &Silent, &go_on).expect("sound files");
        let (cache, options) = (folder.path().join("cache"), CacheOptions::default());
        let cache = ImageCache::open_or_build(&cache, &manifest, SIZE as u32, &options, &Silent, &go_on);
        let labels = manifest.images.iter().map(|image| u32::from(image.label.expect("labelled"))).collect();
        Self {
            cache: cache.expect("the folder is writable"),
            indices: (0..manifest.images.len() as u32).collect(),
            labels,
            _folder: folder,
        }
    }

    /// The pixels themselves as features.
    pub fn pixels(&self) -> Embedding {
        let values = self.indices.iter().flat_map(|index| self.cache.image(*index));
        Embedding::new(values.map(|level| f32::from(*level)).collect(), SIZE * SIZE * 3).expect("finite")
    }
}

/// A network of batch normalisation for the size of the pictures.
pub fn resnet() -> Classifier {
    let mut config = ClassifierConfig::preset("resnet8", 10).expect("a preset");
    if let ClassifierConfig::ResNet(config) = &mut config {
        config.image_size = SIZE;
    }
    config.init(5, &Device::flex()).expect("a valid network")
}

/// A small network in which images do not influence each other.
pub fn vit() -> Classifier {
    let config = r#"{"vit": {"image_size": 16, "patch": 4, "dim": 16, "depth": 2, "heads": 2, "drop_path": 0.0, "classes": 3}}"#;
    let config: ClassifierConfig = serde_json::from_str(config).expect("a configuration");
    config.init(5, &Device::flex()).expect("a valid network")
}

pub fn neighbours(rows: &Embedding, k: usize) -> Neighbours {
    let stop = AtomicBool::new(false);
    Neighbours::search(rows, k, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ()).expect("it runs")
}

/// Share of neighbours in the image's own class.
pub fn agreement(rows: &Embedding, labels: &[u32]) -> f64 {
    neighbours(rows, 10).agreement(labels).0
}

/// A cloud of so many rows for each of `sizes`, around centres that lie in random directions.
pub fn clouds(sizes: &[usize], dim: usize, noise: f32, seed: u64) -> (Embedding, Vec<usize>) {
    let mut rng = stream(seed, Purpose::Demo, [7, 0, 0]);
    let mut normal = || {
        let (u, v): (f32, f32) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    };
    let centres: Vec<Vec<f32>> = sizes.iter().map(|_| (0..dim).map(|_| normal()).collect()).collect();
    let members = sizes.iter().enumerate().flat_map(|(group, size)| std::iter::repeat_n(group, *size));
    let groups: Vec<usize> = members.collect();
    let values = groups.iter().flat_map(|group| centres[*group].clone());
    let values: Vec<f32> = values.map(|value| value + noise * normal()).collect();
    (Embedding::new(values, dim).expect("finite"), groups)
}
