//! Seconds of a sum over ranks for buckets of many sizes.
//!
//! As nccl-tests count: the algorithm bandwidth is bytes over seconds, and the bus bandwidth is that times `2 (n-1)/n`,
//! which a ring's busiest link has to carry, so that it can be laid beside a link's data sheet whatever `n` is. Bytes are
//! those of the bucket in `f32`; with bf16 on the wire half of them travel.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use harvest_collectives::{Bucket, CollectiveError, Communicator, HostBucket, Threads, Wire};
use serde::Serialize;

use super::cost::{Link, Sample};
use super::process::program;
use super::{BenchError, significant};

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct AllReduceOptions {
    /// Ranks as threads of this process; without, the ranks that a launcher started.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    pub threads: Option<u32>,
    /// Smallest bucket: bytes, or with KiB or MiB.
    #[arg(long, default_value = "4KiB", value_parser = parse_bytes)]
    pub min: u64,
    /// Largest bucket.
    #[arg(long, default_value = "128MiB", value_parser = parse_bytes)]
    pub max: u64,
    /// From one size to the next.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    pub factor: u32,
    /// Measured sums of each size, after one in four of that number that are not.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// How numbers travel: f32, bf16 or both.
    #[arg(long, default_value = "both")]
    pub wire: WireChoice,
    /// One line of JSON for each size, in place of the table.
    #[arg(long)]
    pub json: bool,
}

/// How numbers travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WireChoice {
    /// As they are.
    F32,
    /// Half the bytes.
    Bf16,
    /// One after the other.
    Both,
}

impl WireChoice {
    fn wires(self) -> &'static [(Wire, &'static str)] {
        const ALL: [(Wire, &str); 2] = [(Wire::F32, "f32"), (Wire::Bf16, "bf16")];
        match self {
            Self::F32 => &ALL[..1],
            Self::Bf16 => &ALL[1..],
            Self::Both => &ALL,
        }
    }
}

/// A size, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllReduceReport {
    /// Program and version.
    pub program: String,
    /// Ranks.
    pub ranks: usize,
    /// What joins them.
    pub transport: String,
    /// Bytes of the bucket, in `f32`.
    pub bytes: u64,
    /// `f32` or `bf16`.
    pub wire: &'static str,
    /// Measured sums.
    pub iterations: u32,
    /// Median of a rank's sums, mean over ranks.
    pub seconds: f64,
    /// Fastest sum of the first rank.
    pub seconds_fastest: f64,
    /// Bytes over seconds.
    pub algorithm_bandwidth: f64,
    /// That times `2 (n-1)/n`.
    pub bus_bandwidth: f64,
    /// Numbers of all ranks' sums that were wrong.
    pub wrong: u64,
}

/// All sizes, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct AllReduceReports {
    /// By wire, then size.
    pub sizes: Vec<AllReduceReport>,
}

/// Why a sum cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllReduceError {
    /// Nothing to sum over.
    #[error(
        "there is one rank and nothing to sum over; start it under `mpirun` or `srun`, or say `--threads 2`"
    )]
    Alone,
    /// Sizes the wrong way round.
    #[error("no bucket is as large as {min} bytes and as small as {max}; give a `--max` above `--min`")]
    Sizes {
        /// From.
        min: u64,
        /// To.
        max: u64,
    },
    /// A sum failed.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// Measures on threads of this process.
///
/// # Errors
/// [`BenchError`], if a sum fails.
pub fn allreduce_threads(options: &AllReduceOptions, ranks: usize) -> Result<AllReduceReports, BenchError> {
    let ranks: Vec<Arc<Threads>> = Threads::ring(ranks).into_iter().map(Arc::new).collect();
    let found = std::thread::scope(|scope| {
        let running: Vec<_> = ranks
            .into_iter()
            .map(|rank| scope.spawn(move || allreduce(options, &*rank, "threads")))
            .collect();
        // The first rank's account; another's failure fails it too.
        let mut ended = running.into_iter().map(|rank| rank.join().expect("a rank returns its errors"));
        let first = ended.next();
        ended.try_for_each(|one| one.map(drop)).and(first.unwrap_or(Err(AllReduceError::Alone)))
    });
    Ok(found?)
}

/// Measures as one of several ranks. Every rank gets the same report.
///
/// # Errors
/// If there is one rank only, or a sum fails.
pub fn allreduce(
    options: &AllReduceOptions,
    communicator: &dyn Communicator,
    transport: &str,
) -> Result<AllReduceReports, AllReduceError> {
    if communicator.world_size() < 2 {
        return Err(AllReduceError::Alone);
    }
    let (min, max) = (options.min.next_multiple_of(4), options.max);
    if min > max {
        return Err(AllReduceError::Sizes { min: options.min, max });
    }
    let sizes = std::iter::successors(Some(min), |size| size.checked_mul(u64::from(options.factor)));
    let sizes: Vec<u64> = sizes.take_while(|size| *size <= max).collect();
    let mut reports = Vec::new();
    for &(wire, name) in options.wire.wires() {
        for &bytes in &sizes {
            reports.push(one_size(communicator, transport, bytes, (wire, name), options.iterations)?);
        }
    }
    Ok(AllReduceReports { sizes: reports })
}

