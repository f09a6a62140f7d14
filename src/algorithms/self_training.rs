//! Self-training: learn from the joined pseudo-labels of several networks that were trained on the labels alone.
//!
//! Zhang et al., "Revisiting semi-supervised learning in the era of foundation models", NeurIPS 2025, arXiv:2503.09707.
//! `M` members, each a backbone and a way to tune it, are trained on the labelled images; `p_m(x)` are member `m`'s class
//! probabilities of image `x`. They are computed once, before the first step, of the image itself and not of a view. `Q_b`
//! are the class probabilities of the strong view of unlabelled image `x_b`; `U` images a step.
//!
//! ```text
//! p(x) = mean_m onehot(argmax p_m(x))  or mean_m p_m(x), see [`Join`]
//! L_u  = mean_b H(p(x_b), Q_b)         every image counts, however unsure its pseudo-label
//! L    = L_s + w_u L_u
//! ```
//!
//! The strong view is ours, as in the other algorithms here: a student that sees what its teachers saw has little to learn
//! (Xie et al., "Noisy Student", CVPR 2020, arXiv:1911.04252).

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::From, Upper::Upto, range};

use super::student::Student;
use super::{
    Algorithm, AlgorithmBuilder, AlgorithmName, Network, NotReady, Problem, PseudoLabels, SslBatch, StepLoss,
    Views,
};

/// Hyper-parameters, and the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfTrainingConfig {
    /// Each a network, how it is tuned, and settings of its own: `"resnet50 full training.lr=1e-3"`. Paper: LoRA and
    /// AdaptFormer on each of several pretrained ViTs.
    pub members: Vec<String>,
    /// How their pseudo-labels are joined.
    pub join: Join,
    /// w_u.
    pub unlabelled_weight: f32,
}

impl Default for SelfTrainingConfig {
    fn default() -> Self {
        Self { members: Vec::new(), join: Join::Votes, unlabelled_weight: 1.0 }
    }
}

impl SelfTrainingConfig {
    /// The weight must not be negative. Members are looked at by who trains them.
    ///
    /// # Errors
    /// If it is.
    pub fn check(&self) -> Result<(), Invalid> {
        let key = "algorithm.self_training.unlabelled_weight";
        range(key, self.unlabelled_weight.into(), From(0.0), Upto(f64::MAX))
    }
}

/// How the members' predictions become one pseudo-label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// The mean of their class probabilities: a member that is sure counts more than one in doubt.
    Probabilities,
    /// The mean of their votes, one class each: no member outweighs another because it is more sure of everything.
    #[default]
    Votes,
}

/// A distribution over the classes for each unlabelled image.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinedLabels {
    classes: usize,
    /// Positions in the data set, ascending.
    images: Vec<u32>,
    /// `[images, classes]`, row by row.
    probabilities: Vec<f32>,
}

/// What cannot be joined pseudo-labels.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinedLabelsError {
    /// Other images, or other classes.
    #[error("there are {found} probabilities where {images} images of {classes} classes need {expected}", expected = images * classes)]
    Size {
        /// As given.
        found: usize,
        /// Unlabelled images.
        images: usize,
        /// Classes.
        classes: usize,
    },
    /// A row that is no distribution.
    #[error("the probabilities of image {image} are no distribution over the classes")]
    Row {
        /// Its position in the data set.
        image: u32,
    },
    /// Images out of order, or one twice.
    #[error("the images are not in ascending order at image {image}")]
    Order {
        /// Its position in the data set.
        image: u32,
    },
    /// Nobody to learn from.
    #[error("there are no members")]
    NoMembers,
}

