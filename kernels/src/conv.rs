//! Two-dimensional convolution.

use burn::Tensor;
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;

/// Convolution of `x` `[batch, in, height, width]` with `weight` `[out, in, kh, kw]`, the same stride and zero padding
/// on both axes, no dilation, no groups.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    conv2d_reference(x, weight, bias, stride, padding)
}

/// [`conv2d`] in burn's operations.
pub fn conv2d_reference(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    module::conv2d(x, weight, bias, ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1))
}
