//! Position tables for another number of patches.

use burn::tensor::TensorData;

use crate::weights::WeightsError;

/// The position table `table` for the grid of `target`, both `[1, prefix + n², dim]`: bicubic (a = −0.75, half-pixel
/// centres, no antialiasing). Rows before the grid, of the class token and others, are copied; where `target` has more of
/// them than `table` they are zero, which is what a token without a position has.
pub fn resize_positions(table: &TensorData, target: &TensorData) -> Result<TensorData, WeightsError> {
    let misshapen = || WeightsError::Shape {
        name: "pos_embed".to_owned(),
        found: table.shape().to_vec(),
        expected: target.shape().to_vec(),
    };
    let (Some(from), Some(to)) = (Grid::matching(table, target), Grid::of(target)) else {
        return Err(misshapen());
    };
    if from.dim != to.dim {
        return Err(misshapen());
    }
    let values = table.as_slice::<f32>().map_err(|_| misshapen())?;
    let (prefix, patches) = values.split_at(from.prefix * from.dim);
    let dim = to.dim;
    let mut out = Vec::with_capacity(target.num_elements());
    out.extend_from_slice(&prefix[..from.prefix.min(to.prefix) * dim]);
    out.resize(to.prefix * dim, 0.0);
    if from.side == to.side {
        out.extend_from_slice(patches);
        return Ok(TensorData::new(out, target.shape().clone()));
    }
    let taps: Vec<[(usize, f32); 4]> = (0..to.side).map(|i| cubic_taps(i, to.side, from.side)).collect();
    for row in &taps {
        for column in &taps {
            for d in 0..dim {
                let along = |y: usize| -> f32 {
                    column.iter().map(|(x, w)| w * patches[(y * from.side + x) * dim + d]).sum()
                };
                out.push(row.iter().map(|(y, w)| w * along(*y)).sum());
            }
        }
    }
    Ok(TensorData::new(out, target.shape().clone()))
}

/// Rows of a position table: those of special tokens, then a square grid of patches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub prefix: usize,
    pub side: usize,
    pub dim: usize,
}

impl Grid {
    /// With a class token, with none, with a distillation token too, or with four registers too; the first that leaves a
    /// square.
    const PREFIXES: [usize; 4] = [1, 0, 2, 5];

    pub fn of(table: &TensorData) -> Option<Self> {
        Self::PREFIXES.iter().find_map(|prefix| Self::behind(*prefix, table))
    }

    /// Preferably with as many special rows as `target` has.
    pub fn matching(table: &TensorData, target: &TensorData) -> Option<Self> {
        Self::of(target).and_then(|target| Self::behind(target.prefix, table)).or_else(|| Self::of(table))
    }

    fn behind(prefix: usize, table: &TensorData) -> Option<Self> {
        let [1, tokens, dim] = *table.shape().as_slice() else {
            return None;
        };
        let side = tokens.checked_sub(prefix)?.isqrt();
        (side > 0 && side * side + prefix == tokens).then_some(Self { prefix, side, dim })
    }
}

/// The four input positions under output position `i` and their weights (Keys, 1981), edges repeated.
fn cubic_taps(i: usize, to: usize, from: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let centre = (i as f32 + 0.5) * from as f32 / to as f32 - 0.5;
    let first = centre.floor();
    let t = centre - first;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    std::array::from_fn(|k| {
        let position = (first as i64 + k as i64 - 1).clamp(0, from as i64 - 1);
        (position as usize, weights[k])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_with_and_without_special_tokens_become_each_other() {
        let table = |tokens: usize| {
            let values = (0..tokens * 2).map(|i| i as f32).collect::<Vec<_>>();
            TensorData::new(values, [1, tokens, 2])
        };
        let resized = |from, to| {
            let data = resize_positions(&table(from), &table(to)).expect("tables");
            data.iter::<f32>().collect::<Vec<f32>>()
        };
        assert_eq!(resized(10, 9)[..2], [2.0, 3.0], "the class token's row goes");
        assert_eq!(resized(9, 10)[..4], [0.0, 0.0, 0.0, 1.0], "a class token without a position");
        assert_eq!(resized(11, 10)[..4], [0.0, 1.0, 4.0, 5.0], "the distillation token's row goes");
        assert_eq!(resized(17, 10).len(), 20);
    }
}
