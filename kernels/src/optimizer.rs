//! Optimizer updates of many parameters that pass over their memory once.

use burn::Tensor;
use burn::backend::Flex;

use crate::cpu::{self, serves};

/// The numbers of one AdamW update (Loshchilov & Hutter, arXiv:1711.05101, algorithm 2).
///
/// ```text
/// m ← β₁ m + (1 − β₁) g;   v ← β₂ v + (1 − β₂) g²
/// w ← (1 − η λ) w − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// η, the learning rate of this update.
    pub lr: f32,
    /// β₁, decay of the first moment.
    pub beta1: f32,
    /// β₂, decay of the second moment.
    pub beta2: f32,
    /// ε, added to the root of the second moment.
    pub eps: f32,
    /// λ, decoupled weight decay: the weight shrinks by `lr · weight_decay`.
    pub weight_decay: f32,
    /// t, number of this update, from 1.
    pub step: u32,
}

/// The numbers of one update of SGD with Nesterov momentum, as in PyTorch; the buffer `b` starts at 0.
///
/// ```text
/// g ← g + λ w;   b ← μ b + g;   w ← w − η (g + μ b)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// η, the learning rate of this update.
    pub lr: f32,
    /// μ, decay of the buffer.
    pub momentum: f32,
    /// λ, weight decay, added to the gradient.
    pub weight_decay: f32,
}

/// How a parameter is updated, and what that remembers of it: `[n]` each.
#[derive(Debug, Clone)]
pub enum UpdateRule<T = Tensor<1>> {
    /// First and second moment, m and v.
    AdamW(AdamW, [T; 2]),
    /// The buffer b.
    Sgd(Sgd, T),
}

/// One parameter of those that are updated together. All its tensors are flat, `[n]`, and lie outside the graph.
#[derive(Debug, Clone)]
pub struct Parameter<T = Tensor<1>> {
    /// The weight; replaced.
    pub weight: T,
    /// Its gradient; only read.
    pub gradient: T,
    /// How it is updated; what that remembers is replaced.
    pub rule: UpdateRule<T>,
    /// The running average of the weight, if there is one; moved towards the new weight.
    pub average: Option<T>,
}

/// One update of all `parameters`, which come back in the same order.
///
/// Gradients are multiplied by `clip`, `[1]`, first (see [`clip_factor`](crate::clip_factor)). Averages then move by
/// `average ← decay · average + (1 − decay) · weight`. On the CPU weight, state and average are overwritten where the
/// caller has given up the only handle to them, else copied; the pool wakes up once for all parameters. On GPUs AdamW is one
/// kernel for each parameter.
///
/// # Panics
/// If the tensors of a parameter differ in length.
pub fn update_parameters(parameters: Vec<Parameter>, clip: Option<&Tensor<1>>, decay: f64) -> Vec<Parameter> {
    parameters.iter().for_each(Parameter::check);
    if !clip.is_none_or(plain) {
        return parameters.into_iter().map(|parameter| parameter.updated_there(clip, decay)).collect();
    }
    let factor = clip.map_or(1.0, |clip| cpu::values(&primitive(clip.clone()))[0]);
    let numbered = parameters.into_iter().enumerate();
    let (served, others): (Vec<_>, Vec<_>) = numbered.partition(|(_, parameter)| parameter.all(plain));
    let (places, served): (Vec<_>, Vec<_>) = served.into_iter().unzip();
    let served = served.into_iter().map(|parameter| parameter.map(primitive, primitive)).collect();
    let served = cpu::optimizer::update(served, factor, decay).into_iter();
    let served =
        served.map(|parameter| parameter.map(Tensor::from_primitive::<Flex>, Tensor::from_primitive::<Flex>));
    let others = others.into_iter().map(|(place, parameter)| (place, parameter.updated_there(clip, decay)));
    let mut all: Vec<_> = places.into_iter().zip(served).chain(others).collect();
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, parameter)| parameter).collect()
}

