//! Distribution alignment: predictions are scaled so that, on average, classes come as often as they should.
//!
//! Berthelot et al., ICLR 2020, arXiv:1911.09785, section 3.1. `p` are the class probabilities of one unlabelled image,
//! `p̂` a running mean of such probabilities, `t` the distribution they should have, `λ` the decay.
//!
//! ```text
//! p̂ ← mean_b p_b                        the first time
//! p̂ ← λ p̂ + (1-λ) mean_b p_b            from then on
//! align(p)_c ∝ p_c (t_c + ε) / (p̂_c + ε)      ε = 1e-6, scaled to sum 1
//! ```
//!
//! `t` is fixed, or a running mean of the labelled predictions: the algorithm decides by whether it ever calls
//! [`Alignment::follow`]. The papers average over the last 128 batches; a decaying mean is the established
//! implementation's choice, as is ε. Means are taken by the caller, over the rows of all ranks.

use burn::tensor::Tensor;

use super::{State, StateError, nothing_left, take_vector};

/// ε: no class is scaled by 0 or by infinity.
const EPSILON: f32 = 1e-6;
/// Name of `p̂` in a state. Absent before the first step.
const MODEL: &str = "model_mean";
/// Name of `t` in a state.
const TARGET: &str = "target_mean";

/// The two distributions that alignment compares; all off the graph.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// λ.
    decay: f32,
    /// p̂: `[C]`; none before the first step.
    model: Option<Tensor<1>>,
    /// t: `[C]`.
    target: Tensor<1>,
}

impl Alignment {
    /// Towards `target` `[C]`, summing to 1; `decay` in [0, 1).
    pub fn new(decay: f32, target: Tensor<1>) -> Self {
        Self { decay, model: None, target }
    }

    /// Towards classes that are all equally frequent.
    pub fn uniform(decay: f32, classes: usize, device: &burn::tensor::Device) -> Self {
        Self::new(decay, Tensor::full([classes], 1.0 / classes as f32, device))
    }

    /// Moves `p̂` by the unlabelled probabilities `[N, C]` of a step, those of all ranks.
    pub fn observe(&mut self, unlabelled: Tensor<2>) {
        let mean = unlabelled.mean_dim(0).squeeze_dim(0);
        self.model = Some(match self.model.take() {
            Some(old) => average(old, mean, self.decay),
            None => mean,
        });
    }

    /// Moves `t` by the labelled probabilities `[N, C]` of a step, those of all ranks.
    pub fn follow(&mut self, labelled: Tensor<2>) {
        let mean = labelled.mean_dim(0).squeeze_dim(0);
        self.target = average(self.target.clone(), mean, self.decay);
    }

    /// Aligned probabilities, `[N, C]` → `[N, C]`, each row summing to 1. Unchanged before the first
    /// [`Alignment::observe`].
    pub fn align(&self, probabilities: Tensor<2>) -> Tensor<2> {
        let Some(model) = &self.model else { return probabilities };
        let factor = self.target.clone().add_scalar(EPSILON) / model.clone().add_scalar(EPSILON);
        let scaled = probabilities * factor.unsqueeze_dim(0);
        scaled.clone() / scaled.sum_dim(1)
    }

    /// What [`Alignment::align`] comes to on logits: `ln((t + ε) / (p̂ + ε))`, `[C]`. `None` before the first
    /// [`Alignment::observe`].
    pub fn log_factors(&self) -> Option<Tensor<1>> {
        let model = self.model.clone()?;
        Some((self.target.clone().add_scalar(EPSILON) / model.add_scalar(EPSILON)).log())
    }

    /// Adds both distributions to a state.
    pub fn save(&self, state: &mut State) {
        if let Some(model) = &self.model {
            state.insert(MODEL.to_owned(), model.to_data());
        }
        state.insert(TARGET.to_owned(), self.target.to_data());
    }

    /// The whole state of an algorithm that keeps nothing else.
    pub fn state(&self) -> State {
        let mut state = State::new();
        self.save(&mut state);
        state
    }

    /// Takes back what [`Alignment::state`] gave.
    ///
    /// # Errors
    /// As [`Alignment::restored`], and if anything else is there; it is then as it was.
    pub fn restore(&mut self, mut state: State, algorithm: &'static str) -> Result<(), StateError> {
        let restored = self.restored(&mut state, algorithm)?;
        nothing_left(state, algorithm)?;
        *self = restored;
        Ok(())
    }

    /// The alignment that [`Alignment::save`] added to a state; takes it out.
    ///
    /// # Errors
    /// If the target is absent, or either is for another number of classes.
    pub fn restored(&self, state: &mut State, algorithm: &'static str) -> Result<Self, StateError> {
        let ([classes], device) = (self.target.dims(), self.target.device());
        let model = match state.contains_key(MODEL) {
            true => Some(take_vector(state, algorithm, MODEL, classes, &device)?),
            false => None,
        };
        let target = take_vector(state, algorithm, TARGET, classes, &device)?;
        Ok(Self { decay: self.decay, model, target })
    }
}

fn average(old: Tensor<1>, new: Tensor<1>, decay: f32) -> Tensor<1> {
    old.mul_scalar(decay) + new.mul_scalar(1.0 - decay)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    #[test]
    fn rare_classes_are_raised_and_rows_sum_to_one() {
        let device = Device::flex();
        let mut alignment = Alignment::uniform(0.9, 2, &device);
        let rows = Tensor::<2>::from_data([[0.9f32, 0.1], [0.7, 0.3]], &device);
        alignment.observe(rows.clone());
        let aligned = values(alignment.align(rows));
        assert!((aligned[0] + aligned[1] - 1.0).abs() < 1e-6);
        // (0.7 / 0.8, 0.3 / 0.2), scaled.
        assert!((aligned[2] - 0.875 / 2.375).abs() < 1e-5, "{aligned:?}");
    }

    #[test]
    fn a_class_that_is_never_predicted_gives_numbers() {
        let device = Device::flex();
        let mut alignment = Alignment::uniform(0.0, 3, &device);
        let rows = Tensor::<2>::from_data([[1.0f32, 0.0, 0.0]], &device);
        alignment.observe(rows.clone());
        assert_eq!(values(alignment.align(rows)), [1.0, 0.0, 0.0]);
    }
}
