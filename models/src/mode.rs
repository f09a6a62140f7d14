//! How a network is run: training or evaluation, with which noise, in which precision.

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use harvest_kernels::{Exchange, Products, Watcher};
use serde::{Deserialize, Serialize};

use crate::initial::{mix, unit};

/// What a forward pass is for. It decides on statistics and noise, never on graph recording.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Batch normalisation uses the statistics of the batch and updates the running ones; stochastic depth is on.
    Train {
        /// Where stochastic depth draws from.
        noise: Noise<'a>,
        /// Who takes part.
        company: Company<'a>,
    },
    /// Running statistics, no noise: an image's output does not depend on its neighbours in the batch.
    Evaluate,
}

/// Who takes part in a training pass beside the network; by default nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Company<'a> {
    /// Follows how far the backward pass has come. Stage `d` is through when it has passed all parameters whose
    /// [`depth`](crate::ParameterInfo::depth) is `d` or less. For passes that end in a backward pass only.
    pub watcher: Option<&'a Arc<dyn Watcher>>,
    /// The ranks over whose images batch normalisation takes its statistics.
    pub statistics: Option<&'a Arc<dyn Exchange>>,
}

impl Mode<'_> {
    /// Training with the noise of `seed`, rows counted from 0. Give each step and each pass a seed of its own.
    pub fn train(seed: u64) -> Mode<'static> {
        Mode::Train { noise: Noise { seed, rows: Rows::From(0) }, company: Company::default() }
    }

    /// True for [`Mode::Train`].
    pub fn is_train(&self) -> bool {
        matches!(self, Mode::Train { .. })
    }

    /// `x`, which only parameters at depth `stage` and less are behind.
    pub(crate) fn tap<const D: usize>(&self, x: Tensor<D>, stage: usize) -> Tensor<D> {
        match self {
            Mode::Train { company: Company { watcher: Some(watcher), .. }, .. } => {
                harvest_kernels::tap(x, stage, watcher)
            }
            _ => x,
        }
    }

    /// Stochastic depth in a pass over `images`, for branches that are dropped at `rates`, in `[0, 1)`.
    pub(crate) fn drop_path<'r>(&self, rates: &'r [f32], images: &Tensor<4>) -> DropPath<'r> {
        let factors = match self {
            Mode::Train { noise, .. } => noise.drop_path(rates, images.dims()[0], &images.device()),
            Mode::Evaluate => None,
        };
        DropPath { rates, factors }
    }
}

/// What the branches of a network are multiplied by in one pass.
pub(crate) struct DropPath<'a> {
    rates: &'a [f32],
    /// `[branches, B]`
    factors: Option<Tensor<2>>,
}

impl DropPath<'_> {
    /// Of one branch, `[B]`; `None` if it is kept for every image.
    pub fn keep(&self, branch: usize) -> Option<Tensor<1>> {
        let factors = self.factors.as_ref().filter(|_| self.rates[branch] > 0.0)?;
        Some(factors.clone().narrow(0, branch, 1).squeeze_dim(0))
    }
}

/// The noise of one pass: a pure function of the seed, the place in the network and the row's number.
///
/// Numbering rows makes a pass over a part of a batch repeat the draws that those rows get in the whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise<'a> {
    /// Unique to the training step (and pass, where one step makes several over different images).
    pub seed: u64,
    /// The number of each row.
    pub rows: Rows<'a>,
}

/// The numbers of a batch's rows, for [`Noise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows<'a> {
    /// Row `i` has the number `first + i`.
    From(u64),
    /// One number for each row; their count must be that of the batch.
    Each(&'a [u64]),
}

