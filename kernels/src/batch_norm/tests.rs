//! Batch normalisation against burn's operations, with and without residual and ReLU, forward and backward.

use burn::tensor::Device;
use burn::tensor::Distribution;
use proptest::prelude::*;

use super::*;

type Norm =
    fn(Tensor<4>, Tensor<1>, Tensor<1>, f32, Option<Tensor<4>>, bool) -> (Tensor<4>, Tensor<1>, Tensor<1>);

/// `x`, `gamma`, `beta`, residual, and the gradient the output receives.
fn operands(dims: [usize; 4]) -> (Tensor<4>, Tensor<1>, Tensor<1>, Tensor<4>, Tensor<4>) {
    let device = Device::flex().autodiff();
    let normal = |mean, spread| Tensor::<4>::random(dims, Distribution::Normal(mean, spread), &device);
    let channel = |low, high| Tensor::<1>::random([dims[1]], Distribution::Uniform(low, high), &device);
    (normal(3.0, 2.0), channel(0.5, 2.0), channel(-1.0, 1.0), normal(0.0, 1.0), normal(0.1, 1.0))
}

/// Output, mean, variance, then the gradients of x, gamma, beta and residual.
fn run(
    norm: Norm,
    residual: bool,
    rectify: bool,
    of: &(Tensor<4>, Tensor<1>, Tensor<1>, Tensor<4>, Tensor<4>),
) -> Vec<Vec<f32>> {
    let (x, gamma, beta, add, slope) = of.clone();
    let (x, gamma, beta, add) =
        (x.require_grad(), gamma.require_grad(), beta.require_grad(), add.require_grad());
    let (y, mean, var) =
        norm(x.clone(), gamma.clone(), beta.clone(), 1e-5, residual.then(|| add.clone()), rectify);
    let grads = (y.clone() * slope).sum().backward();
    let mut all = vec![y.into_data(), mean.into_data(), var.into_data()];
    all.push(x.grad(&grads).expect("tracked").into_data());
    all.extend([gamma, beta].map(|t| t.grad(&grads).expect("tracked").into_data()));
    all.extend(residual.then(|| add.grad(&grads).expect("tracked").into_data()));
    all.into_iter().map(|data| data.try_to_vec::<f32>().expect("f32")).collect()
}

fn agrees(dims: [usize; 4], residual: bool, rectify: bool) {
    let of = operands(dims);
    let found = run(batch_norm_train, residual, rectify, &of);
    let expected = run(batch_norm_train_reference, residual, rectify, &of);
    // Two or three values of a channel may have almost no spread; 1/√(var + eps) then magnifies the rounding.
    let few = if dims[0] * dims[2] * dims[3] < 16 { 50.0 } else { 1.0 };
    // Where the output is zero but for rounding, a ReLU opens for one and not for the other.
    let open = rectify && found[0].iter().zip(&expected[0]).any(|(f, e)| (*f > 0.0) != (*e > 0.0));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate().filter(|(i, _)| !open || *i < 3) {
        let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for (f, e) in found.iter().zip(expected) {
            // f32 sums over a channel, the reference's in f32 throughout.
            assert!(
                (f - e).abs() <= few * 5e-5 * scale,
                "{dims:?} {residual} {rectify} value {i}: {f}, not {e}"
            );
        }
    }
}

