//! Smooth noise and colour arithmetic: what the drawn leaves are mixed from.

use std::f32::consts::TAU;

/// Red, green, blue as on a screen (sRGB), each nominally in 0..=1.
pub type Colour = [f32; 3];

/// `from` where `amount` is 0, `to` where it is 1; `amount` outside 0..=1 is limited.
pub fn mix(from: Colour, to: Colour, amount: f32) -> Colour {
    let amount = amount.clamp(0.0, 1.0);
    std::array::from_fn(|c| from[c] + (to[c] - from[c]) * amount)
}

/// Every channel times `factor`.
pub fn dim(colour: Colour, factor: f32) -> Colour {
    colour.map(|c| c * factor)
}

/// 0 below `low`, 1 above `high`, a smooth rise between; falls instead where `low > high`.
pub fn rise(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Colour of hue in turns (0 red, 1/3 green, 2/3 blue), saturation and value in 0..=1.
pub fn hsv(hue: f32, saturation: f32, value: f32) -> Colour {
    [5.0f32, 3.0, 1.0].map(|n| {
        let k = (n + hue.rem_euclid(1.0) * 6.0) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// A fixed pseudo-random number in 0..1 for each lattice point and `seed`.
pub fn lattice(column: i32, row: i32, seed: u32) -> f32 {
    let mut h = (column as u32)
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add((row as u32).wrapping_mul(0x85EB_CA77))
        .wrapping_add(seed.wrapping_mul(0xC2B2_AE3D));
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    ((h ^ (h >> 15)) >> 8) as f32 / (1u32 << 24) as f32
}

/// Value noise in 0..1 with features about one unit wide.
pub fn smooth(x: f32, y: f32, seed: u32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let (fx, fy) = (rise(0.0, 1.0, x - column), rise(0.0, 1.0, y - row));
    let (column, row) = (column as i32, row as i32);
    let top = lattice(column, row, seed) * (1.0 - fx) + lattice(column + 1, row, seed) * fx;
    let bottom = lattice(column, row + 1, seed) * (1.0 - fx) + lattice(column + 1, row + 1, seed) * fx;
    top * (1.0 - fy) + bottom * fy
}

/// Three octaves of [`smooth`], in 0..1 around 0.5.
pub fn cloud(x: f32, y: f32, seed: u32) -> f32 {
    (smooth(x, y, seed) * 4.0
        + smooth(x * 2.1 + 5.2, y * 2.1 + 1.3, seed ^ 0x51) * 2.0
        + smooth(x * 4.3 + 9.7, y * 4.3 + 2.8, seed ^ 0xA7))
        / 7.0
}

/// The unit vector at `turns` of a full circle.
pub fn direction(turns: f32) -> [f32; 2] {
    let (sine, cosine) = (turns * TAU).sin_cos();
    [cosine, sine]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsv_gives_the_primary_colours() {
        for (hue, expected) in
            [(0.0, [1.0, 0.0, 0.0]), (1.0 / 3.0, [0.0, 1.0, 0.0]), (2.0 / 3.0, [0.0, 0.0, 1.0])]
        {
            for (got, want) in hsv(hue, 1.0, 1.0).into_iter().zip(expected) {
                assert!((got - want).abs() < 1e-5, "hue {hue}");
            }
        }
    }

    #[test]
    fn noise_stays_in_range_and_has_no_jumps() {
        for i in -500..500 {
            let (x, y) = (i as f32 * 0.037, i as f32 * -0.021);
            let here = cloud(x, y, 7);
            assert!((0.0..1.0).contains(&here));
            assert!((cloud(x + 1e-3, y, 7) - here).abs() < 0.02);
        }
    }
}
