//! FlexMatch: classes that are learnt slowly get a lower threshold.
//!
//! Zhang et al., NeurIPS 2021, arXiv:2110.08263. For unlabelled image `b`, `q_b` and `Q_b` are the class probabilities of
//! its weak and its strong view; `N` unlabelled images in all, `U` of them a step.
//!
//! ```text
//! û_n  ← argmax q_n  if max q_n ≥ τ              last confident prediction of each image, none at first (alg. 1)
//! σ(c) = number of images with û_n = c           learning effect                                  (eq. 5)
//! β(c) = σ(c) / max(max σ, N - Σ σ)              with warm-up: images never confident count too   (eq. 11)
//! β(c) = σ(c) / max σ                            without                                          (eq. 6)
//! τ(c) = τ · β(c) / (2 - β(c))                   convex mapping                                   (eq. 7, 12)
//! L_u  = mean_b [max q_b ≥ τ(argmax q_b)] · H(argmax q_b, Q_b)
//! L    = L_s + w_u L_u
//! ```
//!
//! As in the established implementation: the mask of a step is taken with the β of the step before; `û` is written from
//! τ on, not from τ(c), and never taken back; β keeps its value while one entry of `û`, "none" included, covers all `N`
//! images. Unlike it, short runs do without warm-up unless told otherwise. `L_u` averages over all `U` images. Soft labels are `q_b` as it is.
//!
//! `û` lies on the host, with counts that are kept up to date, so that a step's work does not depend on `N`. This needs
//! the confidences of each step on the host: one read, of `U` small rows.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::From, Upper::Upto, range};

use super::loss::{Predictions, predictions};
use super::student::Student;
use super::{
    Algorithm, Network, Problem, PseudoLabels, SslBatch, State, StateError, StepLoss, Targets, nothing_left,
    take_vector,
};

/// Positions of images are gathered as two numbers below this, since f32 holds integers only up to 2^24.
const DIGIT: u32 = 1 << 16;

/// Passes over the unlabelled images from which thresholds warm up by default.
const WARM_UP_PASSES: f64 = 10.0;

/// Hyper-parameters; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlexMatchConfig {
    /// τ, the threshold of the class learnt best, in [0, 1]. Paper: 0.95.
    pub threshold: f32,
    /// Let images that were never predicted with confidence hold all thresholds down. Paper: true. Unset, true in runs that
    /// look at each unlabelled image 10 times or more, as published ones do. In a shorter run most images
    /// never get that far, thresholds would stay near 0 to its end, and everything would be believed.
    pub threshold_warmup: Option<bool>,
    /// w_u. Paper: 1.
    pub unlabelled_weight: f32,
    /// Train towards one class (true) or the whole distribution (false). Paper: true.
    pub hard_labels: bool,
}

impl Default for FlexMatchConfig {
    fn default() -> Self {
        Self { threshold: 0.95, threshold_warmup: None, unlabelled_weight: 1.0, hard_labels: true }
    }
}

impl FlexMatchConfig {
    /// The threshold must be a probability, the weight not negative.
    ///
    /// # Errors
    /// The first value that is neither.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.flexmatch.threshold", self.threshold.into(), From(0.0), Upto(1.0))?;
        let weight = self.unlabelled_weight.into();
        range("algorithm.flexmatch.unlabelled_weight", weight, From(0.0), Upto(f64::MAX))
    }
}

/// FlexMatch and what it remembers of every image.
#[derive(Debug)]
pub struct FlexMatch {
    config: FlexMatchConfig,
    warm_up: bool,
    memory: Memory,
    /// β: `[C]`.
    learning_status: Tensor<1>,
}

impl FlexMatch {
    /// Before the first step: no image predicted, every threshold 0.
    pub fn new(config: FlexMatchConfig, problem: &Problem) -> Self {
        let memory = Memory::new(problem);
        let learning_status = Tensor::zeros([problem.classes], &problem.device.clone().inner());
        let warm_up = config.threshold_warmup.unwrap_or_else(|| problem.passes() >= WARM_UP_PASSES);
        Self { config, warm_up, memory, learning_status }
    }