fn one_size(
    communicator: &dyn Communicator,
    transport: &str,
    bytes: u64,
    (wire, name): (Wire, &'static str),
    iterations: u32,
) -> Result<AllReduceReport, CollectiveError> {
    let (ranks, length) = (communicator.world_size(), (bytes / 4) as usize);
    let bytes = 4 * length as u64;
    let mut bucket = HostBucket::new(length, wire);
    // Small whole numbers: every sum of them is exact, in bf16 too.
    let part = |rank: usize, place: usize| ((place + rank) % 4) as f32;
    bucket
        .local
        .iter_mut()
        .enumerate()
        .for_each(|(place, number)| *number = part(communicator.rank(), place));
    let mut bucket = Bucket::Host(bucket);
    let mut seconds = Vec::new();
    communicator.barrier().wait()?;
    for iteration in 0..iterations + iterations.div_ceil(4) {
        let start = Instant::now();
        bucket = communicator.all_reduce_sum(bucket).wait()?;
        if iteration >= iterations.div_ceil(4) {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let wrong = match &bucket {
        Bucket::Host(host) => {
            // The pattern repeats after four places.
            let sums: Vec<f32> = (0..4).map(|place| (0..ranks).map(|rank| part(rank, place)).sum()).collect();
            let missing = length.abs_diff(host.sum.len());
            missing + host.sum.iter().enumerate().filter(|(place, sum)| **sum != sums[place % 4]).count()
        }
        _ => {
            let reason = "a bucket of the host's memory came back elsewhere".to_owned();
            return Err(CollectiveError::Mismatch(reason));
        }
    };
    // Counts above 2^24 lose digits, but never become 0.
    let told = communicator.all_gather(vec![super::median(&seconds) as f32, wrong as f32]).wait()?;
    let mean = told.iter().map(|rank| f64::from(rank[0])).sum::<f64>() / ranks as f64;
    let wrong = told.iter().map(|rank| rank[1] as u64).sum();
    let bandwidth = bytes as f64 / mean;
    Ok(AllReduceReport {
        program: program(),
        ranks,
        transport: transport.to_owned(),
        bytes,
        wire: name,
        iterations,
        seconds: significant(mean),
        seconds_fastest: significant(seconds[0]),
        algorithm_bandwidth: significant(bandwidth),
        bus_bandwidth: significant(bandwidth * 2.0 * (ranks as f64 - 1.0) / ranks as f64),
        wrong,
    })
}

impl AllReduceReports {
    /// Numbers that were wrong, of all sizes.
    pub fn wrong(&self) -> u64 {
        self.sizes.iter().map(|size| size.wrong).sum()
    }

    fn samples(&self, wire: &str) -> Vec<Sample> {
        let of_wire = self.sizes.iter().filter(|size| size.wire == wire);
        of_wire.map(|size| (size.bytes as f64, size.seconds)).collect()
    }
}

impl fmt::Display for AllReduceReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.sizes.first() else { return Ok(()) };
        writeln!(f, "{} ranks, {}, {} sums of each size", first.ranks, first.transport, first.iterations)?;
        writeln!(
            f,
            "{:>12}  {:>4}  {:>11}  {:>11}  {:>12}  {:>8}  {:>6}",
            "size", "wire", "median ms", "fastest ms", "algorithm", "bus", "wrong"
        )?;
        for size in &self.sizes {
            writeln!(
                f,
                "{:>12}  {:>4}  {:>11.4}  {:>11.4}  {:>7.3} GB/s  {:>8.3}  {:>6}",
                spell_bytes(size.bytes),
                size.wire,
                size.seconds * 1e3,
                size.seconds_fastest * 1e3,
                size.algorithm_bandwidth / 1e9,
                size.bus_bandwidth / 1e9,
                size.wrong
            )?;
        }
        for wire in ["f32", "bf16"] {
            let samples = self.samples(wire);
            let Some(link) = Link::fit(first.ranks, &samples) else { continue };
            let mut errors: Vec<f64> =
                Link::leave_one_out(first.ranks, &samples).iter().map(|one| one.error().abs()).collect();
            errors.sort_by(f64::total_cmp);
            write!(f, "{wire}: α = {:.2} µs, β = {:.3} GB/s", link.latency * 1e6, link.bandwidth / 1e9)?;
            match errors.last() {
                Some(worst) => writeln!(
                    f,
                    "; a size predicted from the others is off by {:.0} % (median), {:.0} % at most",
                    super::median(&errors) * 100.0,
                    worst * 100.0
                )?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// "4KiB", "25MiB", "1000".
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) =
        match text.strip_suffix("KiB").map(|d| (d, 10)).or(text.strip_suffix("MiB").map(|d| (d, 20))) {
            Some((digits, power)) => (digits, 1u64 << power),
            None => (text, 1),
        };
    let number: u64 = digits.trim().parse().map_err(|_| "write bytes, or as in 4KiB or 25MiB".to_owned())?;
    let bytes = number.checked_mul(unit).filter(|bytes| (4..=1 << 33).contains(bytes));
    bytes.ok_or_else(|| "a bucket has 4 bytes or more, and 8192MiB at most".to_owned())
}

fn spell_bytes(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> AllReduceOptions {
        AllReduceOptions {
            threads: None,
            min: 4 << 10,
            max: 1 << 20,
            factor: 4,
            iterations: 5,
            wire: WireChoice::Both,
            json: false,
        }
    }

    #[test]
    fn every_size_is_summed_right_and_told() {
        let found = allreduce_threads(&options(), 3).expect("three threads");
        assert_eq!(found.sizes.len(), 2 * 5);
        assert_eq!(found.wrong(), 0);
        for size in &found.sizes {
            assert!(size.seconds_fastest > 0.0 && size.ranks == 3);
            assert!((size.bus_bandwidth / size.algorithm_bandwidth - 4.0 / 3.0).abs() < 1e-4);
            assert!((size.algorithm_bandwidth * size.seconds / size.bytes as f64 - 1.0).abs() < 1e-4);
        }
        let table = found.to_string();
        assert!(table.contains("1 MiB") && table.contains("bf16") && table.lines().count() >= 12, "{table}");
    }

    #[test]
    fn one_rank_and_no_sizes_are_refused() {
        let alone = allreduce(&options(), &harvest_collectives::Solo, "alone").expect_err("no other rank");
        assert!(alone.to_string().contains("mpirun"), "{alone}");
        let error =
            allreduce_threads(&AllReduceOptions { min: 1 << 21, ..options() }, 2).expect_err("no size");
        assert!(error.to_string().contains("--max"), "{error}");
    }

    /// Adds one to the first number of every sum.
    #[derive(Debug)]
    struct Careless(Threads);

    impl Communicator for Careless {
        fn rank(&self) -> usize {
            self.0.rank()
        }
        fn world_size(&self) -> usize {
            self.0.world_size()
        }
        fn all_reduce_sum(&self, bucket: Bucket) -> harvest_collectives::Pending<Bucket> {
            let mut sum = self.0.all_reduce_sum(bucket).wait();
            if let Ok(Bucket::Host(host)) = &mut sum {
                host.sum[0] += 1.0;
            }
            harvest_collectives::Pending::ready(sum)
        }
        fn all_gather(&self, values: Vec<f32>) -> harvest_collectives::Pending<Vec<Vec<f32>>> {
            self.0.all_gather(values)
        }
        fn broadcast(&self, bytes: Vec<u8>, root: usize) -> harvest_collectives::Pending<Vec<u8>> {
            self.0.broadcast(bytes, root)
        }
        fn barrier(&self) -> harvest_collectives::Pending<()> {
            self.0.barrier()
        }
        fn abort(&self, reason: &str) -> ! {
            self.0.abort(reason)
        }
    }

    #[test]
    fn a_wrong_sum_is_counted() {
        let ranks: Vec<Careless> = Threads::ring(2).into_iter().map(Careless).collect();
        let options = AllReduceOptions { max: 4 << 10, wire: WireChoice::F32, ..options() };
        let found: Vec<AllReduceReports> = std::thread::scope(|scope| {
            let ranks: Vec<_> =
                ranks.iter().map(|rank| scope.spawn(|| allreduce(&options, rank, "careless"))).collect();
            ranks.into_iter().map(|rank| rank.join().expect("no panic").expect("sums are there")).collect()
        });
        assert!(found.iter().all(|reports| reports.wrong() == 2), "one on each rank: {found:?}");
    }

    #[test]
    fn sizes_are_read_as_they_are_spelled() {
        assert_eq!(parse_bytes("4KiB"), Ok(4096));
        assert_eq!(parse_bytes("25MiB"), Ok(25 << 20));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        for wrong in ["", "4kb", "-1", "0", "99999999999999999999", "9999999MiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!([1 << 20, 4096, 1000].map(spell_bytes), ["1 MiB", "4 KiB", "1000 B"]);
    }
}
