//! `Conv` in two dimensions, with what follows it (batch normalisation, `Relu`, `Clip`) folded in.
//!
//! A 1 × 1 window is a matrix product of the picture as it lies in memory. One channel per group (depthwise) is summed
//! as one line. Everything else collects the windows of some output rows as columns of a matrix, then multiplies.

use super::arithmetic::Unary;
use super::attributes::Attributes;
use super::product::{Matrix, multiply};
use super::vector::widest;
use super::window::Window;
use crate::error::{Limits, OpError};
use crate::tensor::Tensor;

/// Numbers of a matrix of windows collected at one time: 2 MiB, about a core's cache.
const COLLECTED: usize = 1 << 19;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conv {
    pub window: Window,
    pub groups: usize,
    /// What is done with each number of the result.
    pub after: Option<Unary>,
}

/// Sides of one convolution, checked.
struct Sides {
    batch: usize,
    /// Input and output channels of one group.
    inputs: usize,
    outputs: usize,
    groups: usize,
    picture: [usize; 2],
    places: [usize; 2],
    window: Window,
}

impl Conv {
    pub fn parse(attributes: &Attributes) -> Result<Self, OpError> {
        let groups = attributes.integer("group", 1)?;
        let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0);
        let groups = groups.ok_or_else(|| OpError::attribute("group", "is not above 0"))?;
        Ok(Self { window: Window::parse(attributes)?, groups, after: None })
    }

    /// Pictures `[N, C, H, W]`, weights `[O, C / groups, h, w]`, offset `[O]` → `[N, O, H', W']`.
    pub fn run(
        &self,
        input: &Tensor,
        weights: &Tensor,
        offset: Option<&Tensor>,
        limits: &Limits,
    ) -> Result<Tensor, OpError> {
        let sides = self.sides(input, weights)?;
        let channels = sides.outputs * sides.groups;
        let shape = vec![sides.batch, channels, sides.places[0], sides.places[1]];
        let count = limits.count(&shape)?;
        let [h, w] = sides.window.size;
        limits.work(&[count, sides.inputs, h, w])?;
        let offset = match offset {
            Some(tensor) if tensor.shape() == [channels] => Some(tensor.floats()?),
            Some(tensor) => return Err(OpError::shapes("convolution's offset", &[weights, tensor])),
            None => None,
        };
        let (x, weights) = (input.floats()?, weights.floats()?);
        if count == 0 {
            return Tensor::new(shape, Vec::<f32>::new());
        }
        if sides.inputs == 1 && sides.outputs == 1 {
            let mut out = vec![0.0; count];
            depthwise(&sides, x, weights, offset, &mut out, self.after, limits)?;
            return Tensor::new(shape, out);
        }
        let mut out = match offset {
            None => vec![0.0; count],
            Some(offset) => {
                let plane = sides.places[0] * sides.places[1];
                let mut out = Vec::with_capacity(count);
                for _ in 0..sides.batch {
                    offset.iter().for_each(|&value| out.extend(std::iter::repeat_n(value, plane)));
                }
                out
            }
        };
        grouped(&sides, x, weights, &mut out, limits)?;
        if let Some(after) = self.after {
            after.apply(&mut out);
        }
        Tensor::new(shape, out)
    }

    fn sides(&self, input: &Tensor, weights: &Tensor) -> Result<Sides, OpError> {
        let mismatch = || OpError::shapes("convolution", &[input, weights]);
        let ([batch, channels, height, width], [outputs, inputs, h, w]) = (input.shape(), weights.shape())
        else {
            return Err(mismatch());
        };
        let mut window = self.window;
        if window.size == [0, 0] {
            window.size = [*h, *w];
        }
        let grouped = inputs.checked_mul(self.groups) == Some(*channels) && outputs % self.groups == 0;
        if window.size != [*h, *w] || !grouped {
            return Err(mismatch());
        }
        let places = window.places([*height, *width]).ok_or_else(mismatch)?;
        Ok(Sides {
            batch: *batch,
            inputs: *inputs,
            outputs: outputs / self.groups,
            groups: self.groups,
            picture: [*height, *width],
            places,
            window,
        })
    }
}

