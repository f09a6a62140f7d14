//! Views of pictures, a cube for each: all its steps in one launch, the same bytes as on the CPU.
//!
//! A picture being worked on is a word for each pixel, red in the lowest byte, in two halves of the GPU's memory: a step
//! reads one and writes the other. Which step it is is the same for all units of a cube, so that nobody waits at a branch.
//!
//! Bytes are the same because numbers are: places and counts are whole, and where the CPU blends in floating point, products
//! are computed before, and apart from, the sums, which leaves a compiler nothing to fuse. `AutoContrast` is in double
//! precision on the CPU, where rounding makes some whole results fall short by one: [`shortfalls`] tells which.
#![expect(unsafe_code, reason = "a launch without bound checks, see the parent module")]

mod kernel;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use cubecl::prelude::*;

use self::kernel::{
    AUTO_CONTRAST, BRIGHTNESS, COLOUR, CONTRAST, EQUALIZE, HEADER, LEVELS, MOVE, POSTERIZE, SHARPNESS,
    SOLARIZE, STEP, make,
};
use super::{contiguous, empty};
use crate::augment::{Affine, Step, ViewPlan, stretched};

/// What stays on a GPU between two batches.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    device: Device,
    shortfalls: Tensor<1, Int>,
}

impl Kernel {
    /// For `device`, outside the graph, if it is a GPU.
    pub(crate) fn on(device: &Device) -> Option<Self> {
        matches!(device.as_dispatch(), DispatchDevice::Cube(_))
            .then(|| Self { shortfalls: words(shortfalls(), device), device: device.clone() })
    }

    /// Checked plans for checked pictures, of each at least one pixel: `[plans, 3, size, size]`.
    pub(crate) fn views(&self, pictures: &[u8], size: usize, plans: &[ViewPlan]) -> Tensor<4> {
        // One word more than there may be, for a pixel is read from two.
        let mut packed: Vec<u32> = Vec::with_capacity(pictures.len() / 4 + 2);
        let (whole, rest) = pictures.as_chunks::<4>();
        packed.extend(whole.iter().map(|bytes| u32::from_le_bytes(*bytes)));
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        packed.extend([u32::from_le_bytes(last), 0]);
        let steps = plans.iter().map(|plan| plan.steps.len()).max().unwrap_or(0);
        let table: Vec<i32> = plans.iter().flat_map(|plan| encoded(plan, steps)).collect();
        let table = TensorData::new(table, [plans.len(), HEADER + steps * STEP]);
        let table = Tensor::<2, Int>::from_data(table, (&self.device, DType::I32));
        Tensor::from_dispatch(Dispatch::make_views(
            words(packed, &self.device).into_dispatch(),
            table.into_dispatch(),
            self.shortfalls.clone().into_dispatch(),
            size,
        ))
    }
}

fn words(words: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    let count = words.len();
    Tensor::from_data(TensorData::new(words, [count]), (device, DType::U32))
}

/// `HEADER + steps · STEP` words.
fn encoded(plan: &ViewPlan, steps: usize) -> impl Iterator<Item = i32> {
    let [columns, rows, fill] = match plan.patch {
        Some(patch) => [patch.columns, patch.rows, [u32::from_le_bytes(word(patch.fill)), 0]],
        None => [[0; 2]; 3],
    };
    let place = [plan.picture as i32, plan.top, plan.left, i32::from(plan.flip)];
    let patch = [columns[0], columns[1], rows[0], rows[1], fill[0]].map(u32::cast_signed);
    let nothing = [0; STEP];
    let steps = plan.steps.iter().map(encoded_step).chain(std::iter::repeat(nothing)).take(steps);
    place.into_iter().chain(patch).chain(steps.flatten())
}

fn word([red, green, blue]: [u8; 3]) -> [u8; 4] {
    [red, green, blue, 0]
}

fn encoded_step(step: &Step) -> [i32; STEP] {
    let value = |kind: u32, value: i32| [kind.cast_signed(), value, 0, 0, 0, 0, 0];
    let factor = |kind, factor: f32| value(kind, factor.to_bits().cast_signed());
    match *step {
        Step::AutoContrast => value(AUTO_CONTRAST, 0),
        Step::Equalize => value(EQUALIZE, 0),
        Step::Contrast(by) => factor(CONTRAST, by),
        Step::Brightness(by) => factor(BRIGHTNESS, by),
        Step::Colour(by) => factor(COLOUR, by),
        Step::Sharpness(by) => factor(SHARPNESS, by),
        Step::Posterize(mask) => value(POSTERIZE, i32::from(mask)),
        Step::Solarize(from) => value(SOLARIZE, i32::from(from)),
        Step::Move(Affine { column: [a, b, c], row: [d, e, f] }) => [MOVE.cast_signed(), a, b, c, d, e, f],
    }
}

/// Where [`stretched`] is one less than whole numbers have it: bit `level − low` of the eight words at
/// `8 (256 (high − low) + low)`.
fn shortfalls() -> Vec<u32> {
    let mut bits = vec![0; LEVELS * LEVELS * 8];
    for low in 0..255u8 {
        for high in low + 1..=255 {
            let range = u32::from(high - low);
            for level in low..=high {
                let above = u32::from(level - low);
                if u32::from(stretched(low, high, level)) != above * 255 / range {
                    let at = (range as usize * LEVELS + usize::from(low)) * 8;
                    bits[at + above as usize / 32] |= 1 << (above % 32);
                }
            }
        }
    }
    bits
}

/// The operation as burn's dispatch sees it.
#[backend_extension(Cube, Fusion)]
pub(crate) trait AugmentOps: Backend {
    /// `pictures`: bytes in words, and a word more; `table`: `[views, words]` of plans → levels `[views, 3, size, size]`.
    #[fusion(dtype = DType::F32, shape = Shape::from([table[0], 3, *size, *size]))]
    fn make_views(
        pictures: IntTensor<Self>,
        table: IntTensor<Self>,
        shortfalls: IntTensor<Self>,
        size: usize,
    ) -> FloatTensor<Self>;
}

impl AugmentOps for CubeBackend {
    fn make_views(
        pictures: IntTensor<Self>,
        table: IntTensor<Self>,
        shortfalls: IntTensor<Self>,
        size: usize,
    ) -> FloatTensor<Self> {
        let [pictures, table, shortfalls] = [pictures, table, shortfalls].map(contiguous);
        let [views, words] = table.meta.shape().dims();
        let out = empty(&table, [views, 3, size, size].into(), DType::F32);
        let work = empty(&table, [2, views, size * size].into(), DType::U32);
        let client = table.client.clone();
        let dim = CubeDim::new_1d(LEVELS as u32);
        let count = cubecl::calculate_cube_count_elemwise(&client, views * LEVELS, dim);
        // SAFETY: `table` has whole plans of `views` views, each of a picture that is there, as [`Kernel::views`] and its caller
        // see to; `pictures` has a word more than its bytes need; mirrored and moved places are inside the picture.
        unsafe {
            make::launch_unchecked(
                &client,
                count,
                dim,
                pictures.into_buffer_arg(),
                table.into_buffer_arg(),
                shortfalls.into_buffer_arg(),
                work.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                views,
                size,
                (words - HEADER) / STEP,
            );
        }
        out
    }
}

#[cfg(test)]
mod tests;
