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

use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{contiguous, elem, empty, empty_like, plane_each, plane_row};
use crate::attention::{Attended, AttentionOps};
use crate::products::Arithmetic;

/// A cube has `SIDE` × `SIDE` units; a unit's rows lie side by side, its columns `SIDE` apart.
const SIDE: usize = 8;
/// The widest head whose tiles fit into 32 KiB, what every device offers.
pub(crate) const WIDEST: usize = 128;

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
        assert!(head <= WIDEST, "attention: a head of {head} on a GPU");
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

/// Copies `rows` rows of a head, from token `first` on, times `factor`; zeros beyond the last token.
///
/// Rows lie one value further apart than they are wide, so that units of different rows meet different banks.
#[cube]
fn load<F: Float>(
    from: &[F],
    start: usize,
    stride: usize,
    first: usize,
    tokens: usize,
    factor: f32,
    to: &mut Shared<[f32]>,
    #[comptime] rows: usize,
    #[comptime] head: usize,
) {
    let mut at = UNIT_POS as usize;
    while at < rows * head {
        let row = at / head;
        let column = at % head;
        let token = first + row;
        let mut value = 0.0f32;
        if token < tokens {
            value = f32::cast_from(from[start + token * stride + column]);
        }
        to[row * (head + 1) + column] = value * factor;
        at += comptime!(SIDE * SIDE);
    }
}

/// `into[i, j] = a[row i] · b[row j]`: of this unit `own` neighbouring rows of `a` and `other` rows of `b`.
#[cube]
fn products(
    a: &Shared<[f32]>,
    b: &Shared<[f32]>,
    into: &mut Array<f32>,
    #[comptime] own: usize,
    #[comptime] other: usize,
    #[comptime] head: usize,
) {
    let mut left = Array::<f32>::new(own);
    #[unroll]
    for at in 0..comptime!(own * other) {
        into[at] = 0.0f32;
    }
    for column in 0..head {
        #[unroll]
        for i in 0..own {
            left[i] = a[(UNIT_POS_Y as usize * own + i) * (head + 1) + column];
        }
        #[unroll]
        for j in 0..other {
            let right = b[(UNIT_POS_X as usize + j * comptime!(SIDE)) * (head + 1) + column];
            #[unroll]
            for i in 0..own {
                into[i * other + j] += left[i] * right;
            }
        }
    }
}

/// `into[i, c] += Σ_s weights[row i, s] · b[s, column c]`. Columns past the head are computed and never used.
#[cube]
fn accumulate(
    weights: &Shared<[f32]>,
    b: &Shared<[f32]>,
    into: &mut Array<f32>,
    #[comptime] own: usize,
    #[comptime] streamed: usize,
    #[comptime] head: usize,
) {
    let columns = comptime!(head.div_ceil(SIDE));
    let mut left = Array::<f32>::new(own);
    for s in 0..streamed {
        #[unroll]
        for i in 0..own {
            left[i] = weights[(UNIT_POS_Y as usize * own + i) * (streamed + 1) + s];
        }
        #[unroll]
        for c in 0..columns {
            let right = b[s * (head + 1) + UNIT_POS_X as usize + c * comptime!(SIDE)];
            #[unroll]
            for i in 0..own {
                into[i * columns + c] += left[i] * right;
            }
        }
    }
}

/// Writes this unit's part of a tile's rows.
#[cube]
fn store<F: Float>(
    from: &Array<f32>,
    to: &mut [F],
    start: usize,
    stride: usize,
    first: usize,
    tokens: usize,
    #[comptime] own: usize,
    #[comptime] head: usize,
) {
    let columns = comptime!(head.div_ceil(SIDE));
    #[unroll]
    for i in 0..own {
        let token = first + UNIT_POS_Y as usize * own + i;
        #[unroll]
        for c in 0..columns {
            let column = UNIT_POS_X as usize + c * comptime!(SIDE);
            if token < tokens && column < head {
                to[start + token * stride + column] = F::cast_from(from[i * columns + c]);
            }
        }
    }
}

