//! What ranks exchange, checked on each of them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use harvest_collectives::{Bucket, CollectiveError, Communicator, HostBucket, Pending, Team, Wire};

use crate::Failure;

fn summed(pending: Pending<Bucket>) -> Result<HostBucket, CollectiveError> {
    let Bucket::Host(bucket) = pending.wait()? else { unreachable!("it was one in host memory") };
    Ok(bucket)
}

fn expect(is_so: bool, what: &str) -> Result<(), Failure> {
    if is_so { Ok(()) } else { Err(what.into()) }
}

/// Every operation, many of them under way at once, fetched in another order than begun.
pub fn check(ranks: &dyn Communicator) -> Result<(), Failure> {
    let (rank, world_size) = (ranks.rank(), ranks.world_size());
    let triangle = (world_size * (world_size + 1) / 2) as f32;
    for length in [0, 1, 5, 1000, 300_000] {
        let mut buckets = Vec::new();
        for wire in [Wire::F32, Wire::Bf16] {
            let mut bucket = HostBucket::new(length, wire);
            // Whole numbers below 256 are exact in bfloat16.
            bucket.local = (0..length).map(|at| ((rank + 1) * (1 + at % 7)) as f32).collect();
            buckets.push((wire, ranks.all_reduce_sum(Bucket::Host(bucket))));
        }
        let rows = ranks.all_gather(vec![rank as f32; (rank * length) % 1001]);
        let said = ranks.broadcast(format!("{rank}").repeat(length).into_bytes(), world_size - 1);
        let barrier = ranks.barrier();
        barrier.wait()?;
        expect(said.wait()? == format!("{}", world_size - 1).repeat(length).into_bytes(), "broadcast")?;
        for (other, row) in rows.wait()?.into_iter().enumerate() {
            expect(row == vec![other as f32; (other * length) % 1001], "all_gather")?;
        }
        for (wire, pending) in buckets.into_iter().rev() {
            let bucket = summed(pending)?;
            let is_exact = (0..length).all(|at| bucket.sum[at] == triangle * (1 + at % 7) as f32);
            expect(bucket.sum.len() == length && is_exact, &format!("the sum over {wire:?} of {length}"))?;
            expect(bucket.local.len() == length, "the bucket's memory comes back")?;
        }
    }
    carried(ranks)
}

/// What bf16 leaves out of one step comes with a later one.
fn carried(ranks: &dyn Communicator) -> Result<(), Failure> {
    let mut bucket = HostBucket::new(37, Wire::Bf16);
    let mut total = vec![0f64; 37];
    for _ in 0..200 {
        bucket.local = (0..37).map(|at| 0.001 * (1 + at + ranks.rank()) as f32).collect();
        bucket = summed(ranks.all_reduce_sum(Bucket::Host(bucket)))?;
        total.iter_mut().zip(&bucket.sum).for_each(|(total, sum)| *total += f64::from(*sum));
    }
    for (at, total) in total.iter().enumerate() {
        let step: f64 = (0..ranks.world_size()).map(|rank| 0.001 * (1 + at + rank) as f64).sum();
        expect((total - 200.0 * step).abs() < 2.0 * step / 256.0, "sums over bf16 lose something")?;
    }
    Ok(())
}

/// What is begun ends without anyone waiting for it.
pub fn overlap(ranks: &dyn Communicator) -> Result<(), Failure> {
    ranks.barrier().wait()?;
    for wire in [Wire::F32, Wire::Bf16] {
        let mut alone = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            summed(ranks.all_reduce_sum(Bucket::Host(HostBucket::new(2_000_000, wire))))?;
            alone = alone.min(start.elapsed());
        }
        let pending: Vec<_> =
            (0..4).map(|_| ranks.all_reduce_sum(Bucket::Host(HostBucket::new(2_000_000, wire)))).collect();
        sleep(Duration::from_millis(1500));
        let start = Instant::now();
        for bucket in pending {
            summed(bucket)?;
        }
        let late = start.elapsed();
        println!("rank {}: {wire:?} {alone:?} for one, {late:?} left of four", ranks.rank());
        expect(late < Duration::from_millis(20), &format!("{late:?} were left to do"))?;
    }
    Ok(())
}

/// Steps in which each rank waits for all others.
pub fn train(team: &Team, is_stuck: bool) -> Result<(), Failure> {
    let mut bucket = HostBucket::new(100_000, Wire::F32);
    for step in 0.. {
        team.progress(step);
        while is_stuck && step == 7 {
            sleep(Duration::from_secs(1));
        }
        sleep(Duration::from_millis(5));
        bucket = summed(team.communicator().all_reduce_sum(Bucket::Host(bucket)))?;
    }
    Ok(())
}
