//! Operations that move numbers or tell shapes, of any kind of number.

use super::arithmetic::{broadcast, repeated_strides};
use super::axis;
use crate::error::{Limits, OpError};
use crate::tensor::{Element, Tensor, strides, with_values};

/// A way through a tensor: a shape, and for each side the step from one number to the next.
struct Walk {
    shape: Vec<usize>,
    steps: Vec<isize>,
    start: usize,
}

impl Walk {
    /// The numbers met on the way, as a tensor.
    fn gather(self, input: &Tensor, limits: &Limits) -> Result<Tensor, OpError> {
        let count = limits.count(&self.shape)?;
        with_values!(input.data(), values => {
            let numbers = self.read(values, count);
            Tensor::new(self.shape, numbers)
        })
    }

    fn read<T: Element>(&self, values: &[T], count: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(count);
        if count == 0 {
            return out;
        }
        let rank = self.shape.len();
        let Some(inner) = rank.checked_sub(1) else {
            out.push(values[self.start]);
            return out;
        };
        let (length, step) = (self.shape[inner], self.steps[inner]);
        let mut index = vec![0; inner];
        let mut place = self.start as isize;
        while out.len() < count {
            let at = place as usize;
            match step {
                1 => out.extend_from_slice(&values[at..at + length]),
                0 => out.extend(std::iter::repeat_n(values[at], length)),
                2.. => out.extend(values[at..].iter().step_by(step as usize).take(length)),
                _ => out.extend((0..length as isize).map(|i| values[(place + i * step) as usize])),
            }
            for axis in (0..inner).rev() {
                index[axis] += 1;
                place += self.steps[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                place -= self.steps[axis] * self.shape[axis] as isize;
                index[axis] = 0;
            }
        }
        out
    }
}

fn signed_strides(shape: &[usize]) -> Vec<isize> {
    strides(shape).into_iter().map(|stride| stride as isize).collect()
}

/// `Transpose`; without an order, sides are reversed.
pub(crate) fn transpose(input: &Tensor, order: Option<&[i64]>, limits: &Limits) -> Result<Tensor, OpError> {
    let rank = input.shape().len();
    let order = match order {
        None => (0..rank).rev().collect(),
        Some(order) => axes(order, rank)?,
    };
    if order.len() != rank {
        return Err(OpError::attribute("perm", format!("names {} of {rank} sides", order.len())));
    }
    let own = signed_strides(input.shape());
    let shape = order.iter().map(|&axis| input.shape()[axis]).collect();
    Walk { shape, steps: order.iter().map(|&axis| own[axis]).collect(), start: 0 }.gather(input, limits)
}

/// Axes counted from the front, each at most once.
pub(crate) fn axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut found = Vec::with_capacity(axes.len());
    for &wanted in axes {
        let axis = axis(wanted, rank)?;
        if found.contains(&axis) {
            return Err(OpError::attribute("axes", format!("names side {axis} twice")));
        }
        found.push(axis);
    }
    Ok(found)
}

/// `Reshape`: 0 keeps a side (unless `allow_zero`), −1 takes what is left.
pub(crate) fn reshape(input: &Tensor, wanted: &[i64], allow_zero: bool) -> Result<Tensor, OpError> {
    let refused =
        || OpError::attribute("shape", format!("{wanted:?} of a tensor of shape {:?}", input.shape()));
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (place, &side) in wanted.iter().enumerate() {
        shape.push(match side {
            -1 if open.is_none() => {
                open = Some(place);
                1
            }
            0 if !allow_zero => *input.shape().get(place).ok_or_else(refused)?,
            side => usize::try_from(side).map_err(|_| refused())?,
        });
    }
    if let Some(place) = open {
        let known =
            shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side)).ok_or_else(refused)?;
        if known == 0 || !input.len().is_multiple_of(known) {
            return Err(refused());
        }
        shape[place] = input.len() / known;
    }
    input.reshaped(shape)
}

