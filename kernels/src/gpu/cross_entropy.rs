//! Softmax and cross-entropy of rows of logits, a plane for each row: no probabilities in the GPU's memory.
//!
//! With targets `t` and class weights `w`, `L` the logarithm of the sum of a row's exponentials:
//!
//! ```text
//! loss = Σ_c w_c t_c (L − x_c)        dx_c = dloss · (Σ_k w_k t_k exp(x_c − L) − w_c t_c)
//! ```
//!
//! `L` is what the forward pass leaves for the backward pass.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{contiguous, elem, empty, empty_like, plane_each, plane_row};
use crate::ClassTargets;
use crate::choice::first_order_only;

/// [`crate::cross_entropy_rows`] with `class_weights`, `[C]`, on one GPU. Shares and weights are of the type of the logits and
/// outside the graph. A class that is not below `C` makes the loss of its row not a number.
pub(crate) fn rows(logits: Tensor<2>, targets: ClassTargets, class_weights: Option<Tensor<1>>) -> Tensor<1> {
    let weighted = class_weights.is_some();
    let logits = logits.into_dispatch();
    // An argument that is not there is stood in for by one that is.
    let weights = class_weights.map_or_else(|| logits.clone(), |weights| weights.inner().into_dispatch());
    let losses = match targets {
        ClassTargets::Hard(classes) => {
            Dispatch::class_losses(logits, classes.inner().into_dispatch(), weights, weighted)
        }
        ClassTargets::Soft(shares) => {
            Dispatch::share_losses(logits, shares.inner().into_dispatch(), weights, weighted)
        }
    };
    Tensor::from_dispatch(losses.losses)
}

/// The operation as burn's dispatch sees it; `weights` are looked at if `weighted`.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait CrossEntropyRows: Backend {
    /// [`rows`] with a class for each.
    #[fusion(meta = |logits, _classes, _weights, _weighted| losses_of(logits))]
    fn class_losses(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self>;
    /// [`rows`] with shares of the classes.
    #[fusion(meta = |logits, _shares, _weights, _weighted| losses_of(logits))]
    fn share_losses(
        logits: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self>;
    /// The gradient of the logits, given that of the losses.
    #[fusion(dtype = logits, shape = logits)]
    fn class_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self>;
    /// The gradient of the logits, given that of the losses.
    #[fusion(dtype = logits, shape = logits)]
    fn share_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self>;
}

/// What the forward pass computes.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Losses<B: Backend> {
    /// Of each row, in the type of the logits.
    losses: FloatTensor<B>,
    /// `L` of each row, in `f32`.
    log_sums: FloatTensor<B>,
}

/// What they look like before they are computed.
fn losses_of(logits: &TensorSpec) -> LossesMetadata {
    let rows = logits.shape[0];
    LossesMetadata {
        losses: TensorSpec::new([rows].into(), logits.dtype),
        log_sums: TensorSpec::new([rows].into(), DType::F32),
    }
}

/// Targets of the backend `B`.
#[derive(Debug, Clone)]
enum Kept<I, F> {
    Classes(I),
    Shares(F),
}

/// Logits, `L`, targets, weights if there are any.
#[derive(Debug, Clone)]
struct State<I, F> {
    logits: NodeId,
    log_sums: F,
    targets: Kept<I, F>,
    weights: F,
    weighted: bool,
}

#[derive(Debug)]
struct RowsBackward;

impl<B: CrossEntropyRows> Backward<B, 1> for RowsBackward {
    type State = State<IntTensor<B>, FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let State { logits, log_sums, targets, weights, weighted } = ops.state;
        let logits = checkpointer.retrieve_node_output::<FloatTensor<B>>(logits);
        if let [Some(parent)] = ops.parents {
            let gradient = match targets {
                Kept::Classes(classes) => B::class_gradient(logits, log_sums, classes, weights, dy, weighted),
                Kept::Shares(shares) => B::share_gradient(logits, log_sums, shares, weights, dy, weighted),
            };
            grads.register::<B>(parent.id, gradient);
        }
    }
}