/// Every group a matrix product, added to `out`.
fn grouped(
    sides: &Sides,
    x: &[f32],
    weights: &[f32],
    out: &mut [f32],
    limits: &Limits,
) -> Result<(), OpError> {
    let Sides { inputs, outputs, groups, window, .. } = *sides;
    let [h, w] = window.size;
    let inner = inputs * h * w;
    let plane = sides.places[0] * sides.places[1];
    let source = inputs * sides.picture[0] * sides.picture[1];
    if inner == 0 || source == 0 {
        return Ok(()); // the offset alone
    }
    let direct = window.size == [1, 1] && window.stride == [1, 1] && sides.places == sides.picture;
    let width = sides.places[1];
    let rows_at_once = (COLLECTED / (inner * width)).clamp(1, sides.places[0]);
    let mut columns = match direct {
        true => Vec::new(),
        false => vec![0.0; limits.count(&[inner, rows_at_once, width])?],
    };
    for (index, (x, out)) in x.chunks_exact(source).zip(out.chunks_exact_mut(outputs * plane)).enumerate() {
        let group = index % groups;
        let weights = Matrix::new(&weights[group * outputs * inner..][..outputs * inner], outputs, inner);
        if direct {
            multiply(weights, Matrix::new(x, inner, plane), out, plane, true);
            continue;
        }
        for first in (0..sides.places[0]).step_by(rows_at_once) {
            let rows = first..(first + rows_at_once).min(sides.places[0]);
            let count = rows.len() * width;
            collect(sides, x, rows, &mut columns[..inner * count]);
            let windows = Matrix::new(&columns[..inner * count], inner, count);
            multiply(weights, windows, &mut out[first * width..], plane, true);
        }
    }
    Ok(())
}

/// Windows of some output `rows`: `[inputs · h · w, rows · width]`, 0 in the margin.
fn collect(sides: &Sides, x: &[f32], rows: std::ops::Range<usize>, columns: &mut [f32]) {
    let Sides { window, picture: [height, width], places: [_, places], .. } = *sides;
    let ([h, w], [down, right]) = (window.size, window.stride);
    let mut lines = columns.chunks_exact_mut(places);
    for plane in x.chunks_exact(height * width) {
        for (dy, dx) in (0..h).flat_map(|dy| (0..w).map(move |dx| (dy, dx))) {
            let inside = inside(dx, window.before[1], right, width, places);
            for row in rows.clone() {
                let Some(line) = lines.next() else { return };
                let y = (row * down + dy).wrapping_sub(window.before[0]);
                if y >= height || inside.is_empty() {
                    line.fill(0.0);
                    continue;
                }
                line[..inside.start].fill(0.0);
                line[inside.end..].fill(0.0);
                let source = &plane[y * width + inside.start * right + dx - window.before[1]..];
                let target = &mut line[inside.clone()];
                if right == 1 {
                    target.copy_from_slice(&source[..target.len()]);
                } else {
                    target.iter_mut().zip(source.iter().step_by(right)).for_each(|(out, &x)| *out = x);
                }
            }
        }
    }
}

/// The places along a line at which the window's part `d` is inside of the picture.
fn inside(d: usize, before: usize, stride: usize, length: usize, places: usize) -> std::ops::Range<usize> {
    let start = before.saturating_sub(d).div_ceil(stride).min(places);
    let end = (length + before).saturating_sub(d).div_ceil(stride).min(places);
    start..end.max(start)
}

