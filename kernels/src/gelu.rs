//! The Gaussian error linear unit.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;

use crate::choice::{first_order_only, serves};
use crate::cpu;

/// Exact GELU, `x Φ(x)` with the error function (Hendrycks & Gimpel, arXiv:1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !serves(&x) {
        return gelu_reference(x);
    }
    Tensor::from_dispatch(Dispatch::gelu_forward(x.into_dispatch()))
}

/// [`gelu`] in burn's operations.
pub fn gelu_reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// The operation on every backend that has kernels, and in its graph.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait GeluOps: Backend {
    /// See [`gelu`].
    #[fusion(dtype = x, shape = x)]
    fn gelu_forward(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// The gradient of `x`, given that of the output.
    #[fusion(dtype = x, shape = x)]
    fn gelu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GeluOps for Flex {
    fn gelu_forward(x: FlexTensor) -> FlexTensor {
        cpu::gelu::forward(x)
    }

    fn gelu_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        cpu::gelu::backward(x, dy)
    }
}

impl<B: GeluOps, C: CheckpointStrategy> GeluOps for Autodiff<B, C> {
    fn gelu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GeluBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                prep.finish(state, B::gelu_forward(x.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gelu_forward(x.into_primitive())),
        }
    }

    fn gelu_backward(_x: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        first_order_only()
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: GeluOps> Backward<B, 1> for GeluBackward {
    /// The input.
    type State = NodeId;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, <B as GeluOps>::gelu_backward(x, dy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;
    use burn::tensor::TensorData;

    /// Output and gradient, the latter weighted by `weight`.
    fn run(
        values: Vec<f32>,
        weight: impl Fn(&Device) -> Tensor<1>,
        gelu: fn(Tensor<1>) -> Tensor<1>,
    ) -> [Vec<f32>; 2] {
        let device = Device::flex().autodiff();
        let count = values.len();
        let x = Tensor::from_data(TensorData::new(values, [count]), &device).require_grad();
        let y = gelu(x.clone());
        let grads = (y.clone() * weight(&device)).sum().backward();
        [read(y.inner()), read(x.grad(&grads).expect("tracked"))]
    }

    /// `Φ(x)` by its Taylor series around 0 (all terms of one sign): 1e-15 for `|x| < 6`.
    fn distribution(x: f64) -> f64 {
        let (mut term, mut total, mut odd) = (x, x, 1.0);
        while term.abs() > 1e-18 * total.abs() {
            odd += 2.0;
            term *= x * x / odd;
            total += term;
        }
        0.5 + total * density(x)
    }

    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn gelu_and_its_derivative_are_exact_to_single_precision() {
        let points: Vec<f32> = (-6000..=6000).map(|i| i as f32 * 1e-3).collect();
        let [y, dx] = run(points.clone(), |device| Tensor::ones([12_001], device), gelu);
        for ((&x, y), dx) in points.iter().zip(y).zip(dx) {
            let x = f64::from(x);
            let (value, slope) = (x * distribution(x), distribution(x) + x * density(x));
            let (y_error, dx_error) = ((f64::from(y) - value).abs(), (f64::from(dx) - slope).abs());
            // Φ within two units in the last place of 1, the polynomial's 1.3e-8, the product's rounding.
            assert!(y_error <= 2.2e-7 * x.abs(), "gelu({x}) = {y}, exactly {value}");
            assert!(dx_error <= 3e-7, "gelu'({x}) = {dx}, exactly {slope}");
        }
    }

    #[test]
    fn gelu_equals_its_reference_and_keeps_what_is_not_a_number() {
        for count in [1, 5, 4095, 4097, 40_001] {
            let values = read(random([count], 1, &Device::flex()).mul_scalar(4.0));
            let weight = |device: &Device| random([count], 2, device);
            let (found, expected) = (run(values.clone(), weight, gelu), run(values, weight, gelu_reference));
            assert_close("y", &found[0], &expected[0], 3e-7);
            assert_close("dx", &found[1], &expected[1], 5e-7);
        }
        let [y, dx] =
            run(vec![f32::NAN, f32::INFINITY, 80.0, -80.0], |device| Tensor::ones([4], device), gelu);
        assert!(y[0].is_nan() && dx[0].is_nan());
        assert_eq!((y[1], y[2], dx[2]), (f32::INFINITY, 80.0, 1.0));
        assert!(y[3].abs() < 1e-30 && dx[3].abs() < 1e-30);
    }

    #[test]
    fn gelu_in_place_leaves_other_holders_alone() {
        let x = random([100], 3, &Device::flex());
        let (before, kept) = (read(x.clone()), x.clone());
        let y = read(gelu(x));
        assert_eq!(read(kept.clone()), before);
        assert_eq!(read(gelu(kept)), y);
    }

    #[test]
    fn gelu_does_not_depend_on_the_number_of_threads() {
        let weight = |device: &Device| random([100_000], 2, device);
        assert_same_in_all_pools(|| run(read(random([100_000], 1, &Device::flex())), weight, gelu).to_vec());
    }
}
