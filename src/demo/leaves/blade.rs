//! One leaf blade: outline, veins, colour, and how it lies in the picture.

use super::noise::{Colour, cloud, dim, direction, hsv, mix, rise, smooth};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Where a point of the picture falls on a blade.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Along the midrib: -1 at the base, 1 at the tip.
    pub along: f32,
    /// Away from the midrib, signed, in the same unit (half the blade's length).
    pub across: f32,
    /// 1 on the midrib, 0 on the margin, negative outside.
    pub depth: f32,
}

impl Place {
    /// Whether the point is on the blade.
    pub fn inside(&self) -> bool {
        self.depth > 0.0
    }
}

/// Shape, position and healthy colours of one leaf.
#[derive(Debug, Clone)]
pub struct Blade {
    centre: [f32; 2],
    axis: [f32; 2],
    half_length: f32,
    bend: f32,
    /// Half the width right and left of the midrib, at equal steps from base to tip.
    outline: [Vec<f32>; 2],
    veins: f32,
    vein_slope: f32,
    vein_contrast: f32,
    colour: Colour,
    vein_colour: Colour,
    mottle: f32,
    fold: f32,
    gloss: f32,
    seed: u32,
}

/// Steps of the tabulated outline: several for each tooth of the finest margin.
const OUTLINE_STEPS: usize = 128;

/// What the outline follows from.
struct Margin {
    /// Half the greatest width, in half blade lengths.
    half_width: f32,
    /// Exponents at the base and at the tip; the larger, the more pointed.
    taper: [f32; 2],
    /// Teeth or lobes: how many, how deep (0..1), where they start (0..1).
    teeth: [f32; 3],
    /// How irregular the margin is; viruses make it 0.05 and more.
    crinkle: f32,
    seed: u32,
}

impl Margin {
    /// t^a (1-t)^b, scaled to 1 at its peak, with teeth; `t` is 0 at the base and 1 at the tip.
    fn half_width_at(&self, t: f32, left: bool) -> f32 {
        if t <= 0.0 || t >= 1.0 {
            return 0.0;
        }
        let [base, tip] = self.taper;
        let peak = base / (base + tip);
        let outline = (base * (t / peak).ln() + tip * ((1.0 - t) / (1.0 - peak)).ln()).exp();
        let [count, depth, start] = self.teeth;
        let teeth = 1.0 - depth * (0.5 + 0.5 * ((t * count + start) * std::f32::consts::TAU).cos());
        let side = if left { 11.0 } else { 47.0 };
        let crinkle = 1.0 + self.crinkle * (smooth(t * 9.0, side, self.seed) - 0.5) * 4.0;
        self.half_width * outline * teeth * crinkle
    }
}

impl Blade {
    /// A blade of random species whose centre is at `centre`, about `half_length` from centre to tip (picture: -1..1),
    /// its margin at least as irregular as `crinkle` (0..~0.2).
    pub fn draw(rng: &mut ChaCha8Rng, centre: [f32; 2], half_length: f32, crinkle: f32) -> Self {
        let teeth = match rng.random_range(0..6) {
            0 => [rng.random_range(3.0..5.5), rng.random_range(0.12..0.28), rng.random()],
            1 | 2 => [rng.random_range(9.0..16.0), rng.random_range(0.03..0.08), rng.random()],
            _ => [0.0, 0.0, 0.0],
        };
        let colour =
            hsv(rng.random_range(0.23..0.37), rng.random_range(0.42..0.75), rng.random_range(0.36..0.62));
        let pale = mix(colour, [0.82, 0.88, 0.62], rng.random_range(0.25..0.7));
        let margin = Margin {
            half_width: rng.random_range(0.45..0.85),
            taper: [rng.random_range(0.35..0.95), rng.random_range(0.45..1.25)],
            teeth,
            crinkle: crinkle.max(rng.random_range(0.0..0.06)),
            seed: rng.random(),
        };
        let outline = [false, true].map(|left| {
            let at = |step: usize| margin.half_width_at(step as f32 / OUTLINE_STEPS as f32, left);
            (0..=OUTLINE_STEPS).map(at).collect()
        });
        Self {
            centre,
            axis: direction(rng.random()),
            half_length,
            bend: rng.random_range(-0.28..0.28),
            outline,
            veins: rng.random_range(3.5..8.0),
            vein_slope: rng.random_range(0.35..1.1),
            vein_contrast: rng.random_range(0.15..0.85),
            colour,
            vein_colour: if rng.random_bool(0.08) { [0.55, 0.25, 0.25] } else { pale },
            mottle: rng.random_range(0.02..0.16),
            fold: rng.random_range(-0.28..0.28),
            gloss: if rng.random_bool(0.35) { rng.random_range(0.1..0.45) } else { 0.0 },
            seed: rng.random(),
        }
    }