    /// Pseudo-labels from weak predictions under the present β.
    fn pseudo_labels(&self, weak: Predictions) -> PseudoLabels {
        let mapped = self.learning_status.clone() / self.learning_status.clone().neg().add_scalar(2.0);
        let (mask, threshold) = weak.reaching(mapped.mul_scalar(self.config.threshold));
        let targets = match self.config.hard_labels {
            true => Targets::Hard(weak.label),
            false => Targets::Soft(weak.probabilities),
        };
        PseudoLabels { mask, targets, threshold }
    }

    /// Writes `û` for the images of all ranks, then moves β.
    fn update(&mut self, network: &dyn Network, weak: Predictions, indices: &[u32]) {
        let Predictions { confidence, label, .. } = weak;
        let device = confidence.device();
        let digits = |digit: fn(u32) -> u32| {
            let values: Vec<f32> = indices.iter().map(|index| digit(*index) as f32).collect();
            Tensor::<1>::from_data(values.as_slice(), &device)
        };
        let rows = vec![confidence, label.float(), digits(|i| i / DIGIT), digits(|i| i % DIGIT)];
        let rows = network.ranks().gather(Tensor::stack::<2>(rows, 1)).into_data();
        let rows: Vec<f32> = rows.iter::<f32>().collect();
        for row in rows.as_chunks::<4>().0 {
            let [confidence, class, high, low] = *row;
            if confidence >= self.config.threshold {
                self.memory.write(high as usize * DIGIT as usize + low as usize, class as usize);
            }
        }
        if let Some(status) = self.memory.learning_status(self.warm_up) {
            self.learning_status = Tensor::from_data(status.as_slice(), &self.learning_status.device());
        }
    }
}

impl Algorithm for FlexMatch {
    fn name(&self) -> &'static str {
        "flexmatch"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let weak = predictions(batch.teach(network));
        let pseudo = self.pseudo_labels(weak.clone());
        self.update(network, weak, &batch.indices);
        let student = Student::pass(network, batch, &pseudo);
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        StepLoss::of(supervised, student.consistency(), self.config.unlabelled_weight, pseudo)
    }

    fn state(&self) -> State {
        State::from([
            ("learning_status".to_owned(), self.learning_status.to_data()),
            ("selected".to_owned(), self.memory.to_data()),
        ])
    }

    fn restore(&mut self, mut state: State) -> Result<(), StateError> {
        let (name, device): (_, Device) = (self.name(), self.learning_status.device());
        let classes = self.memory.counts.len();
        let status = take_vector(&mut state, name, "learning_status", classes, &device)?;
        let memory = self.memory.restored(&mut state, name)?;
        nothing_left(state, name)?;
        (self.learning_status, self.memory) = (status, memory);
        Ok(())
    }
}

/// Entry of an image that was never predicted with confidence.
const NONE: i32 = -1;

/// `û` and how often each class occurs in it.
#[derive(Debug)]
struct Memory {
    /// û of every image of the data set; [`NONE`] for those never confident, labelled ones among them.
    selected: Vec<i32>,
    /// σ.
    counts: Vec<usize>,
    /// N.
    unlabelled: usize,
}

impl Memory {
    fn new(problem: &Problem) -> Self {
        Self {
            selected: vec![NONE; problem.images],
            counts: vec![0; problem.classes],
            unlabelled: problem.unlabelled,
        }
    }

    fn write(&mut self, image: usize, class: usize) {
        // A loader that numbers images beyond the data set would be our bug; losing its entry harms nothing.
        let Some(entry) = self.selected.get_mut(image) else { return };
        if let Ok(old) = usize::try_from(*entry) {
            self.counts[old] -= 1;
        }
        *entry = class as i32;
        self.counts[class] += 1;
    }

