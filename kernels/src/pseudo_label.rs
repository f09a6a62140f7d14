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
