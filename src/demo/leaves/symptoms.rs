//! What ails a leaf: one kind of [`Symptoms`] for each class of the demo, of random severity and placement.

use super::blade::{Blade, Place};
use super::noise::{Colour, cloud, dim, hsv, mix, rise, smooth};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// The classes of the demo, in label order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing but the marks every leaf may carry.
    Healthy,
    /// Many small orange pustules.
    Rust,
    /// Fuzzy white patches.
    PowderyMildew,
    /// A few round lesions: dark rim, pale centre, yellow halo.
    LeafSpot,
    /// Large brown areas that grow inwards from the margin or the tip.
    Blight,
    /// Light and dark green fields side by side, a crinkled margin.
    MosaicVirus,
    /// Yellow tissue between veins that stay green, or a yellow margin.
    NutrientDeficiency,
    /// Holes and bites through which the background shows.
    InsectHoles,
}

impl Condition {
    /// All conditions in label order.
    pub const ALL: [Self; 8] = [
        Self::Healthy,
        Self::Rust,
        Self::PowderyMildew,
        Self::LeafSpot,
        Self::Blight,
        Self::MosaicVirus,
        Self::NutrientDeficiency,
        Self::InsectHoles,
    ];
}

/// A roundish mark; position and radius in half blade lengths.
#[derive(Debug, Clone, Copy)]
struct Mark {
    along: f32,
    across: f32,
    radius: f32,
}

impl Mark {
    fn draw(blade: &Blade, rng: &mut ChaCha8Rng, spread: f32, radius: std::ops::Range<f32>) -> Self {
        let [along, across] = blade.somewhere(rng, spread);
        Self { along, across, radius: rng.random_range(radius) }
    }

    /// Distance from the centre in radii.
    fn distance(&self, place: &Place) -> f32 {
        let (dx, dy) = (place.along - self.along, place.across - self.across);
        (dx * dx + dy * dy).sqrt() / self.radius
    }
}

/// Everything that changes one leaf's healthy colour.
#[derive(Debug, Clone)]
pub struct Symptoms {
    condition: Condition,
    marks: Vec<Mark>,
    /// Specks of dirt and old scars, on leaves of every class.
    specks: Vec<Mark>,
    /// Main and second colour of the symptom.
    colours: [Colour; 2],
    /// 0..1.
    severity: f32,
    /// Picks between two looks of one condition.
    variant: bool,
    grain: f32,
    seed: u32,
}

impl Symptoms {
    /// Symptoms of `condition` on `blade`.
    pub fn draw(condition: Condition, blade: &Blade, rng: &mut ChaCha8Rng) -> Self {
        let severity: f32 = rng.random_range(0.4..1.0);
        let graded = |low: f32, high: f32| (low + (high - low) * severity) as usize;
        let (count, spread, radius) = match condition {
            Condition::Rust => (graded(12.0, 55.0), 0.95, 0.028..0.062),
            Condition::PowderyMildew => (graded(2.0, 8.0), 0.9, 0.2..0.5),
            Condition::LeafSpot => (graded(2.0, 10.0), 0.85, 0.085..0.19),
            Condition::Blight => (graded(1.0, 3.2), 1.0, 0.38..0.75),
            Condition::InsectHoles => (graded(2.0, 9.0), 1.05, 0.075..0.2),
            Condition::Healthy | Condition::MosaicVirus | Condition::NutrientDeficiency => (0, 0.0, 0.0..1.0),
        };
        let mut marks: Vec<Mark> =
            (0..count).map(|_| Mark::draw(blade, rng, spread, radius.clone())).collect();
        if condition == Condition::Blight {
            // Blight enters from outside: its centres lie on the margin, the first one often at the tip.
            for mark in &mut marks {
                mark.across *= rng.random_range(1.0..1.3) / mark.across.abs().max(0.25) * 0.4;
            }
            if rng.random_bool(0.5) {
                marks[0] = Mark { along: 1.0, across: 0.0, radius: marks[0].radius * 1.3 };
            }
        }
        let specks = if rng.random_bool(0.4) { rng.random_range(1..6) } else { 0 };
        let specks = (0..specks).map(|_| Mark::draw(blade, rng, 0.9, 0.02..0.05)).collect();
        let mut tone =
            |hue: std::ops::Range<f32>, saturation: std::ops::Range<f32>, value: std::ops::Range<f32>| {
                hsv(rng.random_range(hue), rng.random_range(saturation), rng.random_range(value))
            };
        let colours = match condition {
            Condition::Rust => {
                [tone(0.035..0.085, 0.7..0.95, 0.5..0.85), tone(0.13..0.17, 0.5..0.7, 0.6..0.8)]
            }
            Condition::PowderyMildew => {
                [tone(0.1..0.3, 0.0..0.08, 0.78..0.95), tone(0.1..0.3, 0.0..0.1, 0.6..0.8)]
            }
            Condition::LeafSpot => {
                [tone(0.0..0.09, 0.3..0.7, 0.08..0.28), tone(0.07..0.12, 0.15..0.45, 0.45..0.75)]
            }
            Condition::Blight => {
                [tone(0.04..0.1, 0.35..0.7, 0.2..0.45), tone(0.09..0.14, 0.4..0.65, 0.5..0.7)]
            }
            Condition::MosaicVirus => {
                [tone(0.17..0.24, 0.4..0.7, 0.62..0.85), tone(0.3..0.4, 0.5..0.8, 0.18..0.34)]
            }
            Condition::NutrientDeficiency => {
                [tone(0.135..0.18, 0.45..0.8, 0.68..0.92), tone(0.1..0.14, 0.4..0.7, 0.5..0.7)]
            }
            Condition::Healthy | Condition::InsectHoles => {
                [tone(0.06..0.1, 0.4..0.7, 0.2..0.4), tone(0.06..0.1, 0.3..0.6, 0.3..0.5)]
            }
        };
        Self {
            condition,
            marks,
            specks,
            colours,
            severity,
            variant: rng.random(),
            grain: rng.random_range(0.8..1.3),
            seed: rng.random(),
        }
    }

