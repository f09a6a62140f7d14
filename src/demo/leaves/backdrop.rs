//! What lies behind the leaf: soil, sky, a hand, other plants, paper, straw.

use super::noise::{Colour, cloud, dim, direction, hsv, lattice, mix, rise, smooth};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A background, defined over the whole plane.
#[derive(Debug, Clone)]
pub struct Backdrop {
    kind: Kind,
    near: Colour,
    far: Colour,
    axis: [f32; 2],
    scale: f32,
    seed: u32,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Soil,
    Sky,
    Hand,
    Foliage,
    Paper,
    Straw,
}

impl Backdrop {
    /// A random background with random colours.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        use Kind::*;
        let kind = [Soil, Soil, Sky, Hand, Foliage, Foliage, Paper, Straw][rng.random_range(0..8)];
        let mut tone =
            |hue: std::ops::Range<f32>, saturation: std::ops::Range<f32>, value: std::ops::Range<f32>| {
                hsv(rng.random_range(hue), rng.random_range(saturation), rng.random_range(value))
            };
        let (near, far) = match kind {
            Soil => (tone(0.04..0.11, 0.2..0.6, 0.12..0.4), tone(0.04..0.12, 0.15..0.5, 0.35..0.65)),
            Sky => (tone(0.53..0.62, 0.15..0.65, 0.6..0.95), tone(0.5..0.65, 0.0..0.15, 0.8..1.0)),
            Hand => (tone(0.02..0.09, 0.25..0.55, 0.35..0.9), tone(0.0..0.07, 0.35..0.65, 0.2..0.6)),
            Foliage => (tone(0.2..0.4, 0.3..0.8, 0.1..0.35), tone(0.17..0.4, 0.3..0.75, 0.3..0.65)),
            Paper => (tone(0.0..1.0, 0.0..0.12, 0.55..0.98), tone(0.0..1.0, 0.0..0.2, 0.5..0.95)),
            Straw => (tone(0.08..0.14, 0.2..0.55, 0.3..0.55), tone(0.09..0.16, 0.15..0.5, 0.55..0.85)),
        };
        Self {
            kind,
            near,
            far,
            axis: direction(rng.random()),
            scale: rng.random_range(0.7..1.5),
            seed: rng.random(),
        }
    }

    /// Colour at the picture's point (`x`, `y`), each in -1..1.
    pub fn colour(&self, x: f32, y: f32) -> Colour {
        let (x, y) = (x * self.scale, y * self.scale);
        // Turned coordinates: stripes, fingers and gradients run along `u`.
        let u = x * self.axis[0] + y * self.axis[1];
        let v = y * self.axis[0] - x * self.axis[1];
        let seed = self.seed;
        match self.kind {
            Kind::Soil => {
                let crumbs = cloud(x * 5.0, y * 5.0, seed) * 0.7 + cloud(x * 14.0, y * 14.0, seed ^ 1) * 0.5;
                let ground = mix(self.near, self.far, (crumbs - 0.25) * 1.4);
                let stone = rise(0.78, 0.86, smooth(x * 4.0 + 7.0, y * 4.0, seed ^ 2));
                mix(ground, [0.6, 0.58, 0.55], stone * 0.8)
            }
            Kind::Sky => {
                let haze = 0.5 + v * 0.4;
                mix(
                    mix(self.near, self.far, haze),
                    [0.97, 0.97, 0.98],
                    rise(0.5, 0.75, cloud(u * 1.6, v * 2.4, seed)),
                )
            }
            Kind::Hand => {
                let wobble = 0.12 * (smooth(u * 2.0, 3.0, seed) - 0.5);
                let finger = ((v + wobble) * 1.7 + 0.3).rem_euclid(1.0);
                let gap = rise(0.0, 0.16, finger) * rise(1.0, 0.84, finger);
                let skin = dim(self.near, 0.9 + 0.2 * cloud(x * 6.0, y * 6.0, seed));
                mix(self.far, skin, 0.25 + 0.75 * gap)
            }
            Kind::Foliage => {
                let leaves = cloud(u * 2.2, v * 4.0, seed);
                let light = rise(0.68, 0.85, cloud(x * 2.0, y * 2.0, seed ^ 3));
                mix(mix(self.near, self.far, (leaves - 0.2) * 1.6), [0.85, 0.9, 0.75], light * 0.7)
            }
            Kind::Paper => {
                let shade = 0.5 + u * 0.45;
                dim(mix(self.near, self.far, shade), 0.97 + 0.06 * cloud(x * 8.0, y * 8.0, seed))
            }
            Kind::Straw => {
                let stalk = (v * 7.0 + smooth(u * 1.2, v * 0.5, seed) * 2.5).floor();
                let tone =
                    lattice(stalk as i32, 0, seed) * 0.8 + 0.4 * (cloud(u * 2.0, v * 9.0, seed ^ 4) - 0.5);
                mix(self.near, self.far, tone)
            }
        }
    }
}
