//! Self-attention, tile by tile: no scores in the GPU's memory, in neither direction.
//!
//! A cube holds the rows of one tile of queries (or of keys) of one image and head in shared memory and lets the others
//! stream past (Dao et al., arXiv:2205.14135). Forward, the softmax is kept up to date while keys arrive (section 3.1),
//! and one number per query stays: the logarithm `L` of the sum of its exponentials. Backward, with `P = exp(S − L)`:
//!
//! ```text
//! D = Σ dO · O     dS = P ∘ (dO Vᵀ − D) / √d     dQ = dS K     dK = dSᵀ Q     dV = Pᵀ dO
//! ```
//!
//! One kernel streams keys past queries for `dQ`, another queries past keys for `dK` and `dV`: each computes `P` itself, so
//! that nobody adds to what another cube has written.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

mod backward;
mod forward;
mod tiles;

use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{contiguous, elem, empty, empty_like, plane_each};
use crate::attention::{Attended, AttentionOps, WIDEST_ON_GPUS};
use crate::products::Arithmetic;

/// A cube has `SIDE` × `SIDE` units; a unit's rows lie side by side, its columns `SIDE` apart.
const SIDE: usize = 8;

/// Sizes of a problem, and the tiles that it is cut into.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// Width of a head.
    head: usize,
    /// Rows that a cube holds.
    tile: usize,
}

impl Sizes {
    fn of(qkv: &CubeTensor, heads: usize) -> Self {
        let [batch, tokens, width] = qkv.meta.shape().dims();
        let head = width / (3 * heads);
        assert!(head <= WIDEST_ON_GPUS, "attention: a head of {head} on a GPU");
        Self { batch, tokens, heads, head, tile: if head <= 64 { 32 } else { 16 } }
    }

    /// Images times heads.
    fn pairs(self) -> usize {
        self.batch * self.heads
    }

    fn scale(self) -> f32 {
        (self.head as f32).powf(-0.5)
    }

    /// A launch with a cube for each tile of each image and head.
    fn cubes(self, tensor: &CubeTensor) -> (CubeCount, CubeDim) {
        let cubes = self.pairs() * self.tokens.div_ceil(self.tile);
        let dim = CubeDim::new_2d(SIDE as u32, SIDE as u32);
        (cubecl::calculate_cube_count_elemwise(&tensor.client, cubes * SIDE * SIDE, dim), dim)
    }
}

impl AttentionOps for CubeBackend {
    fn attention_forward(qkv: FloatTensor<Self>, heads: usize, _: Arithmetic) -> Attended<Self> {
        let qkv = contiguous(qkv);
        let sizes = Sizes::of(&qkv, heads);
        let (client, dtype) = (qkv.client.clone(), elem(&qkv));
        let out = empty(&qkv, [sizes.batch, sizes.tokens, heads * sizes.head].into(), qkv.dtype);
        let log_sums = empty(&qkv, [sizes.batch, heads, sizes.tokens].into(), DType::F32);
        let (count, dim) = sizes.cubes(&qkv);
        // SAFETY: the tensors have the shapes that the sizes were taken from or made for.
        unsafe {
            forward::attend::launch_unchecked(
                &client,
                count,
                dim,
                qkv.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                log_sums.clone().into_buffer_arg(),
                sizes.pairs(),
                sizes.tokens,
                heads,
                sizes.scale(),
                sizes.head,
                sizes.tile,
                dtype,
            );
        }
        Attended { out, log_sums }
    }

    fn attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        heads: usize,
        _: Arithmetic,
    ) -> FloatTensor<Self> {
        let [qkv, out, log_sums, dy] = [qkv, out, log_sums, dy].map(contiguous);
        let sizes = Sizes::of(&qkv, heads);
        let (client, dtype) = (qkv.client.clone(), elem(&qkv));
        let (gradient, along) = (empty_like(&qkv), empty_like(&log_sums));
        let rows = sizes.pairs() * sizes.tokens;
        let (count, dim) = plane_each(&qkv, rows);
        // SAFETY: `out` and `dy` hold `rows` heads, `along` one value for each.
        unsafe {
            backward::output_products::launch_unchecked(
                &client,
                count,
                dim,
                out.into_buffer_arg(),
                dy.clone().into_buffer_arg(),
                along.clone().into_buffer_arg(),
                rows,
                sizes.tokens,
                heads,
                sizes.head,
                dtype,
            );
        }
        for by_key in [false, true] {
            let (count, dim) = sizes.cubes(&qkv);
            // SAFETY: as in the forward pass; `dy` has the shape of `out`, `gradient` that of `qkv`.
            unsafe {
                backward::gradients::launch_unchecked(
                    &client,
                    count,
                    dim,
                    qkv.clone().into_buffer_arg(),
                    dy.clone().into_buffer_arg(),
                    log_sums.clone().into_buffer_arg(),
                    along.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    sizes.pairs(),
                    sizes.tokens,
                    heads,
                    sizes.scale(),
                    sizes.head,
                    sizes.tile,
                    by_key,
                    dtype,
                );
            }
        }
        gradient
    }
}

#[cfg(test)]
mod tests;
