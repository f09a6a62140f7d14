//! Batch normalisation as PyTorch does it: Ioffe & Szegedy, arXiv:1502.03167.
//!
//! burn's own layer keeps the biased variance, merges updates lazily and trains only on autodiff devices; this one keeps
//! the unbiased variance and updates at once, whatever the device. Running statistics belong to the network, not to a
//! copy of it: clones, and versions off autodiff, share them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::Device;
use harvest_kernels::{batch_norm_train, batch_norm_train_joined, channel_affine};

use crate::initial::{Initialiser, Start};
use crate::mode::{Mode, leave};

/// Normalises each channel over the batch and the image.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    running: RunningStatistics,
}

impl BatchNorm {
    /// Added to the variance.
    pub const EPS: f32 = 1e-5;
    /// Weight of the newest batch in the running statistics.
    pub const MOMENTUM: f32 = 0.1;

    /// Scale 1, shift 0, running mean 0 and variance 1.
    pub fn new(init: &Initialiser, channels: usize) -> Self {
        BatchNorm {
            weight: init.parameter("weight", [channels], Start::Constant(1.0)),
            bias: init.parameter("bias", [channels], Start::Constant(0.0)),
            running: RunningStatistics::new(channels, init.device()),
        }
    }

    /// `[B, channels, H, W]`, plus `residual` of the same shape, through ReLU if `rectify`; computed in `f32`.
    ///
    /// In [`Mode::Train`] the batch's statistics, with [`Company::statistics`](crate::Company::statistics) those of all ranks'
    /// batches, normalise and move the running ones.
    pub fn forward(
        &self,
        x: Tensor<4>,
        mode: Mode<'_>,
        residual: Option<Tensor<4>>,
        rectify: bool,
    ) -> Tensor<4> {
        let x = leave(x);
        let (weight, bias) = (self.weight.val(), self.bias.val());
        match mode {
            Mode::Train { company, .. } => {
                let [batch, _, height, width] = x.dims();
                let (y, mean, var, count) = match company.statistics {
                    Some(ranks) => {
                        batch_norm_train_joined(x, weight, bias, Self::EPS, residual, rectify, ranks)
                    }
                    None => {
                        let (y, mean, var) = batch_norm_train(x, weight, bias, Self::EPS, residual, rectify);
                        (y, mean, var, batch * height * width)
                    }
                };
                self.running.update(mean.inner(), var.inner(), count);
                y
            }
            Mode::Evaluate => {
                let (mean, var) = self.running.get().on(&x.device());
                let scale = weight / var.add_scalar(Self::EPS).sqrt();
                let shift = bias - mean * scale.clone();
                channel_affine(x, scale, shift, residual, rectify)
            }
        }
    }

    /// The running statistics, shared with all clones.
    pub fn running(&self) -> &RunningStatistics {
        &self.running
    }

    /// Gives this copy statistics of its own, starting from the shared ones.
    pub(crate) fn separate(&mut self) {
        let copy = self.running.lock().clone();
        self.running = RunningStatistics(Arc::new(Mutex::new(copy)));
    }
}

/// Running mean and variance of one normalisation, behind a handle that clones share. Off autodiff.
#[derive(Debug, Clone)]
pub struct RunningStatistics(Arc<Mutex<Statistics>>);

/// A moment of [`RunningStatistics`].
#[derive(Debug, Clone)]
pub struct Statistics {
    /// `[channels]`
    pub mean: Tensor<1>,
    /// Unbiased, `[channels]`.
    pub var: Tensor<1>,
    /// Number of training batches seen.
    pub batches: u64,
}

impl Statistics {
    /// Mean and variance where the network now is: moving a network leaves the shared statistics behind.
    fn on(&self, device: &Device) -> (Tensor<1>, Tensor<1>) {
        let device = device.clone().inner();
        let here =
            |t: &Tensor<1>| if t.device() == device { t.clone() } else { t.clone().to_device(&device) };
        (here(&self.mean), here(&self.var))
    }
}

impl RunningStatistics {
    fn new(channels: usize, device: &Device) -> Self {
        let device = device.clone().inner();
        RunningStatistics(Arc::new(Mutex::new(Statistics {
            mean: Tensor::zeros([channels], &device),
            var: Tensor::ones([channels], &device),
            batches: 0,
        })))
    }

    /// The statistics as they are now.
    pub fn get(&self) -> Statistics {
        self.lock().clone()
    }

