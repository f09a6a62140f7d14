//! Bottleneck adapters beside the MLP of a block: Houlsby et al., arXiv:1902.00751; in parallel, with a scale, as in
//! AdaptFormer, Chen et al., arXiv:2205.13535, section 3.2.
//!
//! ```text
//! mlp(x) = GELU(x W₁ + b₁) W₂ + b₂ + s · (GELU(x D + d) U + u)        D: [dim, r], U: [r, dim]
//! ```
//!
//! `U` and `u` start at zero, so that the first output is that of the network itself. Two departures from AdaptFormer: GELU
//! in place of ReLU, and `x` is normalised as the MLP's input is. In this form an adapter is `r` more hidden units of the
//! MLP, so a tuned network becomes, exactly, an ordinary one with a wider hidden layer ([`Adapter::widen`]).

use burn::Tensor;
use burn::module::{Module, Param};

use crate::initial::{Initialiser, Start};
use crate::layers::Linear;
use crate::mode::Precision;

/// The narrow way beside an MLP.
#[derive(Module, Debug)]
pub(crate) struct Adapter {
    down: Linear,
    up: Linear,
    #[module(skip)]
    scale: f32,
}

impl Adapter {
    /// Through `rank` values.
    pub fn new(init: &Initialiser, dim: usize, rank: usize, scale: f32) -> Self {
        let (start, zero) = (Start::torch_default(dim), Start::Constant(0.0));
        Adapter {
            down: Linear::new(&init.part("down"), dim, rank, start, zero),
            up: Linear::new(&init.part("up"), rank, dim, zero, zero),
            scale,
        }
    }

    /// What is added to the MLP's output: `[.., dim]` → `[.., dim]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, precision: Precision) -> Tensor<D> {
        let hidden = self.down.forward_gelu(x, precision);
        self.up.forward(hidden, precision).mul_scalar(self.scale)
    }

    /// The two layers of the MLP with the adapter as further hidden units. Off autodiff.
    pub fn widen(&self, fc1: &Linear, fc2: &Linear) -> (Linear, Linear) {
        let wider = |a: &Param<Tensor<2>>, b: Tensor<2>, axis| Tensor::cat(vec![a.val().inner(), b], axis);
        let (down, up) = (&self.down, &self.up);
        let fc1 = Linear {
            weight: Param::from_tensor(wider(&fc1.weight, down.weight.val().inner(), 1)),
            bias: Param::from_tensor(Tensor::cat(vec![fc1.bias.val().inner(), down.bias.val().inner()], 0)),
            low_rank: None,
        };
        let scaled = up.weight.val().inner().mul_scalar(self.scale);
        let bias = fc2.bias.val().inner() + up.bias.val().inner().mul_scalar(self.scale);
        let fc2 = Linear {
            weight: Param::from_tensor(wider(&fc2.weight, scaled, 0)),
            bias: Param::from_tensor(bias),
            low_rank: None,
        };
        (fc1, fc2)
    }
}