/// [`update_parameters`] in burn's operations, one parameter after the other.
pub fn update_parameters_reference(
    parameters: Vec<Parameter>,
    clip: Option<&Tensor<1>>,
    decay: f64,
) -> Vec<Parameter> {
    parameters.into_iter().map(|parameter| parameter.updated(clip, decay)).collect()
}

impl Parameter {
    fn check(&self) {
        let length = self.weight.dims();
        assert!(
            self.all(|tensor| tensor.dims() == length),
            "update: tensors of a parameter differ in length"
        );
    }

    /// The update where the tensors lie: AdamW of `f32` on a GPU in one kernel, all else in burn's operations.
    fn updated_there(self, clip: Option<&Tensor<1>>, decay: f64) -> Self {
        #[cfg(feature = "cube")]
        if let UpdateRule::AdamW(rule, _) = self.rule
            && self.all(crate::choice::on_gpu_plain)
            && clip.is_none_or(crate::choice::on_gpu_plain)
        {
            return crate::gpu::adamw::update(self, rule, clip, decay);
        }
        self.updated(clip, decay)
    }

    fn updated(self, clip: Option<&Tensor<1>>, decay: f64) -> Self {
        let gradient = match clip {
            Some(clip) => self.gradient.clone() * clip.clone(),
            None => self.gradient.clone(),
        };
        let (weight, rule) = match self.rule {
            UpdateRule::AdamW(rule, moments) => {
                let (weight, moments) = rule.updated(self.weight, gradient, moments);
                (weight, UpdateRule::AdamW(rule, moments))
            }
            UpdateRule::Sgd(rule, buffer) => {
                let (weight, buffer) = rule.updated(self.weight, gradient, buffer);
                (weight, UpdateRule::Sgd(rule, buffer))
            }
        };
        let moved = |average: Tensor<1>| average.mul_scalar(decay) + weight.clone().mul_scalar(1.0 - decay);
        Self { average: self.average.map(moved), weight, gradient: self.gradient, rule }
    }
}

impl AdamW {
    fn updated(
        &self,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        [first, second]: [Tensor<1>; 2],
    ) -> (Tensor<1>, [Tensor<1>; 2]) {
        let first = first.mul_scalar(self.beta1) + gradient.clone().mul_scalar(1.0 - self.beta1);
        let second = second.mul_scalar(self.beta2) + gradient.square().mul_scalar(1.0 - self.beta2);
        let correct1 = 1.0 - f64::from(self.beta1).powi(self.step as i32);
        let correct2 = 1.0 - f64::from(self.beta2).powi(self.step as i32);
        let denominator = second.clone().div_scalar(correct2 as f32).sqrt().add_scalar(self.eps);
        let step = first.clone().div_scalar(correct1 as f32) / denominator;
        (weight.mul_scalar(1.0 - self.lr * self.weight_decay) - step.mul_scalar(self.lr), [first, second])
    }
}

impl Sgd {
    fn updated(&self, weight: Tensor<1>, gradient: Tensor<1>, buffer: Tensor<1>) -> (Tensor<1>, Tensor<1>) {
        let gradient = gradient + weight.clone().mul_scalar(self.weight_decay);
        let buffer = buffer.mul_scalar(self.momentum) + gradient.clone();
        (weight - (gradient + buffer.clone().mul_scalar(self.momentum)).mul_scalar(self.lr), buffer)
    }
}

impl<T> Parameter<T> {
    /// The same over another kind of tensor: `read` is for the gradient, `written` for all others, the average last.
    pub(crate) fn map<U>(self, read: impl Fn(T) -> U, written: impl Fn(T) -> U) -> Parameter<U> {
        Parameter {
            gradient: read(self.gradient),
            weight: written(self.weight),
            rule: match self.rule {
                UpdateRule::AdamW(rule, moments) => UpdateRule::AdamW(rule, moments.map(&written)),
                UpdateRule::Sgd(rule, buffer) => UpdateRule::Sgd(rule, written(buffer)),
            },
            average: self.average.map(written),
        }
    }

    fn all(&self, holds: impl Fn(&T) -> bool) -> bool {
        let state = match &self.rule {
            UpdateRule::AdamW(_, moments) => moments.iter().all(&holds),
            UpdateRule::Sgd(_, buffer) => holds(buffer),
        };
        state && holds(&self.weight) && holds(&self.gradient) && self.average.iter().all(holds)
    }
}

