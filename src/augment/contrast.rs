//! SimCLR's views: Chen et al., arXiv:2002.05709, appendix A.
//!
//! ```text
//! random resized crop, mirror, colour jitter of strength s (p 0.8), grey (p 0.2), Gaussian blur (p 0.5)
//! ```
//!
//! The crop alone would let a network tell two views of a picture by their colours, which is why colours are jittered. As
//! published for small pictures (appendix B.9), those below 64 pixels are not blurred and are jittered half as much. Where the colour
//! tells the class (`views.colour = false`), hue and saturation stay, and no view is grey.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, Pixel};
use super::views::ViewConfig;
use super::{CropBox, blend, tone};
use crate::bounds::Lower::{Above, From};
use crate::bounds::Upper::Upto;
use crate::bounds::{Invalid, range};

/// Pictures of fewer pixels a side are small.
const SMALL: usize = 64;
/// Crops drawn before one with the picture's own proportions is taken.
const TRIES: usize = 10;
/// Standard deviation of the blur in pixels.
const SIGMA: [f64; 2] = [0.1, 2.0];

/// How SimCLR's views are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastConfig {
    /// Least share of the picture's area that a view shows, above 0 and up to 1. Unset: 0.08 as in SimCLR, below 64 pixels 0.2
    /// as in SCAN, for of a small picture a twelfth shows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_scale: Option<f64>,
    /// Least and greatest width of a crop relative to its height. SimCLR: 3/4 and 4/3.
    pub aspect: [f64; 2],
    /// s, from 0 to 1: brightness, contrast and saturation change by up to 0.8 s, the hue by up to 0.2 s of a turn. Unset: 1, below
    /// 64 pixels 0.5, as in SimCLR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Share of views whose colours are jittered. SimCLR: 0.8.
    pub jitter: f64,
    /// Share of views without colour. SimCLR: 0.2.
    pub grey: f64,
    /// Share of blurred views. Unset: 0.5, below 64 pixels 0, as in SimCLR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur: Option<f64>,
}

impl Default for ContrastConfig {
    fn default() -> Self {
        Self {
            min_scale: None,
            aspect: [3.0 / 4.0, 4.0 / 3.0],
            strength: None,
            jitter: 0.8,
            grey: 0.2,
            blur: None,
        }
    }
}

impl ContrastConfig {
    /// Refuses shares and proportions that are none.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), Invalid> {
        range("views.contrast.min_scale", self.min_scale.unwrap_or(1.0), Above(0.0), Upto(1.0))?;
        for bound in self.aspect {
            range("views.contrast.aspect", bound, Above(0.0), Upto(100.0))?;
        }
        if self.aspect[0] > self.aspect[1] {
            let reason = format!("is {:?}; the first must not be greater than the second", self.aspect);
            return Err(Invalid { key: "views.contrast.aspect", reason });
        }
        for (key, share) in [
            ("views.contrast.strength", self.strength.unwrap_or(0.0)),
            ("views.contrast.jitter", self.jitter),
            ("views.contrast.grey", self.grey),
            ("views.contrast.blur", self.blur.unwrap_or(0.0)),
        ] {
            range(key, share, From(0.0), Upto(1.0))?;
        }
        Ok(())
    }

    fn strength(&self, size: usize) -> f64 {
        self.strength.unwrap_or(if size < SMALL { 0.5 } else { 1.0 })
    }

    fn blur(&self, size: usize) -> f64 {
        self.blur.unwrap_or(if size < SMALL { 0.0 } else { 0.5 })
    }

    /// A part of random area and proportions; of a picture too small for any, all of it.
    fn draw_crop(&self, size: usize, rng: &mut ChaCha8Rng) -> CropBox {
        let least = self.min_scale.unwrap_or(if size < SMALL { 0.2 } else { 0.08 });
        let [narrow, wide] = self.aspect.map(f64::ln);
        for _ in 0..TRIES {
            let area = (size * size) as f64 * uniform(rng, least, 1.0);
            let aspect = uniform(rng, narrow, wide).exp();
            let (width, height) =
                ((area * aspect).sqrt().round() as usize, (area / aspect).sqrt().round() as usize);
            if (1..=size).contains(&width) && (1..=size).contains(&height) {
                let (top, left) = (rng.random_range(0..=size - height), rng.random_range(0..=size - width));
                let [top, left, height, width] = [top, left, height, width].map(|n| n as u32);
                return CropBox { top, left, height, width };
            }
        }
        CropBox { top: 0, left: 0, height: size as u32, width: size as u32 }
    }
}

fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// One view. `source` and `out`: `size * size * 3` bytes.
pub(super) fn contrast_view(
    source: &[u8],
    size: usize,
    config: &ViewConfig,
    rng: &mut ChaCha8Rng,
    out: &mut [u8],
) {
    assert_eq!((source.len(), out.len()), (size * size * 3, size * size * 3), "bytes of a picture");
    let contrast = &config.contrast;
    if size == 0 {
        return;
    }
    let crop = contrast.draw_crop(size, rng);
    let flip = config.flip && rng.random::<bool>();
    enlarge(source.as_chunks().0, size, crop, flip, out.as_chunks_mut().0);
    Canvas::edit(size, size, out, |canvas| {
        if rng.random::<f64>() < contrast.jitter {
            jitter(canvas, contrast.strength(size), config.colour, rng);
        }
        if rng.random::<f64>() < contrast.grey && config.colour {
            blend::colour(canvas, 0.0);
        }
        if rng.random::<f64>() < contrast.blur(size) {
            // Published: a kernel of a tenth of the picture's side.
            blur(canvas, uniform(rng, SIGMA[0], SIGMA[1]), size / 20);
        }
    });
}

/// Brightness, contrast, saturation and hue, in random order.
fn jitter(canvas: &mut Canvas, strength: f64, colour: bool, rng: &mut ChaCha8Rng) {
    let mut order = [0, 1, 2, 3];
    for last in (1..order.len()).rev() {
        order.swap(last, rng.random_range(0..=last as u32) as usize);
    }
    let span = 0.8 * strength;
    for which in order {
        let factor = uniform(rng, 1.0 - span, 1.0 + span);
        match which {
            0 => tone::brightness(canvas, factor),
            1 => tone::contrast(canvas, factor),
            2 if colour => blend::colour(canvas, factor),
            3 if colour => turn_hue(canvas, (factor - 1.0) / 4.0),
            _ => {}
        }
    }
}

/// Where a place of the result lies: its left (upper) neighbour, the right (lower) one, and their weights.
#[derive(Clone, Copy)]
struct Tap {
    near: usize,
    far: usize,
    weights: [i32; 2],
}

/// Fractional bits of a weight, as in Pillow.
const FRACTION: u32 = 22;

/// From `have` places to `want`, which are as many or more, by triangles as wide as a pixel.
fn taps(start: u32, have: u32, want: usize) -> Vec<Tap> {
    let scale = f64::from(have) / want as f64;
    let last = have as usize - 1;
    (0..want)
        .map(|place| {
            let centre = (place as f64 + 0.5) * scale;
            let first = (centre - 0.5) as usize; // `as` limits to 0..
            let near = (1.0 - (first as f64 - centre + 0.5).abs()).max(0.0);
            let far = (1.0 - (first as f64 - centre + 1.5).abs()).max(0.0);
            // At the far edge there is one pixel only.
            let far = if first < last { far } else { 0.0 };
            let fixed = |weight: f64| (weight / (near + far) * f64::from(1 << FRACTION)).round() as i32;
            let start = start as usize;
            Tap {
                near: start + first,
                far: start + (first + 1).min(last),
                weights: [fixed(near), fixed(far)],
            }
        })
        .collect()
}

/// `crop`, enlarged to the whole picture and mirrored if told; Pillow's bilinear, columns first.
fn enlarge(source: &[Pixel], size: usize, crop: CropBox, flip: bool, out: &mut [Pixel]) {
    let mix = |a: u8, b: u8, [p, q]: [i32; 2]| {
        (i32::from(a) * p + i32::from(b) * q + (1 << (FRACTION - 1))) >> FRACTION
    };
    let mut columns = taps(crop.left, crop.width, size);
    if flip {
        columns.reverse();
    }
    let rows = &source[crop.top as usize * size..][..crop.height as usize * size];
    let mut wide = vec![[0; 3]; crop.height as usize * size];
    for (row, wide) in rows.chunks_exact(size).zip(wide.chunks_exact_mut(size)) {
        for (pixel, tap) in wide.iter_mut().zip(&columns) {
            let (near, far) = (row[tap.near], row[tap.far]);
            *pixel = std::array::from_fn(|c| mix(near[c], far[c], tap.weights) as u8);
        }
    }
    for (out, tap) in out.chunks_exact_mut(size).zip(taps(0, crop.height, size)) {
        let [near, far] = [tap.near, tap.far].map(|row| wide[row * size..][..size].as_flattened());
        for (out, (&near, &far)) in out.as_flattened_mut().iter_mut().zip(near.iter().zip(far)) {
            *out = mix(near, far, tap.weights) as u8;
        }
    }
}

/// Added to a number from 0 to 255, leaves the nearest whole number in the lowest bits.
const WHOLE: f32 = 8_388_608.0;

