//! From the logits of unlabelled images to their pseudo-labels: what semi-supervised algorithms share.

use burn::backend::Flex;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::cpu::pseudo_label::Strongest;
use crate::cpu::{self, constant, serves};

/// What a classifier says of `N` images, off the graph.
#[derive(Debug, Clone)]
pub struct Predictions {
    /// Class probabilities, each row summing to 1: `[N, C]`.
    pub probabilities: Tensor<2>,
    /// The largest of each row: `[N]`. Not a number where a probability is not.
    pub confidence: Tensor<1>,
    /// The class that has it, the first of equals: `[N]`.
    pub label: Tensor<1, Int>,
}

/// How sure a classifier must be of an image.
#[derive(Debug, Clone)]
pub enum Threshold {
    /// This probability, in [0, 1].
    Fixed(f32),
    /// A probability for all images, `[1]`, or one for each class, `[C]`: that of the image's label holds. Off the graph.
    Moving(Tensor<1>),
}

impl From<f32> for Threshold {
    fn from(threshold: f32) -> Self {
        Self::Fixed(threshold)
    }
}

impl From<Tensor<1>> for Threshold {
    fn from(threshold: Tensor<1>) -> Self {
        Self::Moving(threshold)
    }
}

/// What logits `[N, C]` say: softmax, its largest value and that value's class, in one pass over the rows.
///
/// Off the graph, whether the logits are or not.
pub fn predictions(logits: Tensor<2>) -> Predictions {
    let logits = logits.inner();
    if !serves(&logits) {
        return predictions_reference(logits);
    }
    let (probabilities, strongest) = cpu::pseudo_label::predictions(constant(logits));
    Predictions::with(Tensor::from_primitive::<Flex>(probabilities), strongest)
}

/// [`predictions`] in burn's operations.
pub fn predictions_reference(logits: Tensor<2>) -> Predictions {
    Predictions::of_reference(softmax(logits.inner(), 1))
}

impl Predictions {
    /// Of probabilities `[N, C]` that are known already, such as those of all ranks, or aligned ones.
    pub fn of(probabilities: Tensor<2>) -> Self {
        let probabilities = probabilities.inner();
        if !serves(&probabilities) {
            return Self::of_reference(probabilities);
        }
        let strongest = cpu::pseudo_label::of(constant(probabilities.clone()));
        Self::with(probabilities, strongest)
    }

    /// [`Predictions::of`] in burn's operations.
    pub fn of_reference(probabilities: Tensor<2>) -> Self {
        let probabilities = probabilities.inner();
        let (confidence, label) = probabilities.clone().max_dim_with_indices(1);
        Self { probabilities, confidence: confidence.squeeze_dim(1), label: label.squeeze_dim(1) }
    }

    /// Which images can be believed: 1 where the confidence reaches the threshold, else 0, and the threshold that each image
    /// had to reach; `[N]` each. A confidence that is not a number reaches none.
    ///
    /// # Panics
    /// If there is neither one threshold nor one for each class.
    pub fn reaching(&self, threshold: impl Into<Threshold>) -> (Tensor<1>, Tensor<1>) {
        let threshold = threshold.into();
        let on_cpu = match &threshold {
            Threshold::Fixed(_) => true,
            Threshold::Moving(threshold) => serves(threshold),
        };
        if !(on_cpu && serves(&self.confidence)) {
            return self.reaching_reference(threshold);
        }
        let thresholds = match threshold {
            Threshold::Fixed(threshold) => vec![threshold],
            Threshold::Moving(threshold) => cpu::values(&constant(threshold)).to_vec(),
        };
        self.check(thresholds.len());
        let labels = cpu::classes(self.label.clone(), self.classes());
        let found = cpu::pseudo_label::reaching(&constant(self.confidence.clone()), &labels, &thresholds);
        found.map(Tensor::from_primitive::<Flex>).into()
    }

