//! Cross-entropy against its reference and finite differences, and what it refuses.

use super::*;
use crate::cpu::testing::{assert_close, assert_same_in_all_pools, noise, random, read};
use burn::tensor::{DType, Device, FloatDType, TensorData};
use proptest::prelude::*;

/// What a case is made of beside its sizes.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    classes: usize,
    soft: bool,
    weighted: bool,
    masked: bool,
}

impl Case {
    fn logits(self) -> Vec<f32> {
        noise(self.rows * self.classes, 1).into_iter().map(|x| 3.0 * x).collect()
    }

    fn hard(self) -> Vec<i32> {
        (0..self.rows).map(|row| ((row * 7 + 3) % self.classes) as i32).collect()
    }

    /// Shares that sum to anything.
    fn shares(self) -> Vec<f32> {
        noise(self.rows * self.classes, 2).into_iter().map(|x| x * x).collect()
    }

    fn targets(self) -> ClassTargets {
        let device = Device::flex();
        match self.soft {
            true => ClassTargets::Soft(self.tensor(self.shares(), [self.rows, self.classes])),
            false => ClassTargets::Hard(Tensor::from_data(self.hard().as_slice(), &device)),
        }
    }

    fn class_weights(self) -> Option<Vec<f32>> {
        self.weighted.then(|| noise(self.classes, 3).into_iter().map(f32::abs).collect())
    }

    /// Among them rows that do not count, and rows that count in part.
    fn mask(self) -> Option<Vec<f32>> {
        let level = |row: usize| [1.0, 0.0, 0.25, 1.0, 0.0][row % 5];
        self.masked.then(|| (0..self.rows).map(level).collect())
    }

    fn tensor<const D: usize>(self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// The total's formula, in f64.
    fn by_hand(self, logits: &[f64], divisor: f64) -> f64 {
        let (weights, mask, hard) = (self.class_weights(), self.mask(), self.hard());
        let shares = self.shares();
        let mut total = 0.0;
        for (row, logits) in logits.chunks_exact(self.classes).enumerate() {
            let log_sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let share = |class: usize| match self.soft {
                true => f64::from(shares[row * self.classes + class]),
                false => f64::from(u8::from(hard[row] as usize == class)),
            };
            let weight = |class: usize| weights.as_ref().map_or(1.0, |w| f64::from(w[class]));
            let loss: f64 = (0..self.classes).map(|c| weight(c) * share(c) * (log_sum - logits[c])).sum();
            total += mask.as_ref().map_or(1.0, |mask| f64::from(mask[row])) * loss;
        }
        total / divisor
    }
}

type Rows = fn(Tensor<2>, ClassTargets) -> Tensor<1>;
type All = fn(Tensor<2>, ClassTargets, Option<Tensor<1>>, Option<Tensor<1>>, f32) -> Tensor<1>;

const DIVISOR: f32 = 3.5;

/// Losses of the rows and the gradient of the logits.
fn run_rows(case: Case, loss: Rows) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let logits = Tensor::<2>::from_data(TensorData::new(case.logits(), [case.rows, case.classes]), &device)
        .require_grad();
    let rows = loss(logits.clone(), case.targets());
    let grads = (rows.clone() * random([case.rows], 4, &device)).sum().backward();
    vec![read(rows.inner()), read(logits.grad(&grads).expect("tracked"))]
}

/// Loss of all rows and the gradient of the logits.
fn run_all(case: Case, loss: All) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let logits = Tensor::<2>::from_data(TensorData::new(case.logits(), [case.rows, case.classes]), &device)
        .require_grad();
    let weights = case.class_weights().map(|weights| case.tensor(weights, [case.classes]));
    let mask = case.mask().map(|mask| case.tensor(mask, [case.rows]));
    let total = loss(logits.clone(), case.targets(), weights, mask, DIVISOR);
    // Scaled, so that the gradient that comes in is not 1.
    let grads = (total.clone() * -2.0).backward();
    vec![read(total.inner()), read(logits.grad(&grads).expect("tracked"))]
}

