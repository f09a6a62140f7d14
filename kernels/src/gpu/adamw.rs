//! The AdamW update of one parameter in one kernel, which also clips the gradient and moves a running average.
//!
//! Weight, moments and average are overwritten where nobody else holds them, else copied first.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, ExtensionType, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{contiguous, unit_each, vector};
use crate::{AdamW, Parameter, UpdateRule};

/// The update of [`crate::update_parameters`] by `rule`, which is that of `parameter`. All tensors are of `f32`, lie on one
/// GPU and outside the graph.
pub(crate) fn update(parameter: Parameter, rule: AdamW, clip: Option<&Tensor<1>>, decay: f64) -> Parameter {
    let UpdateRule::AdamW(_, moments) = parameter.rule else {
        unreachable!("the caller has just looked at the rule");
    };
    let [first, second] = moments.map(Tensor::into_dispatch);
    let weight = parameter.weight.into_dispatch();
    let gradient = parameter.gradient.clone().into_dispatch();
    // An argument that is not there is stood in for by one that is.
    let clipped = clip.is_some();
    let clip = clip.map_or_else(|| gradient.clone(), |clip| clip.clone().into_dispatch());
    let with = |weight, first, second, average| Parameter {
        weight: Tensor::from_dispatch(weight),
        gradient: parameter.gradient,
        rule: UpdateRule::AdamW(rule, [first, second].map(Tensor::from_dispatch)),
        average,
    };
    match parameter.average {
        None => {
            let new = Dispatch::adamw_step(weight, first, second, gradient, clip, clipped, rule);
            with(new.weight, new.first, new.second, None)
        }
        Some(average) => {
            let average = average.into_dispatch();
            let new = Dispatch::adamw_average_step(
                weight, first, second, average, gradient, clip, clipped, rule, decay,
            );
            with(new.weight, new.first, new.second, Some(Tensor::from_dispatch(new.average)))
        }
    }
}

/// The update as burn's dispatch sees it.
#[backend_extension(Cube, Fusion)]
pub(crate) trait AdamWOps: Backend {
    /// [`update`] without an average; `clip` is looked at if `clipped`.
    #[fusion(meta = |weight, first, second, _gradient, _clip, _clipped, _rule| UpdatedMetadata {
        weight: weight.clone(),
        first: first.clone(),
        second: second.clone(),
    })]
    fn adamw_step(
        weight: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        clip: FloatTensor<Self>,
        clipped: bool,
        rule: AdamW,
    ) -> Updated<Self>;
    /// [`update`] with an average.
    // Not expected, for one of the functions that the attribute below makes of this has fewer.
    #[allow(clippy::too_many_arguments, reason = "tensors of an operation are arguments of their own")]
    #[fusion(meta = |weight, first, second, average, _gradient, _clip, _clipped, _rule, _decay| AveragedMetadata {
        weight: weight.clone(),
        first: first.clone(),
        second: second.clone(),
        average: average.clone(),
    })]
    fn adamw_average_step(
        weight: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        average: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        clip: FloatTensor<Self>,
        clipped: bool,
        rule: AdamW,
        decay: f64,
    ) -> Averaged<Self>;
}

/// The new weight and moments.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Updated<B: Backend> {
    weight: FloatTensor<B>,
    first: FloatTensor<B>,
    second: FloatTensor<B>,
}

/// The new weight, moments and average.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Averaged<B: Backend> {
    weight: FloatTensor<B>,
    first: FloatTensor<B>,
    second: FloatTensor<B>,
    average: FloatTensor<B>,
}

/// Without an average `average` is a place that is not looked at.
#[cube(launch_unchecked)]
fn values<N: Size>(
    weight: &mut [Vector<f32, N>],
    first: &mut [Vector<f32, N>],
    second: &mut [Vector<f32, N>],
    average: &mut [Vector<f32, N>],
    gradient: &[Vector<f32, N>],
    clip: &[f32],
    count: usize,
    beta1: f32,
    beta2: f32,
    eps: f32,
    keep: f32,
    rate: f32,
    scale: f32,
    decay: f32,
    rest: f32,
    #[comptime] clipped: bool,
    #[comptime] averaged: bool,
) {
    let at = ABSOLUTE_POS;
    if at >= count {
        terminate!();
    }
    let mut slope = gradient[at];
    if clipped {
        slope *= Vector::new(clip[0]);
    }
    let m = first[at] * Vector::new(beta1) + slope * Vector::new(1.0f32 - beta1);
    let v = second[at] * Vector::new(beta2) + slope * slope * Vector::new(1.0f32 - beta2);
    let root = (v * Vector::new(scale)).sqrt() + Vector::new(eps);
    let new = weight[at] * Vector::new(keep) - m * Vector::new(rate) / root;
    weight[at] = new;
    first[at] = m;
    second[at] = v;
    if averaged {
        average[at] = average[at] * Vector::new(decay) + new * Vector::new(rest);
    }
}