#[test]
fn agrees_with_the_reference_on_the_shapes_of_a_small_network() {
    for (dims, residual) in [([32, 16, 28, 28], false), ([32, 32, 14, 14], true), ([32, 64, 7, 7], true)] {
        agrees(dims, residual, true);
        agrees(dims, residual, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_the_reference_on_any_shape(
        (batch, channels) in (1usize..6, 1usize..5),
        (height, width) in (1usize..9, 1usize..9),
        (residual, rectify) in any::<(bool, bool)>(),
    ) {
        // One value has no variance: output and gradients are those of beta alone, rounding is all that differs.
        prop_assume!(batch * height * width > 1);
        agrees([batch, channels, height, width], residual, rectify);
    }
}

/// Output, mean, variance and gradients of three ranks with 4, 1 and 2 of 7 images, one behind the other as `run` has
/// them; their losses weigh as their images.
fn on_ranks(
    reference: bool,
    residual: bool,
    of: &(Tensor<4>, Tensor<1>, Tensor<1>, Tensor<4>, Tensor<4>),
) -> Vec<Vec<f32>> {
    let parts = [(0usize, 4usize), (4, 1), (5, 2)];
    let exchanges = crate::joined::testing::Table::of(&parts.map(|(_, count)| count as f64 / 7.0));
    let values = |data: burn::tensor::TensorData| data.try_to_vec::<f32>().expect("f32");
    let seen: Vec<Vec<Vec<f32>>> = std::thread::scope(|scope| {
        let ranks = parts.into_iter().zip(exchanges).map(|((start, count), exchange)| {
            let (x, gamma, beta, add, slope) = of.clone();
            scope.spawn(move || {
                let part =
                    |t: Tensor<4>| Tensor::from_inner(t.inner().narrow(0, start, count)).require_grad();
                let [gamma, beta] = [gamma, beta].map(|t| Tensor::from_inner(t.inner()).require_grad());
                let (x, add) = (part(x), part(add));
                let norm =
                    if reference { batch_norm_train_joined_reference } else { batch_norm_train_joined };
                let (y, mean, var, all) = norm(
                    x.clone(),
                    gamma.clone(),
                    beta.clone(),
                    1e-5,
                    residual.then(|| add.clone()),
                    true,
                    &exchange,
                );
                let [_, _, height, width] = x.dims();
                assert_eq!(all, 7 * height * width);
                // A rank's loss is a mean over its own images.
                let weight = count as f32 / 7.0;
                let loss = (y.clone() * part(slope).detach()).sum().div_scalar(weight);
                let grads = loss.backward();
                let mut all =
                    vec![values(y.inner().into_data()), values(mean.into_data()), values(var.into_data())];
                let scaled = |g: Vec<f32>| g.into_iter().map(|g| g * weight).collect::<Vec<_>>();
                all.push(scaled(values(x.grad(&grads).expect("tracked").into_data())));
                all.extend(
                    [gamma, beta].map(|t| scaled(values(t.grad(&grads).expect("tracked").into_data()))),
                );
                all.extend(residual.then(|| scaled(values(add.grad(&grads).expect("tracked").into_data()))));
                all
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
    });
    let joined = |i: usize| seen.iter().flat_map(|rank| rank[i].clone()).collect::<Vec<_>>();
    let added = |i: usize| {
        (0..seen[0][i].len()).map(|c| seen.iter().map(|rank| rank[i][c]).sum()).collect::<Vec<f32>>()
    };
    assert!(seen.iter().all(|rank| rank[1] == seen[0][1] && rank[2] == seen[0][2]), "statistics differ");
    let mut all = vec![joined(0), seen[0][1].clone(), seen[0][2].clone(), joined(3), added(4), added(5)];
    all.extend(residual.then(|| joined(6)));
    all
}

#[test]
fn ranks_with_unequal_rows_normalise_as_one() {
    for (dims, residual) in [([7, 3, 5, 4], false), ([7, 5, 3, 3], true), ([7, 2, 1, 1], false)] {
        let of = operands(dims);
        let expected = run(batch_norm_train, residual, true, &of);
        for reference in [false, true] {
            let found = on_ranks(reference, residual, &of);
            // Where the output is zero but for rounding, a ReLU opens for one and not for the other.
            let open = found[0].iter().zip(&expected[0]).any(|(f, e)| (*f > 0.0) != (*e > 0.0));
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in
                found.iter().zip(&expected).enumerate().filter(|(i, _)| !open || *i < 3)
            {
                let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for (f, e) in found.iter().zip(expected) {
                    // f32 sums over a channel and over ranks.
                    assert!((f - e).abs() <= 5e-5 * scale, "{dims:?} {reference} value {i}: {f}, not {e}");
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let of = operands([13, 5, 6, 7]);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| run(batch_norm_train, true, true, &of))
    };
    assert_eq!(with(1), with(2));
}

#[test]
fn without_a_graph_the_result_is_the_same_and_shared_inputs_survive() {
    let (x, gamma, beta, add, _) = operands([4, 3, 5, 5]);
    let [x, add] = [x, add].map(Tensor::inner);
    let before = x.to_data();
    let run = |norm: Norm, x: Tensor<4>| {
        let affine = (gamma.clone().inner(), beta.clone().inner());
        norm(x, affine.0, affine.1, 1e-5, Some(add.clone()), true)
            .0
            .into_data()
            .try_to_vec::<f32>()
            .expect("f32")
    };
    let shared = run(batch_norm_train, x.clone());
    assert_eq!(x.to_data(), before);
    assert_eq!(shared, run(batch_norm_train, x.clone() + 0.0), "in place");
    let expected = run(batch_norm_train_reference, x);
    assert!(shared.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-5));
}
