//! Looking into a backward pass while it goes on.
//!
//! A tap passes its input on. In the backward pass, which runs from the output of a network to its input, it is reached when
//! every operation behind it has run; so gradients of parameters that only those used are final there, if the operations
//! register them at once. Ours do; a parameter that is cast or reshaped before its use gets its gradient at the very end.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchKindConversion, DispatchTensor, DispatchTensorKind,
    Flex, backend_extension,
};
use burn::tensor::{DType, Tensor};

use crate::conv_flex::{contiguous, values};

/// Looks up the gradient of a tracked leaf as it is by now; none if nothing has been registered for it yet.
pub type Found<'a> = dyn Fn(&DispatchTensor) -> Option<DispatchTensor> + 'a;

/// What is called when a backward pass comes through.
pub trait BackwardHook: Debug + Send + Sync {
    /// Takes the gradient at this place and returns what goes on towards the input.
    fn passed(&self, gradient: DispatchTensor, found: &Found<'_>) -> DispatchTensor;
}

/// Who follows how far a backward pass has come.
pub trait Watcher: Debug + Send + Sync {
    /// A pass that is recorded will come back through stage `stage`.
    fn entered(&self, stage: usize);

    /// It has. Must not wait for anything.
    fn passed(&self, stage: usize, found: &Found<'_>);
}

/// `x` as it is. Once the backward pass has come so far, `watcher` is told that stage `stage` is through.
///
/// Where no gradient flows, nothing is recorded and nobody told.
pub fn tap<const D: usize>(x: Tensor<D>, stage: usize, watcher: &Arc<dyn Watcher>) -> Tensor<D> {
    if !x.is_tracked() {
        return x;
    }
    watcher.entered(stage);
    hooked(x, Arc::new(Stage { number: stage, watcher: watcher.clone() }))
}

/// `x` as it is, with `hook` on the way back.
pub(crate) fn hooked<const D: usize>(x: Tensor<D>, hook: Arc<dyn BackwardHook>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::hooked(x.into_dispatch(), hook))
}

/// `out[i] = factor · x[i]`, row by row, for a tensor of floats of any rank, off the graph.
///
/// # Panics
/// Unless `out` is as long as `x`.
pub fn scaled_into(x: DispatchTensor, factor: f32, out: &mut [f32]) {
    let scale = |values: &[f32], out: &mut [f32]| {
        assert_eq!(values.len(), out.len(), "as many places as values");
        out.iter_mut().zip(values).for_each(|(out, value)| *out = factor * value);
    };
    match x.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(x)) if x.dtype() == DType::F32 => {
            scale(values(&contiguous(x)), out);
        }
        kind => {
            // Only the number of values matters here, not the rank.
            let x = Tensor::<1>::from_dispatch(DispatchTensor { kind, ..x });
            scale(&x.into_data().iter::<f32>().collect::<Vec<_>>(), out);
        }
    }
}

#[derive(Debug)]
struct Stage {
    number: usize,
    watcher: Arc<dyn Watcher>,
}

impl BackwardHook for Stage {
    fn passed(&self, gradient: DispatchTensor, found: &Found<'_>) -> DispatchTensor {
        self.watcher.passed(self.number, found);
        gradient
    }
}

/// The operation on any backend and in its graph.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait Hooked: Backend {
    /// See [`hooked`].
    #[fusion(default)]
    fn hooked(x: FloatTensor<Self>, hook: Arc<dyn BackwardHook>) -> FloatTensor<Self> {
        let _ = hook;
        x
    }
}

impl Hooked for Flex {}

#[cfg(feature = "cube")]
impl Hooked for burn_cubecl::CubeBackend {}

#[derive(Debug)]
struct HookedBackward;

impl<B: Hooked> Backward<B, 1> for HookedBackward
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
{
    type State = Arc<dyn BackwardHook>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let wrap = |t| <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(t));
        let gradient = wrap(grads.consume::<B>(&ops.node));
        let found = |leaf: &DispatchTensor| {
            let leaf =
                <DispatchTensor as DispatchKindConversion<Autodiff<B>>>::try_into_backend(leaf.clone());
            match leaf {
                Ok(BackendTensor::Float(leaf)) => grads.get::<B>(&leaf).map(wrap),
                _ => None,
            }
        };
        let onwards = ops.state.passed(gradient, &found);
        if let [Some(parent)] = ops.parents {
            match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(onwards) {
                Ok(BackendTensor::Float(onwards)) => grads.register::<B>(parent.id, onwards),
                _ => unreachable!("a hook returns a gradient of the backend it got one of"),
            }
        }
    }
}

impl<B: Hooked, C: CheckpointStrategy> Hooked for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
{
    fn hooked(x: FloatTensor<Self>, hook: Arc<dyn BackwardHook>) -> FloatTensor<Self> {
        match HookedBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(hook, x.into_primitive()),
            OpsKind::UnTracked(prep) => prep.finish(x.into_primitive()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use burn::tensor::Device;

    use super::*;

    /// Notes the gradient of a leaf at each stage.
    #[derive(Debug)]
    struct Notes {
        leaf: DispatchTensor,
        seen: Mutex<Vec<(usize, Option<Vec<f32>>)>>,
    }

    impl Watcher for Notes {
        fn entered(&self, stage: usize) {
            self.seen.lock().expect("no panic").push((stage, None));
        }

        fn passed(&self, stage: usize, found: &Found<'_>) {
            let gradient = found(&self.leaf).map(|gradient| {
                let mut values = vec![0.0; 2];
                scaled_into(gradient, 0.5, &mut values);
                values
            });
            self.seen.lock().expect("no panic").push((stage, gradient));
        }
    }

    #[test]
    fn a_tap_sees_what_lies_behind_it_and_changes_nothing() {
        let device = Device::flex().autodiff();
        let tensor = |values: [f32; 2]| Tensor::<1>::from_data(values, &device);
        let (x, weight) = (tensor([3.0, 4.0]).require_grad(), tensor([1.0, 2.0]).require_grad());
        let notes = Arc::new(Notes { leaf: weight.clone().into_dispatch(), seen: Mutex::default() });
        let watcher: Arc<dyn Watcher> = notes.clone();
        let y = tap(x.clone().mul_scalar(2.0), 1, &watcher) * weight.clone();
        let gradients = tap(y, 0, &watcher).sum().backward();
        // Off the graph nobody is told.
        tap(x.clone().inner(), 7, &watcher);
        let values =
            |t: &Tensor<1>| t.grad(&gradients).map(|g| g.into_data().iter::<f32>().collect::<Vec<_>>());
        assert_eq!(values(&x), Some(vec![2.0, 4.0]));
        assert_eq!(values(&weight), Some(vec![6.0, 8.0]));
        let seen = notes.seen.lock().expect("no panic").clone();
        assert_eq!(seen, [(1, None), (0, None), (0, None), (1, Some(vec![3.0, 4.0]))]);
    }
}