    /// β, or none while one entry covers all unlabelled images.
    fn learning_status(&self, warm_up: bool) -> Option<Vec<f32>> {
        let confident = self.counts.iter().sum::<usize>();
        let never = self.unlabelled.saturating_sub(confident);
        let most = self.counts.iter().copied().max().unwrap_or(0);
        if most == 0 || most.max(never) >= self.unlabelled {
            return None;
        }
        let divisor = if warm_up { most.max(never) } else { most };
        Some(self.counts.iter().map(|count| *count as f32 / divisor as f32).collect())
    }

    fn to_data(&self) -> TensorData {
        // Checkpoints know one type of integers.
        let selected: Vec<i64> = self.selected.iter().map(|class| i64::from(*class)).collect();
        TensorData::new(selected, [self.selected.len()])
    }

    fn restored(&self, state: &mut State, algorithm: &'static str) -> Result<Self, StateError> {
        let name = "selected".to_owned();
        let Some(data) = state.remove(&name) else { return Err(StateError::Missing { algorithm, name }) };
        let found = data.shape().to_vec();
        if found != [self.selected.len()] {
            let expected = vec![self.selected.len()];
            return Err(StateError::Shape { algorithm, name, found, expected });
        }
        let selected: Vec<i32> = data.iter::<i32>().collect();
        let mut counts = vec![0; self.counts.len()];
        for class in selected.iter().filter(|class| **class != NONE) {
            let count = usize::try_from(*class).ok().and_then(|class| counts.get_mut(class));
            let Some(count) = count else {
                return Err(StateError::Value { algorithm, name, reason: format!("class {class}") });
            };
            *count += 1;
        }
        Ok(Self { selected, counts, unlabelled: self.unlabelled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(unlabelled: usize) -> Memory {
        Memory::new(&Problem::bare(3, unlabelled, 10, &Device::flex()))
    }

    #[test]
    fn an_image_counts_once_for_its_latest_class() {
        let mut memory = memory(4);
        assert_eq!(memory.learning_status(false), None);
        memory.write(0, 1);
        memory.write(0, 2);
        memory.write(5, 2);
        memory.write(1_000_000, 0);
        assert_eq!(memory.counts, [0, 0, 2]);
        assert_eq!(memory.learning_status(false), Some(vec![0.0, 0.0, 1.0]));
        memory.write(1, 0);
        assert_eq!(memory.learning_status(true), Some(vec![0.5, 0.0, 1.0]));
    }

    #[test]
    fn images_never_confident_hold_thresholds_down_only_with_warm_up() {
        let mut memory = memory(10);
        memory.write(3, 1);
        assert_eq!(memory.learning_status(true), Some(vec![0.0, 1.0 / 9.0, 0.0]));
        assert_eq!(memory.learning_status(false), Some(vec![0.0, 1.0, 0.0]));
    }

    #[test]
    fn thresholds_warm_up_in_long_runs_unless_told_otherwise() {
        let warm_up = |steps, threshold_warmup| {
            let problem =
                Problem { unlabelled_batch: 128, ..Problem::bare(10, 60_000, steps, &Device::flex()) };
            FlexMatch::new(FlexMatchConfig { threshold_warmup, ..Default::default() }, &problem).warm_up
        };
        assert!(!warm_up(400, None) && warm_up(1 << 20, None));
        assert!(warm_up(400, Some(true)) && !warm_up(1 << 20, Some(false)));
    }

    #[test]
    fn status_rests_while_one_class_covers_everything() {
        let mut memory = memory(2);
        memory.write(0, 1);
        memory.write(1, 1);
        assert_eq!(memory.learning_status(true), None);
    }

    #[test]
    fn a_state_of_other_classes_is_refused() {
        let memory = memory(2);
        let data = TensorData::new(vec![0i64, 7, -1, -1, -1], [5]);
        let error = memory.restored(&mut State::from([("selected".to_owned(), data)]), "flexmatch");
        assert!(matches!(error, Err(StateError::Value { .. })));
    }
}
