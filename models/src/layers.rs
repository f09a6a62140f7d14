//! The layers both families are made of: holders of parameters under PyTorch's names, over `harvest-kernels`.

use burn::Tensor;
use burn::module::{Module, Param};

use crate::initial::{Initialiser, Start};
use crate::lora::LowRank;
use crate::mode::Precision;

/// An affine map. Every rank-2 parameter of this crate is such a weight: `[in, out]` here, `[out, in]` in files.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
    /// What tuning adds to the weight; see [`Classifier::tuned`](crate::Classifier::tuned).
    pub(crate) low_rank: Option<LowRank>,
}

impl Linear {
    /// A map from `d_in` to `d_out` values.
    pub fn new(init: &Initialiser, d_in: usize, d_out: usize, weight: Start, bias: Start) -> Self {
        Linear {
            weight: init.parameter("weight", [d_in, d_out], weight),
            bias: init.parameter("bias", [d_out], bias),
            low_rank: None,
        }
    }

    /// Adds a matrix of this rank to the weight.
    pub(crate) fn add_low_rank(&mut self, init: &Initialiser, rank: usize, scale: f32) {
        self.low_rank = Some(LowRank::new(&init.part("low_rank"), self.weight.val().dims(), rank, scale));
    }

    /// Makes what was added a part of the weight. Off autodiff.
    pub(crate) fn merge(&mut self) {
        if let Some(low_rank) = self.low_rank.take() {
            self.weight = Param::from_tensor(self.weight.val().inner() + low_rank.product());
        }
    }

    /// `[.., in]` → `[.., out]`, in the type that `precision` computes in.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, precision: Precision) -> Tensor<D> {
        let weight = precision.enter(self.weight.val());
        let bias = precision.enter(self.bias.val());
        let added = self.low_rank.as_ref().map(|low_rank| low_rank.forward(x.clone(), precision));
        let y = harvest_kernels::linear(precision.enter(x), weight, Some(bias));
        match added {
            Some(added) => y + added,
            None => y,
        }
    }
}

/// Layer normalisation of the last axis, in `f32`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[dim]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[dim]`.
    pub bias: Param<Tensor<1>>,
}

impl LayerNorm {
    /// Added to the variance, as in all of timm's vision transformers.
    pub const EPS: f32 = 1e-6;

    /// Scale 1, shift 0.
    pub fn new(init: &Initialiser, dim: usize) -> Self {
        LayerNorm {
            weight: init.parameter("weight", [dim], Start::Constant(1.0)),
            bias: init.parameter("bias", [dim], Start::Constant(0.0)),
        }
    }

    /// `[.., dim]` → `[.., dim]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        harvest_kernels::layer_norm(x, self.weight.val(), self.bias.val(), Self::EPS)
    }
}

/// A convolution without bias.
#[derive(Module, Debug)]
pub struct Conv {
    /// `[out, in, kernel, kernel]`
    pub weight: Param<Tensor<4>>,
    stride: usize,
    padding: usize,
}

impl Conv {
    /// A square kernel, padded so that stride 1 keeps the size; starts as torchvision starts ResNet's.
    pub fn new(init: &Initialiser, d_in: usize, d_out: usize, kernel: usize, stride: usize) -> Self {
        let shape = [d_out, d_in, kernel, kernel];
        Conv {
            weight: init.parameter("weight", shape, Start::kaiming_fan_out(shape)),
            stride,
            padding: kernel / 2,
        }
    }

    /// `[B, in, H, W]` → `[B, out, ⌈H / stride⌉, ⌈W / stride⌉]`, in the type that `precision` computes in.
    pub fn forward(&self, x: Tensor<4>, precision: Precision) -> Tensor<4> {
        let weight = precision.enter(self.weight.val());
        harvest_kernels::conv2d(precision.enter(x), weight, None, self.stride, self.padding)
    }
}
