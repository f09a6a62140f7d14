//! Statistics over all ranks of a run.
//!
//! Thresholds, histograms and means must be the same on every rank, as if one rank had seen the joined batch. What they
//! are made of is small (the logits of a step), so ranks simply show each other these rows; every rank then computes the
//! same statistic in the same order, to the last bit.

use burn::tensor::Tensor;

/// The ranks that train one model together.
pub trait Ranks {
    /// How many there are, 1 or more.
    fn world_size(&self) -> usize;

    /// Which of them this is, below [`Ranks::world_size`].
    fn rank(&self) -> usize;

    /// The rows of all ranks, `[N, D]` each, as one tensor in the order of ranks. Off the graph. All ranks must call it, in the
    /// same order and with the same `D`; `N` may differ.
    fn gather(&self, rows: Tensor<2>) -> Tensor<2>;

    /// The weight of this rank's means, and so of its gradient, among those of all ranks: its part of the rows of a step.
    fn share(&self) -> f64 {
        1.0 / self.world_size() as f64
    }
}

/// A run of one rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn world_size(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn gather(&self, rows: Tensor<2>) -> Tensor<2> {
        rows
    }
}

/// The sum over all ranks of `local` `[D]`, for losses that are not a mean over rows.
///
/// The value is the joined batch's. Only the local share carries a gradient, divided by [`Ranks::share`]: the optimizer's
/// gradient is the mean over ranks with these weights, and that mean must be the gradient of the loss of the joined batch.
pub fn joined_sum(ranks: &dyn Ranks, local: Tensor<1>) -> Tensor<1> {
    if ranks.world_size() == 1 {
        return local;
    }
    let value = local.clone().inner();
    let all = ranks.gather(value.clone().unsqueeze_dim(0)).sum_dim(0).squeeze_dim::<1>(0);
    let gradient = (local - Tensor::from_inner(value)).div_scalar(ranks.share() as f32);
    Tensor::from_inner(all) + gradient
}
