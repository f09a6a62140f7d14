//! What heads see: stored features, or views that the network makes features of.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use harvest_models::{Classifier, ClusterHeads, Mode};
use rand::RngExt;

use crate::augment::{View, ViewConfig, ViewRequest, fill_views};
use crate::clustering::course::LearnError;
use crate::clustering::learner::Learner;
use crate::clustering::{Embedding, Neighbours};
use crate::data::{ImageCache, Pick};
use crate::inference::{Predictor, images_to_tensor};
use crate::random::{Purpose, stream};

/// Rows that go through heads at once.
const BLOCK: usize = 4096;
/// Images of a forward pass without gradients.
const BATCH: usize = 64;

/// What learns.
#[derive(Debug, Clone, Copy)]
pub enum Learning<'a> {
    /// Heads alone.
    Frozen {
        /// Features of augmented copies of each image, row by row like its own; none will do.
        copies: &'a [Embedding],
    },
    /// The network too, as published.
    Whole {
        /// Where it starts.
        network: &'a Classifier,
        /// The images at its size.
        cache: &'a ImageCache,
        /// The image of each row.
        indices: &'a [u32],
        /// Strong views for clusters; weak and strong ones for self-labelling.
        views: &'a ViewConfig,
    },
}

/// Rows of a step, twice.
pub(super) struct Pair {
    first: Rows,
    second: Rows,
}

/// What the host prepares.
enum Rows {
    /// `[B, D]`
    Features(Vec<f32>),
    /// `[B, S, S, 3]`
    Pixels(Vec<u8>),
}

pub(super) struct Material<'a> {
    /// As heads see them.
    plain: std::borrow::Cow<'a, Embedding>,
    source: Source<'a>,
    seed: u64,
}

