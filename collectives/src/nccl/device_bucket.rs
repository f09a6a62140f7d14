//! Buckets in the memory of a GPU.

use std::ops::Range;

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Device, FloatDType, Tensor, s};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, CubeBackend};
use burn_fusion::stream::StreamId;
use burn_fusion::{NoOp, get_client};
use burn_ir::{BackendIr as _, InitOperationIr, OperationIr, OperationOutput as _};
use cubecl::cuda::CudaRuntime;
use cubecl::future::{DynFut, block_on};
use cubecl::server::ServerError;
use cubecl_runtime::runtime::Runtime;
use cubecl_runtime::server::ServerStorage;
use cubecl_runtime::storage::{ComputeStorage, ManagedResource};

use super::sys::DataType;
use crate::communicator::{CollectiveError, Wire};

/// A bucket in the memory of a GPU: one flat buffer that lives as long as the run, since burn writes into a tensor that
/// nobody else holds instead of making another. The last numbers, its tail, are the host's: it says them and hears their sum.
///
/// With [`Wire::Bf16`] a rounded copy travels, and what rounding leaves out stays behind on the device for the next step.
/// NCCL then adds in bf16 and rounds at every hop, which nothing makes up for: with many ranks the sum is good to bf16's 8
/// bits and not better.
#[derive(Debug)]
pub struct DeviceBucket {
    length: usize,
    wire: Wire,
    factor: f32,
    /// What this rank contributes. With [`Wire::F32`] it is gone while the sum is there, for they share their memory.
    local: Option<Tensor<1>>,
    /// What has been written since the last sum.
    written: Vec<Range<usize>>,
    /// The sum, as NCCL has left it.
    arrived: Option<CubeTensor>,
    /// The sum, once somebody has asked for it.
    sum: Option<Tensor<1>>,
    residual: Option<Tensor<1>>,
    tail: Vec<f32>,
    tail_sum: Vec<f32>,
}

impl DeviceBucket {
    /// Zeros: `length` numbers, the last `tail` of which are the host's. What is written counts `factor` times.
    pub fn new(length: usize, tail: usize, factor: f32, wire: Wire, device: &Device) -> Self {
        let zeros = || Tensor::zeros([length], &device.clone().inner());
        Self {
            length,
            wire,
            factor,
            local: Some(zeros()),
            written: Vec::new(),
            arrived: None,
            sum: None,
            residual: (wire == Wire::Bf16).then(zeros),
            tail: vec![0.0; tail],
            tail_sum: vec![0.0; tail],
        }
    }

    /// Puts `values` at `offset` of what this rank contributes to the next sum.
    pub fn write(&mut self, offset: usize, values: Tensor<1>) {
        let range = offset..offset + values.dims()[0];
        self.local = Some(self.take_local().slice_assign(s![range.clone()], values));
        self.written.push(range);
    }

    /// What this rank contributes at the end of the bucket.
    pub fn tail_mut(&mut self) -> &mut [f32] {
        &mut self.tail
    }

    /// The last sum of that over all ranks.
    pub fn tail_sum(&self) -> &[f32] {
        &self.tail_sum
    }

    /// A part of the sum over all ranks.
    pub fn read(&mut self, range: Range<usize>) -> Tensor<1> {
        let sum = self.take_sum().unwrap_or_else(|| self.take_local());
        let part = sum.clone().slice(s![range]);
        self.sum = Some(sum);
        match self.wire {
            Wire::F32 => part,
            Wire::Bf16 => part.cast(FloatDType::F32),
        }
    }

    /// What travels, fenced behind all that the calling thread has queued. Until [`Self::arrive`] there is nothing to read.
    pub(super) fn depart(&mut self) -> Result<Travelling, CollectiveError> {
        let local = self.whole();
        self.sum = None;
        self.arrived = None;
        let Some(residual) = self.residual.take() else {
            return Travelling::new(local, self.tail.len());
        };
        let exact = local.clone() + residual;
        let rounded = exact.clone().cast(FloatDType::BF16);
        self.residual = Some(exact - rounded.clone().cast(FloatDType::F32));
        self.local = Some(local);
        Travelling::new(rounded, self.tail.len())
    }

    pub(super) fn arrive(&mut self, sum: Arrived) {
        self.arrived = Some(sum.tensor);
        self.tail_sum = sum.tail;
    }

    /// All that this rank contributes: what was written, the tail, and zeros in between.
    fn whole(&mut self) -> Tensor<1> {
        let mut local = self.take_local();
        let device = local.device();
        let body = self.length - self.tail.len();
        for gap in gaps(std::mem::take(&mut self.written), body) {
            let zeros = Tensor::zeros([gap.len()], &device);
            local = local.slice_assign(s![gap], zeros);
        }
        if self.factor != 1.0 {
            local = local.mul_scalar(self.factor);
        }
        if self.tail.is_empty() {
            return local;
        }
        let tail = Tensor::from_data(self.tail.as_slice(), &device);
        self.tail.fill(0.0);
        local.slice_assign(s![body..self.length], tail)
    }

