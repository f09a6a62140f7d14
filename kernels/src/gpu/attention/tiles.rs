//! What a cube does with tiles: rows of one head in shared memory.

use cubecl::prelude::*;

use super::SIDE;

/// Copies `rows` rows of a head, from token `first` on, times `factor`; zeros beyond the last token.
///
/// Rows lie one value further apart than they are wide, so that units of different rows meet different banks.
#[cube]
pub(super) fn load<F: Float>(
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
pub(super) fn products(
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
pub(super) fn accumulate(
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
pub(super) fn store<F: Float>(
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
