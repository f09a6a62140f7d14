//! Against the reference.

use burn::tensor::{DType, Device, Int as IntKind, Tensor, TensorData};

use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
use crate::{
    ClassTargets, cross_entropy, cross_entropy_reference, cross_entropy_rows, cross_entropy_rows_reference,
};

type Loss = fn(Tensor<2>, ClassTargets, Option<Tensor<1>>, Option<Tensor<1>>, f32) -> Tensor<1>;
type Rows = fn(Tensor<2>, ClassTargets) -> Tensor<1>;

/// Loss over all rows with weights and a mask if `weighing`, and losses of each row; both with the logits' gradient.
fn run(
    shape: [usize; 2],
    [hard, weighing]: [bool; 2],
    (device, dtype): (&Device, DType),
    (loss, rows): (Loss, Rows),
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let place = (&device, dtype);
    let logits = rough(shape, 1, place).require_grad();
    let targets = if hard {
        let classes: Vec<i64> = (0..shape[0]).map(|row| (row * 7 % shape[1]) as i64).collect();
        ClassTargets::Hard(Tensor::<1, IntKind>::from_data(TensorData::new(classes, [shape[0]]), &device))
    } else {
        ClassTargets::Soft(rough(shape, 2, place))
    };
    let weights = weighing.then(|| rough([shape[1]], 3, place));
    let mask = weighing.then(|| rough([shape[0]], 5, place));
    let whole = loss(logits.clone(), targets.clone(), weights, mask, 3.0);
    let each = rows(logits.clone(), targets);
    let mut all = vec![read(whole.clone().inner()), read(each.clone().inner())];
    let outputs = [weighted(whole, rough([1], 4, place)), weighted(each, rough([shape[0]], 4, place))];
    all.extend(outputs.map(|output| read(logits.grad(&output.backward()).expect("tracked"))));
    all
}

#[test]
fn cross_entropy_on_a_gpu_equals_its_reference() {
    let (gpu, _held) = device();
    let reference = (cross_entropy_reference as Loss, cross_entropy_rows_reference as Rows);
    let fused = (cross_entropy as Loss, cross_entropy_rows as Rows);
    for shape in [[1, 2], [5, 10], [3, 1000], [67, 33]] {
        for flags in [[true, false], [true, true], [false, false], [false, true]] {
            let expected = run(shape, flags, (&Device::flex(), DType::F32), reference);
            let what = format!("{shape:?} {flags:?}");
            // Sums of up to 2000 terms in another order.
            let found = run(shape, flags, (&gpu, DType::F32), fused);
            assert_agree(&what, &found, &expected, 1e-5);
            for dtype in narrow_types(&gpu).filter(|_| shape == [5, 10]) {
                let found = run(shape, flags, (&gpu, dtype), fused);
                assert_agree(&format!("{what} {dtype:?}"), &found, &expected, 2e-2);
            }
        }
    }
}

#[test]
fn a_class_that_does_not_exist_shows_in_the_loss_of_its_row() {
    let (gpu, _held) = device();
    let logits = rough([3, 4], 1, (&gpu, DType::F32));
    let classes = Tensor::<1, IntKind>::from_ints([0, 4, -1], &gpu);
    let losses = read(cross_entropy_rows(logits, ClassTargets::Hard(classes)));
    assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2].is_nan(), "{losses:?}");
}
