//! The norm of all gradients together, and what clipping makes of it.

use burn::Tensor;
use burn::backend::Flex;

use crate::cpu::{self, serves};

/// The Euclidean norm of all values of all `gradients` together, `[1]`, on their device. Each is flat and off the graph.
///
/// On the CPU squares are added up in double precision, in an order that depends on the lengths alone.
///
/// # Panics
/// If there are none.
pub fn gradient_norm(gradients: &[Tensor<1>]) -> Tensor<1> {
    if gradients.is_empty() || !gradients.iter().all(|g| serves(g) && !g.device().is_autodiff()) {
        return gradient_norm_reference(gradients);
    }
    let plain = |gradient: &Tensor<1>| {
        let plain = gradient.clone().try_into_primitive::<Flex>();
        plain.expect("a plain tensor of the CPU backend, as just checked")
    };
    Tensor::from_primitive::<Flex>(cpu::gradient_norm::norm(gradients.iter().map(plain)))
}

/// [`gradient_norm`] in burn's operations, which add up in single precision.
pub fn gradient_norm_reference(gradients: &[Tensor<1>]) -> Tensor<1> {
    assert!(!gradients.is_empty(), "gradient_norm: there are no gradients");
    let squares = gradients.iter().map(|gradient| gradient.clone().square().sum()).collect();
    Tensor::cat(squares, 0).sum().sqrt()
}

/// The factor that brings gradients of this `norm`, `[1]`, down to a norm of `limit`: `limit / (norm + 1e-6)`, at most 1
/// (Pascanu et al., arXiv:1211.5063, as in PyTorch's `clip_grad_norm_`).
///
/// It is NaN where the norm is not finite. PyTorch's is then 0 for an infinite norm, which stops the network without a word;
/// NaN reaches the weights and the next loss, where it is noticed.
pub fn clip_factor(norm: Tensor<1>, limit: f64) -> Tensor<1> {
    let lost = norm.clone().is_finite().bool_not();
    norm.add_scalar(1e-6).recip().mul_scalar(limit).clamp_max(1.0).mask_fill(lost, f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_same_in_all_pools, noise, random, read};
    use burn::tensor::Device;

    fn gradients(lengths: &[usize]) -> Vec<Tensor<1>> {
        let device = Device::flex();
        lengths.iter().zip(1..).map(|(length, seed)| random([*length], seed, &device)).collect()
    }

    const LENGTHS: [usize; 7] = [1, 7, 40_000, 16_384, 31, 3, 16_385];

    #[test]
    fn the_norm_is_that_of_all_values() {
        for lengths in [&LENGTHS[..], &[1], &[5, 1], &[16_384]] {
            let gradients = gradients(lengths);
            let values: Vec<f32> = gradients.iter().cloned().flat_map(read).collect();
            let exact = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let [found, reference] =
                [gradient_norm(&gradients), gradient_norm_reference(&gradients)].map(read);
            // One rounding to single precision.
            assert!((f64::from(found[0]) / exact - 1.0).abs() < 6e-8, "{} {exact}", found[0]);
            // A single-precision sum of some 70,000 squares.
            assert!((f64::from(reference[0]) / exact - 1.0).abs() < 1e-4, "{} {exact}", reference[0]);
        }
    }

    #[test]
    fn squares_beyond_single_precision_add_up() {
        let device = Device::flex();
        for scale in [1e30f32, 1e-30] {
            let far = gradient_norm(&[Tensor::from_floats([3.0 * scale, -4.0 * scale], &device)]);
            assert!((read(far)[0] / scale - 5.0).abs() < 1e-5);
        }
    }

    #[test]
    fn gradients_may_be_views() {
        let whole = random::<2>([90, 70], 1, &Device::flex());
        let transposed: Tensor<1> = whole.clone().swap_dims(0, 1).reshape([6300]);
        let part = random::<1>([100], 2, &Device::flex()).narrow(0, 3, 50);
        let copied = Tensor::from_floats(noise(100, 2)[3..53].to_vec().as_slice(), &Device::flex());
        let found = read(gradient_norm(&[transposed.clone(), part]));
        assert_eq!(found, read(gradient_norm(&[transposed, copied])));
    }

    #[test]
    fn clipping_only_ever_shrinks() {
        let factor =
            |norm: f32, limit| read(clip_factor(Tensor::from_floats([norm], &Device::flex()), limit))[0];
        for (norm, limit, expected) in [(0.0, 1.0, 1.0), (0.5, 1.0, 1.0), (4.0, 1.0, 0.25), (10.0, 5.0, 0.5)]
        {
            // Of 1e-6 / 4 and rounding.
            assert!((factor(norm, limit) - expected).abs() < 4e-7, "{norm} {limit}");
        }
    }

    #[test]
    fn a_norm_that_is_no_number_shows_in_the_factor() {
        for lost in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let gradients = [Tensor::from_floats([1.0, lost, 2.0], &Device::flex())];
            for norm in [gradient_norm(&gradients), gradient_norm_reference(&gradients)] {
                assert!(!read(norm.clone())[0].is_finite());
                assert!(read(clip_factor(norm, 1.0))[0].is_nan());
            }
        }
    }

    #[test]
    fn the_norm_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| vec![read(gradient_norm(&gradients(&LENGTHS)))]);
    }
}