fn assert_equals_reference(case: Case) {
    // Sums of exponentials in another order, each to 1.5 units in the last place; shares sum to up to 3 a class.
    let tolerance = 1e-5;
    let pairs = [
        (run_rows(case, cross_entropy_rows), run_rows(case, cross_entropy_rows_reference)),
        (run_all(case, cross_entropy), run_all(case, cross_entropy_reference)),
    ];
    for (found, expected) in pairs {
        assert_close("loss", &found[0], &expected[0], tolerance);
        assert_close("gradient", &found[1], &expected[1], tolerance);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn fused_cross_entropy_equals_its_reference(
        rows in 1usize..70,
        classes in 1usize..140,
        soft: bool,
        weighted: bool,
        masked: bool,
    ) {
        assert_equals_reference(Case { rows, classes, soft, weighted, masked });
    }
}

#[test]
fn rows_in_several_parts_give_the_same_loss() {
    for soft in [false, true] {
        assert_equals_reference(Case { rows: 71, classes: 1003, soft, weighted: true, masked: true });
    }
}

#[test]
fn the_total_is_the_formula_and_its_gradient_the_slope() {
    for (soft, weighted, masked) in [(false, false, false), (false, true, true), (true, true, true)] {
        let case = Case { rows: 6, classes: 5, soft, weighted, masked };
        let found = run_all(case, cross_entropy);
        let logits: Vec<f64> = case.logits().into_iter().map(f64::from).collect();
        let expected = case.by_hand(&logits, f64::from(DIVISOR));
        assert!((f64::from(found[0][0]) - expected).abs() < 1e-5 * expected.abs().max(1.0));
        for place in 0..logits.len() {
            let moved = |by: f64| {
                let mut logits = logits.clone();
                logits[place] += by;
                case.by_hand(&logits, f64::from(DIVISOR))
            };
            // Central differences in double precision: 1e-8 off by the third derivative, 1e-11 by rounding.
            let slope = -2.0 * (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((f64::from(found[1][place]) - slope).abs() < 1e-5, "{case:?}: {place}");
        }
    }
}

#[test]
fn a_target_is_a_class_of_any_integer_type_and_a_view_is_read_as_it_lies() {
    let device = Device::flex();
    let logits = random([5, 24], 1, &device).swap_dims(0, 1).narrow(0, 3, 9);
    let classes = TensorData::new(vec![4i64, 9, 0, 9, 1, 9, 4, 9, 2, 9, 0, 9, 3, 9, 1, 9, 0, 9], [9, 2]);
    let expected = cross_entropy_rows_reference(
        logits.clone(),
        ClassTargets::Hard(Tensor::from_data([4i32, 0, 1, 4, 2, 0, 3, 1, 0], &device)),
    );
    for dtype in [DType::I64, DType::I32, DType::U8] {
        let all = Tensor::<2, Int>::from_data(classes.clone(), (&device, dtype));
        let column = ClassTargets::Hard(all.narrow(1, 0, 1).squeeze_dim(1));
        let found = cross_entropy_rows(logits.clone(), column);
        assert_close("a view", &read(found), &read(expected.clone()), 1e-6);
    }
    let shares = random([9, 10], 2, &device).narrow(1, 2, 5);
    let found = cross_entropy_rows(logits.clone(), ClassTargets::Soft(shares.clone()));
    assert!(!found.device().is_autodiff());
    let expected = cross_entropy_rows_reference(logits, ClassTargets::Soft(shares));
    assert_close("shares", &read(found), &read(expected), 1e-5);
}

#[test]
fn targets_in_a_graph_get_their_gradient() {
    let device = Device::flex().autodiff();
    let logits = random([3, 4], 1, &device).require_grad();
    let targets = random([3, 4], 2, &device).require_grad();
    let mask = random([3], 3, &device).require_grad();
    let loss =
        cross_entropy(logits.clone(), ClassTargets::Soft(targets.clone()), None, Some(mask.clone()), 2.0);
    let grads = loss.backward();
    assert!(logits.grad(&grads).is_some());
    let rows = log_softmax(logits.inner(), 1).neg();
    let expected = rows.clone() * mask.clone().inner().unsqueeze_dim(1).div_scalar(2.0);
    assert_close("targets", &read(targets.grad(&grads).expect("tracked")), &read(expected), 1e-6);
    let expected = (rows * targets.inner()).sum_dim(1).div_scalar(2.0);
    assert_close("mask", &read(mask.grad(&grads).expect("tracked")), &read(expected), 1e-6);
}

#[test]
fn extreme_logits_keep_their_loss_and_their_gradient() {
    let device = Device::flex().autodiff();
    let values = [[1000.0f32, 999.0, -1000.0], [-500.0, -500.0, f32::NEG_INFINITY], [80.0, -80.0, 0.0]];
    let logits = || Tensor::<2>::from_data(values, &device).require_grad();
    let classes = || ClassTargets::Hard(Tensor::from_data([0i32, 1, 1], &device));
    let run = |loss: Rows| {
        let logits = logits();
        let rows = loss(logits.clone(), classes());
        let grads = rows.clone().sum().backward();
        [read(rows.inner()), read(logits.grad(&grads).expect("tracked"))]
    };
    let (found, expected) = (run(cross_entropy_rows), run(cross_entropy_rows_reference));
    // A relative 1e-6: ln(1 + 1/e) beside a maximum of 1000.
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(0.1), "{found} {expected}");
    }
}

