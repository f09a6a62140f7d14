//! Two-dimensional convolution.
//!
//! On the CPU backend in `f32` the work is done by the crate's own loops (`conv_cpu`), elsewhere by burn's `conv2d`.

use burn::Tensor;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;
use burn_flex::FlexTensor;

use crate::conv_cpu;
use crate::conv_flex::{dims, flex_f32, values};
use crate::conv_lanes::Level;
use crate::conv_layout::{Layout, Shape};
use crate::conv_memory::tensor;
use crate::cpu::{conv_columns, conv_pointwise};
use crate::products::{Arithmetic, Products};

/// Convolution of `x` `[batch, in, height, width]` with `weight` `[out, in, kh, kw]`, the same stride and zero padding
/// on both axes, no dilation, no groups.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    conv2d_with(x, weight, bias, stride, padding, Products::F32)
}

/// [`conv2d`] whose products, and those of its gradients, are of this kind. The bias and its gradient are not rounded.
pub fn conv2d_with(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
    products: Products,
) -> Tensor<4> {
    conv2d_in(x, weight, bias, stride, padding, products.arithmetic())
}

fn conv2d_in(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
    arithmetic: Arithmetic,
) -> Tensor<4> {
    let ([batch, channels, height, width], [outputs, inputs, kh, kw]) = (x.dims(), weight.dims());
    let shape = Shape { batch, channels, height, width, outputs, kernel: [kh, kw], stride, padding };
    let fast = flex_f32(&x)
        && flex_f32(&weight)
        && bias.as_ref().is_none_or(|bias| flex_f32(bias) && bias.dims() == [outputs])
        && channels == inputs
        && Layout::new(shape).is_some();
    if !fast {
        // Also where the shapes do not fit: burn says what is wrong with them.
        return conv2d_reference(x, weight, bias, stride, padding);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        None => Dispatch::convolve(x, weight, stride, padding, arithmetic),
        Some(bias) => {
            Dispatch::convolve_with_bias(x, weight, bias.into_dispatch(), stride, padding, arithmetic)
        }
    })
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

/// The operation as burn's dispatch sees it. Only the CPU backend is listed: [`conv2d`] sends nothing else here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Convolve: Backend {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self>;
    fn convolve_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self>;
}

fn layout(x: &FlexTensor, weight: &FlexTensor, stride: usize, padding: usize) -> Layout {
    let ([batch, channels, height, width], [outputs, _, kh, kw]) = (dims(x), dims(weight));
    let shape = Shape { batch, channels, height, width, outputs, kernel: [kh, kw], stride, padding };
    Layout::new(shape).expect("checked before dispatch")
}

fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    stride: usize,
    padding: usize,
    arithmetic: Arithmetic,
) -> FlexTensor {
    let layout = layout(x, weight, stride, padding);
    let [oh, ow] = layout.output;
    let bias = bias.map(FlexTensor::to_contiguous);
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let (image, kernel, bias) = (values(&x), values(&weight), bias.as_ref().map(values));
    let y = if conv_columns::suits(&layout) {
        conv_columns::forward(arithmetic, &layout, image, kernel, bias)
    } else if conv_pointwise::suits(&layout) {
        conv_pointwise::forward(arithmetic, &layout, image, kernel, bias)
    } else {
        conv_cpu::forward(Level::of(arithmetic), &layout, image, kernel, bias)
    };
    tensor(y, [layout.shape.batch, layout.shape.outputs, oh, ow])
}

impl Convolve for Flex {
    fn convolve(
        x: FlexTensor,
        weight: FlexTensor,
        stride: usize,
        padding: usize,
        arithmetic: Arithmetic,
    ) -> FlexTensor {
        forward(&x, &weight, None, stride, padding, arithmetic)
    }

    fn convolve_with_bias(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        stride: usize,
        padding: usize,
        arithmetic: Arithmetic,
    ) -> FlexTensor {
        forward(&x, &weight, Some(&bias), stride, padding, arithmetic)
    }
}

/// The backward step, with (`N` = 3) or without (`N` = 2) a bias.
#[derive(Debug)]
struct ConvolveBackward;

#[derive(Debug, Clone)]
struct ConvolveState {
    x: FlexTensor,
    weight: FlexTensor,
    stride: usize,
    padding: usize,
    arithmetic: Arithmetic,
}

impl<const N: usize> Backward<Flex, N> for ConvolveBackward {
    type State = ConvolveState;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let ConvolveState { x, weight, stride, padding, arithmetic } = ops.state;
        let layout = layout(&x, &weight, stride, padding);
        let wanted = [ops.parents[0].is_some(), ops.parents[1].is_some()];
        let (x_shape, weight_shape): ([usize; 4], [usize; 4]) = (dims(&x), dims(&weight));
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let (image, kernel, gradient) = (values(&x), values(&weight), values(&dy));
        let [dx, dw] = if conv_columns::suits(&layout) {
            conv_columns::backward(arithmetic, &layout, image, kernel, gradient, wanted)
        } else if conv_pointwise::suits(&layout) {
            conv_pointwise::backward(arithmetic, &layout, image, kernel, gradient, wanted)
        } else {
            let level = Level::of(arithmetic);
            let found = conv_cpu::backward(level, &layout, image, kernel, gradient, wanted);
            [found.image, found.weight]
        };
        if let (Some(node), Some(dx)) = (&ops.parents[0], dx) {
            grads.register::<Flex>(node.id, tensor(dx, x_shape));
        }
        if let (Some(node), Some(dw)) = (&ops.parents[1], dw) {
            grads.register::<Flex>(node.id, tensor(dw, weight_shape));
        }
        if let Some(Some(node)) = ops.parents.get(2) {
            let db = conv_cpu::bias_gradient(&layout, values(&dy));
            grads.register::<Flex>(node.id, tensor(db, [layout.shape.outputs]));
        }
    }
}

impl<C: CheckpointStrategy> Convolve for Autodiff<Flex, C> {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let prepared = ConvolveBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = forward(&x, &weight, None, stride, padding, arithmetic);
        match prepared {
            OpsKind::Tracked(prepared) => {
                prepared.finish(ConvolveState { x, weight, stride, padding, arithmetic }, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn convolve_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        padding: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let prepared = ConvolveBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let y = forward(&x, &weight, Some(&bias), stride, padding, arithmetic);
        match prepared {
            OpsKind::Tracked(prepared) => {
                prepared.finish(ConvolveState { x, weight, stride, padding, arithmetic }, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests;
