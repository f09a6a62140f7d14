//! LoRA: a matrix of low rank added to a fixed weight. Hu et al., arXiv:2106.09685, section 4.1.
//!
//! ```text
//! y = x W + b + s · (x A) B        A: [in, r], B: [r, out]; s is the paper's α / r
//! ```
//!
//! `A` starts as PyTorch starts affine maps and as the authors' code does, `B` at zero, so that the first output is that of
//! the network itself. Afterwards `W + s · A B` is an ordinary weight.

use burn::Tensor;
use burn::module::{Module, Param};

use crate::initial::{Initialiser, Start};
use crate::mode::Precision;

/// The added matrix, as its two factors.
#[derive(Module, Debug)]
pub(crate) struct LowRank {
    /// `[in, r]`
    a: Param<Tensor<2>>,
    /// `[r, out]`
    b: Param<Tensor<2>>,
    #[module(skip)]
    scale: f32,
}

impl LowRank {
    /// For a weight `[in, out]`.
    pub fn new(init: &Initialiser, [d_in, d_out]: [usize; 2], rank: usize, scale: f32) -> Self {
        LowRank {
            a: init.parameter("a", [d_in, rank], Start::torch_default(d_in)),
            b: init.parameter("b", [rank, d_out], Start::Constant(0.0)),
            scale,
        }
    }

    /// What is added to the output: `[.., in]` → `[.., out]`, in the type that `precision` computes in.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, precision: Precision) -> Tensor<D> {
        let products = precision.products();
        let narrow =
            harvest_kernels::linear_with(precision.enter(x), precision.enter(self.a.val()), None, products);
        let b = precision.enter(self.b.val()).mul_scalar(self.scale);
        harvest_kernels::linear_with(narrow, b, None, products)
    }

    /// What is added to the weight, `[in, out]`, off autodiff.
    pub fn product(&self) -> Tensor<2> {
        self.a.val().inner().matmul(self.b.val().inner()).mul_scalar(self.scale)
    }
}
