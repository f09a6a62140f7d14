//! `MaxPool`, and means over sides (`GlobalAveragePool`, `ReduceMean`).

use super::attributes::Attributes;
use super::window::Window;
use crate::error::{Limits, OpError};
use crate::tensor::Tensor;

/// The largest number in each place of a window; the margin does not count.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MaxPool {
    window: Window,
}

impl MaxPool {
    pub fn parse(attributes: &Attributes) -> Result<Self, OpError> {
        attributes.only("ceil_mode", 0)?;
        let window = Window::parse(attributes)?;
        if (0..2).any(|axis| window.before[axis].max(window.after[axis]) >= window.size[axis].max(1)) {
            return Err(OpError::attribute("pads", "is as large as the window"));
        }
        Ok(Self { window })
    }

    pub fn run(&self, input: &Tensor, limits: &Limits) -> Result<Tensor, OpError> {
        let mismatch = || OpError::shapes("pooling", &[input]);
        let [batch, channels, height, width] = *input.shape() else { return Err(mismatch()) };
        let [rows, columns] = self.window.places([height, width]).ok_or_else(mismatch)?;
        let ([h, w], [down, right]) = (self.window.size, self.window.stride);
        let [above, left] = self.window.before;
        let shape = vec![batch, channels, rows, columns];
        let count = limits.count(&shape)?;
        limits.work(&[count, h, w])?;
        let mut out = vec![f32::NEG_INFINITY; count];
        if count == 0 || height * width == 0 {
            return Tensor::new(shape, out);
        }
        let planes = input.floats()?.chunks_exact(height * width).zip(out.chunks_exact_mut(rows * columns));
        for (plane, out) in planes {
            for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                let first = row * down;
                for y in first.saturating_sub(above)..(first + h).saturating_sub(above).min(height) {
                    let line = &plane[y * width..][..width];
                    for (column, out) in out.iter_mut().enumerate() {
                        let first = column * right;
                        let end = (first + w).saturating_sub(left).min(width);
                        for &x in &line[first.saturating_sub(left).min(end)..end] {
                            // What is no number stays none.
                            *out = if x > *out || x.is_nan() { x } else { *out };
                        }
                    }
                }
            }
        }
        Tensor::new(shape, out)
    }
}

/// The mean over `axes`, which stay as sides of 1 where `keep`.
pub(crate) fn mean(input: &Tensor, axes: &[usize], keep: bool, limits: &Limits) -> Result<Tensor, OpError> {
    let shape = input.shape();
    let values = input.floats()?;
    let rest: Vec<usize> =
        shape.iter().enumerate().map(|(axis, &side)| if axes.contains(&axis) { 1 } else { side }).collect();
    let kept: Vec<usize> = match keep {
        true => rest.clone(),
        false => (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect(),
    };
    let count = limits.count(&rest)?;
    let many: usize = axes.iter().map(|&axis| shape[axis]).product();
    let mut sums = vec![0.0f64; count];
    let trailing = axes.iter().all(|&axis| axis + axes.len() >= shape.len());
    if trailing && many > 0 {
        for (sum, values) in sums.iter_mut().zip(values.chunks_exact(many)) {
            *sum = values.iter().map(|&value| f64::from(value)).sum();
        }
    } else {
        let places = super::arithmetic::places(&rest, shape);
        values.iter().zip(places).for_each(|(&value, place)| sums[place] += f64::from(value));
    }
    Tensor::new(kept, sums.iter().map(|sum| (sum / many as f64) as f32).collect())
}
