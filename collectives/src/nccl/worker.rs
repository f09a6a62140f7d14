//! The thread that makes NCCL's calls.

#![expect(unsafe_code, reason = "hands addresses of device memory to NCCL")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError};

use super::comm::{Comm, Pause};
use super::communicator::NcclOptions;
#[cfg(feature = "cuda")]
use super::device_bucket::{Arrived, Travelling};
use super::error::NcclError;
use super::library::{Library, UniqueId};
use super::sys::{DataType, RawStream};
use crate::communicator::CollectiveError;

/// One rank's end, on the thread it belongs to.
pub(super) struct Worker {
    /// Gone once something has failed.
    comm: Option<Comm>,
    failure: Option<CollectiveError>,
    stream: Arc<CudaStream>,
    rank: usize,
    world_size: usize,
    limit: Duration,
    stop: Arc<AtomicBool>,
}

/// Operations on values of the host. They tell each other which they are in, for NCCL would mix them up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    AllReduce = 1,
    AllGather,
    Broadcast,
    Barrier,
}

impl Worker {
    pub(super) fn join(
        library: Arc<Library>,
        id: UniqueId,
        options: &NcclOptions,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, NcclError> {
        // cudarc panics where there is no driver.
        // SAFETY: opens the driver's library, or finds that there is none.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            let reason = "there is no driver, `libcuda.so.1`; NCCL works between NVIDIA GPUs only".to_owned();
            return Err(NcclError::Cuda { reason });
        }
        let NcclOptions { rank, world_size, device_index, limit, operation_limit } = *options;
        // The device's primary context, which burn uses too; it is current on this thread from here on.
        let context = CudaContext::new(device_index).map_err(|error| cuda(&error))?;
        // Does not wait for the default stream, nor the default stream for it.
        let stream = context.new_stream().map_err(|error| cuda(&error))?;
        let comm = Comm::join(library, id, world_size, rank, limit)?.limited_to(operation_limit);
        Ok(Self { comm: Some(comm), failure: None, stream, rank, world_size, limit: operation_limit, stop })
    }

    /// Ends together with the other ranks.
    pub(super) fn leave(&mut self) {
        if let Some(comm) = self.comm.take() {
            // One that does not come any more has been waited for; there is nobody left to tell.
            let _ = comm.leave();
        }
    }

    /// Ends without the other ranks, which find this one gone.
    pub(super) fn release(&mut self) {
        self.comm = None;
    }

    /// The sum over all ranks of a bucket that lies on the device, in its place.
    #[cfg(feature = "cuda")]
    pub(super) fn reduce_device(&mut self, mut bucket: Travelling) -> Result<Arrived, CollectiveError> {
        // Without this NCCL would read what is not there yet: its stream knows nothing of burn's.
        bucket.written()?;
        let (address, length, kind) = (bucket.address(), bucket.length(), bucket.kind());
        self.call("ncclAllReduce", |comm, stream| {
            // SAFETY: `bucket` holds its memory, alone, until it is turned into `Arrived` below, when the sum is there or
            // the communicator is freed; what wrote it has ended.
            unsafe { comm.all_reduce(address, length, kind, stream) }
        })?;
        let (address, count) = bucket.tail();
        let tail = match kind {
            DataType::Bf16 => self.fetch::<u16>(address, count)?.into_iter().map(widen).collect(),
            _ => self.fetch::<f32>(address, count)?,
        };
        Ok(bucket.arrive(tail))
    }

    /// Numbers that lie at this address of the device.
    #[cfg(feature = "cuda")]
    fn fetch<T: Number + Default>(&self, address: u64, count: usize) -> Result<Vec<T>, CollectiveError> {
        let mut values = vec![T::default(); count];
        if count > 0 {
            // SAFETY: the caller holds the memory; `values` has as much room and outlives the copy, which has ended when
            // this returns.
            unsafe {
                cudarc::driver::result::memcpy_dtoh_async(&mut values, address, self.stream.cu_stream())
            }
            .and_then(|()| self.stream.synchronize())
            .map_err(|error| cuda(&error))?;
        }
        Ok(values)
    }

    /// The sum over all ranks of `values`, in their place.
    pub(super) fn reduce_host(&mut self, values: &mut Vec<f32>) -> Result<(), CollectiveError> {
        let lengths = self.lengths(Operation::AllReduce, values.len())?;
        if let Some(rank) = lengths.iter().position(|length| *length != values.len()) {
            let (own, other) = (values.len(), lengths[rank]);
            return Err(CollectiveError::Mismatch(format!("{own} numbers here, {other} on rank {rank}")));
        }
        if values.is_empty() {
            return Ok(());
        }
        let buffer = self.upload(values)?;
        let address = self.address(&buffer);
        self.call("ncclAllReduce", |comm, stream| {
            // SAFETY: `buffer` has this many numbers and lives until the sum is there.
            unsafe { comm.all_reduce(address, buffer.len(), DataType::F32, stream) }
        })?;
        *values = self.download(&buffer)?;
        Ok(())
    }