enum Source<'a> {
    Stored { copies: &'a [Embedding], scale: Scale },
    Images { cache: &'a ImageCache, indices: &'a [u32], views: &'a ViewConfig },
}

impl<'a> Material<'a> {
    /// With the network that is to learn, which has running statistics of its own.
    pub fn new(learning: Learning<'a>, features: &'a Embedding, seed: u64) -> (Option<Classifier>, Self) {
        use std::borrow::Cow;
        match learning {
            Learning::Frozen { copies } => {
                assert!(copies.iter().all(|copy| copy.len() == features.len()), "copies of every image");
                let scale = Scale::of(features);
                let plain = Cow::Owned(scale.all(features));
                (None, Self { plain, source: Source::Stored { copies, scale }, seed })
            }
            Learning::Whole { network, cache, indices, views } => {
                assert_eq!(indices.len(), features.len(), "an image for each row");
                let source = Source::Images { cache, indices, views };
                let network = network.detached().separate();
                (Some(network), Self { plain: Cow::Borrowed(features), source, seed })
            }
        }
    }

    /// The images' own features, as heads see them.
    pub fn plain(&self) -> &Embedding {
        &self.plain
    }

    /// Identifies the features.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for values in self.plain.values().chunks(BLOCK) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Each image with one of its neighbours; with itself where it has none. Both are strong views, or one of the copies.
    pub fn neighbours(&self, picks: &[Pick], neighbours: &Neighbours) -> Pair {
        let mut first = Vec::with_capacity(picks.len());
        let mut second = Vec::with_capacity(picks.len());
        for pick in picks {
            let mut rng = stream(self.seed, Purpose::Cluster, [pick.epoch, u64::from(pick.index), 1]);
            let near = if neighbours.is_empty() { &[][..] } else { neighbours.of(pick.index as usize) };
            let other = match near.len() {
                0 => pick.index,
                count => near[rng.random_range(0..count as u32) as usize],
            };
            first.push((pick.index, pick.epoch, rng.random::<u32>()));
            second.push((other, pick.epoch, rng.random::<u32>()));
        }
        Pair { first: self.rows(&first, View::Strong), second: self.rows(&second, View::StrongSecond) }
    }

    /// Each image in a weak view (its own features), and in a strong one (a copy's). Epochs are counted from `first_epoch`.
    pub fn weak_and_strong(&self, picks: &[Pick], first_epoch: u64) -> Pair {
        let rows = picks.iter().map(|pick| {
            let epoch = first_epoch + pick.epoch;
            let draw = stream(self.seed, Purpose::Cluster, [epoch, u64::from(pick.index), 2]).random();
            (pick.index, epoch, draw)
        });
        let rows: Vec<(u32, u64, u32)> = rows.collect();
        Pair { first: self.rows(&rows, View::Weak), second: self.rows(&rows, View::Strong) }
    }

    /// Rows of (row, epoch, a random number) as `view`.
    fn rows(&self, rows: &[(u32, u64, u32)], view: View) -> Rows {
        match &self.source {
            Source::Stored { copies, scale } => {
                let mut values = Vec::with_capacity(rows.len() * self.plain.dim());
                for (row, _, draw) in rows {
                    // Copies stand for strong views; among neighbours the images themselves are one of them.
                    let choices = match view {
                        View::Weak => 0,
                        View::Strong if !copies.is_empty() => copies.len() as u32,
                        _ => copies.len() as u32 + 1,
                    };
                    let choice = if choices == 0 { 0 } else { (draw % choices) as usize };
                    match copies.get(choice).filter(|_| view != View::Weak) {
                        Some(copy) => scale.one(copy.row(*row as usize), &mut values),
                        None => values.extend(self.plain.row(*row as usize)),
                    }
                }
                Rows::Features(values)
            }
            Source::Images { cache, indices, views } => {
                let request = |(row, epoch, _): &(u32, u64, u32)| {
                    let index = indices[*row as usize];
                    ViewRequest { source: cache.image(index), image: u64::from(index), epoch: *epoch, view }
                };
                let requests: Vec<ViewRequest<'_>> = rows.iter().map(request).collect();
                let size = cache.size() as usize;
                let mut out = vec![0; rows.len() * size * size * 3];
                fill_views(&requests, size, views, self.seed, &mut out);
                Rows::Pixels(out)
            }
        }
    }

    /// The logits of every head for every image, `[N, C]` each.
    pub fn logits(
        &self,
        learner: &Learner<ClusterHeads>,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Vec<Vec<f32>>, LearnError> {
        let found;
        let features = match (&self.source, learner.network()) {
            (Source::Images { cache, indices, views }, Some(network)) => {
                found = see(network, cache, indices, views, stop)?;
                &found
            }
            _ => self.plain(),
        };
        let heads = learner.head();
        let mut logits = vec![Vec::new(); heads.len()];
        for block in features.values().chunks(BLOCK * features.dim()) {
            let data = TensorData::new(block.to_vec(), [block.len() / features.dim(), features.dim()]);
            let rows = Tensor::<2>::from_data(data, device);
            for (all, found) in logits.iter_mut().zip(heads.forward(rows)) {
                all.extend(found.inner().into_data().iter::<f32>());
            }
        }
        Ok(logits)
    }
}

/// The network's features of all images, in evaluation mode.
fn see(
    network: &Classifier,
    cache: &ImageCache,
    indices: &[u32],
    views: &ViewConfig,
    stop: &AtomicBool,
) -> Result<Embedding, LearnError> {
    let dim = network.feature_size();
    let mut values: Vec<f32> = Vec::with_capacity(indices.len() * dim);
    let predictor = Predictor::new(network, cache.size() as usize, &views.normalisation, BATCH);
    predictor.features(indices.iter().map(|index| cache.image(*index)), |_, batch| {
        values.extend(batch);
        !stop.load(Ordering::Relaxed)
    });
    if values.len() < indices.len() * dim {
        return Err(LearnError::interrupted());
    }
    let broken = values.chunks_exact(dim).position(|row| row.iter().any(|value| !value.is_finite()));
    match broken {
        Some(row) => Err(LearnError::NotFinite { image: indices[row] }),
        None => Ok(Embedding::new(values, dim)?),
    }
}

impl Pair {
    /// Features of both, `[2 B, D]`: the first ones, then the second.
    pub fn joined(self, network: Option<&Classifier>, frame: &Frame<'_>, noise: u64) -> Tensor<2> {
        match (self.first, self.second) {
            (Rows::Features(mut first), Rows::Features(second)) => {
                first.extend(second);
                frame.features(first)
            }
            (Rows::Pixels(mut first), Rows::Pixels(second)) => {
                first.extend(second);
                let network = network.expect("views are for a network that learns");
                network.forward(frame.images(first), Mode::train(noise)).features
            }
            _ => unreachable!("both are of one source"),
        }
    }

    /// Features of the first off the graph, of the second on it, `[B, D]` each.
    pub fn taught(self, network: Option<&Classifier>, frame: &Frame<'_>, noise: [u64; 2]) -> [Tensor<2>; 2] {
        match (self.first, self.second) {
            (Rows::Features(first), Rows::Features(second)) => {
                [first, second].map(|rows| frame.features(rows))
            }
            (Rows::Pixels(first), Rows::Pixels(second)) => {
                let network = network.expect("views are for a network that learns");
                let weak = network.detached().forward(frame.images(first), Mode::train(noise[0])).features;
                let strong = network.forward(frame.images(second), Mode::train(noise[1])).features;
                [weak, strong]
            }
            _ => unreachable!("both are of one source"),
        }
    }
}

/// How what the host prepared becomes tensors.
pub(super) struct Frame<'a> {
    pub device: &'a Device,
    pub dim: usize,
    pub size: usize,
    pub normalisation: &'a crate::augment::Normalisation,
}

impl Frame<'_> {
    fn features(&self, values: Vec<f32>) -> Tensor<2> {
        let rows = values.len() / self.dim;
        Tensor::from_data(TensorData::new(values, [rows, self.dim]), self.device)
    }

    fn images(&self, bytes: Vec<u8>) -> Tensor<4> {
        images_to_tensor(bytes, self.size, self.normalisation, self.device)
    }
}