    /// Replaces the statistics, for every clone.
    pub fn set(&self, statistics: Statistics) {
        *self.lock() = statistics;
    }

    /// `own ← decay · own + (1 − decay) · live`; the count of batches is the live one's. Shared statistics stay as they are.
    pub fn follow(&self, live: &Self, decay: f64) {
        if Arc::ptr_eq(&self.0, &live.0) {
            return;
        }
        let live = live.get();
        let mut own = self.lock();
        let (live_mean, live_var) = live.on(&own.mean.device());
        let blend =
            |own: &Tensor<1>, live: Tensor<1>| own.clone().mul_scalar(decay) + live.mul_scalar(1.0 - decay);
        *own = Statistics {
            mean: blend(&own.mean, live_mean),
            var: blend(&own.var, live_var),
            batches: live.batches,
        };
    }

    /// `mean` and *biased* `var` of `count` values a channel. A single value has no unbiased variance; it counts as 0.
    fn update(&self, mean: Tensor<1>, var: Tensor<1>, count: usize) {
        let m = BatchNorm::MOMENTUM;
        let unbiased = count as f64 / count.saturating_sub(1).max(1) as f64;
        let mut state = self.lock();
        let (old_mean, old_var) = state.on(&mean.device());
        *state = Statistics {
            mean: old_mean.mul_scalar(1.0 - m) + mean.mul_scalar(m),
            var: old_var.mul_scalar(1.0 - m) + var.mul_scalar(f64::from(m) * unbiased),
            batches: state.batches + 1,
        };
    }

    fn lock(&self) -> MutexGuard<'_, Statistics> {
        // The state is replaced by whole assignments, so a panic elsewhere cannot leave it half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(t: Tensor<1>) -> Vec<f32> {
        t.into_data().iter::<f32>().collect()
    }

    fn batch(device: &Device) -> Tensor<4> {
        Tensor::<1>::from_floats([0.0, 2.0, 4.0, 6.0], device).reshape([2, 1, 1, 2])
    }

    #[test]
    fn running_variance_is_unbiased_and_visible_at_once() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(&Initialiser::seeded(0, &device), 1);
        let clone = norm.clone();
        norm.forward(batch(&device), Mode::train(0), None, false);
        let seen = clone.running().get();
        // mean 3; squared deviations 9, 1, 1, 9: biased 5, unbiased 20/3
        assert!((values(seen.mean)[0] - 0.3).abs() < 1e-6);
        assert!((values(seen.var)[0] - (0.9 + 0.1 * 20.0 / 3.0)).abs() < 1e-6);
        assert_eq!(seen.batches, 1);
    }

    #[test]
    fn training_statistics_work_off_autodiff_and_are_shared() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(&Initialiser::seeded(0, &device), 1);
        let y = norm.valid().forward(batch(&device.clone().inner()), Mode::train(0), None, true);
        assert!(!y.is_autodiff());
        let y: Vec<f32> = y.into_data().iter::<f32>().collect();
        assert_eq!(&y[..2], &[0.0, 0.0]);
        assert!((y[3] - 3.0 / 5.0f32.sqrt()).abs() < 1e-4);
        assert_eq!(norm.running().get().batches, 1);
    }

    #[test]
    fn evaluation_uses_running_statistics_and_leaves_them_alone() {
        let device = Device::flex();
        let norm = BatchNorm::new(&Initialiser::seeded(0, &device), 1);
        let y = norm.forward(batch(&device), Mode::Evaluate, Some(batch(&device)), false);
        let y: Vec<f32> = y.into_data().iter::<f32>().collect();
        assert!((y[3] - 12.0).abs() < 1e-3);
        assert_eq!(norm.running().get().batches, 0);
    }

    #[test]
    fn a_separated_copy_goes_its_own_way() {
        let device = Device::flex();
        let norm = BatchNorm::new(&Initialiser::seeded(0, &device), 1);
        let mut copy = norm.clone();
        copy.separate();
        norm.forward(batch(&device), Mode::train(0), None, false);
        assert_eq!(copy.running().get().batches, 0);
    }

    #[test]
    fn one_value_a_channel_gives_finite_statistics() {
        let device = Device::flex();
        let norm = BatchNorm::new(&Initialiser::seeded(0, &device), 1);
        norm.forward(Tensor::ones([1, 1, 1, 1], &device), Mode::train(0), None, false);
        assert!(values(norm.running().get().var)[0].is_finite());
    }
}
