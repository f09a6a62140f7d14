//! The sums themselves.

use std::error::Error;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Int, Tensor, s};
use harvest_collectives::nccl::{DeviceBucket, Library, Nccl, NcclOptions as Join, UniqueId};
use harvest_collectives::{Bucket, Communicator, HostBucket, Wire};

use super::{NcclOptions, NcclReport};
use crate::bench::process::program;
use crate::bench::step::sync;
use crate::bench::{BenchError, significant};
use crate::device;

/// For joining, and for each sum.
const LIMIT: Duration = Duration::from_secs(60);
/// Numbers at the end of the bucket that the host says.
const TAIL: usize = 2;
/// Numbers that nobody writes, before the tail.
const GAP: usize = 254;
const BF16_STEPS: u32 = 30;

fn failed(error: impl Error) -> BenchError {
    BenchError::Execution { reason: error.to_string() }
}

/// NCCL on this device with a single rank.
pub fn alone(device: &Device) -> Result<Nccl, BenchError> {
    let (rank, world_size, device_index) = (0, 1, device::index(device));
    let options = Join { rank, world_size, device_index, limit: LIMIT, operation_limit: LIMIT };
    let library = Library::load().map_err(failed)?;
    let id = library.unique_id().map_err(failed)?;
    Nccl::new(library, id, &options).map_err(failed)
}

pub fn measure(options: &NcclOptions, device: &Device) -> Result<NcclReport, BenchError> {
    let library = Library::load().map_err(failed)?;
    let (id, others) = match &options.id {
        Some(digits) => (digits.parse().map_err(failed)?, Vec::new()),
        None => {
            let id = library.unique_id().map_err(failed)?;
            (id, start_others(options, id)?)
        }
    };
    let join = Join {
        rank: options.rank as usize,
        world_size: options.ranks as usize,
        device_index: device::index(device),
        limit: LIMIT,
        operation_limit: LIMIT,
    };
    let (version, path) = (library.version().to_string(), library.path().display().to_string());
    let nccl = Nccl::new(library, id, &join).map_err(failed)?;
    let subject = Subject { nccl: &nccl, device, length: (options.mib as usize) << 18 };
    let wrong_on_host = subject.host()?;
    let (wrong, overwritten) = subject.exact()?;
    let (bf16_error, bf16_bound) = subject.rounded()?;
    let report = NcclReport {
        program: program(),
        nccl: version,
        library: path,
        ranks: options.ranks,
        bytes: 4 * subject.length as u64,
        wrong,
        overwritten,
        wrong_on_host,
        bf16_error: significant(bf16_error),
        bf16_bound: significant(bf16_bound),
        seconds_f32: significant(subject.time(Wire::F32, options.iterations)?),
        seconds_bf16: significant(subject.time(Wire::Bf16, options.iterations)?),
    };
    nccl.finish();
    for mut other in others {
        let status = other.wait().map_err(failed)?;
        if !status.success() {
            return Err(BenchError::Execution { reason: format!("another rank ended with {status}") });
        }
    }
    Ok(report)
}

/// The other ranks, as processes of this program.
fn start_others(options: &NcclOptions, id: UniqueId) -> Result<Vec<Child>, BenchError> {
    let digits = id.to_string();
    let start = |rank: u32| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "nccl", "--device", &options.device, "--id", &digits]);
        for (name, value) in [
            ("--mib", options.mib),
            ("--iterations", options.iterations),
            ("--ranks", options.ranks),
            ("--rank", rank),
        ] {
            command.args([name, &value.to_string()]);
        }
        // One line is enough.
        command.stdout(std::process::Stdio::null()).spawn()
    };
    (1..options.ranks).map(start).collect::<Result<_, _>>().map_err(failed)
}

struct Subject<'a> {
    nccl: &'a Nccl,
    device: &'a Device,
    /// Numbers in the bucket.
    length: usize,
}

