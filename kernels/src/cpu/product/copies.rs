//! Copies of operands in the order in which the inner loop reads them.

use std::ops::Range;

use super::super::matmul::Matrix;
use super::Unit;
use super::lanes::BLOCK;

/// Values behind a panel: lines are copied a whole [`BLOCK`] at a time.
const SLACK: usize = 8;

/// Values from one panel of the left operand to the next.
pub(super) fn panel_size(unit: &Unit, depth: usize) -> usize {
    unit.rows * depth + SLACK
}

/// The columns `inner` of a left operand whose columns are contiguous, in panels of [`Unit::rows`] rows, [`panel_size`] apart: for
/// each column the values of all rows side by side. Rows of the last panel that are not there hold anything.
pub(super) fn copy_columns(unit: &Unit, left: Matrix<'_>, inner: Range<usize>, panels: &mut [f32]) {
    let (rows, size) = (left.rows(), panel_size(unit, inner.len()));
    for (k, column) in inner.enumerate() {
        let line = left.line(column, 0..rows);
        for (first, panel) in (0..rows).step_by(unit.rows).zip(panels.chunks_mut(size)) {
            let (from, to) = (&line[first..], &mut panel[k * unit.rows..]);
            // More than belongs here, which the next column writes over: copies of constant length are cheap.
            match (from.first_chunk::<BLOCK>(), to.first_chunk_mut::<BLOCK>()) {
                (Some(from), Some(to)) if unit.rows <= BLOCK => *to = *from,
                _ => {
                    let count = unit.rows.min(from.len());
                    to[..count].copy_from_slice(&from[..count]);
                }
            }
        }
    }
}

/// The rows `rows`, fewer than [`Unit::rows`], of a left operand whose rows are contiguous, as one panel.
pub(super) fn copy_rows(
    unit: &Unit,
    left: Matrix<'_>,
    rows: Range<usize>,
    inner: Range<usize>,
    panel: &mut [f32],
) {
    panel.fill(0.0);
    for (place, row) in rows.enumerate() {
        for (k, &value) in left.line(row, inner.clone()).iter().enumerate() {
            panel[k * unit.rows + place] = value;
        }
    }
}

/// The rows `inner` of the columns `own` of a right operand, each [`Unit::width`] long, with zeros behind the columns.
pub(super) fn copy_strip(
    unit: &Unit,
    right: Matrix<'_>,
    inner: Range<usize>,
    own: Range<usize>,
    strip: &mut [f32],
) {
    let width = unit.width;
    if right.by_rows() {
        for (row, to) in inner.zip(strip.chunks_exact_mut(width)) {
            let from = right.line(row, own.clone());
            // Constant lengths where the strip is whole.
            if let (Ok(from), Ok(to)) = (<&[f32; 16]>::try_from(from), <&mut [f32; 16]>::try_from(&mut *to)) {
                *to = *from;
            } else if let (Ok(from), Ok(to)) =
                (<&[f32; 32]>::try_from(from), <&mut [f32; 32]>::try_from(&mut *to))
            {
                *to = *from;
            } else {
                to[..own.len()].copy_from_slice(from);
                to[own.len()..].fill(0.0);
            }
        }
        return;
    }
    for first in (0..width).step_by(BLOCK) {
        if first + BLOCK <= own.len() {
            unit.transpose(right, own.start + first, inner.clone(), &mut strip[first..], width);
        } else {
            for column in first..first + BLOCK {
                let line = (column < own.len()).then(|| right.line(own.start + column, inner.clone()));
                for (k, to) in strip.chunks_exact_mut(width).enumerate() {
                    to[column] = line.map_or(0.0, |line| line[k]);
                }
            }
        }
    }
}