    /// [`Predictions::reaching`] in burn's operations.
    pub fn reaching_reference(&self, threshold: impl Into<Threshold>) -> (Tensor<1>, Tensor<1>) {
        let confidence = self.confidence.clone();
        match threshold.into() {
            Threshold::Fixed(threshold) => {
                let each = confidence.full_like(threshold);
                (confidence.greater_equal_scalar(threshold).float(), each)
            }
            Threshold::Moving(threshold) => {
                let [count] = threshold.dims();
                self.check(count);
                let each = match count {
                    1 => threshold.expand(confidence.dims()),
                    _ => threshold.select(0, self.label.clone()),
                };
                (confidence.greater_equal(each.clone()).float(), each)
            }
        }
    }

    /// The mean probability of each class: `[C]`, summing to 1.
    pub fn mean(&self) -> Tensor<1> {
        if !serves(&self.probabilities) {
            return self.mean_reference();
        }
        Tensor::from_primitive::<Flex>(cpu::pseudo_label::mean(constant(self.probabilities.clone())))
    }

    /// [`Predictions::mean`] in burn's operations.
    pub fn mean_reference(&self) -> Tensor<1> {
        self.probabilities.clone().mean_dim(0).squeeze_dim(0)
    }

    fn classes(&self) -> usize {
        self.probabilities.dims()[1]
    }

    fn check(&self, thresholds: usize) {
        let classes = self.classes();
        assert!(thresholds == 1 || thresholds == classes, "{thresholds} thresholds for {classes} classes");
    }

    fn with(probabilities: Tensor<2>, strongest: Strongest) -> Self {
        let Strongest { confidence, labels } = strongest;
        let rows = labels.len();
        Self {
            probabilities,
            confidence: Tensor::from_primitive::<Flex>(confidence),
            label: Tensor::from_data(TensorData::new(labels, [rows]), &Device::flex()),
        }
    }
}

/// How much weight falls to each class, or how many rows without weights: `[N]`, `[N]` → `[classes]`.
///
/// # Panics
/// Unless there is a weight for each label; on the CPU also if a label is not below `classes`.
pub fn class_counts(labels: Tensor<1, Int>, weights: Option<Tensor<1>>, classes: usize) -> Tensor<1> {
    if let Some(weights) = &weights {
        assert_eq!(weights.dims(), labels.dims(), "class_counts: a weight for each label");
    }
    let constants = weights.as_ref().is_none_or(|weights| serves(weights) && !weights.is_tracked());
    if !(constants && cpu::serves_classes(&labels)) {
        return class_counts_reference(labels, weights, classes);
    }
    let (labels, weights) = (cpu::classes(labels, classes), weights.map(constant));
    let counts = cpu::pseudo_label::class_counts(&labels, weights.as_ref().map(cpu::values), classes);
    Tensor::from_primitive::<Flex>(counts)
}