#[test]
fn what_is_not_a_number_shows_even_where_it_is_masked() {
    let device = Device::flex().autodiff();
    for broken in [f32::NAN, f32::INFINITY] {
        for soft in [false, true] {
            let logits =
                Tensor::<2>::from_data([[0.0f32, 1.0], [broken, 0.0], [2.0, 1.0]], &device).require_grad();
            let targets = || match soft {
                true => ClassTargets::Soft(Tensor::from_data([[0.5f32, 0.5]; 3], &device)),
                false => ClassTargets::Hard(Tensor::from_data([0i32, 1, 0], &device)),
            };
            let rows = read(cross_entropy_rows(logits.clone(), targets()).inner());
            assert!(rows[0].is_finite() && rows[1].is_nan() && rows[2].is_finite(), "{rows:?}");
            let mask = Some(Tensor::from_data([1.0f32, 0.0, 1.0], &device));
            let total = cross_entropy(logits.clone(), targets(), None, mask, 3.0);
            let grads = total.clone().backward();
            assert!(read(total.inner())[0].is_nan());
            let gradient = read(logits.grad(&grads).expect("tracked"));
            assert!(gradient[2].is_nan() && gradient[3].is_nan(), "{gradient:?}");
            assert!([0, 1, 4, 5].iter().all(|place| gradient[*place].is_finite()), "{gradient:?}");
        }
    }
}

#[test]
fn narrow_logits_take_the_reference_and_keep_their_type() {
    let device = Device::flex();
    let case = Case { rows: 7, classes: 9, soft: false, weighted: false, masked: false };
    let logits = case.tensor(case.logits(), [7, 9]);
    let expected = read(cross_entropy_rows(logits.clone(), case.targets()));
    let found = cross_entropy_rows(logits.cast(FloatDType::BF16), case.targets());
    assert_eq!(found.dtype(), DType::BF16);
    assert_eq!(found.device(), device);
    // bf16 keeps 8 bits.
    assert_close("bf16", &read(found.cast(FloatDType::F32)), &expected, 0.02);
}

#[test]
fn no_rows_have_no_losses() {
    let device = Device::flex();
    let classes = ClassTargets::Hard(Tensor::from_data(TensorData::new(Vec::<i32>::new(), [0]), &device));
    let found = cross_entropy_rows(Tensor::<2>::zeros([0, 3], &device), classes);
    assert_eq!(found.dims(), [0]);
}

#[test]
#[should_panic(expected = "row 2 is of class 4, but there are 4 classes")]
fn a_class_too_many_is_named_with_its_row() {
    let device = Device::flex();
    let classes = Tensor::from_data([0i32, 3, 4], &device);
    cross_entropy_rows(random([3, 4], 1, &device), ClassTargets::Hard(classes));
}

#[test]
#[should_panic(expected = "row 0 is of class -1")]
fn a_negative_class_is_named_with_its_row() {
    let device = Device::flex();
    let classes = Tensor::from_data([-1i32, 3, 0], &device);
    cross_entropy_rows(random([3, 4], 1, &device), ClassTargets::Hard(classes));
}

#[test]
fn cross_entropy_does_not_depend_on_the_number_of_threads() {
    for soft in [false, true] {
        let case = Case { rows: 333, classes: 301, soft, weighted: true, masked: true };
        assert_same_in_all_pools(|| {
            [run_rows(case, cross_entropy_rows), run_all(case, cross_entropy)].concat()
        });
    }
}
