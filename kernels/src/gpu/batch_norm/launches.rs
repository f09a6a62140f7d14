//! Layouts, memory and launches.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, TensorMetadata};
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use burn_std::Metadata;
use cubecl::prelude::*;

use super::super::columns::{self, COLUMNS, ROWS};
use super::super::{contiguous, elem, empty, empty_like, unit_each};
use super::kernels;

/// Values of a channel that one cube sums up, at least.
const GROUP: usize = 4096;
/// Groups of values, at most.
const GROUPS: usize = 256;

/// Output and statistics of the batch: mean, biased variance and `1 / √(var + eps)`, `[channels]` of `f32`.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Normalised<B: Backend> {
    pub(crate) y: FloatTensor<B>,
    pub(crate) mean: FloatTensor<B>,
    pub(crate) variance: FloatTensor<B>,
    pub(crate) inverse: FloatTensor<B>,
}

/// Gradients of the inputs.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct NormaliseGradients<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) beta: FloatTensor<B>,
    /// The gradient before the ReLU; without one that of the output.
    pub(crate) residual: FloatTensor<B>,
}

/// Sizes, and how images lie.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    channels: usize,
    /// Positions of an image.
    size: usize,
    /// Values of a channel.
    count: usize,
    /// Whether the channels of a position lie side by side.
    last: bool,
}

/// Images `[batch, channels, height, width]` as a matrix of positions and channels lies: burn's convolutions leave them so.
fn channels_last(tensor: &CubeTensor) -> bool {
    let [batch, channels, height, width] = tensor.meta.shape().dims();
    let wanted = [height * width * channels, 1, width * channels, channels];
    let lengths = [batch, channels, height, width];
    let strides = tensor.meta.strides();
    (0..4).all(|axis| lengths[axis] == 1 || strides[axis] == wanted[axis])
}

impl Sizes {
    /// Sizes of `x`, and `x` with its channels first or last and nothing between.
    fn of(x: CubeTensor) -> (Self, CubeTensor) {
        let [batch, channels, height, width] = x.meta.shape().dims();
        let size = height * width;
        let last = !x.is_contiguous() && channels_last(&x);
        let x = if last { x } else { contiguous(x) };
        (Self { channels, size, count: batch * size, last }, x)
    }

    /// `tensor`, of the same shape, in the same layout.
    fn alike(self, tensor: CubeTensor) -> CubeTensor {
        if !self.last {
            return contiguous(tensor);
        }
        if channels_last(&tensor) {
            return tensor;
        }
        let shape = tensor.shape();
        let axes = |order: [usize; 4]| order.map(|axis| (shape[axis], axis));
        let permuted = axes([0, 2, 3, 1]);
        let strides = permuted.map(|(_, axis)| tensor.meta.strides()[axis]);
        let lengths = permuted.map(|(length, _)| length);
        let meta = Metadata::new(lengths, strides);
        let CubeTensor { client, handle, device, dtype, .. } = tensor;
        let moved = contiguous(CubeTensor::new(client, handle, meta, device, dtype));
        self.as_images(moved, lengths)
    }

    /// Positions and channels, `[batch, height, width, channels]`, seen as images.
    fn as_images(self, tensor: CubeTensor, [batch, height, width, channels]: [usize; 4]) -> CubeTensor {
        let shape = [batch, channels, height, width];
        let strides = [height * width * channels, 1, width * channels, channels];
        let CubeTensor { client, handle, device, dtype, .. } = tensor;
        CubeTensor::new(client, handle, Metadata::new(shape, strides), device, dtype)
    }

    /// Memory for a result of the shape and layout of `x`.
    fn room(self, x: &CubeTensor) -> CubeTensor {
        if !self.last {
            return empty_like(x);
        }
        let [batch, channels, height, width] = x.meta.shape().dims();
        let lengths = [batch, height, width, channels];
        self.as_images(empty(x, lengths.into(), x.dtype), lengths)
    }

    /// A value of `f32` for each channel.
    fn per_channel(self, x: &CubeTensor) -> CubeTensor {
        empty(x, [self.channels].into(), DType::F32)
    }

    /// Values of a group, and how many groups there are.
    fn groups(self) -> (usize, usize) {
        let group = self.count.div_ceil(GROUPS).max(GROUP);
        (group, self.count.div_ceil(group))
    }

    /// Cubes for every channel and group.
    fn cubes(self) -> (CubeCount, CubeDim) {
        let (_, groups) = self.groups();
        let channels = if self.last { self.channels.div_ceil(COLUMNS as usize) } else { self.channels };
        (CubeCount::Static(channels as u32, groups as u32, 1), CubeDim::new_2d(COLUMNS, ROWS))
    }
}