    pub(super) fn all_gather(&mut self, values: &[f32]) -> Result<Vec<Vec<f32>>, CollectiveError> {
        let lengths = self.lengths(Operation::AllGather, values.len())?;
        // NCCL gathers rows of one length.
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); self.world_size]);
        }
        let mut row = values.to_vec();
        row.resize(longest, 0.0);
        let rows = self.gather(&row, DataType::F32)?;
        let rows = rows.chunks_exact(longest).zip(lengths);
        Ok(rows.map(|(row, length)| row[..length].to_vec()).collect())
    }

    pub(super) fn broadcast(&mut self, bytes: Vec<u8>, root: usize) -> Result<Vec<u8>, CollectiveError> {
        let own = if self.rank == root { bytes.len() } else { 0 };
        let lengths = self.lengths(Operation::Broadcast, own)?;
        let Some(&length) = lengths.get(root) else {
            return Err(CollectiveError::Mismatch(format!("there is no rank {root} to hear")));
        };
        if length == 0 {
            return Ok(Vec::new());
        }
        let bytes = if self.rank == root { bytes } else { vec![0; length] };
        let buffer = self.upload(&bytes)?;
        let address = self.address(&buffer);
        self.call("ncclBroadcast", |comm, stream| {
            // SAFETY: `buffer` has this many bytes on every rank, and lives until they are there.
            unsafe { comm.broadcast(address, length, DataType::U8, root, stream) }
        })?;
        self.download(&buffer)
    }

    pub(super) fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.lengths(Operation::Barrier, 0).map(drop)
    }

    /// How many values each rank brings to this operation.
    fn lengths(&mut self, operation: Operation, own: usize) -> Result<Vec<usize>, CollectiveError> {
        let all = self.gather(&[operation as u64, own as u64], DataType::U64)?;
        let (rows, _) = all.as_chunks::<2>();
        if let Some(rank) = rows.iter().position(|row| row[0] != operation as u64) {
            let reason = format!("{operation:?} here, another on rank {rank}");
            return Err(CollectiveError::Mismatch(reason));
        }
        // They were lengths on the other side.
        Ok(rows.iter().map(|row| usize::try_from(row[1]).unwrap_or(usize::MAX)).collect())
    }

    /// The rows of all ranks, of one length everywhere.
    fn gather<T: Number>(&mut self, row: &[T], kind: DataType) -> Result<Vec<T>, CollectiveError> {
        let own = self.upload(row)?;
        let all = self.stream.alloc_zeros::<T>(row.len() * self.world_size).map_err(|error| cuda(&error))?;
        let (from, to) = (self.address(&own), self.address(&all));
        self.call("ncclAllGather", |comm, stream| {
            // SAFETY: `own` has a row and `all` one for each rank; both live until the rows are there.
            unsafe { comm.all_gather(from, to, own.len(), kind, stream) }
        })?;
        self.download(&all)
    }

    /// Makes a call of NCCL and waits until the device has come to its end.
    ///
    /// If that fails the communicator is freed before this returns, so that nothing of NCCL's touches the buffers after it.
    fn call(
        &mut self,
        function: &'static str,
        call: impl FnOnce(&Comm, RawStream) -> Result<(), NcclError>,
    ) -> Result<(), CollectiveError> {
        let Some(comm) = &self.comm else {
            let unknown = || CollectiveError::Lost("the ranks have parted".to_owned());
            return Err(self.failure.clone().unwrap_or_else(unknown));
        };
        let done = call(comm, self.stream.cu_stream().cast()).map_err(CollectiveError::from);
        let done = done.and_then(|()| self.finish(comm, function));
        if let Err(error) = &done {
            self.failure = Some(error.clone());
            self.comm = None;
        }
        done
    }

    /// Waits until the stream is empty, NCCL reports an error, the limit has passed, or this rank is to stop.
    fn finish(&self, comm: &Comm, function: &'static str) -> Result<(), CollectiveError> {
        let end = self.stream.record_event(None).map_err(|error| cuda(&error))?;
        let mut pause = Pause::new(self.limit);
        while !end.try_is_complete().map_err(|error| cuda(&error))? {
            comm.poll(function)?;
            if self.stop.load(Ordering::Acquire) {
                return Err(CollectiveError::Lost("this rank was told to stop".to_owned()));
            }
            pause.wait(function)?;
        }
        Ok(())
    }

    fn upload<T: Number>(&self, values: &[T]) -> Result<CudaSlice<T>, CollectiveError> {
        Ok(self.stream.clone_htod(values).map_err(|error| cuda(&error))?)
    }

    fn download<T: Number>(&self, buffer: &CudaSlice<T>) -> Result<Vec<T>, CollectiveError> {
        let values = self.stream.clone_dtoh(buffer).map_err(|error| cuda(&error))?;
        self.stream.synchronize().map_err(|error| cuda(&error))?;
        Ok(values)
    }

    fn address<T>(&self, buffer: &CudaSlice<T>) -> u64 {
        // Everything here happens on one stream, so that there is nothing to wait for.
        buffer.device_ptr(&self.stream).0
    }
}

/// What can lie on the device.
trait Number: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits + Copy {}
impl Number for f32 {}
impl Number for u64 {}
impl Number for u8 {}
#[cfg(feature = "cuda")]
impl Number for u16 {}

/// A bfloat16 as it is stored.
#[cfg(feature = "cuda")]
fn widen(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

fn cuda(error: &DriverError) -> NcclError {
    NcclError::Cuda { reason: error.to_string() }
}