/// [`class_counts`] in burn's operations, without looking at the labels on the host.
pub fn class_counts_reference(
    labels: Tensor<1, Int>,
    weights: Option<Tensor<1>>,
    classes: usize,
) -> Tensor<1> {
    let [rows] = labels.dims();
    let each = Tensor::<1, Int>::arange(0..classes as i64, &labels.device()).reshape([1, classes]);
    let labels = labels.reshape([rows, 1]).expand([rows, classes]);
    let one_hot = labels.equal(each.expand([rows, classes])).float();
    let counted = match weights {
        Some(weights) => one_hot * weights.reshape([rows, 1]),
        None => one_hot,
    };
    counted.sum_dim(0).squeeze_dim(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, noise, random, read};
    use proptest::prelude::*;

    fn labels(label: &Tensor<1, Int>) -> Vec<i64> {
        label.to_data().iter::<i64>().collect()
    }

    fn rows(values: &[&[f32]]) -> Tensor<2> {
        let shape = [values.len(), values[0].len()];
        Tensor::from_data(TensorData::new(values.concat(), shape), &Device::flex())
    }

    /// Logits whose probabilities are told apart in every rounding: a quarter apart.
    fn distinct(rows: usize, classes: usize, seed: u64) -> Tensor<2> {
        let order = noise(rows * classes, seed);
        let mut values = vec![0.0; rows * classes];
        for (values, keys) in values.chunks_exact_mut(classes).zip(order.chunks_exact(classes)) {
            let mut places: Vec<usize> = (0..classes).collect();
            places.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
            places.iter().enumerate().for_each(|(rank, place)| values[*place] = rank as f32 / 4.0 - 1.0);
        }
        Tensor::from_data(TensorData::new(values, [rows, classes]), &Device::flex())
    }

    fn assert_same(found: &Predictions, expected: &Predictions) {
        let values = |p: &Predictions| [read(p.probabilities.clone()), read(p.confidence.clone())];
        for (found, expected) in values(found).iter().zip(&values(expected)) {
            // Exponentials to 1.5 units in the last place, sums of up to 300 of them.
            assert_close("predictions", found, expected, 1e-6);
        }
        assert_eq!(labels(&found.label), labels(&expected.label));
        assert_eq!(found.label.dtype(), expected.label.dtype());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn fused_predictions_equal_their_reference(count in 1usize..70, classes in 1usize..300, seed: u64) {
            let logits = distinct(count, classes, seed);
            let (found, expected) = (predictions(logits.clone()), predictions_reference(logits));
            assert_same(&found, &expected);
            assert_close("mean", &read(found.mean()), &read(expected.mean_reference()), 1e-6);
            let known = found.probabilities;
            assert_same(&Predictions::of(known.clone()), &Predictions::of_reference(known));
        }

        #[test]
        fn fused_thresholds_equal_their_reference(count in 1usize..70, classes in 1usize..30, seed: u64, kind in 0..3) {
            let found = predictions(distinct(count, classes, seed));
            let threshold = match kind {
                0 => Threshold::Fixed(0.3),
                1 => Threshold::Moving(Tensor::from_data([0.3f32], &Device::flex())),
                _ => Threshold::Moving(random([classes], seed, &Device::flex()).abs().mul_scalar(0.3)),
            };
            let (mask, each) = found.reaching(threshold.clone());
            let (expected, expected_each) = found.reaching_reference(threshold);
            prop_assert_eq!(read(mask), read(expected));
            prop_assert_eq!(read(each), read(expected_each));
        }

        #[test]
        fn fused_class_counts_equal_their_reference(count in 1usize..70, classes in 1usize..30, seed: u64, weighted: bool) {
            let device = Device::flex();
            let label: Vec<i32> = noise(count, seed).iter().map(|x| (x.abs() * 1e3) as i32 % classes as i32).collect();
            let label = Tensor::<1, Int>::from_data(label.as_slice(), &device);
            let weights = weighted.then(|| random([count], seed, &device));
            let found = class_counts(label.clone(), weights.clone(), classes);
            prop_assert_eq!(found.dims(), [classes]);
            assert_close("counts", &read(found), &read(class_counts_reference(label, weights, classes)), 1e-6);
        }
    }

    #[test]
    fn ties_go_to_the_first_class() {
        let mut wide = vec![0.5f32; 77];
        (wide[40], wide[41], wide[76]) = (2.0, 2.0, 2.0);
        let narrow: [&[f32]; 3] = [&[1.0, 3.0, 3.0, 0.0], &[2.0, 2.0, 2.0, 2.0], &[0.0, 0.0, 0.0, 5.0]];
        for (logits, expected) in [(rows(&narrow), vec![1, 0, 3]), (rows(&[&wide]), vec![40])] {
            for found in [
                predictions(logits.clone()),
                predictions_reference(logits.clone()),
                Predictions::of(logits.clone()),
                Predictions::of_reference(logits.clone()),
            ] {
                assert_eq!(labels(&found.label), expected);
            }
        }
    }

    #[test]
    fn the_confidence_is_the_probability_of_the_label() {
        let found = predictions(random([50, 37], 1, &Device::flex()).mul_scalar(20.0));
        let probabilities = read(found.probabilities.clone());
        for (row, (label, confidence)) in labels(&found.label).iter().zip(read(found.confidence)).enumerate()
        {
            assert_eq!(probabilities[row * 37 + *label as usize], confidence);
        }
    }

    #[test]
    fn what_is_not_a_number_shows_and_reaches_no_threshold() {
        let logits =
            rows(&[&[f32::NAN, 1.0, 0.0], &[0.0, f32::INFINITY, 1.0], &[1.0, f32::NEG_INFINITY, 0.0]]);
        let (found, expected) = (predictions(logits.clone()), predictions_reference(logits));
        assert_eq!(labels(&found.label), labels(&expected.label));
        for found in [&found, &expected] {
            let confidence = read(found.confidence.clone());
            assert!(confidence[0].is_nan() && confidence[1].is_nan(), "{confidence:?}");
            assert!((confidence[2] - 0.731_058_6).abs() < 1e-6);
            assert!(read(found.probabilities.clone())[..6].iter().all(|value| value.is_nan()));
            assert!(read(found.mean()).iter().all(|value| value.is_nan()));
            for (mask, _) in [found.reaching(0f32), found.reaching_reference(0f32)] {
                assert_eq!(read(mask), [0.0, 0.0, 1.0]);
            }
        }
        // Of probabilities, the first that is not a number is the label, as in the reference.
        let broken = rows(&[&[0.5, f32::NAN, f32::NAN], &[0.2, 0.8, 0.0]]);
        let (found, expected) = (Predictions::of(broken.clone()), Predictions::of_reference(broken));
        assert_eq!(labels(&found.label), labels(&expected.label));
        assert!(read(found.confidence)[0].is_nan() && read(expected.confidence)[0].is_nan());
    }

    #[test]
    fn predictions_of_tracked_logits_and_of_views_are_off_the_graph() {
        let logits = random([30, 8], 1, &Device::flex().autodiff()).require_grad();
        let view = (logits * 2.0).swap_dims(0, 1).narrow(0, 2, 5);
        let (found, expected) = (predictions(view.clone()), predictions_reference(view));
        assert!(!found.probabilities.is_autodiff() && !found.label.is_autodiff());
        assert_same(&found, &expected);
        let view = found.probabilities.swap_dims(0, 1);
        assert_same(&Predictions::of(view.clone()), &Predictions::of_reference(view));
    }

    #[test]
    #[should_panic(expected = "2 thresholds for 3 classes")]
    fn thresholds_of_other_classes_are_refused() {
        predictions(rows(&[&[0.0, 1.0, 2.0]])).reaching(Tensor::from_data([0.5f32, 0.5], &Device::flex()));
    }

    #[test]
    fn weights_in_a_graph_get_their_gradient() {
        let device = Device::flex().autodiff();
        let weights = random([3], 1, &device).require_grad();
        let label = Tensor::<1, Int>::from_data([1i32, 0, 1], &device);
        let counts = class_counts(label, Some(weights.clone()), 2);
        let grads = (counts * Tensor::from_data([3.0f32, 5.0], &device)).sum().backward();
        assert_eq!(read(weights.grad(&grads).expect("tracked")), [5.0, 3.0, 5.0]);
    }

    #[test]
    fn predictions_do_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| {
            let found = predictions(random([333, 301], 1, &Device::flex()));
            let again = Predictions::of(found.probabilities.clone());
            let numbers = |label| -> Vec<f32> { labels(label).iter().map(|label| *label as f32).collect() };
            let (mean, label) = (read(found.mean()), numbers(&found.label));
            let values = [found.probabilities, found.confidence.unsqueeze_dim(0)].map(read::<2>);
            [values.to_vec(), vec![mean, label, numbers(&again.label), read(again.confidence)]].concat()
        });
    }
}