/// Turns the hue by so many turns, from -1/2 to 1/2; value and saturation (of HSV) stay.
fn turn_hue(canvas: &mut Canvas, turns: f64) {
    let sixths = 6.0 * turns as f32;
    let (blocks, rest) = canvas.pixels.as_chunks_mut::<16>();
    blocks.iter_mut().for_each(|block| turn_block(block, sixths));
    let mut last = [[0; 3]; 16];
    last[..rest.len()].copy_from_slice(rest);
    turn_block(&mut last, sixths);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Sixteen pixels side by side, without a branch, so that they become vector instructions.
#[inline(always)]
fn turn_block(block: &mut [Pixel; 16], sixths: f32) {
    let mut planes = [[0f32; 16]; 3];
    for (i, pixel) in block.iter().enumerate() {
        for c in 0..3 {
            planes[c][i] = f32::from(pixel[c]);
        }
    }
    let [red, green, blue] = planes;
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let smaller = |a: f32, b: f32| if a < b { a } else { b };
    for i in 0..16 {
        let (r, g, b) = (red[i], green[i], blue[i]);
        let value = greater(greater(r, g), b);
        let chroma = value - smaller(smaller(r, g), b);
        // Of a grey pixel all differences are 0.
        let per_chroma = 1.0 / greater(chroma, 1.0);
        let of_red = (g - b) * per_chroma;
        let of_green = (b - r) * per_chroma + 2.0;
        let of_blue = (r - g) * per_chroma + 4.0;
        let hue = if r == value {
            of_red
        } else if g == value {
            of_green
        } else {
            of_blue
        } + sixths;
        for (c, offset) in [5.0, 3.0, 1.0].into_iter().enumerate() {
            // Smith's hexcone: a channel falls by the chroma where the hue is far from it.
            let place = hue + offset;
            let place = if place < 0.0 { place + 6.0 } else { place };
            let place = if place >= 6.0 { place - 6.0 } else { place };
            let place = if place >= 6.0 { place - 6.0 } else { place };
            let fall = smaller(greater(smaller(place, 4.0 - place), 0.0), 1.0);
            planes[c][i] = value - chroma * fall;
        }
    }
    for (i, pixel) in block.iter_mut().enumerate() {
        *pixel = std::array::from_fn(|c| (planes[c][i] + WHOLE).to_bits() as u8);
    }
}

/// Gaussian blur with weights in 256ths, no farther than `reach` pixels; beyond the edge the edge goes on.
fn blur(canvas: &mut Canvas, sigma: f64, reach: usize) {
    let reach = reach.min((3.0 * sigma).ceil() as usize);
    let exact: Vec<f64> = (0..=reach).map(|x| (-0.5 * (x as f64 / sigma).powi(2)).exp()).collect();
    let sum = exact[0] + 2.0 * exact[1..].iter().sum::<f64>();
    let mut weights: Vec<u16> = exact.iter().map(|weight| (256.0 * weight / sum).round() as u16).collect();
    // The middle takes what rounding left over, so that they add up to 256 and sums fit 16 bits.
    weights[0] = 256 - 2 * weights[1..].iter().sum::<u16>();
    let (width, height) = (canvas.width, canvas.height);
    let stride = 3 * width;
    let mut sums = vec![0u16; stride];
    let mut wide = vec![[0u8; 3]; width + 2 * reach];
    for (row, out) in canvas.pixels.chunks_exact(width).zip(canvas.spare.chunks_exact_mut(width)) {
        wide[..reach].fill(row[0]);
        wide[reach..][..width].copy_from_slice(row);
        wide[reach + width..].fill(row[width - 1]);
        let levels = wide.as_flattened();
        let pairs = (0..=reach).map(|x| [reach - x, reach + x].map(|place| &levels[3 * place..][..stride]));
        weigh(pairs, &weights, &mut sums, out.as_flattened_mut());
    }
    let rows = |row: usize| canvas.spare[row * width..][..width].as_flattened();
    for (y, out) in canvas.pixels.chunks_exact_mut(width).enumerate() {
        let pairs = (0..=reach).map(|x| [y.saturating_sub(x), (y + x).min(height - 1)].map(rows));
        weigh(pairs, &weights, &mut sums, out.as_flattened_mut());
    }
}

/// `Σ w_x (left_x + right_x)`; of the first pair, which is the middle itself, only one counts.
fn weigh<'a>(pairs: impl Iterator<Item = [&'a [u8]; 2]>, weights: &[u16], sums: &mut [u16], out: &mut [u8]) {
    sums.fill(128);
    for (x, ([left, right], &weight)) in pairs.zip(weights).enumerate() {
        if x == 0 {
            sums.iter_mut().zip(left).for_each(|(sum, level)| *sum += u16::from(*level) * weight);
        } else {
            for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
                *sum += (u16::from(*left) + u16::from(*right)) * weight;
            }
        }
    }
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (*sum >> 8) as u8);
}

#[cfg(test)]
mod tests;
