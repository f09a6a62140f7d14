//! From a scene to a photograph: light, colour temperature, blur, sensor noise, eight bits.

use super::noise::{Colour, direction, lattice, rise};
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// One exposure: everything between the scene's colours and the picture's bytes.
#[derive(Debug, Clone)]
pub struct Camera {
    /// Gain of each channel: exposure times colour temperature.
    gain: Colour,
    contrast: f32,
    /// Direction and strength of a gradient of light across the picture.
    light: [f32; 2],
    /// A cast shadow: across which line, how wide, how dark (1: none).
    shadow: [f32; 4],
    vignette: f32,
    /// Standard deviation in 1/32 of the picture's side.
    blur: f32,
    /// Standard deviation of the sensor noise, of 1.
    noise: f32,
    seed: u32,
}

impl Camera {
    /// A random exposure.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let exposure = rng.random_range(0.82..1.16f32);
        let warmth = rng.random_range(-0.09..0.09f32);
        let tint = rng.random_range(-0.04..0.04f32);
        let slope = rng.random_range(0.0..0.28f32);
        let shadow_axis = direction(rng.random());
        let darkness = if rng.random_bool(0.2) { rng.random_range(0.55..0.85) } else { 1.0 };
        Self {
            gain: [exposure * (1.0 + warmth), exposure * (1.0 + tint), exposure * (1.0 - warmth)],
            contrast: rng.random_range(0.8..1.2),
            light: direction(rng.random()).map(|d| d * slope),
            shadow: [shadow_axis[0], shadow_axis[1], rng.random_range(-0.6..0.6), darkness],
            vignette: rng.random_range(0.0..0.25),
            blur: rng.random_range(0.0..0.6),
            noise: rng.random_range(0.0..0.022),
            seed: rng.random(),
        }
    }

    /// A `size`×`size` picture of `scene`, which gives the colour of every point of (-1..1)².
    pub fn photograph(&self, size: u32, scene: impl Fn(f32, f32) -> Colour) -> RgbImage {
        let sharp = self.expose(size, scene);
        let soft = blurred(sharp, size as usize, self.blur * size as f32 / 32.0);
        RgbImage::from_fn(size, size, |x, y| {
            let value = soft[(y * size + x) as usize];
            Rgb(std::array::from_fn(|c| {
                let grain = self.grain(x as i32, (y * 3 + c as u32) as i32);
                ((value[c] + grain) * 255.0).round().clamp(0.0, 255.0) as u8
            }))
        })
    }

    /// The mean of several points for each pixel, in the light of this exposure.
    fn expose(&self, size: u32, scene: impl Fn(f32, f32) -> Colour) -> Vec<Colour> {
        // Small pictures need more points for each pixel, large ones are smooth already.
        let points = (72 / size.max(1)).clamp(1, 4);
        let step = 2.0 / (size * points) as f32;
        let mut picture = Vec::with_capacity((size * size) as usize);
        for row in 0..size {
            for column in 0..size {
                let mut sum = [0.0f32; 3];
                for i in 0..points * points {
                    let x = (column * points + i % points) as f32 * step + step / 2.0 - 1.0;
                    let y = (row * points + i / points) as f32 * step + step / 2.0 - 1.0;
                    let colour = scene(x, y);
                    let light = self.light(x, y);
                    for c in 0..3 {
                        sum[c] += (((colour[c] * light * self.gain[c]) - 0.5) * self.contrast + 0.5)
                            .clamp(0.0, 1.0);
                    }
                }
                picture.push(sum.map(|s| s / (points * points) as f32));
            }
        }
        picture
    }

    fn light(&self, x: f32, y: f32) -> f32 {
        let gradient = 1.0 + self.light[0] * x + self.light[1] * y;
        let [ax, ay, offset, darkness] = self.shadow;
        let shade = 1.0 - (1.0 - darkness) * rise(0.0, 0.12, x * ax + y * ay - offset);
        gradient * shade * (1.0 - self.vignette * (x * x + y * y) / 2.0)
    }

    /// Roughly normal noise: the sum of three uniform numbers.
    fn grain(&self, x: i32, y: i32) -> f32 {
        let sum: f32 = (0..3).map(|i| lattice(x, y, self.seed.wrapping_add(i)) - 0.5).sum();
        sum * 2.0 * self.noise
    }
}

/// Gaussian blur of a square picture by `sigma` pixels; the border pixels are repeated outwards.
fn blurred(picture: Vec<Colour>, size: usize, sigma: f32) -> Vec<Colour> {
    if sigma < 0.2 {
        return picture;
    }
    let radius = (sigma * 2.5).ceil() as isize;
    let weights: Vec<f32> =
        (-radius..=radius).map(|d| (-(d * d) as f32 / (2.0 * sigma * sigma)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let pass = |source: &[Colour], column_step: isize, row_step: isize| -> Vec<Colour> {
        let last = size as isize - 1;
        (0..(size * size) as isize)
            .map(|i| {
                let (x, y) = (i % size as isize, i / size as isize);
                let mut sum = [0.0f32; 3];
                for (weight, d) in weights.iter().zip(-radius..=radius) {
                    let (x, y) = ((x + d * column_step).clamp(0, last), (y + d * row_step).clamp(0, last));
                    let colour = source[(y * size as isize + x) as usize];
                    for c in 0..3 {
                        sum[c] += weight * colour[c];
                    }
                }
                sum.map(|s| s / total)
            })
            .collect()
    };
    pass(&pass(&picture, 1, 0), 0, 1)
}
