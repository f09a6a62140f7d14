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
    same_bits(ranks)?;
    carried(ranks)
}

/// Sums that are not exact are still the same everywhere.
fn same_bits(ranks: &dyn Communicator) -> Result<(), Failure> {
    for (length, wire) in [(3, Wire::F32), (1000, Wire::F32), (300_001, Wire::F32), (1000, Wire::Bf16)] {
        let mut bucket = HostBucket::new(length, wire);
        bucket.local = (0..length).map(|at| ((at * 7 + ranks.rank() * 31) as f32).sin()).collect();
        let bucket = summed(ranks.all_reduce_sum(Bucket::Host(bucket)))?;
        let rows = ranks.all_gather(bucket.sum.clone()).wait()?;
        let is_same = |row: &Vec<f32>| row.iter().zip(&bucket.sum).all(|(a, b)| a.to_bits() == b.to_bits());
        expect(rows.iter().all(is_same), &format!("ranks differ in a sum of {length} over {wire:?}"))?;
        let exact =
            |at: usize| (0..ranks.world_size()).map(|rank| ((at * 7 + rank * 31) as f32).sin()).sum::<f32>();
        // Sums of a few numbers below 1.
        let bound = if wire == Wire::F32 { 1e-6 } else { 0.02 } * ranks.world_size() as f32;
        expect((0..length).all(|at| (bucket.sum[at] - exact(at)).abs() <= bound), "a sum is wrong")?;
    }
    Ok(())
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

/// Waiting for a slow rank leaves the core to others.
pub fn wait_quietly(ranks: &dyn Communicator) -> Result<(), Failure> {
    ranks.barrier().wait()?;
    let before = processor_time()?;
    if ranks.rank() == 0 {
        sleep(Duration::from_millis(2000));
    }
    summed(ranks.all_reduce_sum(Bucket::Host(HostBucket::new(1000, Wire::F32))))?;
    let used = processor_time()? - before;
    println!("rank {}: {used:?} of 2 s", ranks.rank());
    expect(used < Duration::from_millis(200), &format!("{used:?} were used up by waiting"))
}

/// Of this process so far, to 10 ms.
fn processor_time() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name before the bracket may have blanks. Fields 14 and 15 are ticks, of which there are 100 a second.
    let (_, fields) = text.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(10 * ticks))
}

/// Steps in which each rank waits for all others.
pub fn train(team: &Team, is_stuck: bool) -> Result<(), Failure> {
    let mut bucket = HostBucket::new(100_000, Wire::F32);
    for step in 0.. {
        team.progress(step);
        if is_stuck && step == 7 {
            sleep(Duration::from_secs(60));
        }
        sleep(Duration::from_millis(5));
        bucket = summed(team.communicator().all_reduce_sum(Bucket::Host(bucket)))?;
    }
    Ok(())
}
