//! Affine maps.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Shape, Tensor};
use burn_flex::FlexTensor;

use crate::choice::{on_gpu, serves};
use crate::cpu;
use crate::products::{Arithmetic, Products};

/// `x W + b`: `x` is `[.., in]`, `weight` `[in, out]` (burn's layout), `bias` `[out]`.
///
/// Computes in the type of `x`; weight and bias of another type are rounded to it, and their gradients come in their own. In
/// one step, so that these gradients are final as soon as it has run: see [`tap`](crate::tap).
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    linear_with(x, weight, bias, Products::F32)
}

/// [`linear`] whose product, and those of its gradients, are of this kind. The bias and its gradient are not rounded.
pub fn linear_with<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    products: Products,
) -> Tensor<D> {
    linear_in(x, weight, bias, products.arithmetic())
}

fn linear_in<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    arithmetic: Arithmetic,
) -> Tensor<D> {
    let [d_in, d_out] = weight.dims();
    assert_eq!(x.dims()[D - 1], d_in, "linear: x {:?}, weight {:?}", x.dims(), weight.dims());
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [d_out], "linear: bias {:?}, weight {:?}", bias.dims(), weight.dims());
    }
    let served = if on_gpu(&x) {
        on_gpu(&weight) && bias.as_ref().is_none_or(on_gpu)
    } else {
        serves(&x) && serves(&weight) && bias.as_ref().is_none_or(serves)
    };
    if !served {
        return linear_reference(x, weight, bias);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::linear_forward(x, weight, bias.into_dispatch(), arithmetic),
        None => Dispatch::product_forward(x, weight, arithmetic),
    })
}

/// [`linear`] in burn's operations.
pub fn linear_reference<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let dims = x.dims();
    let dtype = x.dtype();
    let weight = if weight.dtype() == dtype { weight } else { weight.cast(dtype) };
    let bias = bias.map(|bias| if bias.dtype() == dtype { bias } else { bias.cast(dtype) });
    let [d_in, d_out] = weight.dims();
    let rows = dims.iter().product::<usize>() / d_in.max(1);
    let mut out = x.reshape([rows, d_in]).matmul(weight);
    if let Some(bias) = bias {
        out = out + bias.reshape([1, d_out]);
    }
    let mut shape = dims;
    shape[D - 1] = d_out;
    out.reshape(shape)
}

/// The operation on every backend, and in its graph. Only the CPU has a kernel: on GPUs nothing beats burn's products, which
/// add the bias and what follows as they write the result.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait LinearOps: Backend {
    /// See [`linear`].
    #[fusion(default)]
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let _ = arithmetic;
        let d_out = last(&bias);
        let shape = with_last(&x, d_out);
        let bias = Self::float_reshape(like::<Self>(bias, &x), [1, d_out].into());
        let weight = like::<Self>(weight, &x);
        let rows = Self::float_matmul(as_rows::<Self>(x), weight);
        Self::float_reshape(Self::float_add(rows, bias), shape)
    }
    /// [`linear`] without a bias.
    #[fusion(default)]
    fn product_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let _ = arithmetic;
        let shape = with_last(&x, last(&weight));
        let weight = like::<Self>(weight, &x);
        Self::float_reshape(Self::float_matmul(as_rows::<Self>(x), weight), shape)
    }
}

/// Length of the last axis.
fn last(x: &impl TensorMetadata) -> usize {
    *x.shape().last().expect("at least one axis")
}

/// The shape of `x` but for its last axis.
fn with_last(x: &impl TensorMetadata, length: usize) -> Shape {
    let mut dims = x.shape().to_vec();
    *dims.last_mut().expect("at least one axis") = length;
    dims.into()
}

/// `x` as a matrix of its rows.
fn as_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let length = last(&x);
    let rows = x.shape().num_elements() / length;
    B::float_reshape(x, [rows, length].into())
}

/// `tensor` in the type of `other`.
fn like<B: Backend>(tensor: FloatTensor<B>, other: &FloatTensor<B>) -> FloatTensor<B> {
    if tensor.dtype() == other.dtype() { tensor } else { B::float_cast(tensor, other.dtype().into()) }
}

impl LinearOps for Flex {
    fn linear_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        arithmetic: Arithmetic,
    ) -> FlexTensor {
        cpu::linear::forward(arithmetic, x, weight, Some(bias))
    }

    fn product_forward(x: FlexTensor, weight: FlexTensor, arithmetic: Arithmetic) -> FlexTensor {
        cpu::linear::forward(arithmetic, x, weight, None)
    }
}

