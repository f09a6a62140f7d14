//! Scale and shift for each channel with an optional residual and ReLU: batch normalisation in evaluation.

use burn::Tensor;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn_flex::FlexTensor;

use crate::channel_cpu::{self, Affine};
use crate::channel_loops::Slope;
use crate::conv_flex::{contiguous, flex_f32, values};
use crate::conv_memory::tensor;

/// `x · scale + shift (+ residual)`, with `rectify` through ReLU.
///
/// `x`, `residual`: `[batch, channels, height, width]`; `scale`, `shift`: `[channels]`. With running statistics
/// `scale = gamma / √(var + eps)` and `shift = beta − mean · scale` this is batch normalisation in evaluation.
pub fn channel_affine(
    x: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> Tensor<4> {
    let dims = x.dims();
    let fast = flex_f32(&x)
        && [&scale, &shift].iter().all(|t| flex_f32(*t) && t.dims() == [dims[1]])
        && residual.as_ref().is_none_or(|r| flex_f32(r) && r.dims() == dims)
        && dims.iter().all(|&n| n > 0);
    if !fast {
        return channel_affine_reference(x, scale, shift, residual, rectify);
    }
    let (x, scale, shift) = (x.into_dispatch(), scale.into_dispatch(), shift.into_dispatch());
    Tensor::from_dispatch(match residual {
        None => Dispatch::scale_shift(x, scale, shift, rectify),
        Some(residual) => Dispatch::scale_shift_add(x, scale, shift, residual.into_dispatch(), rectify),
    })
}

/// [`channel_affine`] in burn's operations.
pub fn channel_affine_reference(
    x: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> Tensor<4> {
    let per_channel = |t: Tensor<1>| {
        let [channels] = t.dims();
        t.reshape([1, channels, 1, 1])
    };
    let mut y = x * per_channel(scale) + per_channel(shift);
    if let Some(residual) = residual {
        y = y + residual;
    }
    if rectify { burn::tensor::activation::relu(y) } else { y }
}

/// The operation as burn's dispatch sees it. Only the CPU backend is listed: [`channel_affine`] sends nothing else.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ScaleShift: Backend {
    fn scale_shift(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        rectify: bool,
    ) -> FloatTensor<Self>;
    fn scale_shift_add(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        rectify: bool,
    ) -> FloatTensor<Self>;
}

fn forward(
    x: FlexTensor,
    [scale, shift]: [FlexTensor; 2],
    residual: Option<FlexTensor>,
    rectify: bool,
) -> FlexTensor {
    let [scale, shift] = [scale, shift].map(contiguous);
    channel_cpu::affine(
        contiguous(x),
        values(&scale),
        values(&shift),
        residual.map(contiguous).as_ref(),
        rectify,
    )
}

impl ScaleShift for Flex {
    fn scale_shift(x: FlexTensor, scale: FlexTensor, shift: FlexTensor, rectify: bool) -> FlexTensor {
        forward(x, [scale, shift], None, rectify)
    }

    fn scale_shift_add(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        residual: FlexTensor,
        rectify: bool,
    ) -> FlexTensor {
        forward(x, [scale, shift], Some(residual), rectify)
    }
}

/// The backward step, with (`N` = 4) or without (`N` = 3) a residual.
#[derive(Debug)]
struct ScaleShiftBackward;

impl<const N: usize> Backward<Flex, N> for ScaleShiftBackward {
    type State = Affine;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let affine = ops.state;
        let dy = affine.before_gate(dy);
        if let Some(Some(residual)) = ops.parents.get(3) {
            grads.register::<Flex>(residual.id, dy.clone());
        }
        let channels = affine.scale.len();
        if ops.parents[1].is_some() || ops.parents[2].is_some() {
            // The distances are measured from zero here: `Σ dy · x`.
            let sums = affine.sums(&dy);
            for (node, sums) in ops.parents[1..3].iter().zip([&sums.by_distance, &sums.plain]) {
                if let Some(node) = node {
                    grads.register::<Flex>(
                        node.id,
                        tensor(sums.iter().map(|&s| s as f32).collect(), [channels]),
                    );
                }
            }
        }
        if let Some(node) = &ops.parents[0] {
            let slope = |&by_gradient| Slope { mean: 0.0, by_gradient, by_distance: 0.0, constant: 0.0 };
            let slopes: Vec<Slope> = affine.scale.iter().map(slope).collect();
            grads.register::<Flex>(node.id, affine.input_gradient(dy, &slopes));
        }
    }
}

/// The forward pass that keeps what the backward pass needs: state and output.
fn tracked(
    x: FlexTensor,
    [scale, shift]: [FlexTensor; 2],
    residual: Option<FlexTensor>,
    rectify: bool,
) -> (Affine, FlexTensor) {
    let x = contiguous(x);
    let [scale, shift] = [scale, shift].map(|t| values(&contiguous(t)).to_vec());
    let residual = residual.map(contiguous);
    let y = channel_cpu::affine(x.clone(), &scale, &shift, residual.as_ref(), rectify);
    let gate = (rectify && residual.is_some()).then(|| y.clone());
    let mean = vec![0.0; scale.len()];
    (Affine { x, scale, shift, mean, rectify, gate }, y)
}

impl<C: CheckpointStrategy> ScaleShift for Autodiff<Flex, C> {
    fn scale_shift(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        rectify: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), scale.node(), shift.node()];
        let prepared = ScaleShiftBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, affine) = (x.into_primitive(), [scale.into_primitive(), shift.into_primitive()]);
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (state, y) = tracked(x, affine, None, rectify);
                prepared.finish(state, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward(x, affine, None, rectify)),
        }
    }

    fn scale_shift_add(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        rectify: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), scale.node(), shift.node(), residual.node()];
        let prepared = ScaleShiftBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, affine) = (x.into_primitive(), [scale.into_primitive(), shift.into_primitive()]);
        let residual = Some(residual.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (state, y) = tracked(x, affine, residual, rectify);
                prepared.finish(state, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward(x, affine, residual, rectify)),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn::tensor::Distribution;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_the_reference_on_any_shape(
            dims in [1usize..6, 1usize..5, 1usize..9, 1usize..9],
            (with_residual, rectify) in any::<(bool, bool)>(),
        ) {
            let device = Device::flex().autodiff();
            let normal = || Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &device).require_grad();
            let channel = || Tensor::<1>::random([dims[1]], Distribution::Normal(0.0, 1.0), &device).require_grad();
            let (x, scale, shift, residual, slope) = (normal(), channel(), channel(), normal(), normal());
            let run = |of: fn(Tensor<4>, Tensor<1>, Tensor<1>, Option<Tensor<4>>, bool) -> Tensor<4>| {
                let add = with_residual.then(|| residual.clone());
                let y = of(x.clone(), scale.clone(), shift.clone(), add, rectify);
                let grads = (y.clone() * slope.clone().detach()).sum().backward();
                let mut all = vec![y.into_data(), x.grad(&grads).expect("tracked").into_data()];
                all.extend([&scale, &shift].map(|t| t.grad(&grads).expect("tracked").into_data()));
                all.extend(with_residual.then(|| residual.grad(&grads).expect("tracked").into_data()));
                all.into_iter().map(|data| data.try_to_vec::<f32>().expect("f32")).collect::<Vec<_>>()
            };
            for (found, expected) in run(channel_affine).iter().zip(&run(channel_affine_reference)) {
                for (f, e) in found.iter().zip(expected) {
                    // f32 sums of at most a few hundred terms of size one.
                    prop_assert!((f - e).abs() <= 2e-5 * e.abs().max(1.0), "{f} instead of {e}");
                }
            }
        }
    }
}