/// One channel per group. Each picture is widened by its margin and divided into phases, the places whose row and column
/// leave the same rest by the strides; then every part of the window is the same distance away from any place, and the
/// whole picture is summed as one line. That leaves short rows no remainder; what is summed between two rows is dropped.
fn depthwise(
    sides: &Sides,
    x: &[f32],
    weights: &[f32],
    offset: Option<&[f32]>,
    out: &mut [f32],
    after: Option<Unary>,
    limits: &Limits,
) -> Result<(), OpError> {
    let Sides { window, picture: [height, width], places: [rows, columns], .. } = *sides;
    let ([h, w], [down, right]) = (window.size, window.stride);
    let line = columns + (w - 1) / right;
    let lines = rows + (h - 1) / down;
    let [phases_down, phases_right] = [down.min(h), right.min(w)];
    let phase = lines.saturating_mul(line);
    let mut wide = vec![0.0f32; limits.count(&[phases_down, phases_right, lines, line])?];
    let mut sums = vec![0.0f32; (rows - 1) * line + columns];
    let distance = |dy: usize, dx: usize| {
        (dy % down * phases_right + dx % right) * phase + dy / down * line + dx / right
    };
    let taps: Vec<usize> = (0..h).flat_map(|dy| (0..w).map(move |dx| distance(dy, dx))).collect();
    for (index, out) in out.chunks_exact_mut(rows * columns).enumerate() {
        let channel = index % sides.groups;
        let weights = &weights[channel * h * w..][..h * w];
        let plane = &x[index * height * width..][..height * width];
        widest(
            #[inline(always)]
            || {
                for (number, wide) in wide.chunks_exact_mut(phase).enumerate() {
                    let of_phase = [number / phases_right, number % phases_right];
                    spread(sides, plane, of_phase, wide, line);
                }
                sums.fill(offset.map_or(0.0, |offset| offset[channel]));
                match (h, w) {
                    (3, 3) => sum_taps::<9>(&wide, &taps, weights, &mut sums),
                    (5, 5) => {
                        for (taps, weights) in taps.chunks_exact(5).zip(weights.chunks_exact(5)) {
                            sum_taps::<5>(&wide, taps, weights, &mut sums);
                        }
                    }
                    _ => {
                        for (tap, weight) in taps.chunks_exact(1).zip(weights.chunks_exact(1)) {
                            sum_taps::<1>(&wide, tap, weight, &mut sums);
                        }
                    }
                }
                if let Some(Unary::Clip(low, high)) = after {
                    sums.iter_mut().for_each(|x| *x = super::arithmetic::clip(*x, low, high));
                }
                for (sums, out) in sums.chunks(line).zip(out.chunks_exact_mut(columns)) {
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum);
                }
            },
        );
    }
    match after {
        None | Some(Unary::Clip(..)) => {}
        Some(other) => other.apply(out),
    }
    Ok(())
}

/// Puts the places of one phase into `wide`, whose margin stays as it is.
#[inline(always)]
fn spread(sides: &Sides, plane: &[f32], [below, beside]: [usize; 2], wide: &mut [f32], line: usize) {
    let Sides { window, picture: [height, width], .. } = *sides;
    let [down, right] = window.stride;
    // Place p of a phase is p · stride + phase of the widened picture.
    let rows = inside(below, window.before[0], down, height, wide.len() / line);
    let places = inside(beside, window.before[1], right, width, line);
    if rows.is_empty() || places.is_empty() {
        return;
    }
    let from = places.start * right + beside - window.before[1];
    let first = rows.start * down + below - window.before[0];
    let sources = plane.chunks_exact(width).skip(first).step_by(down);
    for (wide, source) in wide.chunks_exact_mut(line).skip(rows.start).take(rows.len()).zip(sources) {
        let (target, source) = (&mut wide[places.clone()], &source[from..]);
        if right == 1 {
            target.iter_mut().zip(source).for_each(|(out, &x)| *out = x);
        } else {
            target.iter_mut().zip(source.iter().step_by(right)).for_each(|(out, &x)| *out = x);
        }
    }
}

/// `sums[i] += Σ weights[t] · wide[i + taps[t]]`, all in registers.
#[inline(always)]
fn sum_taps<const T: usize>(wide: &[f32], taps: &[usize], weights: &[f32], sums: &mut [f32]) {
    let count = sums.len();
    let sources: [&[f32]; T] = std::array::from_fn(|t| &wide[taps[t]..][..count]);
    let weights: [f32; T] = std::array::from_fn(|t| weights[t]);
    for (i, out) in sums.iter_mut().enumerate() {
        let mut sum = *out;
        for t in 0..T {
            sum += weights[t] * sources[t][i];
        }
        *out = sum;
    }
}
