//! The two parts of SCAN, step by step.

use burn::tensor::{Tensor, TensorData};
use harvest_models::ClusterHeads;
use rand::RngExt;

use super::material::{Frame, Pair};
use super::{Scan, start};
use crate::algorithms::Alone;
use crate::clustering::course::Lesson;
use crate::clustering::learner::Learner;
use crate::clustering::{scan_loss, self_label_loss};
use crate::random::{Purpose, stream};
use crate::training::Scalars;
use crate::training::checkpoint::{Checkpoint, CheckpointError, Progress};

/// Entries of a checkpoint.
const COUNTS: &str = "counts";
const REPAIRED: &str = "repaired";

/// The clustering part: all heads learn.
pub(super) struct Clusters<'a> {
    scan: &'a Scan<'a>,
    frame: Frame<'a>,
    learner: Learner<ClusterHeads>,
    /// Images of each head's clusters so far in this epoch: `[heads, C]`.
    counts: Tensor<2>,
    repaired: u64,
}

impl<'a> Clusters<'a> {
    pub fn new(learner: Learner<ClusterHeads>, scan: &'a Scan<'a>, frame: Frame<'a>) -> Self {
        let counts = Tensor::zeros([learner.head().len(), scan.clusters], frame.device);
        Self { scan, frame, learner, counts, repaired: 0 }
    }

    /// What has learned, and how many rows were repaired.
    pub fn finish(self) -> (Learner<ClusterHeads>, u64) {
        (self.learner, self.repaired)
    }

    /// At the end of an epoch: starts the rows of emptied clusters anew.
    fn repair(&mut self, epoch: u64) {
        let counts: Vec<f32> = self.counts.to_data().iter::<f32>().collect();
        self.counts = self.counts.zeros_like();
        for (head, counts) in counts.chunks_exact(self.scan.clusters).enumerate() {
            let mut rng = stream(self.scan.seed, Purpose::Cluster, [epoch, head as u64, 3]);
            self.repaired += start::repair(self.learner.head_mut(), head, counts, &mut rng);
        }
    }
}

impl Lesson for Clusters<'_> {
    type Batch = Pair;

    fn step(&mut self, step: u64, batch: Pair, lr: f64) -> Scalars {
        let (config, clusters) = (self.scan.config, self.scan.clusters);
        let noise = stream(self.scan.seed, Purpose::Network, [step, 0, 0]).random();
        let features = batch.joined(self.learner.network(), &self.frame, noise);
        let rows = features.dims()[0] / 2;
        let heads = self.learner.head().forward(features);
        let mut counted = Vec::with_capacity(heads.len());
        let mut losses = Vec::with_capacity(heads.len());
        for logits in heads {
            let [anchors, neighbours] = [0, 1].map(|part| logits.clone().narrow(0, part * rows, rows));
            let cluster = anchors.clone().inner().argmax(1).squeeze_dim::<1>(1);
            counted.push(cluster.one_hot::<2>(clusters).float().sum_dim(0));
            losses.push(scan_loss(anchors, neighbours, config.entropy_weight as f32));
        }
        self.counts = self.counts.clone() + Tensor::cat(counted, 0);
        let mean = |part: fn(&crate::clustering::ScanLoss) -> &Tensor<1>| {
            let each: Vec<Tensor<1>> = losses.iter().map(|loss| part(loss).clone().inner()).collect();
            Tensor::cat(each, 0).mean()
        };
        let scalars = vec![
            ("loss", mean(|loss| &loss.total)),
            ("consistency", mean(|loss| &loss.consistency)),
            ("entropy", mean(|loss| &loss.entropy)),
        ];
        // Their sum, as published: each head has gradients of its own.
        let total = losses.into_iter().map(|loss| loss.total).reduce(|sum, loss| sum + loss);
        let total = total.expect("there is a head");
        self.learner.descend(total, lr, &Alone);
        let per_epoch = self.scan.per_epoch();
        let last = (step + 1).is_multiple_of(per_epoch);
        if last {
            // Nothing is left to part clusters that are repaired in the end; and where there are fewer images than clusters, some
            // stay empty.
            let epoch = (step + 1) / per_epoch;
            if epoch < u64::from(config.epochs) && self.scan.features.len() >= clusters {
                self.repair(epoch);
            } else {
                self.counts = self.counts.zeros_like();
            }
        }
        scalars
    }

    fn save(&self, progress: Progress) -> Checkpoint {
        let mut checkpoint = self.learner.save(progress);
        let repaired = TensorData::new(vec![self.repaired as i64], [1]);
        checkpoint
            .algorithm
            .extend([(COUNTS.to_owned(), self.counts.clone().into_data()), (REPAIRED.to_owned(), repaired)]);
        checkpoint
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        let expected = self.counts.dims();
        let counts = checkpoint.algorithm.get(COUNTS).filter(|data| data.shape().to_vec() == expected);
        let repaired = checkpoint.algorithm.get(REPAIRED).and_then(|data| data.iter::<i64>().next());
        let (Some(counts), Some(repaired)) = (counts, repaired) else {
            return Err(CheckpointError::Misfit(format!("`{COUNTS}` or `{REPAIRED}` is missing")));
        };
        self.counts = Tensor::from_data(counts.clone(), self.frame.device);
        self.repaired = repaired.max(0) as u64;
        self.learner.restore(checkpoint, self.frame.device)
    }
}

/// The self-labelling part: the head that was kept learns.
pub(super) struct SelfLabels<'a> {
    scan: &'a Scan<'a>,
    frame: Frame<'a>,
    learner: Learner<ClusterHeads>,
}

impl<'a> SelfLabels<'a> {
    pub fn new(learner: Learner<ClusterHeads>, scan: &'a Scan<'a>, frame: Frame<'a>) -> Self {
        Self { scan, frame, learner }
    }

    pub fn finish(self) -> Learner<ClusterHeads> {
        self.learner
    }
}

impl Lesson for SelfLabels<'_> {
    type Batch = Pair;

    fn step(&mut self, step: u64, batch: Pair, lr: f64) -> Scalars {
        let mut rng = stream(self.scan.seed, Purpose::Network, [step, 1, 0]);
        let noise = [rng.random(), rng.random()];
        let features = batch.taught(self.learner.network(), &self.frame, noise);
        let [weak, strong] = features.map(|features| self.learner.head().forward(features).remove(0));
        let found = self_label_loss(weak, strong, self.scan.config.confidence as f32, true);
        let scalars = vec![("loss", found.loss.clone().inner()), ("kept", found.mask.mean())];
        self.learner.descend(found.loss, lr, &Alone);
        scalars
    }

    fn save(&self, progress: Progress) -> Checkpoint {
        self.learner.save(progress)
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        self.learner.restore(checkpoint, self.frame.device)
    }
}
