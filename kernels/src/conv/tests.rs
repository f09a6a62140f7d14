//! Convolution against burn's own, forward and backward, over odd sizes.

use burn::tensor::Device;
use burn::tensor::{Distribution, Tolerance};
use proptest::prelude::*;

use super::*;
use crate::cpu::bf16::rounded;
use crate::cpu::testing::{assert_close, assert_same_in_all_pools, noise};
use crate::products::testing::bf16_arithmetics;

/// Output and the gradients of image, weight and bias for a weighted sum of the output.
fn run(
    conv: impl Fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize, usize) -> Tensor<4>,
    shape: Shape,
    bias: bool,
    [x, weight]: [&Tensor<4>; 2],
) -> Vec<Vec<f32>> {
    let bias = bias.then(|| (Tensor::<1>::ones([shape.outputs], &x.device()) * 0.5).require_grad());
    let (x, weight) = (x.clone().require_grad(), weight.clone().require_grad());
    let y = conv(x.clone(), weight.clone(), bias.clone(), shape.stride, shape.padding);
    // A gradient that differs from place to place.
    let count = y.shape().num_elements() as i64;
    let slope = Tensor::<1, burn::tensor::Int>::arange(0..count, &x.device()).float();
    let slope = ((slope * 0.37).sin() + 0.2).reshape(y.dims());
    let grads = (y.clone() * slope).sum().backward();
    let mut all = vec![y.into_data(), x.grad(&grads).expect("tracked").into_data()];
    all.push(weight.grad(&grads).expect("tracked").into_data());
    all.extend(bias.map(|bias| bias.grad(&grads).expect("tracked").into_data()));
    all.into_iter().map(|data| data.try_to_vec::<f32>().expect("f32")).collect()
}

fn operands(shape: Shape) -> [Tensor<4>; 2] {
    let device = Device::flex().autodiff();
    let wide = Distribution::Uniform(-1.0, 1.0);
    let [kh, kw] = shape.kernel;
    [
        Tensor::random([shape.batch, shape.channels, shape.height, shape.width], wide, &device),
        Tensor::random([shape.outputs, shape.channels, kh, kw], wide, &device),
    ]
}

fn close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    // f32 sums of up to a few thousand terms of size one, in different orders.
    let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 2e-5 * scale, "{name}[{i}]: {f} instead of {e}");
    }
}

fn agrees(shape: Shape, bias: bool) {
    let [x, weight] = operands(shape);
    let found = run(conv2d, shape, bias, [&x, &weight]);
    let expected = run(conv2d_reference, shape, bias, [&x, &weight]);
    for (name, (found, expected)) in ["y", "dx", "dweight", "dbias"].iter().zip(found.iter().zip(&expected)) {
        close(&format!("{shape:?} {name}"), found, expected);
    }
}

fn shape(image: [usize; 4], outputs: usize, kernel: [usize; 2], stride: usize, padding: usize) -> Shape {
    let [batch, channels, height, width] = image;
    Shape { batch, channels, height, width, outputs, kernel, stride, padding }
}

#[test]
fn agrees_with_burn_on_the_shapes_of_real_networks() {
    agrees(shape([5, 3, 28, 28], 16, [3, 3], 1, 1), false);
    agrees(shape([19, 16, 14, 14], 32, [3, 3], 2, 1), false);
    agrees(shape([18, 32, 7, 7], 64, [3, 3], 1, 1), false);
    agrees(shape([3, 16, 28, 28], 32, [1, 1], 2, 0), false);
    agrees(shape([2, 3, 33, 35], 20, [7, 7], 2, 3), true);
    agrees(shape([2, 3, 32, 32], 24, [2, 2], 2, 0), true);
    agrees(shape([1, 3, 48, 32], 40, [16, 16], 16, 0), true);
}

