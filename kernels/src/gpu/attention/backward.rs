//! The backward pass.

use cubecl::prelude::*;

use super::super::plane_row;
use super::SIDE;
use super::tiles::{accumulate, load, products, store};

/// `D = Σ dO · O` of each query, `[pairs, tokens]`; a plane for each.
#[cube(launch_unchecked)]
pub(super) fn output_products<F: Float>(
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
pub(super) fn gradients<F: Float>(
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