    /// Where the picture's point (`x`, `y`), each in -1..1, falls on this blade.
    pub fn locate(&self, x: f32, y: f32) -> Place {
        let (dx, dy) = ((x - self.centre[0]) / self.half_length, (y - self.centre[1]) / self.half_length);
        let along = dx * self.axis[0] + dy * self.axis[1];
        let across = dy * self.axis[0] - dx * self.axis[1] - self.bend * (along * along - 0.4);
        let reach = self.reach(along, across < 0.0);
        Place { along, across, depth: if reach > 0.0 { 1.0 - across.abs() / reach } else { -1.0 } }
    }

    /// Half the blade's width at `along`, on the left or the right of the midrib; 0 beyond its ends.
    fn reach(&self, along: f32, left: bool) -> f32 {
        let position = (along + 1.0) / 2.0 * OUTLINE_STEPS as f32;
        if !(0.0..OUTLINE_STEPS as f32).contains(&position) {
            return 0.0;
        }
        let outline = &self.outline[usize::from(left)];
        let (before, part) = (position as usize, position.fract());
        outline[before] * (1.0 - part) + outline[before + 1] * part
    }

    /// A random point of the blade, as (`along`, `across`); `spread` 1 reaches the margin, 0 stays on the midrib.
    pub fn somewhere(&self, rng: &mut ChaCha8Rng, spread: f32) -> [f32; 2] {
        let along = rng.random_range(-0.85..0.85f32);
        let side = rng.random_range(-spread..=spread);
        [along, side * self.reach(along, side < 0.0)]
    }

    /// How much the point lies on a vein, 0..1: the midrib and the side veins that leave it.
    pub fn vein(&self, place: &Place) -> f32 {
        let t = (place.along + 1.0) / 2.0;
        let midrib = rise(0.055, 0.015, place.across.abs() / (1.25 - t));
        let offset = if place.across < 0.0 { 0.5 } else { 0.0 };
        let phase = (place.along - place.across.abs() * self.vein_slope) * self.veins / 2.0 + offset;
        let distance = (phase - phase.round()).abs() / self.veins * 2.0;
        let side = rise(0.045, 0.01, distance) * 0.75 * rise(0.0, 0.2, place.depth);
        midrib.max(side)
    }

    /// The healthy colour of the point, veins included, before any light falls on it.
    pub fn tissue(&self, place: &Place) -> Colour {
        let cloudy = cloud(place.along * 3.0, place.across * 3.0, self.seed) - 0.5;
        let flesh = dim(self.colour, 1.0 + cloudy * self.mottle * 4.0);
        mix(flesh, self.vein_colour, self.vein(place) * self.vein_contrast)
    }

    /// Light on the blade: one half turned away from the sun, and the sheen of a waxy surface.
    pub fn lit(&self, place: &Place, colour: Colour) -> Colour {
        let turned = 1.0 + self.fold * if place.across < 0.0 { -1.0 } else { 1.0 };
        let margin = 0.86 + 0.14 * rise(0.0, 0.25, place.depth);
        let streak = rise(0.16, 0.0, (place.across.abs() - 0.2).abs());
        let sheen = self.gloss * streak * smooth(place.along * 2.5 + 3.0, place.across, self.seed ^ 0x33);
        mix(dim(colour, turned * margin), [0.95, 0.97, 0.98], sheen)
    }

    /// The stalk's colour where the point lies on it.
    pub fn stalk(&self, place: &Place) -> Option<Colour> {
        let on = (-1.5..-0.9).contains(&place.along) && place.across.abs() < 0.035;
        on.then(|| dim(mix(self.colour, self.vein_colour, 0.5), 0.85))
    }
}
