//! The layers all families are made of: holders of parameters under PyTorch's names, over `harvest-kernels`.

use burn::Tensor;
use burn::module::{Module, Param};

use crate::initial::{Initialiser, Start};
use crate::lora::LowRank;
use crate::mode::{Precision, leave};

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
        // Rounded by the product, where they are: a cast of a parameter would have its gradient only at the very end.
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let added = self.low_rank.as_ref().map(|low_rank| low_rank.forward(x.clone(), precision));
        let y = harvest_kernels::linear_with(precision.enter(x), weight, Some(bias), precision.products());
        match added {
            Some(added) => y + added,
            None => y,
        }
    }

    /// GELU of [`Linear::forward`].
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>, precision: Precision) -> Tensor<D> {
        if self.low_rank.is_some() {
            return harvest_kernels::gelu(self.forward(x, precision));
        }
        let (weight, bias) = (precision.enter(self.weight.val()), precision.enter(self.bias.val()));
        harvest_kernels::linear_gelu(precision.enter(x), weight, bias, precision.products())
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

    /// `x + keep · branch(norm(x))`, of the first tokens if the branch returns no others; see
    /// [`pre_norm_residual`](harvest_kernels::pre_norm_residual).
    pub fn residual(
        &self,
        x: Tensor<3>,
        keep: Option<Tensor<1>>,
        branch: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let norm = [self.weight.val(), self.bias.val()];
        harvest_kernels::pre_norm_residual(x, norm, Self::EPS, keep, branch)
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
        let x = precision.enter(x);
        harvest_kernels::conv2d_with(x, weight, None, self.stride, self.padding, precision.products())
    }
}

/// A convolution of every channel with a kernel of its own, padded so that stride 1 keeps the size.
#[derive(Module, Debug)]
pub struct DepthwiseConv {
    /// `[channels, 1, kernel, kernel]`
    pub weight: Param<Tensor<4>>,
    /// `[channels]`
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
}

impl DepthwiseConv {
    /// A square kernel of odd side; without `bias`, no shift.
    pub fn new(
        init: &Initialiser,
        channels: usize,
        kernel: usize,
        stride: usize,
        weight: Start,
        bias: Option<Start>,
    ) -> Self {
        DepthwiseConv {
            weight: init.parameter("weight", [channels, 1, kernel, kernel], weight),
            bias: bias.map(|start| init.parameter("bias", [channels], start)),
            stride,
            padding: kernel / 2,
        }
    }

    /// `[B, channels, H, W]` → `[B, channels, ⌈H / stride⌉, ⌈W / stride⌉]`, in the type that `precision` computes in.
    pub fn forward(&self, x: Tensor<4>, precision: Precision) -> Tensor<4> {
        let weight = precision.enter(self.weight.val());
        let bias = self.bias.as_ref().map(|bias| precision.enter(bias.val()));
        harvest_kernels::depthwise_conv2d(precision.enter(x), weight, bias, self.stride, self.padding)
    }
}

/// The convolution whose stride is its kernel, as the matrix product it is: each pixel is used at most once.
#[derive(Module, Debug)]
pub struct Patches {
    /// `[out, in, side, side]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
}

impl Patches {
    /// Patches of `side` × `side` pixels.
    pub fn new(
        init: &Initialiser,
        d_in: usize,
        d_out: usize,
        side: usize,
        weight: Start,
        bias: Start,
    ) -> Self {
        Patches {
            weight: init.parameter("weight", [d_out, d_in, side, side], weight),
            bias: init.parameter("bias", [d_out], bias),
        }
    }

    /// `[B, in, H, W]` → `[B, ⌊H / side⌋, ⌊W / side⌋, out]`, in the type that `precision` computes in.
    pub fn forward(&self, x: Tensor<4>, precision: Precision) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let weight = self.weight.val();
        let [d_out, _, side, _] = weight.dims();
        let (rows, columns) = (height / side, width / side);
        let x = match (rows * side, columns * side) {
            (h, w) if (h, w) == (height, width) => x,
            (h, w) => x.narrow(2, 0, h).narrow(3, 0, w),
        };
        let values = channels * side * side;
        let patches = x
            .reshape([batch, channels, rows, side, columns, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, values]);
        let weight = weight.reshape([d_out, values]).swap_dims(0, 1);
        let bias = precision.enter(self.bias.val());
        let weight = precision.enter(weight);
        harvest_kernels::linear_with(precision.enter(patches), weight, Some(bias), precision.products())
            .reshape([batch, rows, columns, d_out])
    }
}

/// A factor for each value of the last axis, close to 0 at first so that a deep network starts as the identity
/// (Touvron et al., arXiv:2103.17239); in `f32`.
#[derive(Module, Debug)]
pub struct LayerScale {
    /// `[dim]`
    pub gamma: Param<Tensor<1>>,
}

impl LayerScale {
    /// All factors start at `value`.
    pub fn new(init: &Initialiser, dim: usize, value: f64) -> Self {
        LayerScale { gamma: init.parameter("gamma", [dim], Start::Constant(value as f32)) }
    }

    /// `[.., dim]` → `[.., dim]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        leave(x) * self.gamma.val().unsqueeze()
    }
}

/// `min(x, 6)`: behind ReLU, the ReLU6 of networks for small devices (arXiv:1704.04861).
pub fn at_most_six(x: Tensor<4>) -> Tensor<4> {
    x.clamp_max(6.0)
}
