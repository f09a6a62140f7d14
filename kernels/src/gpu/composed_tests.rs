//! Operations whose forward pass is burn's and whose gradient is one step of ours.

use burn::tensor::{DType, Device, Tensor};

use super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
use crate::{linear, linear_reference, residual, residual_reference};

type Linear = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>;
type Residual = fn(Tensor<3>, Tensor<3>, Option<Tensor<1>>) -> Tensor<3>;

/// Output and the gradients of `x`, weight and bias.
fn run_linear(shape: [usize; 3], d_out: usize, bias: bool, device: &Device, linear: Linear) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let place = (&device, DType::F32);
    let x = rough(shape, 1, place).require_grad();
    let weight = rough([shape[2], d_out], 2, place).require_grad();
    let bias = bias.then(|| rough([d_out], 3, place).require_grad());
    let y = linear(x.clone(), weight.clone(), bias.clone());
    let grads = weighted(y.clone(), rough([shape[0], shape[1], d_out], 4, place)).backward();
    let mut all = vec![read(y.inner()), read(x.grad(&grads).expect("tracked"))];
    all.push(read(weight.grad(&grads).expect("tracked")));
    all.extend(bias.map(|bias| read(bias.grad(&grads).expect("tracked"))));
    all
}

#[test]
fn linear_on_a_gpu_equals_its_reference() {
    let (gpu, _held) = device();
    for (shape, d_out) in [([3, 33, 20], 17)] {
        for bias in [false, true] {
            let expected = run_linear(shape, d_out, bias, &Device::flex(), linear_reference);
            let found = run_linear(shape, d_out, bias, &gpu, linear);
            // Sums of up to 128 terms in another order. Products of numbers of few digits: exact in TF32 too.
            assert_agree(&format!("{shape:?} bias {bias}"), &found, &expected, 1e-5);
        }
    }
}

#[test]
fn linear_on_a_gpu_takes_parameters_of_a_wider_type() {
    let (gpu, _held) = device();
    for dtype in narrow_types(&gpu) {
        let run = |device: &Device, dtype: DType, linear: Linear| {
            let device = device.clone().autodiff();
            let x = rough([2, 9, 20], 1, (&device, dtype)).require_grad();
            let weight = rough([20, 6], 2, (&device, DType::F32)).require_grad();
            let bias = rough([6], 3, (&device, DType::F32)).require_grad();
            let y = linear(x.clone(), weight.clone(), Some(bias.clone()));
            assert_eq!(y.dtype(), dtype);
            let grads = weighted(y.clone(), rough([2, 9, 6], 4, (&device, dtype))).backward();
            let (dw, db) = (weight.grad(&grads).expect("tracked"), bias.grad(&grads).expect("tracked"));
            assert_eq!((dw.dtype(), db.dtype()), (DType::F32, DType::F32));
            vec![read(y.inner()), read(x.grad(&grads).expect("tracked")), read(dw), read(db)]
        };
        let expected = run(&Device::flex(), DType::F32, linear_reference);
        assert_agree(&format!("{dtype:?}"), &run(&gpu, dtype, linear), &expected, 1e-2);
    }
}

/// Output and both gradients.
fn run_residual(shape: [usize; 3], scaled: bool, device: &Device, residual: Residual) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let place = (&device, DType::F32);
    let [x, branch] = [1, 2].map(|seed| rough(shape, seed, place).require_grad());
    let keep = scaled.then(|| rough([shape[0]], 3, place));
    let y = residual(x.clone(), branch.clone(), keep);
    let grads = weighted(y.clone(), rough(shape, 4, place)).backward();
    let gradient = |t: Tensor<3>| read(t.grad(&grads).expect("tracked"));
    vec![read(y.inner()), gradient(x), gradient(branch)]
}

#[test]
fn residual_on_a_gpu_equals_its_reference() {
    let (gpu, _held) = device();
    for shape in [[1, 1, 1], [5, 7, 3], [3, 257, 64]] {
        for scaled in [false, true] {
            let expected = run_residual(shape, scaled, &Device::flex(), residual_reference);
            let found = run_residual(shape, scaled, &gpu, residual);
            assert_agree(&format!("{shape:?} scaled {scaled}"), &found, &expected, 1e-6);
        }
    }
}