impl Material<'_> {
    /// For tensors on `device`.
    pub fn frame<'f>(&'f self, device: &'f Device) -> Frame<'f> {
        const NONE: crate::augment::Normalisation = crate::augment::Normalisation::IMAGENET;
        let (size, normalisation) = match &self.source {
            Source::Stored { .. } => (0, &NONE),
            Source::Images { cache, views, .. } => (cache.size() as usize, &views.normalisation),
        };
        Frame { device, dim: self.plain.dim(), size, normalisation }
    }
}

/// Brings rows to length one, then all to mean 0 and to values of about 1, so that one learning rate fits the features of any
/// network.
struct Scale {
    mean: Vec<f32>,
    factor: f32,
}

impl Scale {
    fn of(features: &Embedding) -> Self {
        let unit = features.clone().normalised();
        let (count, dim) = (unit.len().max(1) as f64, unit.dim());
        let mut sums = vec![0f64; dim];
        for row in unit.values().chunks_exact(dim) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let mean: Vec<f32> = sums.into_iter().map(|sum| (sum / count) as f32).collect();
        let squares = unit.values().chunks_exact(dim).map(|row| {
            row.iter().zip(&mean).map(|(value, mean)| f64::from(value - mean).powi(2)).sum::<f64>()
        });
        let variance = squares.sum::<f64>() / (count * dim as f64);
        // Of images that are all equal nothing is left but rounding.
        let factor = if variance > 1e-12 { (1.0 / variance.sqrt()) as f32 } else { 1.0 };
        Self { mean, factor }
    }

    fn one(&self, row: &[f32], out: &mut Vec<f32>) {
        let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let length = if length > 0.0 { 1.0 / length } else { 0.0 };
        let scaled = |(value, mean): (&f32, &f32)| ((f64::from(*value) * length) as f32 - mean) * self.factor;
        out.extend(row.iter().zip(&self.mean).map(scaled));
    }

    fn all(&self, features: &Embedding) -> Embedding {
        let mut values = Vec::with_capacity(features.values().len());
        (0..features.len()).for_each(|row| self.one(features.row(row), &mut values));
        Embedding::new(values, features.dim()).expect("finite values were scaled")
    }
}
