//! Against the reference, with channels first and last.

use burn::tensor::{DType, Device, Tensor};

use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
use crate::{batch_norm_train, batch_norm_train_reference};

type Norm =
    fn(Tensor<4>, Tensor<1>, Tensor<1>, f32, Option<Tensor<4>>, bool) -> (Tensor<4>, Tensor<1>, Tensor<1>);

#[derive(Debug, Clone, Copy)]
struct Case {
    dims: [usize; 4],
    /// Whether images reach the operation with channels last.
    last: bool,
    residual: bool,
    rectify: bool,
}

/// Output, statistics, and the gradients of `x`, `gamma`, `beta` and the residual.
fn run(case: Case, (device, dtype): (&Device, DType), norm: Norm) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let place = (&device, dtype);
    let [batch, channels, height, width] = case.dims;
    let images = |seed| -> Tensor<4> {
        if case.last {
            rough([batch, height, width, channels], seed, place).require_grad()
        } else {
            rough(case.dims, seed, place).require_grad()
        }
    };
    let as_images = |t: Tensor<4>| if case.last { t.permute([0, 3, 1, 2]) } else { t };
    let (x, residual) = (images(1), case.residual.then(|| images(5)));
    let [gamma, beta] = [2, 3].map(|seed| rough([channels], seed, place).require_grad());
    let add = residual.clone().map(as_images);
    let (y, mean, variance) =
        norm(as_images(x.clone()), gamma.clone(), beta.clone(), 1e-5, add, case.rectify);
    let grads = weighted(y.clone(), rough(case.dims, 4, place)).backward();
    let mut all = vec![read(y.inner()), read(mean.inner()), read(variance.inner())];
    all.push(read(x.grad(&grads).expect("tracked")));
    all.extend([gamma, beta].map(|t| read(t.grad(&grads).expect("tracked"))));
    all.extend(residual.map(|residual| read(residual.grad(&grads).expect("tracked"))));
    all
}

#[test]
fn batch_norm_on_a_gpu_equals_its_reference() {
    let (gpu, _held) = device();
    let dims = [[3, 1, 3, 5], [2, 33, 4, 4], [5, 7, 9, 11], [2, 64, 1, 1], [9, 3, 40, 33]];
    for (index, dims) in dims.into_iter().enumerate() {
        for flags in 0..8 {
            let [last, residual, rectify] = [1, 2, 4].map(|bit| flags & bit != 0);
            // All layouts and all endings with every size would take minutes on a software device.
            if index > 1 && [3, 5, 6].contains(&((flags + index) % 8)) {
                continue;
            }
            let case = Case { dims, last, residual, rectify };
            let expected = run(case, (&Device::flex(), DType::F32), batch_norm_train_reference);
            // Two values of a channel can lie close together, which magnifies rounding.
            let tolerance = if dims[0] * dims[2] * dims[3] < 8 { 1e-3 } else { 2e-5 };
            let found = run(case, (&gpu, DType::F32), batch_norm_train);
            assert_agree(&format!("{case:?}"), &found, &expected, tolerance);
            if index == 2 {
                for dtype in narrow_types(&gpu) {
                    let found = run(case, (&gpu, dtype), batch_norm_train);
                    assert_agree(&format!("{case:?} {dtype:?}"), &found, &expected, 2e-2);
                }
            }
        }
    }
}

#[test]
fn batch_norm_on_a_gpu_keeps_a_variance_far_from_zero() {
    let (gpu, _held) = device();
    let far = |device: &Device| {
        let x = rough([4, 2, 8, 8], 1, (&Device::flex(), DType::F32)) + 1000.0;
        Tensor::<4>::from_data(x.into_data(), device)
    };
    let run = |device: &Device, norm: Norm| {
        let (y, mean, variance) =
            norm(far(device), Tensor::ones([2], device), Tensor::zeros([2], device), 1e-5, None, false);
        [read(y), read(mean), read(variance)]
    };
    let expected = run(&Device::flex(), batch_norm_train_reference);
    // Values of a thousand have 6e-5 between them.
    assert_agree("far from zero", &run(&gpu, batch_norm_train), &expected, 3e-4);
}