/// `tensor` for writing: itself where nobody else holds it.
fn own(tensor: CubeTensor) -> CubeTensor {
    let tensor = contiguous(tensor);
    if tensor.can_mut() {
        return tensor;
    }
    // As one row, for a copy of several may have gaps between them.
    let with_shape = |tensor: CubeTensor, shape| {
        CubeTensor::new_contiguous(tensor.client, tensor.device, shape, tensor.handle, tensor.dtype)
    };
    let (shape, count) = (tensor.shape(), tensor.meta.num_elements());
    with_shape(with_shape(tensor, [count].into()).copy(), shape)
}

fn launch(
    state: [CubeTensor; 3],
    average: Option<(CubeTensor, f64)>,
    gradient: CubeTensor,
    clip: Option<CubeTensor>,
    rule: AdamW,
) -> ([CubeTensor; 3], Option<CubeTensor>) {
    let [weight, first, second] = state.map(own);
    let (average, decay) = average.map(|(average, decay)| (own(average), decay)).unzip();
    let decay = decay.unwrap_or(0.0);
    let gradient = contiguous(gradient);
    let (client, size) = (weight.client.clone(), vector(weight.meta.num_elements()));
    let vectors = weight.meta.num_elements() / size;
    let (count, dim) = unit_each(&weight, vectors);
    let correct = |beta: f32| (1.0 - f64::from(beta).powi(rule.step as i32)) as f32;
    // Not looked at where it does not exist; no other argument may be the same memory as one that is written.
    let unused = super::empty(&weight, [4].into(), weight.dtype);
    // SAFETY: all tensors have the shape of the weight (the callers check it), `clip` has one value.
    unsafe {
        values::launch_unchecked(
            &client,
            count,
            dim,
            size,
            weight.clone().into_buffer_arg(),
            first.clone().into_buffer_arg(),
            second.clone().into_buffer_arg(),
            average.clone().unwrap_or_else(|| unused.clone()).into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            clip.clone().map_or(gradient, contiguous).into_buffer_arg(),
            vectors,
            rule.beta1,
            rule.beta2,
            rule.eps,
            1.0 - rule.lr * rule.weight_decay,
            rule.lr / correct(rule.beta1),
            1.0 / correct(rule.beta2),
            decay as f32,
            (1.0 - decay) as f32,
            clip.is_some(),
            average.is_some(),
        );
    }
    ([weight, first, second], average)
}

impl AdamWOps for CubeBackend {
    fn adamw_step(
        weight: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        clip: FloatTensor<Self>,
        clipped: bool,
        rule: AdamW,
    ) -> Updated<Self> {
        let ([weight, first, second], _) =
            launch([weight, first, second], None, gradient, clipped.then_some(clip), rule);
        Updated { weight, first, second }
    }

    fn adamw_average_step(
        weight: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        average: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        clip: FloatTensor<Self>,
        clipped: bool,
        rule: AdamW,
        decay: f64,
    ) -> Averaged<Self> {
        let average = Some((average, decay));
        let ([weight, first, second], average) =
            launch([weight, first, second], average, gradient, clipped.then_some(clip), rule);
        Averaged { weight, first, second, average: average.expect("given above") }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::super::testing::{assert_agree, device, read, rough};
    use super::*;
    use crate::{update_parameters, update_parameters_reference};

    type Update = fn(Vec<Parameter>, Option<&Tensor<1>>, f64) -> Vec<Parameter>;

    /// Weight, moments and average after three updates; `keep` keeps a second handle to the weight.
    fn run(count: usize, device: &Device, extras: bool, keep: bool, update: Update) -> Vec<Vec<f32>> {
        let rough = |seed| rough([count], seed, (device, DType::F32));
        let mut weight = rough(1);
        let mut moments = [(); 2].map(|()| Tensor::zeros([count], device));
        let mut average = extras.then(|| rough(2));
        let clip = extras.then(|| Tensor::<1>::full([1], 0.25, device));
        let mut kept = Vec::new();
        for step in 1..=3 {
            let rule = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step };
            if keep {
                kept.push((weight.clone(), read(weight.clone())));
            }
            let gradient = rough(2 + u64::from(step));
            let rule = UpdateRule::AdamW(rule, moments);
            let parameter = Parameter { weight, gradient, rule, average };
            let new = update(vec![parameter], clip.as_ref(), 0.999).pop().expect("one for one");
            (weight, average) = (new.weight, new.average);
            let UpdateRule::AdamW(_, new) = new.rule else { panic!("another rule") };
            moments = new;
        }
        for (tensor, before) in kept {
            assert_eq!(read(tensor), before, "a weight that somebody else holds was overwritten");
        }
        std::iter::once(weight).chain(moments).chain(average).map(read).collect()
    }

    #[test]
    fn adamw_on_a_gpu_equals_its_reference() {
        let (gpu, _held) = device();
        let cases = [(1, false, false), (33, true, false), (4096, true, true), (30_001, false, true)];
        for (count, extras, keep) in cases {
            let expected = run(count, &Device::flex(), extras, keep, update_parameters_reference);
            let found = run(count, &gpu, extras, keep, update_parameters);
            // The first moments divide by roots of tiny second ones: a few units in the last place.
            assert_agree(&format!("{count}"), &found, &expected, 2e-6);
        }
    }
}
