//! Depthwise two-dimensional convolution: every channel with a kernel of its own.

use burn::Tensor;
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;

/// Convolution of each channel of `x` `[batch, channels, height, width]` with its own `weight` `[channels, 1, kh, kw]`,
/// the same stride and zero padding on both axes, no dilation; `bias`: `[channels]`.
pub fn depthwise_conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    depthwise_conv2d_reference(x, weight, bias, stride, padding)
}

/// [`depthwise_conv2d`] in burn's operations: a convolution with as many groups as channels.
pub fn depthwise_conv2d_reference(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let [_, channels, _, _] = x.dims();
    module::conv2d(x, weight, bias, ConvOptions::new([stride; 2], [padding; 2], [1, 1], channels))
}
