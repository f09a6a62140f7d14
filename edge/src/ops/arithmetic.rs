//! Number by number: sums, products, and functions of one number.

use std::sync::Arc;

use crate::error::{Limits, OpError};
use crate::tensor::{Data, Tensor, strides};

/// What is done with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

/// What is done with one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unary {
    /// Limits to a range; `Relu` is one of them.
    Clip(f32, f32),
    Sigmoid,
    Erf,
    /// `x/2 · (1 + erf(x / √2))`
    Gelu,
    Sqrt,
}

/// The shape both fit into: sides are equal, or one of them is 1 or absent.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let side =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (side(a, axis), side(b, axis)) {
            (a, b) if a == b => Some(a),
            (1, other) | (other, 1) => Some(other),
            _ => None,
        })
        .collect()
}

/// Strides with which a tensor of shape `from` is read as one of shape `to`: 0 where it is repeated.
pub(crate) fn repeated_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let own = strides(from);
    let missing = to.len() - from.len();
    (0..to.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(axis) if from[axis] != 1 => own[axis],
            _ => 0,
        })
        .collect()
}

/// Where each number of shape `to`, row by row, lies in a tensor of shape `from`.
pub(crate) fn places(from: &[usize], to: &[usize]) -> impl Iterator<Item = usize> {
    let steps = repeated_strides(from, to);
    Counter::new(to.to_vec(), vec![steps]).map(|[place]| place)
}

/// Counts through a shape, with the place in each of `N` tensors.
struct Counter<const N: usize> {
    shape: Vec<usize>,
    steps: Vec<Vec<usize>>,
    index: Vec<usize>,
    place: [usize; N],
    left: usize,
}

impl<const N: usize> Counter<N> {
    fn new(shape: Vec<usize>, steps: Vec<Vec<usize>>) -> Self {
        let left = shape.iter().product();
        Self { index: vec![0; shape.len()], shape, steps, place: [0; N], left }
    }
}

impl<const N: usize> Iterator for Counter<N> {
    type Item = [usize; N];

    fn next(&mut self) -> Option<[usize; N]> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let place = self.place;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            for (place, steps) in self.place.iter_mut().zip(&self.steps) {
                *place += steps[axis];
            }
            if self.index[axis] < self.shape[axis] {
                break;
            }
            for (place, steps) in self.place.iter_mut().zip(&self.steps) {
                *place -= steps[axis] * self.shape[axis];
            }
            self.index[axis] = 0;
        }
        Some(place)
    }
}

impl Binary {
    pub fn run(self, a: &Tensor, b: &Tensor, limits: &Limits) -> Result<Tensor, OpError> {
        let shape = broadcast(a.shape(), b.shape()).ok_or_else(|| OpError::shapes("arithmetic", &[a, b]))?;
        limits.count(&shape)?;
        match (a.data(), b.data()) {
            (Data::F32(x), Data::F32(y)) => {
                let (x, y) = (Sided { values: x, shape: a.shape() }, Sided { values: y, shape: b.shape() });
                let out = match self {
                    Self::Add => combine(x, y, &shape, |a, b| a + b),
                    Self::Sub => combine(x, y, &shape, |a, b| a - b),
                    Self::Mul => combine(x, y, &shape, |a, b| a * b),
                    Self::Div => combine(x, y, &shape, |a, b| a / b),
                };
                Tensor::new(shape, out)
            }
            (Data::I64(x), Data::I64(y)) => {
                let (x, y) = (Sided { values: x, shape: a.shape() }, Sided { values: y, shape: b.shape() });
                // Shapes: what overflows is refused by whoever uses the result.
                let out = combine(x, y, &shape, |a: i64, b: i64| match self {
                    Self::Add => a.saturating_add(b),
                    Self::Sub => a.saturating_sub(b),
                    Self::Mul => a.saturating_mul(b),
                    Self::Div => a.checked_div(b).unwrap_or(0),
                });
                Tensor::new(shape, out)
            }
            _ => Err(OpError::Kind { wanted: a.kind(), found: b.kind() }),
        }
    }
}

#[derive(Clone, Copy)]
struct Sided<'a, T> {
    values: &'a [T],
    shape: &'a [usize],
}

/// `work` of both, in the shape both fit into.
fn combine<T: Copy>(a: Sided<T>, b: Sided<T>, shape: &[usize], work: impl Fn(T, T) -> T) -> Vec<T> {
    let count: usize = shape.iter().product();
    if count == 0 {
        return Vec::new();
    }
    let (sides, steps) = merge(shape, [repeated_strides(a.shape, shape), repeated_strides(b.shape, shape)]);
    let (&inner, outer) = sides.split_last().unwrap_or((&1, &[]));
    let [a_step, b_step] = [&steps[0], &steps[1]].map(|steps| steps.last().copied().unwrap_or(0));
    let outer_steps = steps.iter().map(|steps| steps[..steps.len().saturating_sub(1)].to_vec()).collect();
    let mut out = Vec::with_capacity(count);
    for [at, bt] in Counter::<2>::new(outer.to_vec(), outer_steps) {
        match (a_step, b_step) {
            (1, 1) => {
                let pairs = a.values[at..at + inner].iter().zip(&b.values[bt..bt + inner]);
                out.extend(pairs.map(|(&a, &b)| work(a, b)));
            }
            (1, 0) => out.extend(a.values[at..at + inner].iter().map(|&x| work(x, b.values[bt]))),
            (0, 1) => out.extend(b.values[bt..bt + inner].iter().map(|&y| work(a.values[at], y))),
            _ => out.extend((0..inner).map(|i| work(a.values[at + i * a_step], b.values[bt + i * b_step]))),
        }
    }
    out
}

