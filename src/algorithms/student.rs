//! The student pass: labelled and strong views through the network in one go, with gradients.
//!
//! A strong view whose pseudo-label is masked contributes nothing to the loss. With the mask known first, only the
//! kept views need the forward and backward pass; this is where most of the time of early FixMatch training goes.

use burn::tensor::{Int, Tensor};

use super::loss::masked_cross_entropy;
use super::{Network, PseudoLabels, SslBatch, Targets};

/// Kept rows are padded up to the next of this many sizes, so that a GPU sees few distinct shapes.
const SIZES: usize = 8;

/// Logits with gradients, and the pseudo-labels that go with the strong ones.
pub struct Student {
    /// `[B, C]`.
    pub labelled: Tensor<2>,
    /// `[K, C]`: the strong views that were computed, `K ≤ U`; none if every row was masked and left out.
    pub strong: Option<Strong>,
    /// `U`, over which unsupervised losses are averaged however many rows were computed.
    unlabelled: usize,
}

/// The strong views that went through the network.
pub struct Strong {
    /// `[K, C]`.
    pub logits: Tensor<2>,
    /// `[K]`; 0 in rows that only pad.
    pub mask: Tensor<1>,
    /// For `K` rows.
    pub targets: Targets,
}

impl Student {
    /// Runs the pass. Leaves masked views out if the batch asks for it and the network allows it.
    pub fn pass(network: &dyn Network, batch: &SslBatch, pseudo: &PseudoLabels) -> Self {
        let unlabelled = pseudo.mask.dims()[0];
        let rows = may_skip(network, batch)
            .then(|| rows_to_compute(&pseudo.mask))
            .filter(|rows| rows.len() < unlabelled);
        let Some(rows) = rows else {
            let (labelled, logits) = joint(network, batch, batch.strong[0].clone(), &all_strong_rows(batch));
            let strong = Strong { logits, mask: pseudo.mask.clone(), targets: pseudo.targets.clone() };
            return Self { labelled, strong: Some(strong), unlabelled };
        };
        if rows.is_empty() {
            return Self { labelled: labelled_alone(network, batch), strong: None, unlabelled };
        }
        let kept = Kept::new(batch, pseudo, &rows);
        let (labelled, logits) = joint(network, batch, kept.images, &kept.numbers);
        let strong = Strong { logits, mask: kept.mask, targets: kept.targets };
        Self { labelled, strong: Some(strong), unlabelled }
    }

    /// The pass of an algorithm whose pseudo-labels depend on the labelled logits `[B, C]`, which `label` gets off the
    /// graph. Where masked views can be left out the labelled images go first, on their own; else all go together.
    pub fn pass_after_labelled(
        network: &dyn Network,
        batch: &SslBatch,
        label: impl FnOnce(Tensor<2>) -> PseudoLabels,
    ) -> (Self, PseudoLabels) {
        if !may_skip(network, batch) {
            let (labelled, logits) = joint(network, batch, batch.strong[0].clone(), &all_strong_rows(batch));
            let pseudo = label(labelled.clone().inner());
            let strong = Strong { logits, mask: pseudo.mask.clone(), targets: pseudo.targets.clone() };
            let unlabelled = pseudo.mask.dims()[0];
            return (Self { labelled, strong: Some(strong), unlabelled }, pseudo);
        }
        let labelled = labelled_alone(network, batch);
        let pseudo = label(labelled.clone().inner());
        let rows = rows_to_compute(&pseudo.mask);
        let strong = (!rows.is_empty()).then(|| {
            let kept = Kept::new(batch, &pseudo, &rows);
            let logits = network.student(kept.images, &kept.numbers);
            Strong { logits, mask: kept.mask, targets: kept.targets }
        });
        let unlabelled = pseudo.mask.dims()[0];
        (Self { labelled, strong, unlabelled }, pseudo)
    }