/// See [`super::step::NormaliseOps::normalise_forward`]; without `add` nobody looks at `residual`.
pub(super) fn forward(
    x: CubeTensor,
    [gamma, beta]: [CubeTensor; 2],
    residual: CubeTensor,
    eps: f32,
    [add, rectify]: [bool; 2],
) -> Normalised<CubeBackend> {
    let (sizes, x) = Sizes::of(x);
    let [gamma, beta] = [gamma, beta].map(contiguous);
    let residual = if add { sizes.alike(residual) } else { residual };
    let (client, dtype) = (x.client.clone(), elem(&x));
    let (group, groups) = sizes.groups();
    let partial = || empty(&x, [groups, sizes.channels].into(), DType::F32);
    let [distances, squares] = [partial(), partial()];
    let [mean, variance, inverse] = [(); 3].map(|()| sizes.per_channel(&x));
    let (count, dim) = sizes.cubes();
    // SAFETY: `x` holds `count` values of each channel in the layout that `last` says; a row of sums for each group.
    unsafe {
        kernels::moments::launch_unchecked(
            &client,
            count,
            dim,
            x.clone().into_buffer_arg(),
            distances.clone().into_buffer_arg(),
            squares.clone().into_buffer_arg(),
            sizes.channels,
            sizes.size,
            sizes.count,
            group,
            sizes.last,
            dtype,
        );
    }
    let (count, dim) = unit_each(&x, sizes.channels);
    // SAFETY: as above, and a value of each statistic for each channel.
    unsafe {
        kernels::statistics::launch_unchecked(
            &client,
            count,
            dim,
            x.clone().into_buffer_arg(),
            distances.into_buffer_arg(),
            squares.into_buffer_arg(),
            mean.clone().into_buffer_arg(),
            variance.clone().into_buffer_arg(),
            inverse.clone().into_buffer_arg(),
            sizes.channels,
            sizes.size,
            sizes.count as f32,
            groups,
            eps,
            sizes.last,
            dtype,
        );
    }
    let y = sizes.room(&x);
    let values = sizes.count * sizes.channels;
    let (count, dim) = unit_each(&x, values);
    // SAFETY: `x`, `y` and, with `add`, `residual` hold `values` values, the others one for each channel.
    unsafe {
        kernels::normalise::launch_unchecked(
            &client,
            count,
            dim,
            x.into_buffer_arg(),
            mean.clone().into_buffer_arg(),
            inverse.clone().into_buffer_arg(),
            gamma.into_buffer_arg(),
            beta.into_buffer_arg(),
            residual.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            sizes.channels,
            sizes.size,
            values,
            sizes.last,
            add,
            rectify,
            dtype,
        );
    }
    Normalised { y, mean, variance, inverse }
}

/// See [`super::step::NormaliseOps::normalise_backward`]; without `rectify` nobody looks at `y`.
pub(super) fn backward(
    x: CubeTensor,
    gamma: CubeTensor,
    [mean, inverse]: [CubeTensor; 2],
    y: CubeTensor,
    dy: CubeTensor,
    [add, rectify]: [bool; 2],
) -> NormaliseGradients<CubeBackend> {
    let (sizes, x) = Sizes::of(x);
    let [gamma, mean, inverse] = [gamma, mean, inverse].map(contiguous);
    let dy = sizes.alike(dy);
    let y = if rectify { sizes.alike(y) } else { y };
    let (client, dtype) = (x.client.clone(), elem(&x));
    let (group, groups) = sizes.groups();
    let partial = || empty(&x, [groups, sizes.channels].into(), DType::F32);
    let [by_normal, plain] = [partial(), partial()];
    let (count, dim) = sizes.cubes();
    // SAFETY: `x`, `dy` and, with `rectify`, `y` hold `count` values of each channel in one layout; a row of sums for each
    // group.
    unsafe {
        kernels::sums::launch_unchecked(
            &client,
            count,
            dim,
            x.clone().into_buffer_arg(),
            dy.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            mean.clone().into_buffer_arg(),
            inverse.clone().into_buffer_arg(),
            by_normal.clone().into_buffer_arg(),
            plain.clone().into_buffer_arg(),
            sizes.channels,
            sizes.size,
            sizes.count,
            group,
            sizes.last,
            rectify,
            dtype,
        );
    }
    let [by_normal, plain] =
        [by_normal, plain].map(|partial| columns::sum(partial, sizes.channels, DType::F32));
    let dx = sizes.room(&x);
    // Only behind a ReLU the residual's gradient is another one than the output's.
    let write = add && rectify;
    let residual = if write { sizes.room(&x) } else { dy.clone() };
    // Nothing that is read may be an argument that is written.
    let target = if write { residual.clone() } else { empty(&x, [1].into(), x.dtype) };
    let values = sizes.count * sizes.channels;
    let (count, dim) = unit_each(&x, values);
    // SAFETY: as above; `dx` and, where it is written, `target` hold as many values as `x`, the others one for each channel.
    unsafe {
        kernels::input_gradient::launch_unchecked(
            &client,
            count,
            dim,
            x.into_buffer_arg(),
            dy.into_buffer_arg(),
            y.into_buffer_arg(),
            mean.into_buffer_arg(),
            inverse.into_buffer_arg(),
            gamma.clone().into_buffer_arg(),
            by_normal.clone().into_buffer_arg(),
            plain.clone().into_buffer_arg(),
            dx.clone().into_buffer_arg(),
            target.into_buffer_arg(),
            sizes.channels,
            sizes.size,
            values,
            1.0 / sizes.count as f32,
            sizes.last,
            rectify,
            write,
            dtype,
        );
    }
    let cast = |sum: CubeTensor| burn_cubecl::kernel::cast(sum, gamma.dtype);
    NormaliseGradients { x: dx, gamma: cast(by_normal), beta: cast(plain), residual }
}
