//! ReMixMatch: MixMatch with aligned guesses, strong views that learn from the weak one, and a pretext task.
//!
//! Berthelot et al., ICLR 2020, arXiv:1911.09785. For unlabelled image `b`, `q_b` are the class probabilities of its weak
//! view; it has two strong views. `B` labelled and `U` unlabelled images a step, `s` its number, `S` steps in all.
//!
//! ```text
//! p_b  ∝ align(q_b)^(1/T)               towards the labelled images' frequencies, see [`super::alignment`]   (sec. 3.1)
//! X    = labelled, first and second strong, weak views; Y = their one-hot labels, p, p, p
//! X'   = λ' X + (1-λ') X[permuted],  Y' likewise                                               (as MixMatch)
//! L_s  = mean over the first B rows of H(Y', f(X'))
//! L_u  = mean over the other 3U rows of H(Y', f(X'))                                               (sec. 3.3)
//! L_u1 = mean_b H(p_b, f(first strong view of b))          not blended                             (sec. 3.3)
//! L_r  = mean_b H(r_b, g(first strong view of b turned by r_b · 90°))                              (sec. 3.3)
//! L    = L_s + w_r L_r + min(1, s / (r S)) · (w_u L_u + w_1 L_u1)
//! ```
//!
//! `g` is a linear layer of four outputs on the network's features, trained beside the classifier and not part of the model
//! ([`Algorithm::auxiliary_outputs`]). As in the established implementation: a decaying mean in place of the last 128
//! batches; one λ a step, not one a row; two strong views (the paper: eight); no ramp on `L_r`. That implementation keeps
//! all but one chunk of rows from moving the running statistics of batch normalisation, and fixes the decay of the mean at
//! 0.999; here blended rows and the first strong views share one pass, and the decay is a setting. Partners are drawn
//! among the rows of all ranks.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::Above, Lower::From, Upper::Below, Upper::Upto, range};
use crate::random::{Purpose, stream};

use super::alignment::Alignment;
use super::loss::{cross_entropy, sharpen};
use super::mixup::{DrawMix, Mix};
use super::{
    Algorithm, Network, Place, Problem, PseudoLabels, SslBatch, State, StateError, StepLoss, Targets, Views,
    ramp,
};

/// Quarter turns that the pretext task tells apart.
const TURNS: usize = 4;

/// Hyper-parameters; defaults are those of the established image recipes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReMixMatchConfig {
    /// T, above 0; below 1 it sharpens guessed labels. Paper: 0.5.
    pub temperature: f32,
    /// α of the blend's Beta distribution, above 0. Paper: 0.75.
    pub alpha: f32,
    /// λ of the alignment, per step, in [0, 1). Unset, it follows the number of steps ([`Problem::decay`]): the
    /// established 0.999 from 50,000 steps on, less in shorter runs.
    pub decay: Option<f32>,
    /// w_u, once the ramp is over. Paper: 1.5.
    pub unlabelled_weight: f32,
    /// w_1, once the ramp is over. Paper: 0.5.
    pub strong_weight: f32,
    /// w_r. Paper: 0.5.
    pub rotation_weight: f32,
    /// r, the share of the run over which w_u and w_1 grow, in [0, 1]; 0 for none. Established: 1/64.
    pub unsup_warm_up: f32,
}

impl Default for ReMixMatchConfig {
    fn default() -> Self {
        Self {
            temperature: 0.5,
            alpha: 0.75,
            decay: None,
            unlabelled_weight: 1.5,
            strong_weight: 0.5,
            rotation_weight: 0.5,
            unsup_warm_up: 1.0 / 64.0,
        }
    }
}

impl ReMixMatchConfig {
    /// A temperature and an α above 0, λ below 1, weights not negative, the ramp a share of the run.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.remixmatch.temperature", self.temperature.into(), Above(0.0), Upto(f64::MAX))?;
        range("algorithm.remixmatch.alpha", self.alpha.into(), Above(0.0), Upto(f64::MAX))?;
        if let Some(decay) = self.decay {
            range("algorithm.remixmatch.decay", decay.into(), From(0.0), Below(1.0))?;
        }
        for (key, weight) in [
            ("algorithm.remixmatch.unlabelled_weight", self.unlabelled_weight),
            ("algorithm.remixmatch.strong_weight", self.strong_weight),
            ("algorithm.remixmatch.rotation_weight", self.rotation_weight),
        ] {
            range(key, weight.into(), From(0.0), Upto(f64::MAX))?;
        }
        range("algorithm.remixmatch.unsup_warm_up", self.unsup_warm_up.into(), From(0.0), Upto(1.0))
    }
}

/// How the images of the pretext task are turned: step, images `[U, 3, H, W]` and their place among those of all ranks.
pub type Turn = Box<dyn Fn(u64, Tensor<4>, Place) -> Turned + Send>;

