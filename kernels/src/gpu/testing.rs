//! What the tests on GPUs share: the device under test, and comparing what it finds with the reference on the CPU.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::cpu::testing::noise;
use crate::tap::{BackwardHook, Found, hooked};

/// Holds the device: software devices do not like several clients at once, and memory is short.
static DEVICE: Mutex<()> = Mutex::new(());

/// The device under test: what `HARVEST_GPU` names, `wgpu` or `cuda:N`; without it the one that is built in.
pub(super) fn device() -> (Device, MutexGuard<'static, ()>) {
    let name = std::env::var("HARVEST_GPU").unwrap_or_default();
    let device = match name.as_str() {
        #[cfg(feature = "wgpu")]
        "" | "wgpu" => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(all(feature = "cuda", not(feature = "wgpu")))]
        "" => Device::cuda(0),
        #[cfg(feature = "cuda")]
        cuda if cuda.starts_with("cuda:") => {
            Device::cuda(cuda["cuda:".len()..].parse::<usize>().expect("HARVEST_GPU=cuda:N"))
        }
        other => panic!("HARVEST_GPU is `{other}`, which is no device of this build"),
    };
    (device, DEVICE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The 16-bit types that the device computes with.
pub(super) fn narrow_types(device: &Device) -> impl Iterator<Item = DType> {
    [DType::F16, DType::BF16].into_iter().filter(|&dtype| device.supports_dtype(dtype))
}

/// Values with few digits, which every type holds exactly: they stay what they are on both sides.
pub(super) fn rough<const D: usize>(
    shape: [usize; D],
    seed: u64,
    (device, dtype): (&Device, DType),
) -> Tensor<D> {
    let values = noise(shape.iter().product(), seed).into_iter().map(|value| (value * 32.0).round() / 32.0);
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), (device, dtype))
}

/// The values, as `f32`.
pub(super) fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// A scalar whose gradient at `y` is `weight`, bit for bit.
///
/// Not by a product: burn's fused product of values works in place, which software devices get wrong, and its product of
/// matrices rounds to TF32 on others.
pub(super) fn weighted<const D: usize>(y: Tensor<D>, weight: Tensor<D>) -> Tensor<1> {
    assert_eq!(y.dims(), weight.dims(), "a weight for each value");
    hooked(y, Arc::new(Given(weight.inner().into_dispatch()))).sum()
}

/// A gradient to go on with, whatever has come.
#[derive(Debug)]
struct Given(DispatchTensor);

impl BackwardHook for Given {
    fn passed(&self, _gradient: DispatchTensor, _found: &Found<'_>) -> DispatchTensor {
        self.0.clone()
    }
}

/// Asserts that every difference is at most `tolerance` times the largest value.
pub(super) fn assert_agree(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: results");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}, result {index}: length");
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs();
            assert!(
                error <= tolerance * largest || found.to_bits() == expected.to_bits(),
                "{what}, result {index}[{at}]: {found}, expected {expected} to {tolerance} of {largest}"
            );
        }
    }
}
