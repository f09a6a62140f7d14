//! Layer normalisation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, ExtensionType, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, FloatDType, Tensor};
use burn_flex::FlexTensor;

use crate::choice::{first_order_only, serves, serves_beside};
use crate::cpu;

/// Normalises the last axis: `(x − mean) / √(var + eps) · gamma + beta` (Ba et al., arXiv:1607.06450).
///
/// `x`: `[.., width]`; `gamma`, `beta`: `[width]`, of the type of `x`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, eps: f32) -> Tensor<D> {
    let [width] = gamma.dims();
    assert_eq!(x.dims()[D - 1], width, "layer_norm: x {:?} and gamma of {width}", x.dims());
    assert_eq!(beta.dims(), [width], "layer_norm: gamma of {width}, beta {:?}", beta.dims());
    if !(serves(&x) && serves_beside(&gamma, &x) && serves_beside(&beta, &x)) {
        return layer_norm_reference(x, gamma, beta, eps);
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(Dispatch::layer_norm_forward(x, gamma, beta, eps))
}

/// [`layer_norm`] in burn's operations; statistics of 16-bit tensors are computed in 32 bits.
pub fn layer_norm_reference<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    let narrow = match x.dtype() {
        DType::F16 => Some(FloatDType::F16),
        DType::BF16 => Some(FloatDType::BF16),
        _ => None,
    };
    let (x, gamma, beta) = match narrow {
        Some(_) => (x.cast(FloatDType::F32), gamma.cast(FloatDType::F32), beta.cast(FloatDType::F32)),
        None => (x, gamma, beta),
    };
    let (var, mean) = x.clone().var_mean_bias(D - 1);
    let normal = (x - mean) / var.add_scalar(eps).sqrt();
    let y = normal * gamma.unsqueeze() + beta.unsqueeze();
    match narrow {
        Some(dtype) => y.cast(dtype),
        None => y,
    }
}

/// The operation on every backend that has kernels, and in its graph.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait LayerNormOps: Backend {
    /// See [`layer_norm`].
    #[fusion(dtype = x, shape = x)]
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    /// The gradients of `x`, `gamma` and `beta`, given that of the output.
    #[fusion(meta = |x, gamma, _dy, _eps| LayerNormGradientsMetadata {
        x: x.clone(),
        gamma: gamma.clone(),
        beta: gamma.clone(),
    })]
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> LayerNormGradients<Self>;
}

/// Gradients of the three inputs.
#[derive(ExtensionType)]
#[cfg_attr(feature = "cube", extension_type(fusion))]
pub(crate) struct LayerNormGradients<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) beta: FloatTensor<B>,
}

impl LayerNormOps for Flex {
    fn layer_norm_forward(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f32) -> FlexTensor {
        cpu::layer_norm::forward(x, gamma, beta, eps)
    }

    fn layer_norm_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        dy: FlexTensor,
        eps: f32,
    ) -> LayerNormGradients<Self> {
        let [x, gamma, beta] = cpu::layer_norm::backward(x, gamma, dy, eps);
        LayerNormGradients { x, gamma, beta }
    }
}

impl<B: LayerNormOps, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), eps);
                let y = B::layer_norm_forward(
                    x.into_primitive(),
                    gamma.into_primitive(),
                    beta.into_primitive(),
                    eps,
                );
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => {
                let y = B::layer_norm_forward(
                    x.into_primitive(),
                    gamma.into_primitive(),
                    beta.into_primitive(),
                    eps,
                );
                prep.finish(y)
            }
        }
    }

    fn layer_norm_backward(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _eps: f32,
    ) -> LayerNormGradients<Self> {
        first_order_only()
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: LayerNormOps> Backward<B, 3> for LayerNormBackward {
    /// `x`, `gamma`, `eps`.
    type State = (NodeId, NodeId, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gamma, eps) = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        let gamma = checkpointer.retrieve_node_output::<FloatTensor<B>>(gamma);
        let LayerNormGradients { x, gamma, beta } = B::layer_norm_backward(x, gamma, dy, eps);
        for (parent, gradient) in ops.parents.into_iter().zip([x, gamma, beta]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;
    use proptest::prelude::*;

    /// Output and the three gradients.
    fn run(shape: [usize; 3], norm: fn(Tensor<3>, Tensor<1>, Tensor<1>, f32) -> Tensor<3>) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let x = random(shape, 1, &device).mul_scalar(3.0).add_scalar(0.5).detach().require_grad();
        let gamma = random([shape[2]], 2, &device).require_grad();
        let beta = random([shape[2]], 3, &device).require_grad();
        let y = norm(x.clone(), gamma.clone(), beta.clone(), 1e-6);
        let grads = (y.clone() * random(shape, 4, &device)).sum().backward();
        let gradient = |t: &Tensor<1>| read(t.grad(&grads).expect("tracked"));
        vec![read(y.inner()), read(x.grad(&grads).expect("tracked")), gradient(&gamma), gradient(&beta)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn fused_layer_norm_equals_its_reference(a in 1usize..5, b in 1usize..70, width in 2usize..130) {
            let (found, expected) = (run([a, b, width], layer_norm), run([a, b, width], layer_norm_reference));
            for (name, (found, expected)) in ["y", "dx", "dgamma", "dbeta"].iter().zip(found.iter().zip(&expected)) {
                // Narrow rows can have a variance near 0, which magnifies rounding.
                assert_close(name, found, expected, if width < 8 { 1e-3 } else { 2e-5 });
            }
        }
    }

    #[test]
    fn layer_norm_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| run([9, 131, 48], layer_norm));
    }

    #[test]
    fn sixteen_bit_layer_norm_keeps_its_type() {
        let device = Device::flex();
        let [x, y] = [5, 5].map(|seed| random([2, 3, 16], seed, &device));
        let (gamma, beta) = (random([16], 6, &device), random([16], 7, &device));
        let expected = read(layer_norm(x, gamma.clone(), beta.clone(), 1e-6));
        let [gamma, beta] = [gamma, beta].map(|t| t.cast(FloatDType::BF16));
        let y = layer_norm(y.cast(FloatDType::BF16), gamma, beta, 1e-6);
        assert_eq!(y.dtype(), DType::BF16);
        assert_close("y", &read(y.cast(FloatDType::F32)), &expected, 0.02);
    }
}
