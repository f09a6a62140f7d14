//! Operations that move pixels: shears, translations and rotations with the nearest input pixel, black outside.
//!
//! Output pixel (x, y) shows input `(A x' + B y' + C, D x' + E y' + F)`, `x' = x + 1/2`, `y' = y + 1/2`, rounded
//! down. As in Pillow, a map that turns or shears is computed in 16.16 fixed point, one that only shifts in floating
//! point. A shear in fixed point has `A = E = 1` exactly, so it is a whole-pixel shift for each row or column.

use super::canvas::{Canvas, Pixel};

const BLACK: Pixel = [0; 3];

/// Pillow's 16.16 fixed point.
fn fixed(value: f64) -> i64 {
    (value * 65536.0 + 0.5).floor() as i64
}

/// How far the first line of a shear moves, and each next one farther than the one before; in fixed point.
pub(super) fn shear(slope: f64) -> (i64, i64) {
    (fixed(0.5 + slope * 0.5), fixed(slope))
}

/// Row `y` shows the input moved by `slope · y`, about: input column `x + slope y'`.
pub(super) fn shear_x(canvas: &mut Canvas, slope: f64) {
    let (start, step) = shear(slope);
    let width = canvas.width;
    for (y, row) in canvas.pixels.chunks_exact_mut(width.max(1)).enumerate() {
        shift_row(row, (start + step * y as i64) >> 16);
    }
}

/// Input row `y + slope x'`.
pub(super) fn shear_y(canvas: &mut Canvas, slope: f64) {
    let (start, step) = shear(slope);
    let (width, height) = (canvas.width, canvas.height as i64);
    // Neighbouring columns mostly move by the same amount, so rows are copied in runs: (columns, shift).
    let mut runs: Vec<(std::ops::Range<usize>, i64)> = Vec::with_capacity(width.min(4096));
    for x in 0..width {
        let shift = (start + step * x as i64) >> 16;
        match runs.last_mut() {
            Some((columns, same)) if *same == shift => columns.end = x + 1,
            _ => runs.push((x..x + 1, shift)),
        }
    }
    for (y, row) in canvas.spare.chunks_exact_mut(width.max(1)).enumerate() {
        for (columns, shift) in &runs {
            let from = y as i64 + shift;
            if (0..height).contains(&from) {
                let line = &canvas.pixels[from as usize * width..][..width];
                row[columns.clone()].copy_from_slice(&line[columns.clone()]);
            } else {
                row[columns.clone()].fill(BLACK);
            }
        }
    }
    canvas.swap();
}

/// `fraction · length` in whole pixels.
pub(super) fn distance(fraction: f64, length: usize) -> i64 {
    (0.5 + fraction * length as f64).floor() as i64
}

/// Input column `x + fraction · width`.
pub(super) fn translate_x(canvas: &mut Canvas, fraction: f64) {
    let shift = distance(fraction, canvas.width);
    if shift != 0 {
        let width = canvas.width;
        canvas.pixels.chunks_exact_mut(width.max(1)).for_each(|row| shift_row(row, shift));
    }
}

/// Input row `y + fraction · height`.
pub(super) fn translate_y(canvas: &mut Canvas, fraction: f64) {
    let shift = distance(fraction, canvas.height);
    // Moving by whole rows is moving the one long row of all pixels.
    shift_row(canvas.pixels, shift.saturating_mul(canvas.width as i64));
}

/// `row[x] ← row[x + shift]`, black where that is outside.
fn shift_row(row: &mut [Pixel], shift: i64) {
    let length = row.len();
    let distance = usize::try_from(shift.unsigned_abs()).unwrap_or(length).min(length);
    if shift >= 0 {
        row.copy_within(distance.., 0);
        row[length - distance..].fill(BLACK);
    } else {
        row.copy_within(..length - distance, distance);
        row[..distance].fill(BLACK);
    }
}

/// Counter-clockwise about the centre; the canvas keeps its size.
pub(super) fn rotate(canvas: &mut Canvas, degrees: f64) {
    if let Some([column, row]) = rotation(degrees, canvas.width, canvas.height) {
        turn(canvas, column, row);
    }
}

/// Of a turn: input column and row as `[constant, per x, per y]` in 16.16 fixed point. None if nothing moves.
pub(super) fn rotation(degrees: f64, width: usize, height: usize) -> Option<[[i64; 3]; 2]> {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return None;
    }
    let rounded = |value: f64| (value * 1e15).round() / 1e15;
    let angle = -degrees.to_radians();
    let (cos, sin) = (rounded(angle.cos()), rounded(angle.sin()));
    let (centre_x, centre_y) = (width as f64 / 2.0, height as f64 / 2.0);
    let c = cos * -centre_x + sin * -centre_y + centre_x;
    let f = -sin * -centre_x + cos * -centre_y + centre_y;
    // A half turn has B = D = 0, for which Pillow leaves fixed point; the halves and wholes it then meets are exact
    // in both.
    let column = [fixed(c + cos * 0.5 + sin * 0.5), fixed(cos), fixed(sin)];
    let row = [fixed(f - sin * 0.5 + cos * 0.5), fixed(-sin), fixed(cos)];
    Some([column, row])
}

/// Input column and row as [`rotation`] has them.
fn turn(canvas: &mut Canvas, column: [i64; 3], row: [i64; 3]) {
    let (width, height) = (canvas.width, canvas.height);
    let source = &*canvas.pixels;
    for (y, line) in canvas.spare.chunks_exact_mut(width.max(1)).enumerate() {
        let start_x = column[0] + column[2] * y as i64;
        let start_y = row[0] + row[2] * y as i64;
        let in_columns = inside(start_x, column[1], (width as i64) << 16, width);
        let in_rows = inside(start_y, row[1], (height as i64) << 16, width);
        let first = in_columns.0.max(in_rows.0);
        let end = in_columns.1.min(in_rows.1).max(first);
        line[..first].fill(BLACK);
        line[end..].fill(BLACK);
        let (mut from_x, mut from_y) = (start_x + column[1] * first as i64, start_y + row[1] * first as i64);
        for pixel in &mut line[first..end] {
            *pixel = source[(from_y >> 16) as usize * width + (from_x >> 16) as usize];
            from_x += column[1];
            from_y += row[1];
        }
    }
    canvas.swap();
}

/// The first and the end of the `x` in `0..count` with `0 ≤ start + step x < limit`.
fn inside(start: i64, step: i64, limit: i64, count: usize) -> (usize, usize) {
    let ceil_div = |a: i64, b: i64| -(-a).div_euclid(b); // b > 0
    let (first, end) = match step {
        0 if (0..limit).contains(&start) => (0, count as i64),
        0 => (0, 0),
        1.. => (ceil_div(-start, step), ceil_div(limit - start, step)),
        _ => ((start - limit).div_euclid(-step) + 1, start.div_euclid(-step) + 1),
    };
    let clamp = |x: i64| x.clamp(0, count as i64) as usize;
    (clamp(first), clamp(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn inside_is_where_the_line_is_inside(
            start in -300i64..300, step in -40i64..40, limit in 1i64..200, count in 0usize..40
        ) {
            let (first, end) = inside(start, step, limit, count);
            for x in 0..count {
                let within = (0..limit).contains(&(start + step * x as i64));
                prop_assert_eq!(within, (first..end).contains(&x));
            }
        }
    }
}
