//! The forward pass.

use cubecl::prelude::*;

use super::SIDE;
use super::tiles::{accumulate, load, products, store};

/// The output, and `L` of each query.
#[cube(launch_unchecked)]
pub(super) fn attend<F: Float>(
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