/// `Flatten`: the sides before `first` become one, and those from it on.
pub(crate) fn flatten(input: &Tensor, first: i64) -> Result<Tensor, OpError> {
    let shape = input.shape();
    let first = if first == shape.len() as i64 { shape.len() } else { axis(first, shape.len())? };
    input.reshaped(vec![shape[..first].iter().product(), shape[first..].iter().product()])
}

/// `Slice` along `axes`, steps may be negative.
pub(crate) fn slice(
    input: &Tensor,
    [starts, ends]: [&[i64]; 2],
    along: Option<&[i64]>,
    steps: Option<&[i64]>,
    limits: &Limits,
) -> Result<Tensor, OpError> {
    let rank = input.shape().len();
    let along = match along {
        Some(along) => axes(along, rank)?,
        None => (0..starts.len()).collect(),
    };
    let ones = vec![1; starts.len()];
    let steps = steps.unwrap_or(&ones);
    let fits = [ends.len(), along.len(), steps.len()].iter().all(|&length| length == starts.len());
    if !fits || starts.len() > rank {
        return Err(OpError::attribute("starts", "is not as long as the others"));
    }
    let own = signed_strides(input.shape());
    let mut walk = Walk { shape: input.shape().to_vec(), steps: own.clone(), start: 0 };
    for (index, &axis) in along.iter().enumerate() {
        let side = input.shape()[axis] as i64;
        // Backwards, the last place is one before the first.
        let (low, high) = if steps[index] < 0 { (-1, side - 1) } else { (0, side) };
        let place = |value: i64, low: i64| {
            let value = if value < 0 { value.saturating_add(side) } else { value };
            value.clamp(low, high.max(low))
        };
        let (start, end) = (place(starts[index], low.max(0)), place(ends[index], low));
        let count = match steps[index] {
            0 => return Err(OpError::attribute("steps", "is 0")),
            step if step > 0 => (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()),
            step if side > 0 => (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs()),
            _ => 0,
        };
        walk.shape[axis] = count as usize;
        // A step longer than the side is never taken twice.
        let step = steps[index].clamp(-side.max(1), side.max(1));
        walk.steps[axis] = own[axis] * step as isize;
        walk.start += start as usize * own[axis] as usize;
    }
    walk.gather(input, limits)
}

/// `Concat`.
pub(crate) fn concat(inputs: &[&Tensor], along: i64, limits: &Limits) -> Result<Tensor, OpError> {
    let first = inputs.first().ok_or(OpError::MissingInput { index: 0 })?;
    let along = axis(along, first.shape().len())?;
    let mut shape = first.shape().to_vec();
    shape[along] = 0;
    for input in inputs {
        let same = input.shape().len() == shape.len()
            && (0..shape.len()).all(|axis| axis == along || input.shape()[axis] == shape[axis]);
        if !same || input.kind() != first.kind() {
            return Err(OpError::shapes("joining", inputs));
        }
        shape[along] = shape[along].saturating_add(input.shape()[along]);
    }
    let count = limits.count(&shape)?;
    fn join<T: Element>(
        parts: Vec<(&[T], usize)>,
        shape: Vec<usize>,
        outer: usize,
        count: usize,
    ) -> Result<Tensor, OpError> {
        let mut out = Vec::with_capacity(count);
        for index in 0..outer {
            for (values, length) in &parts {
                out.extend_from_slice(&values[index * length..][..*length]);
            }
        }
        Tensor::new(shape, out)
    }
    let outer: usize = if count == 0 { 0 } else { shape[..along].iter().product() };
    let length = |input: &Tensor| input.shape()[along..].iter().product::<usize>();
    match first.data() {
        crate::tensor::Data::F32(_) => {
            let parts: Result<_, _> =
                inputs.iter().map(|input| Ok((input.floats()?, length(input)))).collect();
            join::<f32>(parts?, shape, outer, count)
        }
        crate::tensor::Data::I64(_) => {
            let parts: Result<_, _> =
                inputs.iter().map(|input| Ok((input.whole_numbers()?, length(input)))).collect();
            join::<i64>(parts?, shape, outer, count)
        }
        _ => Err(OpError::Kind { wanted: "float32 or int64", found: first.kind() }),
    }
}