    /// The point's colour with these symptoms; `None` where the leaf is eaten away.
    pub fn paint(&self, blade: &Blade, place: &Place) -> Option<Colour> {
        let mut colour = blade.tissue(place);
        for speck in &self.specks {
            colour = mix(colour, [0.22, 0.17, 0.1], 0.8 * rise(1.0, 0.6, speck.distance(place)));
        }
        match self.condition {
            Condition::Healthy => Some(colour),
            Condition::Rust => Some(self.rust(place, colour)),
            Condition::PowderyMildew => Some(self.mildew(place, colour)),
            Condition::LeafSpot => Some(self.spots(place, colour)),
            Condition::Blight => Some(self.blight(place, colour)),
            Condition::MosaicVirus => Some(self.mosaic(blade, place, colour)),
            Condition::NutrientDeficiency => Some(self.deficiency(blade, place, colour)),
            Condition::InsectHoles => self.holes(place, colour),
        }
    }

    /// Noise over the blade, 0..1; features 1 / `frequency` long.
    fn noise(&self, place: &Place, frequency: f32) -> f32 {
        let frequency = frequency * self.grain;
        cloud(place.along * frequency, place.across * frequency, self.seed)
    }

    fn rust(&self, place: &Place, mut colour: Colour) -> Colour {
        let nearest = self.marks.iter().map(|mark| mark.distance(place)).fold(f32::MAX, f32::min);
        colour = mix(colour, self.colours[1], 0.55 * rise(3.2, 1.0, nearest));
        mix(colour, self.colours[0], rise(1.25, 0.75, nearest))
    }

    fn mildew(&self, place: &Place, colour: Colour) -> Colour {
        let fluff = self.noise(place, 7.0);
        let cover: f32 = self.marks.iter().map(|mark| rise(1.0, 0.15, mark.distance(place))).sum();
        let amount =
            (0.45 + 0.5 * self.severity) * cover.min(1.0) * rise(0.15, 0.6, fluff + 0.25 * cover.min(1.0));
        mix(colour, mix(self.colours[1], self.colours[0], fluff * 1.4), amount)
    }

    fn spots(&self, place: &Place, mut colour: Colour) -> Colour {
        let ragged = 0.3 * (self.noise(place, 9.0) - 0.5);
        let nearest = self.marks.iter().map(|mark| mark.distance(place)).fold(f32::MAX, f32::min) + ragged;
        colour = mix(colour, [0.78, 0.74, 0.25], 0.6 * rise(1.7, 1.0, nearest));
        colour = mix(colour, self.colours[0], rise(1.1, 0.85, nearest));
        if self.variant { mix(colour, self.colours[1], 0.9 * rise(0.6, 0.35, nearest)) } else { colour }
    }

    fn blight(&self, place: &Place, mut colour: Colour) -> Colour {
        let ragged = 0.9 * (self.noise(place, 3.5) - 0.5);
        let nearest = self.marks.iter().map(|mark| mark.distance(place)).fold(f32::MAX, f32::min) + ragged;
        colour = mix(colour, self.colours[1], 0.8 * rise(1.2, 0.95, nearest));
        let rings = if self.variant { 0.18 * (nearest * 22.0).sin() } else { 0.0 };
        let dead = dim(self.colours[0], 0.8 + 0.4 * self.noise(place, 6.0) + rings);
        mix(colour, dead, rise(1.0, 0.85, nearest))
    }

    fn mosaic(&self, blade: &Blade, place: &Place, colour: Colour) -> Colour {
        let field = smooth(place.along * 4.6 * self.grain, place.across * 5.2 * self.grain, self.seed) * 0.75
            + smooth(place.along * 10.0 * self.grain, place.across * 10.0 * self.grain, self.seed ^ 9) * 0.25;
        let strength = 0.45 + 0.5 * self.severity;
        let light = mix(colour, self.colours[0], strength * rise(0.5, 0.58, field));
        let both = mix(light, self.colours[1], 0.8 * strength * rise(0.44, 0.36, field));
        mix(both, colour, 0.5 * blade.vein(place))
    }

    fn deficiency(&self, blade: &Blade, place: &Place, colour: Colour) -> Colour {
        let uneven = 0.3 * (self.noise(place, 2.5) - 0.5);
        if self.variant {
            // Iron, magnesium: yellow between the veins.
            let amount = (0.5 + 0.5 * self.severity) * rise(0.0, 0.1, place.depth) + uneven;
            mix(colour, self.colours[0], amount * (1.0 - blade.vein(place) * 1.15))
        } else {
            // Potassium, nitrogen: yellow from the margin and the tip inwards, the rim scorched.
            let inwards = place.depth + uneven - 0.35 * rise(-0.2, 1.0, place.along);
            let front = 0.25 + 0.6 * self.severity;
            let yellow = mix(colour, self.colours[0], rise(front + 0.12, front - 0.12, inwards));
            mix(yellow, self.colours[1], 0.7 * rise(0.1, 0.02, inwards))
        }
    }

    fn holes(&self, place: &Place, colour: Colour) -> Option<Colour> {
        let ragged = 0.5 * (self.noise(place, 6.0) - 0.5);
        let nearest = self.marks.iter().map(|mark| mark.distance(place)).fold(f32::MAX, f32::min) + ragged;
        (nearest > 1.0).then(|| mix(colour, self.colours[0], 0.75 * rise(1.3, 1.05, nearest)))
    }
}
