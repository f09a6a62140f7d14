//! `DequantizeLinear`: weights stored in 8 bits, `(q − zero point) · scale`, a scale for each output channel.

use super::axis;
use crate::error::OpError;
use crate::tensor::{Data, Tensor};

/// A single scale, or one for each place along `along`.
pub(crate) fn dequantise(
    input: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    along: i64,
) -> Result<Tensor, OpError> {
    let values: Vec<i32> = whole(input)?;
    let scales = scale.floats()?;
    let zeros = zero.map(whole).transpose()?;
    if zero.is_some_and(|zero| zero.shape() != scale.shape()) {
        return Err(OpError::shapes("scales and zero points", &[scale, input]));
    }
    let zero_of = |channel: usize| zeros.as_ref().map_or(0, |zeros| zeros[channel]);
    let number = |q: i32, channel: usize| q.wrapping_sub(zero_of(channel)) as f32 * scales[channel];
    let shape = input.shape().to_vec();
    if let ([] | [1], [_]) = (scale.shape(), scales) {
        return Tensor::new(shape, values.iter().map(|&q| number(q, 0)).collect());
    }
    let along = axis(along, shape.len())?;
    if scale.shape() != [shape[along]] {
        return Err(OpError::shapes("scales", &[input, scale]));
    }
    let inner: usize = shape[along + 1..].iter().product();
    let blocks = values.chunks(inner.max(1)).enumerate();
    let floats = blocks.flat_map(|(index, block)| {
        let channel = index % scales.len().max(1);
        block.iter().map(move |&q| number(q, channel))
    });
    let floats = floats.collect();
    Tensor::new(shape, floats)
}

fn whole(tensor: &Tensor) -> Result<Vec<i32>, OpError> {
    match tensor.data() {
        Data::I8(values) => Ok(values.iter().map(|&q| i32::from(q)).collect()),
        Data::U8(values) => Ok(values.iter().map(|&q| i32::from(q)).collect()),
        Data::I32(values) => Ok(values.to_vec()),
        _ => Err(OpError::Kind { wanted: "int8, uint8 or int32", found: tensor.kind() }),
    }
}