/// `Expand`: repeated to a shape both fit into.
pub(crate) fn expand(input: &Tensor, wanted: &[i64], limits: &Limits) -> Result<Tensor, OpError> {
    let refused =
        || OpError::attribute("shape", format!("{wanted:?} of a tensor of shape {:?}", input.shape()));
    let wanted: Result<Vec<usize>, _> =
        wanted.iter().map(|&side| usize::try_from(side).map_err(|_| refused())).collect();
    let shape = broadcast(input.shape(), &wanted?).ok_or_else(refused)?;
    let steps = repeated_strides(input.shape(), &shape).into_iter().map(|step| step as isize).collect();
    Walk { shape, steps, start: 0 }.gather(input, limits)
}

/// `Split` into parts of the given lengths.
pub(crate) fn split(
    input: &Tensor,
    along: i64,
    lengths: &[i64],
    limits: &Limits,
) -> Result<Vec<Tensor>, OpError> {
    let along = axis(along, input.shape().len())?;
    let steps = signed_strides(input.shape());
    let mut first = 0usize;
    let mut parts = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = first.checked_add(length).filter(|&end| end <= input.shape()[along]);
        let end = end.ok_or_else(|| {
            OpError::attribute("split", format!("{lengths:?} of shape {:?}", input.shape()))
        })?;
        let mut shape = input.shape().to_vec();
        shape[along] = length;
        parts.push(
            Walk { shape, steps: steps.clone(), start: first * steps[along] as usize }
                .gather(input, limits)?,
        );
        first = end;
    }
    if first != input.shape()[along] {
        return Err(OpError::attribute("split", format!("{lengths:?} of shape {:?}", input.shape())));
    }
    Ok(parts)
}

/// `Squeeze`: without the named sides, which are 1; without names, without all sides of 1.
pub(crate) fn squeeze(input: &Tensor, along: Option<&[i64]>) -> Result<Tensor, OpError> {
    let shape = input.shape();
    let along = match along {
        Some(along) => axes(along, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if along.iter().any(|&axis| shape[axis] != 1) {
        return Err(OpError::shapes("leaving out sides that are not 1", &[input]));
    }
    input.reshaped((0..shape.len()).filter(|axis| !along.contains(axis)).map(|axis| shape[axis]).collect())
}

/// `Unsqueeze`: with new sides of 1, at these places of the result.
pub(crate) fn unsqueeze(input: &Tensor, along: &[i64], limits: &Limits) -> Result<Tensor, OpError> {
    let rank = input.shape().len() + along.len();
    let along = axes(along, rank)?;
    let mut old = input.shape().iter();
    let mut side = |axis: usize| if along.contains(&axis) { 1 } else { old.next().copied().unwrap_or(1) };
    let shape: Vec<usize> = (0..rank).map(&mut side).collect();
    limits.count(&shape)?;
    input.reshaped(shape)
}

/// `Gather` of a single place, or of a line of places, along one side.
pub(crate) fn gather(
    input: &Tensor,
    places: &Tensor,
    along: i64,
    limits: &Limits,
) -> Result<Tensor, OpError> {
    let along = axis(along, input.shape().len())?;
    let side = input.shape()[along];
    let mut steps = signed_strides(input.shape());
    let place = |place: i64| {
        let found = if place < 0 { place.checked_add(side as i64) } else { Some(place) };
        let found = found.and_then(|place| usize::try_from(place).ok()).filter(|&place| place < side);
        found.ok_or(OpError::Axis { axis: place, rank: side })
    };
    let [only] = places.whole_numbers()? else {
        return Err(OpError::shapes("picking other than one place", &[input, places]));
    };
    let start = place(*only)? * steps[along] as usize;
    let mut shape = input.shape().to_vec();
    shape.remove(along);
    steps.remove(along);
    // The sides of the index (none, or ones) take the side's place.
    for _ in places.shape() {
        shape.insert(along, 1);
        steps.insert(along, 0);
    }
    Walk { shape, steps, start }.gather(input, limits)
}
