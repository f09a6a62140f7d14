//! Pointwise activations.

use burn::Tensor;
use burn::tensor::activation;

/// `max(x, 0)`.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    relu_reference(x)
}

/// [`relu`] in burn's operations.
pub fn relu_reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::relu(x)
}
