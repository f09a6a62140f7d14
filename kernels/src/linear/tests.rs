//! Linear layers against their reference, in f32 and bf16, forward and backward.

use super::*;
use crate::cpu::testing::{assert_close, assert_same_in_all_pools, own_products, random, read, rounded};
use crate::products::testing::bf16_arithmetics;
use burn::tensor::Device;
use proptest::prelude::*;

type Linear = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>;

/// Output and the gradients of what is tracked of `x`, weight and bias.
fn run(shape: [usize; 3], d_out: usize, bias: bool, tracked: [bool; 3], linear: Linear) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let [a, b, d_in] = shape;
    let x = random(shape, 1, &device).set_require_grad(tracked[0]);
    let weight = random([d_in, d_out], 2, &device).set_require_grad(tracked[1]);
    let bias = bias.then(|| random([d_out], 3, &device).set_require_grad(tracked[2]));
    let y = linear(x.clone(), weight.clone(), bias.clone());
    let factor = random([a, b, d_out], 4, &device).require_grad();
    let grads = (y.clone() * factor).sum().backward();
    let gradients = [
        x.grad(&grads).map(read),
        weight.grad(&grads).map(read),
        bias.and_then(|b| b.grad(&grads)).map(read),
    ];
    std::iter::once(read(y.inner())).chain(gradients.into_iter().flatten()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn fused_linear_equals_its_reference(
        a in 1usize..4,
        b in 1usize..300,
        d_in in 1usize..70,
        d_out in 1usize..70,
        bias: bool,
        tracked: [bool; 3],
    ) {
        let arguments = ([a, b, d_in], d_out, bias, tracked);
        let run = |linear: Linear| run(arguments.0, arguments.1, arguments.2, arguments.3, linear);
        let (found, expected) = (run(linear), run(linear_reference));
        prop_assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Sums of up to 900 terms in another order.
            assert_close(&format!("{index}"), found, expected, 1e-5);
        }
    }
}