/// Images of the pretext task.
#[derive(Debug, Clone)]
pub struct Turned {
    /// The images, turned, in any order: `[U, 3, H, W]`.
    pub images: Tensor<4>,
    /// How many quarters each was turned by.
    pub quarters: Vec<i32>,
    /// Numbers of their rows, each below the number of images of all ranks.
    pub rows: Vec<u64>,
}

/// ReMixMatch and the mean it aligns by; blends and turns follow from seed and step.
pub struct ReMixMatch {
    config: ReMixMatchConfig,
    alignment: Alignment,
    draw: DrawMix,
    turn: Turn,
}

impl ReMixMatch {
    /// With blends and turns drawn by the seed of the run.
    pub fn new(config: ReMixMatchConfig, problem: &Problem) -> Self {
        let (draw, turn) = (Mix::by_seed(problem.seed, config.alpha), turn_by_seed(problem.seed));
        Self::with_draws(config, problem, draw, turn)
    }

    /// With blends and turns of one's own.
    pub fn with_draws(config: ReMixMatchConfig, problem: &Problem, draw: DrawMix, turn: Turn) -> Self {
        let decay = config.decay.unwrap_or_else(|| problem.decay());
        let alignment = Alignment::new(decay, problem.class_frequencies());
        Self { config, alignment, draw, turn }
    }

    /// The guessed labels: `[U, C]`, off the graph. Moves the mean that is aligned by.
    fn guess(&mut self, network: &dyn Network, batch: &SslBatch) -> Tensor<2> {
        let probabilities = softmax(batch.teach(network), 1);
        self.alignment.observe(network.ranks().gather(probabilities.clone()));
        sharpen(self.alignment.align(probabilities), self.config.temperature)
    }

    /// The loss of telling how far each first strong view was turned: `[1]`.
    fn rotation(&self, network: &dyn Network, batch: &SslBatch) -> Tensor<1> {
        let place = batch.places.unlabelled;
        let Turned { images, quarters, rows } = (self.turn)(batch.step, batch.strong[0].clone(), place);
        // The second weak view is not used; its numbers are free for noise of their own.
        let first = batch.weak_rows(1).start - place.start as u64;
        let rows: Vec<u64> = rows.into_iter().map(|row| first + row).collect();
        let logits = network.auxiliary(images, &rows);
        let turns = Tensor::<1, Int>::from_data(quarters.as_slice(), &logits.device());
        cross_entropy(logits, Targets::Hard(turns))
    }
}

impl Algorithm for ReMixMatch {
    fn name(&self) -> &'static str {
        "remixmatch"
    }

    fn views(&self) -> Views {
        Views { weak: 1, strong: 2 }
    }

    fn auxiliary_outputs(&self) -> usize {
        TURNS
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let guessed = self.guess(network, batch);
        let [unlabelled, classes] = guessed.dims();
        let labelled = batch.labelled.dims()[0];
        let known = batch.labels.clone().inner().one_hot::<2>(classes).float();

        let (first, second) = (batch.strong[0].clone(), batch.strong[1].clone());
        let (places, ranks) = (batch.places, network.ranks());
        let mix = (self.draw)(batch.step, places.labelled.of + 3 * places.unlabelled.of);
        let views = [first.clone(), second, batch.weak[0].clone()].map(|view| (view, places.unlabelled));
        let images = [(batch.labelled.clone(), places.labelled)].into_iter().chain(views);
        let images = mix.apply(images.collect(), ranks);
        let guesses = || (guessed.clone(), places.unlabelled);
        let targets = mix.apply(vec![(known, places.labelled), guesses(), guesses(), guesses()], ranks);
        let targets = Tensor::from_inner(targets);

        let numbers = [batch.labelled_rows(), batch.strong_rows(0), batch.strong_rows(1), batch.weak_rows(0)];
        let rows: Vec<u64> = numbers.into_iter().flatten().chain(batch.strong_rows(0)).collect();
        let logits = network.student(Tensor::cat(vec![images, first], 0), &rows);
        let part = |all: &Tensor<2>, start, length| all.clone().narrow(0, start, length);
        let blended = labelled + 3 * unlabelled;
        let supervised =
            batch.objective.mean(part(&logits, 0, labelled), Targets::Soft(part(&targets, 0, labelled)));
        let target = Targets::Soft(part(&targets, labelled, 3 * unlabelled));
        let unsupervised = cross_entropy(part(&logits, labelled, 3 * unlabelled), target);
        let target = Targets::Soft(Tensor::from_inner(guessed.clone()));
        let strong = cross_entropy(part(&logits, blended, unlabelled), target);
        let rotation = self.rotation(network, batch);

        let ramp = ramp::linear(batch, self.config.unsup_warm_up);
        let pseudo = PseudoLabels::of_all(guessed);
        let mut loss = StepLoss::of(supervised, unsupervised, self.config.unlabelled_weight * ramp, pseudo)
            .with_scalar("unsup_warmup", ramp);
        loss.scalars.extend([("strong", strong.clone().inner()), ("rotation", rotation.clone().inner())]);
        loss.total = loss.total
            + strong.mul_scalar(self.config.strong_weight * ramp)
            + rotation.mul_scalar(self.config.rotation_weight);
        loss
    }

    fn state(&self) -> State {
        self.alignment.state()
    }

    fn restore(&mut self, state: State) -> Result<(), StateError> {
        self.alignment.restore(state, self.name())
    }
}

