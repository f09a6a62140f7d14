//! Pointwise activations.

use burn::Tensor;
use burn::tensor::activation;

/// Exact GELU, `x Φ(x)` with the error function (Hendrycks & Gimpel, arXiv:1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gelu_reference(x)
}

/// [`gelu`] in burn's operations.
pub fn gelu_reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}