/// Computes the losses and records them if the logits are tracked.
fn record<B: CrossEntropyRows, C: CheckpointStrategy>(
    logits: FloatTensor<Autodiff<B, C>>,
    targets: Kept<IntTensor<B>, FloatTensor<B>>,
    weights: FloatTensor<B>,
    weighted: bool,
) -> Losses<Autodiff<B, C>> {
    let compute = |logits, weights, targets| match targets {
        Kept::Classes(classes) => B::class_losses(logits, classes, weights, weighted),
        Kept::Shares(shares) => B::share_losses(logits, shares, weights, weighted),
    };
    let untracked = FloatTensor::<Autodiff<B, C>>::new;
    match RowsBackward.prepare::<C>([logits.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let node = prep.checkpoint(&logits);
            let Losses { losses, log_sums } =
                compute(logits.into_primitive(), weights.clone(), targets.clone());
            let state = State { logits: node, log_sums: log_sums.clone(), targets, weights, weighted };
            Losses { losses: prep.finish(state, losses), log_sums: untracked(log_sums) }
        }
        OpsKind::UnTracked(prep) => {
            let Losses { losses, log_sums } = compute(logits.into_primitive(), weights, targets);
            Losses { losses: prep.finish(losses), log_sums: untracked(log_sums) }
        }
    }
}

impl<B: CrossEntropyRows, C: CheckpointStrategy> CrossEntropyRows for Autodiff<B, C> {
    fn class_losses(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        record::<B, C>(logits, Kept::Classes(classes), weights.into_primitive(), weighted)
    }

    fn share_losses(
        logits: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        record::<B, C>(logits, Kept::Shares(shares.into_primitive()), weights.into_primitive(), weighted)
    }

    fn class_gradient(
        _logits: FloatTensor<Self>,
        _log_sums: FloatTensor<Self>,
        _classes: IntTensor<Self>,
        _weights: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _weighted: bool,
    ) -> FloatTensor<Self> {
        first_order_only()
    }

    fn share_gradient(
        _logits: FloatTensor<Self>,
        _log_sums: FloatTensor<Self>,
        _shares: FloatTensor<Self>,
        _weights: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _weighted: bool,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

/// The largest logit of the row that begins at `start`.
#[cube]
fn largest<F: Float>(x: &[F], start: usize, width: usize) -> f32 {
    let mut most = f32::new(-1e30f32);
    let mut column = UNIT_POS_X as usize;
    while column < width {
        most = max(most, f32::cast_from(x[start + column]));
        column += CUBE_DIM_X as usize;
    }
    plane_max(most)
}

/// The logarithm of the sum of the exponentials of that row, less its largest logit.
#[cube]
fn log_sum<F: Float>(x: &[F], start: usize, width: usize, most: f32) -> f32 {
    let mut sum = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let distance = f32::cast_from(x[start + column]) - most;
        sum += distance.exp();
        column += CUBE_DIM_X as usize;
    }
    plane_sum(sum).ln()
}

#[cube(launch_unchecked)]
fn loss_of_classes<F: Float, I: Int>(
    x: &[F],
    classes: &[I],
    weights: &[F],
    losses: &mut [F],
    log_sums: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F, I)] _dtypes: [ElemType; 2],
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let most = largest::<F>(x, start, width);
    let log_sum = log_sum::<F>(x, start, width, most);
    if UNIT_POS_X == 0 {
        let class = u32::cast_from(classes[row]) as usize;
        // Not a number where there is no such class: a constant would not get through every compiler.
        let mut loss = f32::sqrt(-1.0f32 - most * most);
        if class < width {
            loss = (most - f32::cast_from(x[start + class])) + log_sum;
            if weighted {
                loss *= f32::cast_from(weights[class]);
            }
        }
        losses[row] = F::cast_from(loss);
        log_sums[row] = most + log_sum;
    }
}