/// Sums over rounded operands, as the portable loops compute them in `f32`; the gradients round `dy` too.
fn assert_bf16(shape: Shape) {
    let layout = Layout::new(shape).expect("the kernel fits");
    let [kh, kw] = shape.kernel;
    let x = noise(shape.batch * shape.channels * shape.height * shape.width, 1);
    let weight = noise(shape.outputs * shape.channels * kh * kw, 2);
    let dy = noise(shape.batch * shape.outputs * layout.output[0] * layout.output[1], 3);
    let run = |level, x: &[f32], weight: &[f32], dy: &[f32]| {
        let found = conv_cpu::backward(level, &layout, x, weight, dy, [true, true]);
        let y = conv_cpu::forward(level, &layout, x, weight, None);
        [Some(y), found.image, found.weight].map(|values| values.expect("wanted"))
    };
    let [rx, rweight, rdy] =
        [&x, &weight, &dy].map(|values| values.iter().map(|&value| rounded(value)).collect::<Vec<_>>());
    let expected = run(Level::Portable, &rx, &rweight, &rdy);
    for arithmetic in bf16_arithmetics() {
        let found = run(Level::of(arithmetic), &x, &weight, &dy);
        for (name, (found, expected)) in ["y", "dx", "dweight"].iter().zip(found.iter().zip(&expected)) {
            close(&format!("{arithmetic:?} {shape:?} {name}"), found, expected);
        }
    }
}

#[test]
fn bf16_rounds_the_operands_of_all_products_of_real_networks() {
    assert_bf16(shape([5, 3, 28, 28], 16, [3, 3], 1, 1));
    assert_bf16(shape([3, 16, 14, 14], 32, [3, 3], 2, 1));
    assert_bf16(shape([3, 16, 28, 28], 20, [1, 1], 2, 0));
    assert_bf16(shape([2, 3, 33, 35], 20, [7, 7], 2, 3));
}

#[test]
fn bf16_stays_close_to_single_precision_in_a_graph() {
    let shape = shape([2, 4, 9, 11], 6, [3, 3], 1, 1);
    let [x, weight] = operands(shape);
    let exact = run(conv2d, shape, true, [&x, &weight]);
    for arithmetic in bf16_arithmetics() {
        let conv = |x, weight, bias, stride, padding| conv2d_in(x, weight, bias, stride, padding, arithmetic);
        let found = run(conv, shape, true, [&x, &weight]);
        // Half a unit of 8 bits in either operand; the gradient of the bias is a sum of what is not rounded.
        for (index, (found, exact)) in found.iter().zip(&exact).enumerate() {
            let tolerance = if index == 3 { 0.0 } else { 2f32.powi(-7) };
            assert_close(&format!("{arithmetic:?} {index}"), found, exact, tolerance);
        }
        assert_ne!(found[0], exact[0], "nothing was rounded");
    }
}