impl Noise<'_> {
    /// What stochastic depth multiplies each branch by (Huang et al., arXiv:1603.09382, scaled as timm does):
    /// `1 / (1 − rate)` with probability `1 − rate`, else 0.
    ///
    /// `rates`: the drop rate of each branch, in `[0, 1)`. Returns `[branches, batch]` off autodiff, or `None` when no
    /// branch ever drops. One upload serves the whole network.
    fn drop_path(&self, rates: &[f32], batch: usize, device: &Device) -> Option<Tensor<2>> {
        if rates.iter().all(|rate| *rate <= 0.0) {
            return None;
        }
        if let Rows::Each(rows) = self.rows {
            assert_eq!(rows.len(), batch, "one row number for each row of the batch");
        }
        let number = |row: usize| match self.rows {
            Rows::From(first) => first.wrapping_add(row as u64),
            Rows::Each(rows) => rows[row],
        };
        let mut factors = Vec::with_capacity(rates.len() * batch);
        for (branch, rate) in rates.iter().enumerate() {
            let keep = 1.0 - rate;
            let stream = mix(mix(self.seed).wrapping_add(branch as u64));
            factors.extend((0..batch).map(|row| {
                if unit(mix(stream ^ mix(number(row)))) < f64::from(keep) { 1.0 / keep } else { 0.0 }
            }));
        }
        let data = TensorData::new(factors, [rates.len(), batch]);
        Some(Tensor::from_data(data, (&device.clone().inner(), DType::F32)))
    }
}

/// The type in which matrix products and convolutions take their operands. Parameters, norms, residual sums, features and
/// logits are `f32` either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Weights and activations are rounded to bfloat16 on the way in; needs no loss scaling.
    ///
    /// On GPUs they are cast, and a product and what follows it up to the next norm or sum are bfloat16. On the CPU the
    /// products round their own operands and all tensors are `f32`
    /// ([`rounds_in_products`](harvest_kernels::rounds_in_products)), if the processor has the instructions
    /// ([`has_bf16_products`](harvest_kernels::has_bf16_products)); else nothing is rounded.
    Bf16,
}

impl Precision {
    /// The tensor in this precision's type, unless products see to that; gradients come back in the type it had before.
    pub(crate) fn enter<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Precision::F32 => x,
            Precision::Bf16 if x.dtype() == DType::BF16 || harvest_kernels::rounds_in_products(&x) => x,
            Precision::Bf16 => x.cast(FloatDType::BF16),
        }
    }

    /// What products are told that see to it themselves.
    pub(crate) fn products(self) -> Products {
        match self {
            Precision::F32 => Products::F32,
            Precision::Bf16 => Products::Bf16,
        }
    }
}

/// Back to `f32`.
pub(crate) fn leave<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.dtype() == DType::F32 { x } else { x.cast(FloatDType::F32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(noise: Noise<'_>, rates: &[f32], batch: usize) -> Vec<f32> {
        let t = noise.drop_path(rates, batch, &Device::flex()).expect("a rate above 0");
        t.into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_row_keeps_its_noise_in_any_batch() {
        let rates = [0.0, 0.5, 0.3];
        let whole = factors(Noise { seed: 7, rows: Rows::From(0) }, &rates, 64);
        let rows: Vec<u64> = (0..64).rev().step_by(3).collect();
        let part = factors(Noise { seed: 7, rows: Rows::Each(&rows) }, &rates, rows.len());
        for branch in 0..rates.len() {
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(part[branch * rows.len() + i], whole[branch * 64 + *row as usize]);
            }
        }
        assert!(whole[..64].iter().all(|f| *f == 1.0));
        assert_ne!(whole, factors(Noise { seed: 8, rows: Rows::From(0) }, &rates, 64));
    }

    #[test]
    fn factors_have_mean_one() {
        let f = factors(Noise { seed: 3, rows: Rows::From(5) }, &[0.2], 20_000);
        let mean = f.iter().sum::<f32>() / f.len() as f32;
        // standard error √(0.25 / 20000) = 0.0035
        assert!((mean - 1.0).abs() < 0.015, "{mean}");
        assert!(f.iter().all(|v| *v == 0.0 || (*v - 1.25).abs() < 1e-6));
    }

    #[test]
    fn no_rate_no_noise() {
        let noise = Noise { seed: 3, rows: Rows::From(5) };
        assert!(noise.drop_path(&[0.0; 4], 8, &Device::flex()).is_none());
    }
}
