//! Loops over one plane (the positions of one channel of one image) for operations with a scale for each channel.

use crate::conv_widest::widest;

/// Sums kept side by side, so that additions need not wait for each other.
const LANES: usize = 16;

#[inline(always)]
fn gate(value: f32, output: f32) -> f32 {
    if output > 0.0 { value } else { 0.0 }
}

/// `[Σ p, Σ q]` of terms in the values of two slices, sixteen lanes at a time, in an order fixed by the length.
// Arrays of lanes: from an index into the slices the compiler makes one addition after the other.
macro_rules! lane_sums {
    ($first:expr, $second:expr, |$a:ident, $b:ident| [$p:expr, $q:expr]) => {{
        let (first, first_rest) = $first.as_chunks::<LANES>();
        let (second, second_rest) = $second[..$first.len()].as_chunks::<LANES>();
        let mut lanes = [[0.0f32; LANES]; 2];
        for (first, second) in first.iter().zip(second) {
            for lane in 0..LANES {
                let ($a, $b) = (first[lane], second[lane]);
                lanes[0][lane] += $p;
                lanes[1][lane] += $q;
            }
        }
        for (lane, (&$a, &$b)) in first_rest.iter().zip(second_rest).enumerate() {
            lanes[0][lane] += $p;
            lanes[1][lane] += $q;
        }
        lanes.map(|lanes| lanes.iter().sum::<f32>())
    }};
}

widest! {
    /// Mean of a plane and the sum of squared distances from it.
    pub(crate) fn moments(x: &[f32]) -> [f32; 2] {
        let [sum, _] = lane_sums!(x, x, |value, _same| [value, 0.0]);
        let mean = sum / x.len() as f32;
        let [squares, _] = lane_sums!(x, x, |value, _same| [(value - mean) * (value - mean), 0.0]);
        [mean, squares]
    }
}

widest! {
    /// `y = x · scale + shift`, with `rectify` at least 0.
    pub(crate) fn affine(x: &[f32], scale: f32, shift: f32, rectify: bool, y: &mut [f32]) {
        let floor = if rectify { 0.0 } else { f32::NEG_INFINITY };
        for (y, &x) in y.iter_mut().zip(x) {
            let v = x * scale + shift;
            *y = if v < floor { floor } else { v };
        }
    }
}

widest! {
    /// [`affine`] over its own operand.
    pub(crate) fn affine_in_place(y: &mut [f32], scale: f32, shift: f32, rectify: bool) {
        let floor = if rectify { 0.0 } else { f32::NEG_INFINITY };
        for y in y.iter_mut() {
            let v = *y * scale + shift;
            *y = if v < floor { floor } else { v };
        }
    }
}

widest! {
    /// `y = x · scale + shift + residual`, with `rectify` at least 0.
    pub(crate) fn affine_add(x: &[f32], scale: f32, shift: f32, residual: &[f32], rectify: bool, y: &mut [f32]) {
        let floor = if rectify { 0.0 } else { f32::NEG_INFINITY };
        for ((y, &x), &r) in y.iter_mut().zip(x).zip(residual) {
            let v = x * scale + shift + r;
            *y = if v < floor { floor } else { v };
        }
    }
}

widest! {
    /// [`affine_add`] over its own operand.
    pub(crate) fn affine_add_in_place(y: &mut [f32], scale: f32, shift: f32, residual: &[f32], rectify: bool) {
        let floor = if rectify { 0.0 } else { f32::NEG_INFINITY };
        for (y, &r) in y.iter_mut().zip(residual) {
            let v = *y * scale + shift + r;
            *y = if v < floor { floor } else { v };
        }
    }
}

widest! {
    /// `[Σ dy, Σ dy · (x − mean)]`.
    pub(crate) fn sums(dy: &[f32], x: &[f32], mean: f32) -> [f32; 2] {
        lane_sums!(dy, x, |dy, x| [dy, dy * (x - mean)])
    }
}

widest! {
    /// [`sums`] of the gradient before a ReLU that followed `x · scale + shift`.
    pub(crate) fn sums_rectified(dy: &[f32], x: &[f32], mean: f32, scale: f32, shift: f32) -> [f32; 2] {
        lane_sums!(dy, x, |dy, x| [
            gate(dy, x * scale + shift),
            gate(dy, x * scale + shift) * (x - mean)
        ])
    }
}

widest! {
    /// `gated = dy` where `y > 0`, else 0.
    pub(crate) fn rectified(dy: &[f32], y: &[f32], gated: &mut [f32]) {
        for ((g, &dy), &y) in gated.iter_mut().zip(dy).zip(y) {
            *g = gate(dy, y);
        }
    }
}

widest! {
    /// [`rectified`] over its own operand.
    pub(crate) fn rectified_in_place(dy: &mut [f32], y: &[f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy = gate(*dy, y);
        }
    }
}

/// The gradient of a plane: `by_gradient · dy + by_distance · (x − mean) + constant`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slope {
    pub(crate) mean: f32,
    pub(crate) by_gradient: f32,
    pub(crate) by_distance: f32,
    pub(crate) constant: f32,
}

widest! {
    /// `dx` by [`Slope`].
    pub(crate) fn slope(dy: &[f32], x: &[f32], s: Slope, dx: &mut [f32]) {
        for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            *dx = s.by_gradient * dy + s.by_distance * (x - s.mean) + s.constant;
        }
    }
}

widest! {
    /// [`slope`] over its own operand.
    pub(crate) fn slope_in_place(dy: &mut [f32], x: &[f32], s: Slope) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            *dy = s.by_gradient * *dy + s.by_distance * (x - s.mean) + s.constant;
        }
    }
}

widest! {
    /// [`slope_in_place`] with the gradient before a ReLU that followed `x · scale + shift`.
    pub(crate) fn slope_rectified_in_place(dy: &mut [f32], x: &[f32], s: Slope, scale: f32, shift: f32) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            let g = gate(*dy, x * scale + shift);
            *dy = s.by_gradient * g + s.by_distance * (x - s.mean) + s.constant;
        }
    }
}