#[cube(launch_unchecked)]
fn attend<F: Float>(
    qkv: &[F],
    out: &mut [F],
    log_sums: &mut [f32],
    pairs: usize,
    tokens: usize,
    heads: usize,
    scale: f32,
    #[comptime] head: usize,
    #[comptime] tile: usize,
    #[define(F)] _dtype: ElemType,
) {
    let own = comptime!(tile / SIDE);
    let columns = comptime!(head.div_ceil(SIDE));
    let room = comptime!(tile * (head + 1) + SIDE);
    let tiles = (tokens + tile - 1) / tile;
    let pair = CUBE_POS / tiles;
    if pair >= pairs {
        terminate!();
    }
    let first = (CUBE_POS % tiles) * tile;
    let dim = heads * head;
    let image = (pair / heads) * tokens;
    let offset = (pair % heads) * head;
    let start = image * 3 * dim + offset;

    let mut queries = Shared::<[f32]>::new_slice(room);
    let mut keys = Shared::<[f32]>::new_slice(room);
    let mut values = Shared::<[f32]>::new_slice(room);
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    let mut beside = Shared::<[f32]>::new_slice(comptime!(tile * SIDE));
    let mut scores = Array::<f32>::new(comptime!((tile / SIDE) * (tile / SIDE)));
    let mut sums = Array::<f32>::new(comptime!((tile / SIDE) * head.div_ceil(SIDE)));
    let mut most = Array::<f32>::new(own);
    let mut total = Array::<f32>::new(own);
    #[unroll]
    for i in 0..own {
        most[i] = -1e30f32;
        total[i] = 0.0f32;
    }
    #[unroll]
    for at in 0..comptime!((tile / SIDE) * head.div_ceil(SIDE)) {
        sums[at] = 0.0f32;
    }
    load::<F>(qkv, start, 3 * dim, first, tokens, scale, &mut queries, tile, head);

    let mut arriving = 0usize;
    while arriving < tokens {
        // Nobody reads the last tiles any more.
        sync_cube();
        load::<F>(qkv, start + dim, 3 * dim, arriving, tokens, 1.0f32, &mut keys, tile, head);
        load::<F>(qkv, start + 2 * dim, 3 * dim, arriving, tokens, 1.0f32, &mut values, tile, head);
        sync_cube();
        products(&queries, &keys, &mut scores, own, own, head);
        #[unroll]
        for i in 0..own {
            let mut highest = most[i];
            #[unroll]
            for j in 0..own {
                if arriving + UNIT_POS_X as usize + j * comptime!(SIDE) < tokens {
                    highest = max(highest, scores[i * own + j]);
                }
            }
            beside[(UNIT_POS_Y as usize * own + i) * comptime!(SIDE) + UNIT_POS_X as usize] = highest;
        }
        sync_cube();
        #[unroll]
        for i in 0..own {
            let row = UNIT_POS_Y as usize * own + i;
            let mut highest = most[i];
            #[unroll]
            for x in 0..comptime!(SIDE) {
                highest = max(highest, beside[row * comptime!(SIDE) + x]);
            }
            let shrink = (most[i] - highest).exp();
            most[i] = highest;
            total[i] *= shrink;
            #[unroll]
            for c in 0..columns {
                sums[i * columns + c] *= shrink;
            }
            #[unroll]
            for j in 0..own {
                let key = UNIT_POS_X as usize + j * comptime!(SIDE);
                let mut weight = 0.0f32;
                if arriving + key < tokens {
                    weight = (scores[i * own + j] - highest).exp();
                }
                total[i] += weight;
                weights[row * (tile + 1) + key] = weight;
            }
        }
        sync_cube();
        accumulate(&weights, &values, &mut sums, own, tile, head);
        arriving += tile;
    }

    #[unroll]
    for i in 0..own {
        beside[(UNIT_POS_Y as usize * own + i) * comptime!(SIDE) + UNIT_POS_X as usize] = total[i];
    }
    sync_cube();
    #[unroll]
    for i in 0..own {
        let row = UNIT_POS_Y as usize * own + i;
        let mut sum = 0.0f32;
        #[unroll]
        for x in 0..comptime!(SIDE) {
            sum += beside[row * comptime!(SIDE) + x];
        }
        #[unroll]
        for c in 0..columns {
            sums[i * columns + c] /= sum;
        }
        if UNIT_POS_X == 0 && first + row < tokens {
            log_sums[pair * tokens + first + row] = most[i] + sum.ln();
        }
    }
    store::<F>(&sums, out, image * dim + offset, dim, first, tokens, own, head);
}

