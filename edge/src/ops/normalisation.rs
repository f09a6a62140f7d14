//! `BatchNormalization`, `LayerNormalization`, `Softmax`.

use super::arithmetic::exp;
use super::axis;
use crate::error::OpError;
use crate::tensor::Tensor;

/// Per channel, `scale · x + offset`: what batch normalisation is once it no longer learns.
pub(crate) struct Affine {
    pub scale: Vec<f32>,
    pub offset: Vec<f32>,
}

impl Affine {
    /// Of the operator's four inputs after the picture, all `[C]`.
    pub fn new(
        scale: &Tensor,
        offset: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        epsilon: f32,
    ) -> Result<Self, OpError> {
        let all = [scale, offset, mean, variance];
        if scale.shape().len() != 1 || all.iter().any(|tensor| tensor.shape() != scale.shape()) {
            return Err(OpError::shapes("batch normalisation", &all));
        }
        let deviations =
            variance.floats()?.iter().map(|&variance| (f64::from(variance) + f64::from(epsilon)).sqrt());
        let factors: Vec<f64> = scale
            .floats()?
            .iter()
            .zip(deviations)
            .map(|(&scale, deviation)| f64::from(scale) / deviation)
            .collect();
        let offsets = offset.floats()?.iter().zip(mean.floats()?).zip(&factors);
        Ok(Self {
            offset: offsets
                .map(|((&offset, &mean), factor)| (f64::from(offset) - f64::from(mean) * factor) as f32)
                .collect(),
            scale: factors.iter().map(|&factor| factor as f32).collect(),
        })
    }

    /// Channels are the second side.
    pub fn run(&self, input: &Tensor) -> Result<Tensor, OpError> {
        let channels = self.scale.len();
        let [_, found, plane @ ..] = input.shape() else {
            return Err(OpError::shapes("batch normalisation", &[input]));
        };
        if *found != channels {
            return Err(OpError::shapes("batch normalisation", &[input]));
        }
        let mut values = input.floats()?.to_vec();
        let plane: usize = plane.iter().product();
        for (index, values) in values.chunks_exact_mut(plane.max(1)).enumerate() {
            let (scale, offset) = (self.scale[index % channels], self.offset[index % channels]);
            values.iter_mut().for_each(|x| *x = *x * scale + offset);
        }
        Tensor::new(input.shape().to_vec(), values)
    }
}

/// Over the sides from `first` on: mean 0, variance 1, then scaled and shifted.
pub(crate) fn layer_normalisation(
    input: &Tensor,
    scale: &Tensor,
    offset: Option<&Tensor>,
    first: i64,
    epsilon: f32,
) -> Result<Tensor, OpError> {
    let first = axis(first, input.shape().len())?;
    let inner = &input.shape()[first..];
    if scale.shape() != inner || offset.is_some_and(|offset| offset.shape() != inner) {
        return Err(OpError::shapes("layer normalisation", &[input, scale]));
    }
    let length: usize = inner.iter().product();
    let scale = scale.floats()?;
    let offset = offset.map(Tensor::floats).transpose()?;
    let mut values = input.floats()?.to_vec();
    super::vector::widest(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(length.max(1)) {
                let mean = sum(row, |x| x) / length as f32;
                let variance = sum(row, |x| (x - mean) * (x - mean)) / length as f32;
                let factor = 1.0 / (variance + epsilon).sqrt();
                for (x, scale) in row.iter_mut().zip(scale) {
                    *x = (*x - mean) * factor * scale;
                }
                if let Some(offset) = offset {
                    row.iter_mut().zip(offset).for_each(|(x, offset)| *x += offset);
                }
            }
        },
    );
    Tensor::new(input.shape().to_vec(), values)
}

/// Sixteen sums side by side: one alone would wait for every addition, and round worse.
#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for block in blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += of(x);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&x| of(x)).sum::<f32>()
}

/// Positive, with sum 1 along one side.
pub(crate) fn softmax(input: &Tensor, along: i64) -> Result<Tensor, OpError> {
    let along = axis(along, input.shape().len())?;
    let side = input.shape()[along];
    let inner: usize = input.shape()[along + 1..].iter().product();
    let mut values = input.floats()?.to_vec();
    if inner == 1 {
        super::vector::widest(
            #[inline(always)]
            || values.chunks_exact_mut(side.max(1)).for_each(softmax_row),
        );
    } else if side > 0 && inner > 0 {
        let mut row = vec![0.0; side];
        for block in values.chunks_exact_mut(side * inner) {
            for start in 0..inner {
                row.iter_mut().enumerate().for_each(|(i, x)| *x = block[start + i * inner]);
                softmax_row(&mut row);
                row.iter().enumerate().for_each(|(i, &x)| block[start + i * inner] = x);
            }
        }
    }
    Tensor::new(input.shape().to_vec(), values)
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, &x| if x > largest { x } else { largest });
    row.iter_mut().for_each(|x| *x = exp(*x - largest));
    let total = sum(row, |x| x);
    row.iter_mut().for_each(|x| *x /= total);
}
