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
/// nobody else holds instead of making another.
///
/// With [`Wire::Bf16`] a rounded copy travels, and what rounding leaves out stays behind on the device for the next step.
/// NCCL then adds in bf16, rounding at every hop; on the way from rank to rank that is at most one more rounding for each
/// rank.
#[derive(Debug)]
pub struct DeviceBucket {
    length: usize,
    wire: Wire,
    /// What this rank contributes. With [`Wire::F32`] it is gone while the sum is there, for they share their memory.
    local: Option<Tensor<1>>,
    /// The sum, as NCCL has left it.
    arrived: Option<Arrived>,
    /// The sum, once somebody has asked for it.
    sum: Option<Tensor<1>>,
    residual: Option<Tensor<1>>,
}

impl DeviceBucket {
    /// Zeros, of `length` numbers.
    pub fn new(length: usize, wire: Wire, device: &Device) -> Self {
        let zeros = || Tensor::zeros([length], &device.clone().inner());
        let residual = (wire == Wire::Bf16).then(zeros);
        Self { length, wire, local: Some(zeros()), arrived: None, sum: None, residual }
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts `values` at `offset` of what this rank contributes. All of the bucket must be written before it is summed again:
    /// with [`Wire::F32`] the last sum is still in it.
    pub fn write(&mut self, offset: usize, values: Tensor<1>) {
        let end = offset + values.dims()[0];
        self.local = Some(self.take_local().slice_assign(s![offset..end], values));
    }

    /// A part of the sum over all ranks; before the first, of what was written.
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
        let local = self.take_local();
        self.sum = None;
        self.arrived = None;
        let Some(residual) = self.residual.take() else {
            return Travelling::new(local);
        };
        let whole = local.clone() + residual;
        let rounded = whole.clone().cast(FloatDType::BF16);
        self.residual = Some(whole - rounded.clone().cast(FloatDType::F32));
        self.local = Some(local);
        Travelling::new(rounded)
    }

    pub(super) fn arrive(&mut self, sum: Arrived) {
        self.arrived = Some(sum);
    }

    fn take_local(&mut self) -> Tensor<1> {
        let local = self.local.take().or_else(|| self.take_sum());
        local.expect("the buffer is here unless it travels, and then the bucket is too")
    }

    fn take_sum(&mut self) -> Option<Tensor<1>> {
        self.arrived.take().map(|arrived| into_tensor(arrived.0)).or_else(|| self.sum.take())
    }
}

type Server = <CudaRuntime as Runtime>::Server;
type Resource = <<Server as ServerStorage>::Storage as ComputeStorage>::Resource;

/// A tensor on its way: its memory stays where it is, and belongs to NCCL.
pub(super) struct Travelling {
    tensor: CubeTensor,
    resource: ManagedResource<Resource>,
    written: DynFut<Result<(), ServerError>>,
}

/// A tensor that NCCL is done with.
#[derive(Debug)]
pub(super) struct Arrived(CubeTensor);

impl Travelling {
    fn new(tensor: Tensor<1>) -> Result<Self, CollectiveError> {
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
        Ok(Self { tensor, resource, written })
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

    pub(super) fn arrive(self) -> Arrived {
        Arrived(self.tensor)
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