impl JoinedLabels {
    /// `probabilities` `[images, classes]`, row by row, of `images`, which are positions in the data set in ascending order.
    ///
    /// # Errors
    /// If they do not fit each other, or are no probabilities.
    pub fn new(images: Vec<u32>, probabilities: Vec<f32>, classes: usize) -> Result<Self, JoinedLabelsError> {
        if probabilities.len() != images.len() * classes {
            let (found, images) = (probabilities.len(), images.len());
            return Err(JoinedLabelsError::Size { found, images, classes });
        }
        if let Some(pair) = images.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(JoinedLabelsError::Order { image: pair[1] });
        }
        for (image, row) in images.iter().zip(probabilities.chunks_exact(classes.max(1))) {
            let sum: f32 = row.iter().sum();
            // Written so that NaN is refused too.
            if !(row.iter().all(|share| *share >= 0.0) && (sum - 1.0).abs() < 1e-3) {
                return Err(JoinedLabelsError::Row { image: *image });
            }
        }
        Ok(Self { classes, images, probabilities })
    }

    /// Of what each member says of each image, `[images, classes]` each.
    ///
    /// # Errors
    /// If there are no members, or their predictions are no probabilities of these images.
    pub fn join(
        images: Vec<u32>,
        members: &[Vec<f32>],
        classes: usize,
        join: Join,
    ) -> Result<Self, JoinedLabelsError> {
        let mut sums = vec![0.0f64; images.len() * classes];
        for member in members {
            if member.len() != sums.len() {
                let (found, images) = (member.len(), images.len());
                return Err(JoinedLabelsError::Size { found, images, classes });
            }
            match join {
                Join::Probabilities => {
                    sums.iter_mut().zip(member).for_each(|(sum, share)| *sum += f64::from(*share));
                }
                Join::Votes => {
                    let rows = sums.chunks_exact_mut(classes).zip(member.chunks_exact(classes));
                    rows.for_each(|(sums, row)| sums[crate::metrics::argmax(row)] += 1.0);
                }
            }
        }
        if members.is_empty() {
            return Err(JoinedLabelsError::NoMembers);
        }
        let means = sums.into_iter().map(|sum| (sum / members.len() as f64) as f32);
        Self::new(images, means.collect(), classes)
    }

    /// Says of no image anything.
    pub fn uniform(images: usize, classes: usize) -> Self {
        let share = 1.0 / classes as f32;
        Self { classes, images: (0..images as u32).collect(), probabilities: vec![share; images * classes] }
    }

    /// `[images, classes]`, row by row.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// The rows of these images: `[U, C]`.
    fn of(&self, images: &[u32], device: &Device) -> Tensor<2> {
        let row = |image: &u32| {
            let row = self.images.binary_search(image).expect("every unlabelled image has a pseudo-label");
            &self.probabilities[row * self.classes..(row + 1) * self.classes]
        };
        let rows: Vec<f32> = images.iter().flat_map(row).copied().collect();
        Tensor::from_data(TensorData::new(rows, [images.len(), self.classes]), device)
    }
}

/// The pseudo-labels never change, so nothing is kept between steps.
#[derive(Debug)]
pub struct SelfTraining {
    unlabelled_weight: f32,
    joined: Arc<JoinedLabels>,
}

impl SelfTraining {
    /// Towards these pseudo-labels.
    pub fn new(config: &SelfTrainingConfig, joined: Arc<JoinedLabels>) -> Self {
        Self { unlabelled_weight: config.unlabelled_weight, joined }
    }

    /// What a step costs and whether it works can be seen without members: of no image anything is known.
    pub(super) fn without_members(config: &SelfTrainingConfig, problem: &Problem) -> Self {
        Self::new(config, Arc::new(JoinedLabels::uniform(problem.images, problem.classes)))
    }
}

impl Algorithm for SelfTraining {
    fn name(&self) -> &'static str {
        AlgorithmName::SelfTraining.as_str()
    }

    fn views(&self) -> Views {
        Views { weak: 0, strong: 1 }
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let device = batch.labelled.device().inner();
        let pseudo = PseudoLabels::of_all(self.joined.of(&batch.indices, &device));
        let student = Student::pass(network, batch, &pseudo);
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        let unsupervised = student.consistency();
        StepLoss {
            scalars: vec![("sup", supervised.clone().inner()), ("unsup", unsupervised.clone().inner())],
            total: supervised + unsupervised.mul_scalar(self.unlabelled_weight),
            pseudo_labels: Some(pseudo),
        }
    }
}

/// Self-training with what its members said: what an [`super::AlgorithmConfig`], which knows no images, cannot build.
#[derive(Debug, Clone)]
pub struct SelfTrainingBuilder {
    /// Hyper-parameters.
    pub config: SelfTrainingConfig,
    /// What the members said.
    pub joined: Arc<JoinedLabels>,
}