#[cube(launch_unchecked)]
fn loss_of_shares<F: Float>(
    x: &[F],
    shares: &[F],
    weights: &[F],
    losses: &mut [F],
    log_sums: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let most = largest::<F>(x, start, width);
    let log_sum = log_sum::<F>(x, start, width, most);
    let mut loss = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let mut share = f32::cast_from(shares[start + column]);
        if weighted {
            share *= f32::cast_from(weights[column]);
        }
        loss += share * ((most - f32::cast_from(x[start + column])) + log_sum);
        column += CUBE_DIM_X as usize;
    }
    let loss = plane_sum(loss);
    if UNIT_POS_X == 0 {
        losses[row] = F::cast_from(loss);
        log_sums[row] = most + log_sum;
    }
}

/// A unit for each logit.
#[cube(launch_unchecked)]
fn gradient_of_classes<F: Float, I: Int>(
    x: &[F],
    log_sums: &[f32],
    classes: &[I],
    weights: &[F],
    dy: &[F],
    dx: &mut [F],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F, I)] _dtypes: [ElemType; 2],
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let class = u32::cast_from(classes[row]) as usize;
    let mut factor = f32::cast_from(dy[row]);
    if weighted && class < width {
        factor *= f32::cast_from(weights[class]);
    }
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let distance = f32::cast_from(x[start + column]) - log_sums[row];
        let mut slope = distance.exp();
        if column == class {
            slope -= 1.0f32;
        }
        dx[start + column] = F::cast_from(factor * slope);
        column += CUBE_DIM_X as usize;
    }
}

#[cube(launch_unchecked)]
fn gradient_of_shares<F: Float>(
    x: &[F],
    log_sums: &[f32],
    shares: &[F],
    weights: &[F],
    dy: &[F],
    dx: &mut [F],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mut total = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let mut share = f32::cast_from(shares[start + column]);
        if weighted {
            share *= f32::cast_from(weights[column]);
        }
        total += share;
        column += CUBE_DIM_X as usize;
    }
    let total = plane_sum(total);
    let factor = f32::cast_from(dy[row]);
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let mut share = f32::cast_from(shares[start + column]);
        if weighted {
            share *= f32::cast_from(weights[column]);
        }
        let distance = f32::cast_from(x[start + column]) - log_sums[row];
        dx[start + column] = F::cast_from(factor * (total * distance.exp() - share));
        column += CUBE_DIM_X as usize;
    }
}

/// Room for the results of `rows` rows.
fn room(logits: &CubeTensor, rows: usize) -> [CubeTensor; 2] {
    [logits.dtype, DType::F32].map(|dtype| empty(logits, [rows].into(), dtype))
}