#[cfg(feature = "cube")]
impl LinearOps for burn_cubecl::CubeBackend {}

/// The backward pass: on a backend without a kernel the products of burn.
pub(crate) trait LinearGradients: Backend {
    /// The gradients of `x` (if `weight` is given), of the weight (if `x` is given) and of the bias (if `bias`).
    fn linear_backward(
        x: Option<FloatTensor<Self>>,
        weight: Option<FloatTensor<Self>>,
        dy: FloatTensor<Self>,
        bias: bool,
        arithmetic: Arithmetic,
    ) -> [Option<FloatTensor<Self>>; 3] {
        let _ = arithmetic;
        let shape = weight.as_ref().map(|weight| with_last(&dy, weight.shape()[0]));
        let weight = weight.map(|weight| like::<Self>(weight, &dy));
        let (dy, d_out) = (as_rows::<Self>(dy.clone()), last(&dy));
        [
            weight.zip(shape).map(|(weight, shape)| {
                let weight = Self::float_swap_dims(weight, 0, 1);
                Self::float_reshape(Self::float_matmul(dy.clone(), weight), shape)
            }),
            x.map(|x| Self::float_matmul(Self::float_swap_dims(as_rows::<Self>(x), 0, 1), dy.clone())),
            bias.then(|| Self::float_reshape(Self::float_sum_dim(dy.clone(), 0), [d_out].into())),
        ]
    }
}

impl LinearGradients for Flex {
    fn linear_backward(
        x: Option<FlexTensor>,
        weight: Option<FlexTensor>,
        dy: FlexTensor,
        bias: bool,
        arithmetic: Arithmetic,
    ) -> [Option<FlexTensor>; 3] {
        let gradients = cpu::linear::backward(arithmetic, x, weight, dy, bias);
        [gradients.x, gradients.weight, gradients.bias]
    }
}

#[cfg(feature = "cube")]
impl LinearGradients for burn::backend::Cube {}

impl<B: LinearOps + LinearGradients, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        match LinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                // `x` serves the weight's gradient only, the weight only that of `x`.
                let state = Kept {
                    x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                    weight: x.is_tracked().then(|| prep.checkpoint(&weight)),
                    parameters: [weight.dtype(), bias.dtype()],
                    arithmetic,
                };
                let y = B::linear_forward(
                    x.into_primitive(),
                    weight.into_primitive(),
                    bias.into_primitive(),
                    arithmetic,
                );
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => {
                let y = B::linear_forward(
                    x.into_primitive(),
                    weight.into_primitive(),
                    bias.into_primitive(),
                    arithmetic,
                );
                prep.finish(y)
            }
        }
    }

    fn product_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        match LinearBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = Kept {
                    x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                    weight: x.is_tracked().then(|| prep.checkpoint(&weight)),
                    parameters: [weight.dtype(); 2],
                    arithmetic,
                };
                prep.finish(
                    state,
                    B::product_forward(x.into_primitive(), weight.into_primitive(), arithmetic),
                )
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::product_forward(x.into_primitive(), weight.into_primitive(), arithmetic))
            }
        }
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct Kept {
    x: Option<NodeId>,
    weight: Option<NodeId>,
    /// Types of weight and bias, which their gradients take.
    parameters: [DType; 2],
    arithmetic: Arithmetic,
}

/// One step for all gradients, so that those of weight and bias are final as soon as it has run.
#[derive(Debug)]
struct LinearBackward;

/// Parents: `x`, the weight and, if there is one, the bias.
impl<B: LinearOps + LinearGradients, const N: usize> Backward<B, N> for LinearBackward {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let x = ops.state.x.map(|x| checkpointer.retrieve_node_output::<FloatTensor<B>>(x));
        let weight =
            ops.state.weight.map(|weight| checkpointer.retrieve_node_output::<FloatTensor<B>>(weight));
        let bias = ops.parents.get(2).and_then(Option::as_ref);

        let [x, weight, bias] = B::linear_backward(x, weight, dy, bias.is_some(), ops.state.arithmetic);
        let [of_weight, of_bias] = ops.state.parameters;
        let back = |gradient: FloatTensor<B>, dtype: DType| match gradient.dtype() == dtype {
            true => gradient,
            false => B::float_cast(gradient, dtype.into()),
        };
        let [weight, bias] =
            [weight.map(|gradient| back(gradient, of_weight)), bias.map(|gradient| back(gradient, of_bias))];
        for (parent, gradient) in ops.parents.iter().zip([x, weight, bias]) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[cfg(test)]
mod tests;