#[test]
fn bf16_does_not_depend_on_the_number_of_threads() {
    for arithmetic in bf16_arithmetics() {
        for shape in [shape([19, 3, 7, 7], 10, [3, 3], 1, 1), shape([1, 4, 15, 15], 40, [3, 3], 2, 1)] {
            let [x, weight] = operands(shape);
            assert_same_in_all_pools(|| {
                let conv = |x, weight, bias, stride, padding| {
                    conv2d_in(x, weight, bias, stride, padding, arithmetic)
                };
                run(conv, shape, true, [&x, &weight])
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn agrees_with_burn_on_any_shape(
        (batch, channels, outputs) in (1usize..4, 1usize..6, 1usize..11),
        (height, width) in (1usize..20, 1usize..20),
        (kh, kw) in (1usize..6, 1usize..6),
        (stride, padding) in (1usize..5, 0usize..4),
        bias in any::<bool>(),
    ) {
        let shape = shape([batch, channels, height, width], outputs, [kh, kw], stride, padding);
        prop_assume!(shape.output().is_some());
        agrees(shape, bias);
    }

    #[test]
    fn bf16_rounds_the_operands_on_any_shape(
        (batch, channels, outputs) in (1usize..4, 1usize..6, 1usize..11),
        (height, width) in (1usize..20, 1usize..20),
        (kh, kw) in (1usize..6, 1usize..6),
        (stride, padding) in (1usize..5, 0usize..4),
    ) {
        let shape = shape([batch, channels, height, width], outputs, [kh, kw], stride, padding);
        prop_assume!(shape.output().is_some());
        assert_bf16(shape);
    }
}

/// Pictures so small that their columns are multiplied, with channels in several pieces.
#[test]
fn small_pictures_agree_with_burn() {
    for (size, kernel, stride, padding) in
        [(4, 3, 1, 1), (4, 3, 2, 1), (2, 3, 1, 1), (2, 3, 2, 1), (1, 3, 1, 1), (1, 1, 1, 0), (2, 1, 2, 0)]
    {
        let shape = shape([7, 35, size, size], 70, [kernel; 2], stride, padding);
        assert!(conv_columns::suits(&Layout::new(shape).expect("the kernel fits")), "{shape:?}");
        agrees(shape, true);
        let [x, weight] = operands(shape);
        assert_same_in_all_pools(|| run(conv2d, shape, true, [&x, &weight]));
    }
}

/// Kernels of one pixel, with positions, channels and images in several pieces.
#[test]
fn kernels_of_one_pixel_agree_with_burn() {
    for (image, outputs) in
        [([5, 40, 9, 11], 70), ([1, 150, 25, 37], 33), ([37, 32, 3, 7], 6), ([3, 64, 1, 9], 1)]
    {
        let shape = shape(image, outputs, [1, 1], 1, 0);
        let layout = Layout::new(shape).expect("the kernel fits");
        assert!(conv_pointwise::suits(&layout) && !conv_columns::suits(&layout), "{shape:?}");
        agrees(shape, true);
        let [x, weight] = operands(shape);
        assert_same_in_all_pools(|| run(conv2d, shape, true, [&x, &weight]));
        let exact = run(conv2d, shape, false, [&x, &weight]);
        for arithmetic in bf16_arithmetics() {
            let conv =
                |x, weight, bias, stride, padding| conv2d_in(x, weight, bias, stride, padding, arithmetic);
            for (found, exact) in run(conv, shape, false, [&x, &weight]).iter().zip(&exact) {
                assert_close(&format!("{arithmetic:?} {shape:?}"), found, exact, 2f32.powi(-7));
            }
        }
    }
}

#[test]
fn every_instruction_set_agrees() {
    let shape = shape([3, 5, 9, 11], 9, [3, 2], 2, 1);
    let layout = Layout::new(shape).expect("the kernel fits");
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
    let x = wave(3 * 5 * 9 * 11, 0.3);
    let weight = wave(9 * 5 * 3 * 2, 0.7);
    let dy = wave(3 * 9 * layout.output[0] * layout.output[1], 1.1);
    let run = |level| {
        let found = conv_cpu::backward(level, &layout, &x, &weight, &dy, [true, true]);
        let y = conv_cpu::forward(level, &layout, &x, &weight, None);
        [Some(y), found.image, found.weight].map(|values| values.expect("wanted"))
    };
    let expected = run(Level::Portable);
    for level in Level::available() {
        for (found, expected) in run(level).iter().zip(&expected) {
            close(&format!("{level:?}"), found, expected);
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for shape in [shape([37, 6, 7, 7], 10, [3, 3], 1, 1), shape([1, 6, 15, 15], 40, [3, 3], 2, 1)] {
        let [x, weight] = operands(shape);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| run(conv2d, shape, true, [&x, &weight]))
        };
        let one = with(1);
        assert_eq!(one, with(2));
        assert_eq!(one, with(5));
    }
}

#[test]
fn an_untracked_image_gets_no_gradient_and_the_weight_still_does() {
    let shape = shape([2, 3, 8, 8], 4, [3, 3], 1, 1);
    let [x, weight] = operands(shape);
    let weight = weight.require_grad();
    let grads = conv2d(x.clone(), weight.clone(), None, 1, 1).sum().backward();
    assert!(x.grad(&grads).is_none());
    let expected = conv2d_reference(x, weight.clone(), None, 1, 1).sum().backward();
    let expected = weight.grad(&expected).expect("tracked").into_data();
    weight
        .grad(&grads)
        .expect("tracked")
        .into_data()
        .assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-4, 1e-4));
}

#[test]
fn a_permuted_image_gives_the_same() {
    let device = Device::flex();
    let x =
        Tensor::<4>::random([2, 8, 9, 3], Distribution::Uniform(-1.0, 1.0), &device).permute([0, 3, 1, 2]);
    let weight = Tensor::<4>::random([4, 3, 3, 3], Distribution::Uniform(-1.0, 1.0), &device);
    let found = conv2d(x.clone(), weight.clone(), None, 1, 1).into_data();
    let expected = conv2d_reference(x, weight, None, 1, 1).into_data();
    found.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-5, 1e-5));
}
