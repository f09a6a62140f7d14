//! Operations that mix the picture with a poorer picture made from it: its grey, its blur.

use super::canvas::{Canvas, Pixel};

/// Added to a number in 0..2²², leaves its nearest whole number in the lowest bits.
const WHOLE: f32 = 8_388_608.0;

/// `poor + value (level − poor)` in single precision, limited to 0..=255, truncated.
#[inline(always)]
pub(super) fn blend(poor: u8, level: u8, value: f32) -> u8 {
    let (poor, level) = (i32::from(poor), i32::from(level));
    let mixed = (poor as f32 + value * (level - poor) as f32).clamp(0.0, 255.0);
    // `mixed as u8`, three times as fast: Rust's saturating conversion makes slow vector code.
    let nearest = mixed + WHOLE;
    let rounded_up = nearest - WHOLE > mixed;
    (nearest.to_bits() as i32 - i32::from(rounded_up)) as u8
}

/// ITU-R 601 luma in 16-bit fixed point.
#[inline(always)]
pub(super) fn grey([red, green, blue]: Pixel) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 32768) >> 16) as u8
}

/// [`blend`] of whole rows, into the poorer picture. A loop of its own, so that it becomes vector instructions.
fn blend_rows(poor: &mut [u8], picture: &[u8], value: f32) {
    for (poor, &level) in poor.iter_mut().zip(picture) {
        *poor = blend(*poor, level, value);
    }
}

/// 0 is the grey picture, 1 the picture as it is.
pub(super) fn colour(canvas: &mut Canvas, value: f64) {
    for (poor, pixel) in canvas.spare.iter_mut().zip(canvas.pixels.iter()) {
        *poor = [grey(*pixel); 3];
    }
    blend_rows(canvas.spare.as_flattened_mut(), canvas.pixels.as_flattened(), value as f32);
    canvas.swap();
}

/// 0 is the picture smoothed by (1 1 1 / 1 5 1 / 1 1 1) / 13, 1 the picture as it is; border pixels stay.
pub(super) fn sharpness(canvas: &mut Canvas, value: f64) {
    let (width, height) = (canvas.width, canvas.height);
    if width < 3 || height < 3 {
        return;
    }
    let source = canvas.pixels.as_flattened();
    let target = canvas.spare.as_flattened_mut();
    let stride = width * 3;
    let mut columns = vec![0u16; stride]; // sums of three levels, one above the other
    target[..stride].copy_from_slice(&source[..stride]);
    target[(height - 1) * stride..].copy_from_slice(&source[(height - 1) * stride..]);
    for y in 1..height - 1 {
        let [above, here, below] = [y - 1, y, y + 1].map(|row| &source[row * stride..][..stride]);
        for (sum, ((&a, &h), &b)) in columns.iter_mut().zip(above.iter().zip(here).zip(below)) {
            *sum = u16::from(a) + u16::from(h) + u16::from(b);
        }
        let row = &mut target[y * stride..][..stride];
        row[..3].copy_from_slice(&here[..3]);
        row[stride - 3..].copy_from_slice(&here[stride - 3..]);
        let inner = stride - 6;
        let (left, middle, right) = (&columns[..inner], &columns[3..][..inner], &columns[6..][..inner]);
        let (here, row) = (&here[3..][..inner], &mut row[3..][..inner]);
        for i in 0..inner {
            let sum = left[i] + middle[i] + right[i] + 4 * u16::from(here[i]);
            // No sum over 13 is a tie, so adding 6 rounds to the nearest.
            row[i] = ((sum + 6) / 13) as u8;
        }
        blend_rows(row, here, value as f32);
    }
    canvas.swap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blend_truncates_and_limits() {
        for value in [0.0, 0.05, 0.3, 0.5, 0.77, 0.95, 1.0, 1.4, 1.8, -0.7, f32::MAX] {
            for (poor, level) in (0..=255u8).flat_map(|poor| (0..=255u8).map(move |level| (poor, level))) {
                let mixed = f32::from(poor) + value * (f32::from(level) - f32::from(poor));
                assert_eq!(blend(poor, level, value), mixed as u8, "{poor} {level} {value}");
            }
        }
    }
}