impl AlgorithmBuilder for SelfTrainingBuilder {
    fn name(&self) -> &str {
        AlgorithmName::SelfTraining.as_str()
    }

    fn ready(&self) -> Result<(), NotReady> {
        Ok(())
    }

    fn build(&self, _problem: &Problem) -> Box<dyn Algorithm> {
        Box::new(SelfTraining::new(&self.config, self.joined.clone()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;
    use proptest::prelude::*;

    use super::*;
    use crate::algorithms::{AlgorithmConfig, Objective, Places};

    /// Images `[N, C, 1, 1]` are their own logits.
    struct Given;

    impl Network for Given {
        fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
            images.flatten::<3>(2, 3).squeeze_dim::<2>(2)
        }
        fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
            self.student(images, rows).inner()
        }
        fn rows_are_independent(&self) -> bool {
            true
        }
    }

    const STRONG: [[f32; 3]; 2] = [[0.5, -1.0, 2.0], [0.0, 0.3, -0.2]];
    const TARGETS: [[f64; 3]; 2] = [[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]];
    const WEIGHT: f32 = 0.5;

    /// Of images 4 and 9, in another order than the step's.
    fn joined() -> Arc<JoinedLabels> {
        let probabilities = [TARGETS[1], TARGETS[0]].concat().into_iter().map(|share| share as f32).collect();
        Arc::new(JoinedLabels::new(vec![4, 9], probabilities, 3).expect("distributions"))
    }

    fn algorithm() -> SelfTraining {
        let config = SelfTrainingConfig { unlabelled_weight: WEIGHT, ..Default::default() };
        SelfTraining::new(&config, joined())
    }

    /// Loss and gradient at the strong logits, by burn.
    fn step(strong: [[f32; 3]; 2]) -> (f32, Vec<f32>) {
        let device = Device::flex().autodiff();
        let strong = Tensor::<2>::from_data(strong, &device).reshape([2, 3, 1, 1]).require_grad();
        let batch = SslBatch {
            labelled: Tensor::<2>::from_data([[1.0f32, 0.0, -1.0]], &device).reshape([1, 3, 1, 1]),
            labels: Tensor::<1, Int>::from_data([0i32], &device),
            weak: Vec::new(),
            strong: vec![strong.clone()],
            indices: vec![9, 4],
            places: Places::whole(1, 2),
            step: 0,
            total_steps: 10,
            skip_masked: true,
            objective: Objective::default(),
        };
        let loss = algorithm().step(&Given, &batch);
        let total = loss.total.clone().inner().into_scalar::<f32>();
        let gradients = loss.total.backward();
        let gradient = strong.grad(&gradients).expect("strong views are learned from");
        (total, gradient.into_data().iter::<f32>().collect())
    }

    /// The module's formula, in f64.
    fn by_hand(strong: [[f32; 3]; 2]) -> f64 {
        let log_softmax =
            |row: [f64; 3], class: usize| row[class] - row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        let supervised = -log_softmax([1.0, 0.0, -1.0], 0);
        let rows = strong.map(|row| row.map(f64::from)).into_iter().zip(TARGETS);
        let unsupervised: f64 =
            rows.map(|(row, target)| -(0..3).map(|c| target[c] * log_softmax(row, c)).sum::<f64>()).sum();
        supervised + f64::from(WEIGHT) * unsupervised / 2.0
    }

    #[test]
    fn the_loss_is_the_formula_and_its_gradient_the_slope() {
        let (loss, gradient) = step(STRONG);
        assert!((f64::from(loss) - by_hand(STRONG)).abs() < 1e-6, "{loss} {}", by_hand(STRONG));
        for (row, class) in (0..2).flat_map(|row| (0..3).map(move |class| (row, class))) {
            let moved = |by: f32| {
                let mut strong = STRONG;
                strong[row][class] += by;
                by_hand(strong)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let found = f64::from(gradient[row * 3 + class]);
            // The third derivative of a cross-entropy is below 1: 1e-4 / 6.
            assert!((found - slope).abs() < 2e-5, "{row} {class}: {found} {slope}");
        }
    }

    #[test]
    fn there_is_no_state_and_none_is_taken() {
        let mut algorithm = algorithm();
        assert!(algorithm.state().is_empty());
        algorithm.restore(Default::default()).expect("nothing is what it keeps");
        let foreign = [("time".to_owned(), TensorData::from([1.0f32]))].into();
        assert!(algorithm.restore(foreign).is_err());
    }

    #[test]
    fn a_configuration_alone_is_not_ready_and_the_name_is_written_with_its_underscore() {
        for name in AlgorithmName::ALL {
            let config = AlgorithmConfig { name: *name, ..Default::default() };
            assert_eq!(config.ready().is_err(), *name == AlgorithmName::SelfTraining, "{name}");
            let word = serde_json::to_string(name).expect("a word");
            assert_eq!(word, format!("\"{name}\""), "what is written is what is read");
        }
        let builder = SelfTrainingBuilder { config: SelfTrainingConfig::default(), joined: joined() };
        builder.ready().expect("its pseudo-labels are there");
    }

    #[test]
    fn votes_count_members_and_probabilities_their_certainty() {
        let members = [vec![0.9, 0.1], vec![0.4, 0.6], vec![0.4, 0.6]];
        let of = |join| JoinedLabels::join(vec![3], &members, 2, join).expect("distributions").probabilities;
        let close = |found: Vec<f32>, expected: [f32; 2]| {
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6), "{found:?} {expected:?}");
        };
        close(of(Join::Probabilities), [1.7 / 3.0, 1.3 / 3.0]);
        close(of(Join::Votes), [1.0 / 3.0, 2.0 / 3.0]);
    }