    fn take_local(&mut self) -> Tensor<1> {
        let local = self.local.take().or_else(|| self.take_sum());
        local.expect("the buffer is here unless it travels, and then the bucket is too")
    }

    fn take_sum(&mut self) -> Option<Tensor<1>> {
        self.arrived.take().map(into_tensor).or_else(|| self.sum.take())
    }
}

/// What of `0..end` is in none of `ranges`.
fn gaps(mut ranges: Vec<Range<usize>>, end: usize) -> Vec<Range<usize>> {
    ranges.push(end..end);
    ranges.sort_by_key(|range| range.start);
    let mut covered = 0;
    let gaps = ranges.into_iter().map(|range| {
        let gap = covered..range.start;
        covered = covered.max(range.end);
        gap
    });
    gaps.filter(|gap| gap.start < gap.end).collect()
}

type Server = <CudaRuntime as Runtime>::Server;
type Resource = <<Server as ServerStorage>::Storage as ComputeStorage>::Resource;

/// A tensor on its way: its memory stays where it is, and belongs to NCCL.
pub(super) struct Travelling {
    tensor: CubeTensor,
    resource: ManagedResource<Resource>,
    written: DynFut<Result<(), ServerError>>,
    /// How many numbers at its end are the host's.
    tail: usize,
}

/// A tensor that NCCL is done with, and its tail.
pub(super) struct Arrived {
    tensor: CubeTensor,
    tail: Vec<f32>,
}

impl Travelling {
    fn new(tensor: Tensor<1>, tail: usize) -> Result<Self, CollectiveError> {
        let nccl = |reason: String| CollectiveError::Library { library: "NCCL", reason };
        let fused = tensor.try_into_primitive::<Cube>();
        let fused = fused.map_err(|error| nccl(format!("the bucket is not on a CUDA device: {error:?}")))?;
        // Submits what burn still held back; its kernels are in the queue of this thread's stream after this.
        let tensor = fused.client.clone().resolve_tensor_float::<CubeBackend>(fused);
        // A sum in place must not be seen by anybody who still holds the memory, as a view of the last sum may.
        let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
        let resource = tensor.client.get_resource::<Server>(tensor.handle.clone());
        let resource =
            resource.map_err(|error| nccl(format!("the bucket has no memory on the device: {error:?}")))?;
        // Recorded here and waited for on the other thread. `get_resource` there would fence too, but only once for each
        // allocation: cubecl remembers up to where it has waited for a stream, and compares that with when a buffer was
        // allocated, not with when it was written. A buffer that is kept would be fenced in the first step and in no other.
        let written = tensor.client.sync();
        Ok(Self { tensor, resource, written, tail })
    }

    /// Waits until all that was queued before the departure has been done.
    pub(super) fn written(&mut self) -> Result<(), CollectiveError> {
        let done: DynFut<_> = std::mem::replace(&mut self.written, Box::pin(std::future::ready(Ok(()))));
        block_on(done)
            .map_err(|error| CollectiveError::Library { library: "CUDA", reason: format!("{error:?}") })
    }

    pub(super) fn address(&self) -> u64 {
        self.resource.resource().ptr
    }

    pub(super) fn length(&self) -> usize {
        self.tensor.shape().num_elements()
    }

    pub(super) fn kind(&self) -> DataType {
        match self.tensor.dtype {
            DType::BF16 => DataType::Bf16,
            _ => DataType::F32,
        }
    }

    /// Address and length of the tail.
    pub(super) fn tail(&self) -> (u64, usize) {
        let bytes = match self.kind() {
            DataType::Bf16 => 2,
            _ => 4,
        };
        (self.address() + bytes * (self.length() - self.tail) as u64, self.tail)
    }

    pub(super) fn arrive(self, tail: Vec<f32>) -> Arrived {
        Arrived { tensor: self.tensor, tail }
    }
}

/// burn's tensor of what a kernel outside burn has written.
fn into_tensor(raw: CubeTensor) -> Tensor<1> {
    let client = get_client::<CubeBackend>(&raw.device);
    let (shape, dtype) = (raw.shape(), raw.dtype);
    let handle = CubeBackend::float_tensor_handle(raw);
    let operation = InitOperationIr::create(shape, dtype, || client.register_tensor_handle(handle));
    let queued =
        client.register(StreamId::current(), OperationIr::Init(operation), NoOp::<CubeBackend>::new());
    Tensor::from_primitive::<Cube>(queued.output())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_found() {
        assert_eq!(gaps(vec![2..5, 0..1, 5..6], 8), [1..2, 6..8]);
        assert!(gaps(vec![0..4, 4..8], 8).is_empty() && gaps(vec![], 0).is_empty());
    }
}