impl CrossEntropyRows for CubeBackend {
    fn class_losses(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        let [logits, classes, weights] = [logits, classes, weights].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtypes) = (logits.client.clone(), [elem(&logits), elem(&classes)]);
        let [losses, log_sums] = room(&logits, rows);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: a class, a loss and a sum for each of `rows` rows of `width` logits; weights of `width` classes.
        unsafe {
            loss_of_classes::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                classes.into_buffer_arg(),
                weights.into_buffer_arg(),
                losses.clone().into_buffer_arg(),
                log_sums.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtypes,
            );
        }
        Losses { losses, log_sums }
    }

    fn share_losses(
        logits: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        let [logits, shares, weights] = [logits, shares, weights].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtype) = (logits.client.clone(), elem(&logits));
        let [losses, log_sums] = room(&logits, rows);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: shares of the shape of the logits, a loss and a sum for each row, weights of `width` classes.
        unsafe {
            loss_of_shares::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                shares.into_buffer_arg(),
                weights.into_buffer_arg(),
                losses.clone().into_buffer_arg(),
                log_sums.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtype,
            );
        }
        Losses { losses, log_sums }
    }

    fn class_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self> {
        let [logits, log_sums, classes, weights, dy] =
            [logits, log_sums, classes, weights, dy].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtypes) = (logits.client.clone(), [elem(&logits), elem(&classes)]);
        let dx = empty_like(&logits);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: as in the forward pass; `dx` has the shape of the logits, `dy` that of the losses.
        unsafe {
            gradient_of_classes::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                log_sums.into_buffer_arg(),
                classes.into_buffer_arg(),
                weights.into_buffer_arg(),
                dy.into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtypes,
            );
        }
        dx
    }

    fn share_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self> {
        let [logits, log_sums, shares, weights, dy] = [logits, log_sums, shares, weights, dy].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtype) = (logits.client.clone(), elem(&logits));
        let dx = empty_like(&logits);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: as in the forward pass; `dx` has the shape of the logits, `dy` that of the losses.
        unsafe {
            gradient_of_shares::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                log_sums.into_buffer_arg(),
                shares.into_buffer_arg(),
                weights.into_buffer_arg(),
                dy.into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtype,
            );
        }
        dx
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int as IntKind, TensorData};

    use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
    use super::{ClassTargets, DType, Tensor};
    use crate::{cross_entropy, cross_entropy_reference, cross_entropy_rows, cross_entropy_rows_reference};

    type Loss = fn(Tensor<2>, ClassTargets, Option<Tensor<1>>, Option<Tensor<1>>, f32) -> Tensor<1>;
    type Rows = fn(Tensor<2>, ClassTargets) -> Tensor<1>;

    /// Loss over all rows with weights and a mask if `weighing`, and losses of each row; both with the logits' gradient.
    fn run(
        shape: [usize; 2],
        [hard, weighing]: [bool; 2],
        (device, dtype): (&Device, DType),
        (loss, rows): (Loss, Rows),
    ) -> Vec<Vec<f32>> {
        let device = device.clone().autodiff();
        let place = (&device, dtype);
        let logits = rough(shape, 1, place).require_grad();
        let targets = if hard {
            let classes: Vec<i64> = (0..shape[0]).map(|row| (row * 7 % shape[1]) as i64).collect();
            ClassTargets::Hard(Tensor::<1, IntKind>::from_data(TensorData::new(classes, [shape[0]]), &device))
        } else {
            ClassTargets::Soft(rough(shape, 2, place))
        };
        let weights = weighing.then(|| rough([shape[1]], 3, place));
        let mask = weighing.then(|| rough([shape[0]], 5, place));
        let whole = loss(logits.clone(), targets.clone(), weights, mask, 3.0);
        let each = rows(logits.clone(), targets);
        let mut all = vec![read(whole.clone().inner()), read(each.clone().inner())];
        let outputs = [weighted(whole, rough([1], 4, place)), weighted(each, rough([shape[0]], 4, place))];
        all.extend(outputs.map(|output| read(logits.grad(&output.backward()).expect("tracked"))));
        all
    }

    #[test]
    fn cross_entropy_on_a_gpu_equals_its_reference() {
        let (gpu, _held) = device();
        let reference = (cross_entropy_reference as Loss, cross_entropy_rows_reference as Rows);
        let fused = (cross_entropy as Loss, cross_entropy_rows as Rows);
        for shape in [[1, 2], [5, 10], [3, 1000], [67, 33]] {
            for flags in [[true, false], [true, true], [false, false], [false, true]] {
                let expected = run(shape, flags, (&Device::flex(), DType::F32), reference);
                let what = format!("{shape:?} {flags:?}");
                // Sums of up to 2000 terms in another order.
                let found = run(shape, flags, (&gpu, DType::F32), fused);
                assert_agree(&what, &found, &expected, 1e-5);
                for dtype in narrow_types(&gpu).filter(|_| shape == [5, 10]) {
                    let found = run(shape, flags, (&gpu, dtype), fused);
                    assert_agree(&format!("{what} {dtype:?}"), &found, &expected, 2e-2);
                }
            }
        }
    }

    #[test]
    fn a_class_that_does_not_exist_shows_in_the_loss_of_its_row() {
        let (gpu, _held) = device();
        let logits = rough([3, 4], 1, (&gpu, DType::F32));
        let classes = Tensor::<1, IntKind>::from_ints([0, 4, -1], &gpu);
        let losses = read(cross_entropy_rows(logits, ClassTargets::Hard(classes)));
        assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2].is_nan(), "{losses:?}");
    }
}