    #[test]
    fn what_is_no_distribution_over_these_images_is_refused() {
        let of = |images: &[u32], probabilities: &[f32]| {
            JoinedLabels::new(images.to_vec(), probabilities.to_vec(), 2).expect_err("refused").to_string()
        };
        assert!(of(&[0, 1], &[0.5, 0.5]).contains("2 images of 2 classes need 4"));
        assert!(of(&[7], &[0.5, 0.6]).contains("image 7"));
        assert!(of(&[7], &[f32::NAN, 1.0]).contains("image 7"));
        assert!(of(&[7], &[-0.5, 1.5]).contains("image 7"));
        assert!(of(&[7, 7], &[0.5, 0.5, 1.0, 0.0]).contains("ascending"));
        let none = JoinedLabels::join(vec![0], &[], 2, Join::Votes).expect_err("nobody");
        assert_eq!(none, JoinedLabelsError::NoMembers);
        assert!(JoinedLabels::join(vec![0], &[vec![1.0]], 2, Join::Votes).is_err());
    }

    fn rows(images: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(0.01f32..1.0, images * 3).prop_map(|mut shares| {
            for row in shares.chunks_exact_mut(3) {
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|share| *share /= sum);
            }
            shares
        })
    }

    proptest! {
        /// Also of no image at all.
        #[test]
        fn joining_is_a_distribution_that_knows_no_order_and_one_member_is_itself(
            members in (0usize..4).prop_flat_map(|images| prop::collection::vec(rows(images), 1..5)),
            votes: bool,
        ) {
            let join = if votes { Join::Votes } else { Join::Probabilities };
            let images: Vec<u32> = (0..members[0].len() as u32 / 3).map(|i| 10 * i).collect();
            let of = |members: &[Vec<f32>]| JoinedLabels::join(images.clone(), members, 3, join).expect("distributions");
            let all = of(&members);
            let backwards: Vec<Vec<f32>> = members.iter().rev().cloned().collect();
            for (one, other) in all.probabilities.iter().zip(&of(&backwards).probabilities) {
                prop_assert!((one - other).abs() < 1e-6);
            }
            if !votes {
                prop_assert_eq!(&of(&members[..1]).probabilities, &members[0]);
            }
            // A member twice is a member with twice the weight, all of them twice change nothing.
            let twice = [&members[..], &members[..]].concat();
            for (one, other) in all.probabilities.iter().zip(&of(&twice).probabilities) {
                prop_assert!((one - other).abs() < 1e-6);
            }
        }
    }
}
