//! What SimCLR, SCAN and self-labelling minimise.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Int, Tensor};
use harvest_kernels::{ClassTargets, class_counts, cross_entropy, predictions};

use crate::algorithms::Ranks;

/// A pair of images counts as if it agreed with at least this log probability, as in the established implementation.
const LEAST_LOG_AGREEMENT: f32 = -100.0;
/// Mean probabilities count as at least this in the entropy.
const LEAST_PROBABILITY: f32 = 1e-8;

/// NT-Xent (SimCLR, arXiv:2002.05709, eq. 1), a mean over both views of all images, `[1]`.
///
/// ```text
/// ℓ(i, j) = -log( exp(z_i·z_j / τ) / Σ_{k≠i} exp(z_i·z_k / τ) )
/// ```
///
/// `first` and `second` are the projections of two views of the same images, `[B, D]` each, rows of length one. Over several
/// ranks the batch is that of all ranks, and the mean of their gradients is the gradient of its loss.
pub fn nt_xent(first: Tensor<2>, second: Tensor<2>, temperature: f32, ranks: &dyn Ranks) -> Tensor<1> {
    let [batch, _] = first.dims();
    let world = ranks.world_size();
    let rows = joined(Tensor::cat(vec![first, second], 0), ranks);
    let device = rows.device();
    // An image is no contrast to itself.
    let itself = Tensor::<2>::eye(2 * batch * world, &device.clone().inner()).mul_scalar(1e9);
    let similarity =
        rows.clone().matmul(rows.transpose()).div_scalar(temperature) - Tensor::from_inner(itself);
    let own = 2 * batch;
    let partner: Vec<i32> =
        (0..own * world).map(|row| (row / own * own + (row + batch) % own) as i32).collect();
    let partner = ClassTargets::Hard(Tensor::<1, Int>::from_data(partner.as_slice(), &device));
    let loss = cross_entropy(similarity, partner, None, None, (own * world) as f32);
    if world == 1 {
        return loss;
    }
    // Every rank has the same value and the gradient at its own rows; the optimizer takes the mean over ranks.
    let value = Tensor::from_inner(loss.clone().inner());
    (loss - value.clone()).mul_scalar(world as f32) + value
}

/// `own` with its graph among the rows of all ranks, which are constants.
fn joined(own: Tensor<2>, ranks: &dyn Ranks) -> Tensor<2> {
    if ranks.world_size() == 1 {
        return own;
    }
    let [rows, _] = own.dims();
    let all = ranks.gather(own.clone().inner());
    let (before, behind) = (ranks.rank() * rows, (ranks.world_size() - ranks.rank() - 1) * rows);
    let part = |start, length| Tensor::from_inner(all.clone().narrow(0, start, length));
    let mut parts = Vec::new();
    if before > 0 {
        parts.push(part(0, before));
    }
    parts.push(own);
    if behind > 0 {
        parts.push(part(before + rows, behind));
    }
    Tensor::cat(parts, 0)
}

/// The parts of SCAN's loss, `[1]` each.
#[derive(Debug, Clone)]
pub struct ScanLoss {
    /// `consistency - weight · entropy`: what is minimised.
    pub total: Tensor<1>,
    /// Mean of `-log <p_image, p_neighbour>`.
    pub consistency: Tensor<1>,
    /// Entropy of the mean assignment, in nats: it keeps clusters from emptying.
    pub entropy: Tensor<1>,
}

/// SCAN (arXiv:2005.12320, eq. 2): an image and its neighbour belong together, and all clusters are used.
///
/// Logits `[B, C]` each. The agreement is computed from logarithms, so that it has a gradient however small it is.
pub fn scan_loss(anchors: Tensor<2>, neighbours: Tensor<2>, entropy_weight: f32) -> ScanLoss {
    let mean = softmax(anchors.clone(), 1).mean_dim(0).clamp_min(LEAST_PROBABILITY);
    let agreement = log_sum_exp(log_softmax(anchors, 1) + log_softmax(neighbours, 1));
    let consistency = agreement.clamp_min(LEAST_LOG_AGREEMENT).mean().neg();
    let entropy = (mean.clone() * mean.log()).sum().neg();
    ScanLoss { total: consistency.clone() - entropy.clone().mul_scalar(entropy_weight), consistency, entropy }
}

/// `log Σ_c exp x_c` of each row: `[B, C]` → `[B]`.
fn log_sum_exp(x: Tensor<2>) -> Tensor<1> {
    // The peak only keeps numbers in range; it carries no gradient.
    let peak = Tensor::from_inner(x.clone().inner().max_dim(1));
    ((x - peak.clone()).exp().sum_dim(1).log() + peak).squeeze_dim(1)
}

/// Self-labelling (arXiv:2005.12320, section 2.3): confident images teach their own strong views.
#[derive(Debug, Clone)]
pub struct SelfLabelLoss {
    /// Weighted mean of the cross entropies of kept images, `[1]`; 0 if none is kept.
    pub loss: Tensor<1>,
    /// 1 for each kept image, off the graph: `[B]`.
    pub mask: Tensor<1>,
    /// How much an image of each class weighs, off the graph: `[C]`.
    pub class_weight: Tensor<1>,
}

/// Images whose weak view is predicted with a probability above `threshold` are kept; their classes are the labels of the
/// strong views. With `balanced` an image weighs by how rare its class is among the kept. Logits `[B, C]` each.
pub fn self_label_loss(weak: Tensor<2>, strong: Tensor<2>, threshold: f32, balanced: bool) -> SelfLabelLoss {
    let [_, classes] = weak.dims();
    let weak = predictions(weak);
    let mask = weak.confidence.greater_scalar(threshold).float();
    let counts = class_counts(weak.label.clone(), Some(mask.clone()), classes);
    let class_weight = if balanced {
        let occurs = counts.clone().greater_scalar(0.0).float();
        let rare = counts.clone().sum() / counts.clone().clamp_min(1.0);
        rare * occurs.clone() + occurs.neg().add_scalar(1.0)
    } else {
        counts.ones_like()
    };
    let total = (counts * class_weight.clone()).sum();
    let divisor = total.clone() + total.equal_scalar(0.0).float();
    let label = ClassTargets::Hard(weak.label);
    let sum = cross_entropy(strong, label, Some(class_weight.clone()), Some(mask.clone()), 1.0);
    let loss = sum / Tensor::from_inner(divisor);
    SelfLabelLoss { loss, mask, class_weight }
}