/// `D = Σ dO · O` of each query, `[pairs, tokens]`; a plane for each.
#[cube(launch_unchecked)]
fn output_products<F: Float>(
    out: &[F],
    dy: &[F],
    into: &mut [f32],
    rows: usize,
    tokens: usize,
    heads: usize,
    #[comptime] head: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let pair = row / tokens;
    let start = (((pair / heads) * tokens + row % tokens) * heads + pair % heads) * head;
    let mut sum = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < head {
        sum += f32::cast_from(out[start + column]) * f32::cast_from(dy[start + column]);
        column += CUBE_DIM_X as usize;
    }
    let sum = plane_sum(sum);
    if UNIT_POS_X == 0 {
        into[row] = sum;
    }
}

/// `dQ`, keys streaming past the queries of a tile; or, with `by_key`, `dK` and `dV`, queries streaming past its keys.
#[cube(launch_unchecked)]
fn gradients<F: Float>(
    qkv: &[F],
    dy: &[F],
    log_sums: &[f32],
    output_products: &[f32],
    gradient: &mut [F],
    pairs: usize,
    tokens: usize,
    heads: usize,
    scale: f32,
    #[comptime] head: usize,
    #[comptime] tile: usize,
    #[comptime] by_key: bool,
    #[define(F)] _dtype: ElemType,
) {
    // Half as many rows stream past at a time as are held: five tiles have to fit.
    let streamed = comptime!(tile / 2);
    let own = comptime!(tile / SIDE);
    let other = comptime!(tile / 2 / SIDE);
    let room = comptime!(tile * (head + 1) + SIDE);
    let room_streamed = comptime!(tile / 2 * (head + 1) + SIDE);
    let tiles = (tokens + tile - 1) / tile;
    let pair = CUBE_POS / tiles;
    if pair >= pairs {
        terminate!();
    }
    let first = (CUBE_POS % tiles) * tile;
    let dim = heads * head;
    let image = (pair / heads) * tokens;
    let offset = (pair % heads) * head;
    let start = image * 3 * dim + offset;
    let start_out = image * dim + offset;

    // Side a meets in the score (a query, a key), side b in the gradient of a probability (dO, a value).
    let mut held_a = Shared::<[f32]>::new_slice(room);
    let mut held_b = Shared::<[f32]>::new_slice(room);
    let mut passing_a = Shared::<[f32]>::new_slice(room_streamed);
    let mut passing_b = Shared::<[f32]>::new_slice(room_streamed);
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tile * (tile / 2 + 1)));
    let mut scores = Array::<f32>::new(comptime!((tile / SIDE) * (tile / 2 / SIDE)));
    let mut slopes = Array::<f32>::new(comptime!((tile / SIDE) * (tile / 2 / SIDE)));
    let mut sums_a = Array::<f32>::new(comptime!((tile / SIDE) * head.div_ceil(SIDE)));
    let mut sums_b = Array::<f32>::new(comptime!((tile / SIDE) * head.div_ceil(SIDE)));
    #[unroll]
    for at in 0..comptime!((tile / SIDE) * head.div_ceil(SIDE)) {
        sums_a[at] = 0.0f32;
        sums_b[at] = 0.0f32;
    }
    if by_key {
        load::<F>(qkv, start + dim, 3 * dim, first, tokens, 1.0f32, &mut held_a, tile, head);
        load::<F>(qkv, start + 2 * dim, 3 * dim, first, tokens, 1.0f32, &mut held_b, tile, head);
    } else {
        load::<F>(qkv, start, 3 * dim, first, tokens, 1.0f32, &mut held_a, tile, head);
        load::<F>(dy, start_out, dim, first, tokens, 1.0f32, &mut held_b, tile, head);
    }

    let mut arriving = 0usize;
    while arriving < tokens {
        // Nobody reads the last tiles any more.
        sync_cube();
        if by_key {
            load::<F>(qkv, start, 3 * dim, arriving, tokens, 1.0f32, &mut passing_a, streamed, head);
            load::<F>(dy, start_out, dim, arriving, tokens, 1.0f32, &mut passing_b, streamed, head);
        } else {
            load::<F>(qkv, start + dim, 3 * dim, arriving, tokens, 1.0f32, &mut passing_a, streamed, head);
            load::<F>(
                qkv,
                start + 2 * dim,
                3 * dim,
                arriving,
                tokens,
                1.0f32,
                &mut passing_b,
                streamed,
                head,
            );
        }
        sync_cube();
        products(&held_a, &passing_a, &mut scores, own, other, head);
        products(&held_b, &passing_b, &mut slopes, own, other, head);
        // Probabilities take the place of the scores, their gradients times the scale that of the slopes.
        #[unroll]
        for i in 0..own {
            #[unroll]
            for j in 0..other {
                let row = UNIT_POS_Y as usize * own + i;
                let beside = UNIT_POS_X as usize + j * comptime!(SIDE);
                let query = if by_key { arriving + beside } else { first + row };
                let key = if by_key { first + row } else { arriving + beside };
                let mut probability = 0.0f32;
                let mut slope = 0.0f32;
                if query < tokens && key < tokens {
                    probability = (scores[i * other + j] * scale - log_sums[pair * tokens + query]).exp();
                    slope = probability
                        * (slopes[i * other + j] - output_products[pair * tokens + query])
                        * scale;
                }
                scores[i * other + j] = probability;
                slopes[i * other + j] = slope;
                weights[row * (streamed + 1) + beside] = slope;
            }
        }
        sync_cube();
        accumulate(&weights, &passing_a, &mut sums_a, own, streamed, head);
        if by_key {
            sync_cube();
            #[unroll]
            for i in 0..own {
                #[unroll]
                for j in 0..other {
                    let row = UNIT_POS_Y as usize * own + i;
                    let beside = UNIT_POS_X as usize + j * comptime!(SIDE);
                    weights[row * (streamed + 1) + beside] = scores[i * other + j];
                }
            }
            sync_cube();
            accumulate(&weights, &passing_b, &mut sums_b, own, streamed, head);
        }
        arriving += streamed;
    }

    if by_key {
        store::<F>(&sums_a, gradient, start + dim, 3 * dim, first, tokens, own, head);
        store::<F>(&sums_b, gradient, start + 2 * dim, 3 * dim, first, tokens, own, head);
    } else {
        store::<F>(&sums_a, gradient, start, 3 * dim, first, tokens, own, head);
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
            attend::launch_unchecked(
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
            output_products::launch_unchecked(
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
                gradients::launch_unchecked(
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
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
    use super::DType;
    use crate::{attention, attention_reference};

    /// Output and gradient.
    fn run(
        [batch, tokens, heads, head]: [usize; 4],
        (device, dtype): (&Device, DType),
        attention: fn(Tensor<3>, usize) -> Tensor<3>,
    ) -> Vec<Vec<f32>> {
        let device = device.clone().autodiff();
        let dim = heads * head;
        let qkv = rough([batch, tokens, 3 * dim], 1, (&device, dtype)).require_grad();
        let y = attention(qkv.clone(), heads);
        let grads = weighted(y.clone(), rough([batch, tokens, dim], 2, (&device, dtype))).backward();
        vec![read(y.inner()), read(qkv.grad(&grads).expect("tracked"))]
    }

    #[test]
    fn attention_on_a_gpu_equals_its_reference() {
        let (gpu, _held) = device();
        // A kernel is compiled for each width of a head, which takes seconds here.
        let sizes =
            [[1, 1, 1, 7], [2, 5, 3, 7], [1, 33, 2, 7], [1, 65, 2, 64], [1, 35, 1, 100], [1, 17, 2, 128]];
        for sizes in sizes {
            let expected = run(sizes, (&Device::flex(), DType::F32), attention_reference);
            // Sums of up to 128 terms in another order, and exponentials of them.
            let found = run(sizes, (&gpu, DType::F32), attention);
            assert_agree(&format!("{sizes:?}"), &found, &expected, 1e-5);
            for dtype in narrow_types(&gpu).filter(|_| sizes[3] == 7) {
                let found = run(sizes, (&gpu, dtype), attention);
                assert_agree(&format!("{sizes:?} {dtype:?}"), &found, &expected, 2e-2);
            }
        }
    }

    #[test]
    fn attention_on_a_gpu_stays_finite_for_large_scores_and_shows_what_is_not_a_number() {
        let (gpu, _held) = device();
        let large = |device: &Device| {
            let values = read(rough([1, 40, 12], 1, (&Device::flex(), DType::F32)) * 100.0);
            Tensor::<1>::from_floats(values.as_slice(), device).reshape([1, 40, 12])
        };
        let expected = read(attention_reference(large(&Device::flex()), 1));
        assert_agree("large", &[read(attention(large(&gpu), 1))], &[expected], 1e-4);
        let broken = Tensor::<3>::full([1, 40, 12], f32::NAN, &gpu);
        assert!(read(attention(broken, 1)).iter().all(|value| value.is_nan()));
    }
}
