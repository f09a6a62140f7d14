//! Copies of operands in the order in which the inner loop reads them.

use std::ops::Range;

use super::super::matmul::Matrix;
use super::Unit;
use super::lanes::BLOCK;

/// Values between panels, lest those of a power of two share their places in the cache.
const GAP: usize = 8;

/// Values from one panel of the left operand to the next.
pub(super) fn panel_size(unit: &Unit, depth: usize) -> usize {
    unit.rows * depth + GAP
}

/// The columns `inner` of a left operand whose columns are contiguous, in panels of [`Unit::rows`] rows, [`panel_size`] apart: for
/// each column the values of all rows side by side. Rows of the last panel that are not there hold anything.
pub(super) fn copy_columns(unit: &Unit, left: Matrix<'_>, inner: Range<usize>, panels: &mut [f32]) {
    // Copies of constant length are cheap, calls of `memcpy` for a few values are not.
    let size = panel_size(unit, unit.places(inner.len()));
    if let Some(pairs) = &unit.pairs {
        return pairs.columns(unit, left, inner, size, panels);
    }
    match unit.rows {
        6 => copy_columns_of::<6>(left, inner, size, panels),
        12 => copy_columns_of::<12>(left, inner, size, panels),
        rows => unreachable!("no unit has tiles of {rows} rows"),
    }
}

fn copy_columns_of<const R: usize>(left: Matrix<'_>, inner: Range<usize>, size: usize, panels: &mut [f32]) {
    for (k, column) in inner.enumerate() {
        let (whole, rest) = left.line(column, 0..left.rows()).as_chunks::<R>();
        let mut panels = panels.chunks_mut(size).map(|panel| &mut panel[k * R..][..R]);
        for (from, to) in whole.iter().zip(&mut panels) {
            to.copy_from_slice(from);
        }
        if let Some(to) = panels.next() {
            to[..rest.len()].copy_from_slice(rest);
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

/// The rows `inner` of the columns `own` of a right operand, for each place a row [`Unit::width`] long, with zeros behind the columns.
pub(super) fn copy_strip(
    unit: &Unit,
    right: Matrix<'_>,
    inner: Range<usize>,
    own: Range<usize>,
    strip: &mut [f32],
) {
    let width = unit.width;
    if right.by_rows() {
        if let Some(pairs) = &unit.pairs {
            return pairs.strip(unit, right, inner, own, strip);
        }
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
                for (place, to) in strip.chunks_exact_mut(width).enumerate() {
                    to[column] = line.map_or(0.0, |line| unit.place(line, place));
                }
            }
        }
    }
}