/// Whether the tensor is one of the CPU backend, off the graph.
fn plain(tensor: &Tensor<1>) -> bool {
    serves(tensor) && !tensor.device().is_autodiff()
}

fn primitive(tensor: Tensor<1>) -> burn_flex::FlexTensor {
    tensor.try_into_primitive::<Flex>().expect("a plain tensor of the CPU backend, as just checked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;
    use proptest::prelude::*;

    type Update = fn(Vec<Parameter>, Option<&Tensor<1>>, f64) -> Vec<Parameter>;

    const ADAMW: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step: 1 };
    const SGD: Sgd = Sgd { lr: 0.05, momentum: 0.9, weight_decay: 0.01 };

    /// What a run of several updates is of.
    #[derive(Debug, Clone)]
    struct Case {
        lengths: Vec<usize>,
        /// For each parameter whether it is AdamW's, and whether it is averaged.
        kinds: Vec<(bool, bool)>,
        clip: Option<f32>,
    }

    impl Case {
        fn parameters(&self) -> Vec<Parameter> {
            let device = Device::flex();
            let new = |(index, &length): (usize, &usize)| {
                let zeros = || Tensor::zeros([length], &device);
                let (adamw, averaged) = self.kinds[index % self.kinds.len()];
                let weight: Tensor<1> = random([length], 1 + index as u64, &device);
                Parameter {
                    average: averaged.then(|| weight.clone()),
                    weight,
                    gradient: zeros(),
                    rule: match adamw {
                        true => UpdateRule::AdamW(ADAMW, [zeros(), zeros()]),
                        false => UpdateRule::Sgd(SGD, zeros()),
                    },
                }
            };
            self.lengths.iter().enumerate().map(new).collect()
        }

        /// All tensors after four updates.
        fn run(&self, update: Update) -> Vec<Vec<f32>> {
            let device = Device::flex();
            let clip = self.clip.map(|clip| Tensor::from_floats([clip], &device));
            let mut parameters = self.parameters();
            for step in 1..=4 {
                for (index, parameter) in parameters.iter_mut().enumerate() {
                    let seed = 1000 * u64::from(step) + index as u64;
                    parameter.gradient = random([self.lengths[index]], seed, &device);
                    if let UpdateRule::AdamW(rule, _) = &mut parameter.rule {
                        rule.step = step;
                    }
                }
                parameters = update(parameters, clip.as_ref(), 0.9);
            }
            parameters.into_iter().flat_map(all_of).collect()
        }
    }

    fn all_of(parameter: Parameter) -> Vec<Vec<f32>> {
        let state = match parameter.rule {
            UpdateRule::AdamW(_, moments) => moments.to_vec(),
            UpdateRule::Sgd(_, buffer) => vec![buffer],
        };
        [parameter.weight].into_iter().chain(state).chain(parameter.average).map(read).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn fused_updates_equal_their_reference_over_several_steps(
            lengths in prop::collection::vec(prop_oneof![Just(1), 1usize..70, 1usize..40_000], 1..8),
            kinds in prop::collection::vec(any::<(bool, bool)>(), 1..4),
            clip in prop::option::of(0.1f32..1.0),
        ) {
            let case = Case { lengths, kinds, clip };
            let (found, expected) = (case.run(update_parameters), case.run(update_parameters_reference));
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert_close("update", found, expected, 1e-6);
            }
        }
    }

    /// A network whose parameters are smaller and larger than a piece.
    fn several(clip: Option<f32>) -> Case {
        let lengths = vec![1, 16_383, 40_000, 3, 16_384, 1, 1, 100_001, 65];
        Case { lengths, kinds: vec![(true, true), (false, true), (true, false), (false, false)], clip }
    }

    #[test]
    fn sgd_and_averages_equal_burns_operations_to_the_bit() {
        let sgd = Case { kinds: vec![(false, true), (false, false)], ..several(Some(0.3)) };
        assert_eq!(sgd.run(update_parameters), sgd.run(update_parameters_reference));
    }

    #[test]
    fn parameters_together_become_what_they_become_alone() {
        let alone: Update = |parameters, clip, decay| {
            parameters.into_iter().flat_map(|one| update_parameters(vec![one], clip, decay)).collect()
        };
        for clip in [None, Some(0.7)] {
            assert_eq!(several(clip).run(update_parameters), several(clip).run(alone));
        }
    }

    #[test]
    fn averages_and_a_factor_of_one_leave_weights_as_they_would_be() {
        let weights = |averaged, clip| {
            let case = Case { kinds: vec![(true, averaged), (false, averaged)], ..several(clip) };
            let mut tensors = case.run(update_parameters).into_iter();
            let mut weights = Vec::new();
            for index in 0..case.lengths.len() {
                weights.extend(tensors.next());
                let others = if index % 2 == 0 { 2 } else { 1 } + usize::from(averaged);
                tensors.by_ref().take(others).for_each(drop);
            }
            weights
        };
        assert_eq!(weights(true, Some(1.0)), weights(false, None));
    }

    #[test]
    fn shared_tensors_and_views_are_left_alone() {
        let device = Device::flex();
        let whole: Tensor<1> = random([60], 1, &device);
        let view = || whole.clone().narrow(0, 7, 45);
        let state = Tensor::zeros([45], &device);
        let gradient = random::<2>([9, 5], 2, &device).swap_dims(0, 1).reshape([45]);
        for rule in
            [UpdateRule::AdamW(ADAMW, [state.clone(), state.clone()]), UpdateRule::Sgd(SGD, state.clone())]
        {
            let parameter = || Parameter {
                weight: view(),
                gradient: gradient.clone(),
                rule: rule.clone(),
                average: Some(view()),
            };
            let before = read(whole.clone());
            let found = update_parameters(vec![parameter()], None, 0.5).remove(0);
            assert_eq!(read(whole.clone()), before);
            assert_eq!(read(state.clone()), vec![0.0; 45]);
            let expected = update_parameters_reference(vec![parameter()], None, 0.5).remove(0);
            for (found, expected) in all_of(found).iter().zip(&all_of(expected)) {
                assert_close("views", found, expected, 1e-6);
            }
        }
    }

    #[test]
    fn what_nobody_else_holds_is_updated_in_place() {
        let place = |tensor: &Tensor<1>| cpu::values(&primitive(tensor.clone())).as_ptr();
        let device = Device::flex();
        let fresh = |seed| random::<2>([30, 40], seed, &device).reshape([1200]);
        let parameter = Parameter {
            weight: fresh(1),
            gradient: fresh(2),
            rule: UpdateRule::AdamW(ADAMW, [fresh(3), fresh(4).abs()]),
            average: Some(fresh(5)),
        };
        let places = |parameter: &Parameter| {
            let UpdateRule::AdamW(_, [first, second]) = &parameter.rule else { panic!("it is AdamW's") };
            [&parameter.weight, first, second, parameter.average.as_ref().expect("given")].map(place)
        };
        let before = places(&parameter);
        assert_eq!(places(&update_parameters(vec![parameter], None, 0.9)[0]), before);
    }

    #[test]
    fn empty_parameters_and_no_parameters_are_fine() {
        assert!(update_parameters(Vec::new(), None, 0.9).is_empty());
        let case = Case { lengths: vec![3, 0, 5], kinds: vec![(true, true)], clip: None };
        let found: Vec<usize> = case.run(update_parameters).iter().map(Vec::len).collect();
        assert_eq!(found, [3, 3, 3, 3, 0, 0, 0, 0, 5, 5, 5, 5]);
    }

    #[test]
    fn a_factor_that_is_no_number_reaches_every_weight() {
        let lost = several(Some(f32::NAN));
        for update in [update_parameters as Update, update_parameters_reference] {
            assert!(lost.run(update).concat().iter().all(|value| value.is_nan()));
        }
    }

    #[test]
    fn updates_do_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| several(Some(0.5)).run(update_parameters));
    }
}