impl Subject<'_> {
    fn ranks(&self) -> f32 {
        self.nccl.world_size() as f32
    }

    fn rank(&self) -> f32 {
        self.nccl.rank() as f32
    }

    fn bucket(&self, wire: Wire) -> Box<DeviceBucket> {
        Box::new(DeviceBucket::new(self.length, TAIL, 1.0, wire, self.device))
    }

    fn sum(&self, bucket: Box<DeviceBucket>) -> Result<Box<DeviceBucket>, BenchError> {
        match self.nccl.all_reduce_sum(Bucket::Device(bucket)).wait().map_err(failed)? {
            Bucket::Device(bucket) => Ok(bucket),
            _ => unreachable!("a bucket comes back as it went out"),
        }
    }

    /// `0, 1, …, 999, 0, …` for all but the end of the bucket.
    fn ramp(&self) -> Tensor<1> {
        let end = (self.length - TAIL - GAP) as i64;
        Tensor::<1, Int>::arange(0..end, self.device).remainder_scalar(1000).float()
    }

    /// Integers, so that every sum is exact. Returns how many numbers were not, and how many of a part that was handed out
    /// have changed with the next sum.
    fn exact(&self) -> Result<(u64, u64), BenchError> {
        let ramp = self.ramp();
        let [written] = ramp.dims();
        // Where a bucket of this length can be cut without copying.
        let half = self.length / 512 * 256;
        let (mut bucket, mut wrong, mut overwritten) = (self.bucket(Wire::F32), 0, 0);
        let mut handed_out: Option<(Tensor<1>, Tensor<1>)> = None;
        for step in 0..5u8 {
            let own = ramp.clone().add_scalar(f32::from(step) + self.rank());
            // What is written takes its time to come about: a sum that does not wait for it is wrong.
            let own = own + self.late_zero();
            bucket.write(0, own.clone().slice(s![0..half]));
            bucket.write(half, own.slice(s![half..written]));
            bucket.tail_mut().copy_from_slice(&[1.0, self.rank()]);
            bucket = self.sum(bucket)?;
            let of_ranks = self.ranks() * (self.ranks() - 1.0) / 2.0;
            let expected =
                ramp.clone().add_scalar(f32::from(step)).mul_scalar(self.ranks()).add_scalar(of_ranks);
            wrong += differing(bucket.read(0..written), expected.clone())?;
            wrong += differing(bucket.read(written..written + GAP), Tensor::zeros([GAP], self.device))?;
            wrong += u64::from(bucket.tail_sum() != [self.ranks(), of_ranks]);
            if let Some((part, expected)) = handed_out.take() {
                overwritten += differing(part, expected)?;
            }
            handed_out = Some((bucket.read(0..half), expected.slice(s![0..half])));
        }
        Ok((wrong, overwritten))
    }

    /// Zero, after some milliseconds of products.
    fn late_zero(&self) -> Tensor<1> {
        let mut product = Tensor::<2>::ones([4096, 4096], self.device);
        for _ in 0..8 {
            product = product.clone().matmul(product).mul_scalar(1.0 / 4096.0);
        }
        product.sum().mul_scalar(0.0)
    }

    /// The largest error of what many steps sum up to, and what it may be: what one rank still owes after the last step is
    /// half a unit of bf16's 8 bits; beyond one rank NCCL rounds in every step once for each rank.
    fn rounded(&self) -> Result<(f64, f64), BenchError> {
        let own = self.ramp().add_scalar(1.0).mul_scalar(0.001).add_scalar(0.1 * self.rank());
        let [written] = own.dims();
        let (mut bucket, mut total) = (self.bucket(Wire::Bf16), Tensor::zeros([written], self.device));
        for _ in 0..BF16_STEPS {
            bucket.write(0, own.clone());
            bucket = self.sum(bucket)?;
            total = total + bucket.read(0..written);
        }
        let of_ranks = 0.1 * self.ranks() * (self.ranks() - 1.0) / 2.0;
        let step = self.ramp().add_scalar(1.0).mul_scalar(0.001 * self.ranks()).add_scalar(of_ranks);
        let exact = step.mul_scalar(BF16_STEPS as f32);
        let error = ((total - exact.clone()).abs() / exact).max().into_scalar::<f32>();
        let (steps, ranks) = (f64::from(BF16_STEPS), f64::from(self.ranks()));
        // Twice, for sums in single precision and for ranks of unequal size.
        Ok((f64::from(error), 2.0 * (1.0 / steps + (ranks - 1.0)) / 512.0))
    }

    /// Values of the host.
    fn host(&self) -> Result<u64, BenchError> {
        let (rank, ranks) = (self.nccl.rank(), self.nccl.world_size());
        let row = |rank: usize| vec![rank as f32; rank + 1];
        let mut bucket = HostBucket::new(3, Wire::F32);
        bucket.local = vec![1.0, rank as f32, -1.0];
        let gathered = self.nccl.all_gather(row(rank));
        let said = self.nccl.broadcast(vec![rank as u8; 5], ranks - 1);
        let sum = self.nccl.all_reduce_sum(Bucket::Host(bucket));
        self.nccl.barrier().wait().map_err(failed)?;
        let sum = sum.wait().and_then(Bucket::on_the_host).map_err(failed)?.sum;
        let of_ranks = (ranks * (ranks - 1) / 2) as f32;
        let right = [
            gathered.wait().map_err(failed)? == (0..ranks).map(row).collect::<Vec<_>>(),
            said.wait().map_err(failed)? == [(ranks - 1) as u8; 5],
            sum == [ranks as f32, of_ranks, -(ranks as f32)],
        ];
        Ok(right.into_iter().filter(|right| !right).count() as u64)
    }

    /// Median of the time from asking for a sum until it is there.
    fn time(&self, wire: Wire, iterations: u32) -> Result<f64, BenchError> {
        let (own, mut bucket) = (self.ramp(), self.bucket(wire));
        let mut seconds = Vec::new();
        for number in 0..iterations + 3 {
            bucket.write(0, own.clone());
            sync(self.device)?;
            self.nccl.barrier().wait().map_err(failed)?;
            let start = Instant::now();
            bucket = self.sum(bucket)?;
            // The first ones compile kernels.
            if number >= 3 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }
}

fn differing(found: Tensor<1>, expected: Tensor<1>) -> Result<u64, BenchError> {
    let count = found.not_equal(expected).float().sum();
    let count = count.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
    // One that is no number differs too.
    if count.is_finite() { Ok(count as u64) } else { Ok(1) }
}