/// Joins neighbouring sides that both tensors walk through without a jump, so that inner loops are long.
fn merge(shape: &[usize], steps: [Vec<usize>; 2]) -> (Vec<usize>, [Vec<usize>; 2]) {
    let mut sides: Vec<usize> = Vec::new();
    let mut merged: [Vec<usize>; 2] = Default::default();
    for axis in (0..shape.len()).filter(|&axis| shape[axis] != 1) {
        let joins = sides.last().is_some()
            && (0..2).all(|i| merged[i].last() == Some(&(steps[i][axis] * shape[axis])));
        if let Some(side) = sides.last_mut().filter(|_| joins) {
            *side *= shape[axis];
            (0..2).for_each(|i| *merged[i].last_mut().expect("a side for each step") = steps[i][axis]);
        } else {
            sides.push(shape[axis]);
            (0..2).for_each(|i| merged[i].push(steps[i][axis]));
        }
    }
    (sides, merged)
}

impl Unary {
    pub const RELU: Self = Self::Clip(0.0, f32::INFINITY);

    pub fn run(self, input: &Tensor) -> Result<Tensor, OpError> {
        let mut values = input.floats()?.to_vec();
        self.apply(&mut values);
        Tensor::new(input.shape().to_vec(), values)
    }

    /// In place, with the widest vectors of this machine.
    pub fn apply(self, values: &mut [f32]) {
        super::vector::widest(
            #[inline(always)]
            || match self {
                Self::Clip(low, high) => values.iter_mut().for_each(|x| *x = clip(*x, low, high)),
                Self::Sigmoid => values.iter_mut().for_each(|x| *x = 1.0 / (1.0 + exp(-*x))),
                Self::Erf => values.iter_mut().for_each(|x| *x = erf(*x)),
                Self::Gelu => values
                    .iter_mut()
                    .for_each(|x| *x *= 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2))),
                Self::Sqrt => values.iter_mut().for_each(|x| *x = x.sqrt()),
            },
        );
    }
}

/// `Clip` of whole numbers is left out: no exporter limits shapes.
#[inline(always)]
pub(crate) fn clip(x: f32, low: f32, high: f32) -> f32 {
    // Comparisons, not `max` and `min`: what is no number stays none, so that the answer shows it.
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// eˣ to 2 units in the last place; built of sums and products only, so that loops over it become vector instructions.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to a whole number, which then is in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = clip(x, -87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts: the first product is exact.
    let rest = x - whole * 0.693_359_4 - whole * -2.121_944_4e-4;
    // Taylor's series; |rest| ≤ ln 2 / 2 leaves less than 6e-9.
    let mut sum = 1.0 / 5040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + term;
    }
    sum * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// The error function to 2e-7: Abramowitz and Stegun, equation 7.1.26.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let mut sum = 1.061_405_4;
    for term in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        sum = sum * t + term;
    }
    (1.0 - sum * t * exp(-size * size)).copysign(x)
}

/// `Cast` between the kinds that images, weights and shapes have; `to` is ONNX's number of the kind.
pub(crate) fn cast(input: &Tensor, to: i32) -> Result<Tensor, OpError> {
    use harvest_onnx::tensor_proto::DataType;
    let shape = input.shape().to_vec();
    let kind = DataType::try_from(to).unwrap_or(DataType::Undefined);
    match (input.data(), kind) {
        (Data::F32(_), DataType::Float)
        | (Data::I64(_), DataType::Int64)
        | (Data::U8(_), DataType::Uint8) => Ok(input.clone()),
        (Data::U8(values), DataType::Float) => to_floats(shape, values),
        (Data::I8(values), DataType::Float) => to_floats(shape, values),
        (Data::I64(values), DataType::Float) => {
            Tensor::new(shape, values.iter().map(|&x| x as f32).collect())
        }
        (Data::I32(values), DataType::Float) => {
            Tensor::new(shape, values.iter().map(|&x| x as f32).collect())
        }
        (Data::I32(values), DataType::Int64) => {
            Tensor::new(shape, values.iter().map(|&x| i64::from(x)).collect::<Vec<_>>())
        }
        (Data::F32(values), DataType::Int64) => {
            Tensor::new(shape, values.iter().map(|&x| x as i64).collect::<Vec<_>>())
        }
        _ => Err(OpError::attribute("to", format!("asks for kind {to} from {}", input.kind()))),
    }
}

fn to_floats<T: Copy + Into<f32>>(shape: Vec<usize>, values: &Arc<Vec<T>>) -> Result<Tensor, OpError> {
    Tensor::new(shape, values.iter().map(|&value| value.into()).collect::<Vec<f32>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_those_of_the_books() {
        for step in -900..=900 {
            let x = step as f32 / 10.0;
            let wanted = f64::from(x).exp();
            if (-87.0..=88.0).contains(&x) {
                assert!((f64::from(exp(x)) / wanted - 1.0).abs() < 3e-7, "exp {x}");
            }
        }
        // From tables, to 7 digits.
        for (x, wanted) in
            [(0.0, 0.0), (0.1, 0.112_462_9), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (3.0, 0.999_977_9)]
        {
            assert!((erf(x) - wanted).abs() < 3e-7 && (erf(-x) + wanted).abs() < 3e-7, "erf {x}");
        }
        assert!(exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan() && clip(f32::NAN, 0.0, 1.0).is_nan());
        assert_eq!((exp(-1e9) < 1e-37, exp(f32::INFINITY) > 1e38, erf(9.0)), (true, true, 1.0));
    }
}