/// Turns each image by a number of quarters drawn from the stream of seed and step; images come back sorted by it, and are
/// numbered in that order over all ranks.
fn turn_by_seed(seed: u64) -> Turn {
    Box::new(move |step, images, place| {
        let mut rng = stream(seed, Purpose::Turn, [step, 0, 0]);
        let turns: Vec<usize> = (0..place.of).map(|_| rng.random_range(0..TURNS)).collect();
        let here = place.start..place.start + images.dims()[0];
        let (mut turned, mut sorted, mut rows, mut row) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for quarters in 0..TURNS {
            let mut own = Vec::new();
            for (image, _) in turns.iter().enumerate().filter(|(_, turn)| **turn == quarters) {
                if here.contains(&image) {
                    own.push((image - here.start) as i32);
                    rows.push(row);
                }
                row += 1;
            }
            if !own.is_empty() {
                sorted.extend(own.iter().map(|_| quarters as i32));
                let own = Tensor::<1, Int>::from_data(own.as_slice(), &images.device());
                turned.push(turned_by(images.clone().select(0, own), quarters));
            }
        }
        Turned { images: Tensor::cat(turned, 0), quarters: sorted, rows }
    })
}

/// Square images turned counter-clockwise.
fn turned_by(images: Tensor<4>, quarters: usize) -> Tensor<4> {
    match quarters {
        0 => images,
        1 => images.swap_dims(2, 3).flip([2]),
        2 => images.flip([2, 3]),
        _ => images.swap_dims(2, 3).flip([3]),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn picture(values: [[f32; 2]; 2]) -> Tensor<4> {
        Tensor::<2>::from_data(values, &Device::flex()).reshape([1, 1, 2, 2])
    }

    fn values(images: Tensor<4>) -> Vec<f32> {
        images.into_data().iter::<f32>().collect()
    }

    #[test]
    fn quarters_turn_counter_clockwise_and_add_up() {
        let upright = picture([[1.0, 2.0], [3.0, 4.0]]);
        assert_eq!(values(turned_by(upright.clone(), 1)), [2.0, 4.0, 1.0, 3.0]);
        for quarters in 0..TURNS {
            let mut step_by_step = upright.clone();
            (0..quarters).for_each(|_| step_by_step = turned_by(step_by_step.clone(), 1));
            assert_eq!(values(step_by_step), values(turned_by(upright.clone(), quarters)));
        }
    }

    #[test]
    fn every_image_is_turned_as_it_says() {
        // Image `i` holds 4i .. 4i + 3: its smallest value tells which one it is.
        let images = Tensor::<1, Int>::arange(0..80, &Device::flex()).float().reshape([20, 1, 2, 2]);
        let Turned { images: turned, quarters: turns, rows } =
            turn_by_seed(3)(5, images.clone(), Place::whole(20));
        let (turned, mut seen) = (values(turned), Vec::new());
        for (image, turn) in turned.chunks(4).zip(&turns) {
            let which = image.iter().copied().fold(f32::INFINITY, f32::min) as usize / 4;
            let expected = turned_by(images.clone().narrow(0, which, 1), *turn as usize);
            assert_eq!(image, values(expected));
            seen.push(which);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..20));
        assert!(rows.into_iter().eq(0..20));
        assert_eq!(turn_by_seed(3)(5, images, Place::whole(20)).quarters, turns);
    }

    #[test]
    fn ranks_turn_and_number_images_as_one_does() {
        let images = Tensor::<1, Int>::arange(0..80, &Device::flex()).float().reshape([20, 1, 2, 2]);
        let whole = turn_by_seed(3)(5, images.clone(), Place::whole(20));
        let all = values(whole.images);
        let mut seen = Vec::new();
        for part in [0..9, 9..11, 11..20] {
            let own = images.clone().narrow(0, part.start, part.len());
            let turned = turn_by_seed(3)(5, own, Place::of(&part, 20));
            for (place, row) in turned.rows.iter().map(|row| *row as usize).enumerate() {
                let image = values(turned.images.clone().narrow(0, place, 1));
                assert_eq!(image, all[4 * row..4 * row + 4]);
                assert_eq!(turned.quarters[place], whole.quarters[row]);
                seen.push(row);
            }
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..20));
    }
}