/// Few rows are cut by columns of the result.
#[test]
fn any_number_of_rows_and_columns_equals_the_reference() {
    for rows in [1, 5, 6, 11, 12, 197, 384, 385] {
        for d_out in [31, 32, 33, 64, 200] {
            let run = |linear: Linear| run([1, rows, 40], d_out, true, [true; 3], linear);
            for (found, expected) in run(linear).iter().zip(&run(linear_reference)) {
                assert_close(&format!("{rows} rows, {d_out} columns"), found, expected, 1e-5);
            }
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_among_others() {
    let device = Device::flex();
    let weight = random([300, 65], 2, &device);
    let bias = random([65], 3, &device);
    let y = |x: Tensor<2>| linear(x, weight.clone(), Some(bias.clone()));
    for rows in [385, 2881, 3073] {
        let x = random([rows, 300], 1, &device);
        let all = y(x.clone());
        for count in [1, 3, 7, 384] {
            let first = rows - count;
            let [alone, among] =
                [y(x.clone().narrow(0, first, count)), all.clone().narrow(0, first, count)].map(read);
            assert_close("alone", &alone, &among, 1e-6);
            assert!(!own_products() || alone == among, "{count} of {rows} rows: not the same bits");
        }
    }
}

#[test]
fn weight_gradients_of_several_groups_of_rows_add_up() {
    let run = |linear: Linear| run([9, 257, 33], 65, true, [true; 3], linear);
    for (found, expected) in run(linear).iter().zip(&run(linear_reference)) {
        assert_close("several groups", found, expected, 1e-5);
    }
}

#[test]
fn linear_reads_views_and_records_nothing_for_constants() {
    let device = Device::flex();
    let x = random([6, 5, 4], 1, &device).swap_dims(0, 2).narrow(1, 1, 3);
    let weight = random([8, 6], 2, &device).swap_dims(0, 1);
    let bias = Some(random([8], 3, &device));
    let found = linear(x.clone(), weight.clone(), bias.clone());
    assert!(!found.device().is_autodiff());
    assert_close("views", &read(found), &read(linear_reference(x, weight, bias)), 1e-6);
}

#[test]
fn linear_does_not_depend_on_the_number_of_threads() {
    assert_same_in_all_pools(|| run([9, 257, 48], 80, true, [true; 3], linear));
    assert_same_in_all_pools(|| run([1, 197, 48], 200, true, [true; 3], linear));
}

/// As [`run`], all tracked, in bf16; the expected gradients are those of the rounded operands for a rounded `dy`.
fn assert_bf16(arithmetic: Arithmetic, [a, b, d_in]: [usize; 3], d_out: usize) {
    let device = Device::flex().autodiff();
    let x = random([a, b, d_in], 1, &device).require_grad();
    let weight = random([d_in, d_out], 2, &device).require_grad();
    let bias = random([d_out], 3, &device).require_grad();
    let dy = random([a, b, d_out], 4, &device);
    let y = linear_in(x.clone(), weight.clone(), Some(bias.clone()), arithmetic);
    let grads = (y.clone() * dy.clone()).sum().backward();
    let [dx, dw, db] = [x.grad(&grads).map(read), weight.grad(&grads).map(read), bias.grad(&grads).map(read)];

    let rx = rounded(x.inner()).reshape([a * b, d_in]);
    let rdy = rounded(dy.clone().inner()).reshape([a * b, d_out]);
    let rw = rounded(weight.inner());
    let name = |part| format!("{arithmetic:?} {part}");
    // Sums of up to 900 terms in another order.
    let expected = linear_reference(rx.clone(), rw.clone(), Some(bias.inner()));
    assert_close(&name("y"), &read(y.inner()), &read(expected), 1e-5);
    let expected = [rdy.clone().matmul(rw.transpose()), rx.transpose().matmul(rdy)].map(read);
    assert_close(&name("dx"), &dx.expect("tracked"), &expected[0], 1e-5);
    assert_close(&name("dw"), &dw.expect("tracked"), &expected[1], 1e-5);
    let expected = read(dy.inner().reshape([a * b, d_out]).sum_dim(0));
    assert_close(&name("db"), &db.expect("tracked"), &expected, 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bf16_rounds_the_operands_of_all_three_products_and_nothing_else(
        a in 1usize..4,
        b in 1usize..60,
        d_in in 1usize..40,
        d_out in 1usize..70,
    ) {
        for arithmetic in bf16_arithmetics() {
            assert_bf16(arithmetic, [a, b, d_in], d_out);
        }
    }
}

#[test]
fn bf16_sums_over_several_groups_of_rows() {
    for arithmetic in bf16_arithmetics() {
        assert_bf16(arithmetic, [3, 257, 17], 33);
    }
}

/// Half a unit of 8 bits in either operand, over sums of random sign: the errors add up as the terms do.
#[test]
fn bf16_stays_close_to_single_precision() {
    let sizes = ([2, 100, 64], 48, true, [true; 3]);
    let exact = run(sizes.0, sizes.1, sizes.2, sizes.3, linear);
    let rounding: Linear = |x, weight, bias| linear_in(x, weight, bias, Arithmetic::Emulated);
    for (found, exact) in run(sizes.0, sizes.1, sizes.2, sizes.3, rounding).iter().zip(&exact) {
        assert_close("bf16", found, exact, 2f32.powi(-8));
    }
    // Whatever this processor has: `Bf16` may round or not.
    let chosen: Linear = |x, weight, bias| linear_with(x, weight, bias, Products::Bf16);
    for (found, exact) in run(sizes.0, sizes.1, sizes.2, sizes.3, chosen).iter().zip(&exact) {
        assert_close("chosen", found, exact, 2f32.powi(-8));
    }
}

/// The gradient says how the loss moves along a direction, over steps that dwarf the rounding.
#[test]
fn bf16_gradients_agree_with_differences() {
    let device = Device::flex().autodiff();
    let loss =
        |x: Tensor<2>, weight: Tensor<2>| linear_in(x, weight, None, Arithmetic::Emulated).square().mean();
    let [x, weight] = [random([40, 24], 1, &device), random([24, 30], 2, &device)];
    // A direction in which the loss does change, and a random one on top.
    let along = |t: &Tensor<2>| (t.clone().inner() + random(t.dims(), 9, &Device::flex())) * 0.1;
    let (along_x, along_weight) = (along(&x), along(&weight));
    let (x, weight) = (x.require_grad(), weight.require_grad());
    let grads = loss(x.clone(), weight.clone()).backward();
    let slope = |gradient: Option<Tensor<2>>, along: &Tensor<2>| {
        (gradient.expect("tracked") * along.clone()).sum().into_scalar::<f32>()
    };
    let moved = |t: &Tensor<2>, along: &Tensor<2>, step: f32| t.clone().inner() + along.clone() * step;
    let found = slope(x.grad(&grads), &along_x);
    let ahead = loss(moved(&x, &along_x, 0.5), weight.clone().inner()).into_scalar::<f32>();
    let behind = loss(moved(&x, &along_x, -0.5), weight.clone().inner()).into_scalar::<f32>();
    assert!((ahead - behind - found).abs() <= 0.01 * found.abs(), "{found}, {}", ahead - behind);
    let found = slope(weight.grad(&grads), &along_weight);
    let ahead = loss(x.clone().inner(), moved(&weight, &along_weight, 0.5)).into_scalar::<f32>();
    let behind = loss(x.inner(), moved(&weight, &along_weight, -0.5)).into_scalar::<f32>();
    assert!((ahead - behind - found).abs() <= 0.01 * found.abs(), "{found}, {}", ahead - behind);
}

#[test]
fn bf16_does_not_depend_on_the_number_of_threads() {
    for arithmetic in bf16_arithmetics() {
        assert_same_in_all_pools(|| {
            let device = Device::flex().autodiff();
            let x = random([5, 157, 24], 1, &device).require_grad();
            let weight = random([24, 40], 2, &device).require_grad();
            let y = linear_in(x.clone(), weight.clone(), None, arithmetic);
            let grads = y.clone().square().sum().backward();
            let gradients = [x.grad(&grads).map(read), weight.grad(&grads).map(read)];
            std::iter::once(read(y.inner())).chain(gradients.into_iter().flatten()).collect()
        });
    }
}