    /// Masked cross-entropy averaged over all `U` unlabelled images, dropped ones included: `[1]`.
    pub fn consistency(&self) -> Tensor<1> {
        match &self.strong {
            Some(Strong { logits, mask, targets }) => {
                masked_cross_entropy(logits.clone(), targets.clone(), mask.clone(), self.unlabelled)
            }
            None => Tensor::zeros([1], &self.labelled.device()),
        }
    }
}

/// The strong views that are computed where masked ones are left out.
struct Kept {
    images: Tensor<4>,
    /// Their numbers in the step.
    numbers: Vec<u64>,
    mask: Tensor<1>,
    targets: Targets,
}

impl Kept {
    fn new(batch: &SslBatch, pseudo: &PseudoLabels, rows: &[i32]) -> Self {
        let numbers = rows.iter().map(|row| batch.strong_rows(0).start + *row as u64).collect();
        let rows = Tensor::<1, Int>::from_data(rows, &pseudo.mask.device());
        Self {
            images: batch.strong[0].clone().select(0, rows.clone()),
            numbers,
            targets: match &pseudo.targets {
                Targets::Hard(classes) => Targets::Hard(classes.clone().select(0, rows.clone())),
                Targets::Soft(targets) => Targets::Soft(targets.clone().select(0, rows.clone())),
            },
            mask: pseudo.mask.clone().select(0, rows),
        }
    }
}

/// Whether masked views are to be left out, and may be.
fn may_skip(network: &dyn Network, batch: &SslBatch) -> bool {
    batch.skip_masked && network.rows_are_independent()
}

fn all_strong_rows(batch: &SslBatch) -> Vec<u64> {
    batch.strong_rows(0).collect()
}

/// The labelled images in a pass of their own.
fn labelled_alone(network: &dyn Network, batch: &SslBatch) -> Tensor<2> {
    network.student(batch.labelled.clone(), &batch.labelled_rows().collect::<Vec<_>>())
}

/// One pass over the labelled images and these strong views; one large batch is faster than two small ones.
fn joint(network: &dyn Network, batch: &SslBatch, strong: Tensor<4>, rows: &[u64]) -> (Tensor<2>, Tensor<2>) {
    let labelled = batch.labelled.clone();
    let (count, strong_count) = (labelled.dims()[0], strong.dims()[0]);
    let rows: Vec<u64> = batch.labelled_rows().chain(rows.iter().copied()).collect();
    let logits = network.student(Tensor::cat(vec![labelled, strong], 0), &rows);
    (logits.clone().narrow(0, 0, count), logits.narrow(0, count, strong_count))
}

/// Kept rows in order, padded with masked rows to a multiple of an eighth of the batch. Reads the mask to the host.
fn rows_to_compute(mask: &Tensor<1>) -> Vec<i32> {
    let mask: Vec<bool> = mask.to_data().iter::<f32>().map(|weight| weight != 0.0).collect();
    let rows =
        |kept: bool| mask.iter().enumerate().filter(move |(_, k)| **k == kept).map(|(row, _)| row as i32);
    let size = computed_strong_views(rows(true).count(), mask.len());
    rows(true).chain(rows(false)).take(size).collect()
}

/// How many strong views go through the network where `kept` of `unlabelled` are not masked and masked ones are left out.
pub fn computed_strong_views(kept: usize, unlabelled: usize) -> usize {
    let step = unlabelled.div_ceil(SIZES).max(1);
    kept.next_multiple_of(step).min(unlabelled)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn kept_rows_come_first_and_sizes_are_few() {
        let device = Device::flex();
        let mask = |bits: &[f32]| Tensor::<1>::from_data(bits, &device);
        assert_eq!(rows_to_compute(&mask(&[0.0, 1.0, 0.0, 1.0])), [1, 3]);
        assert_eq!(rows_to_compute(&mask(&[0.0; 4])), [0i32; 0]);
        let mut bits = [0.0; 32];
        bits[7] = 1.0;
        assert_eq!(rows_to_compute(&mask(&bits)), [7, 0, 1, 2]);
    }
}
