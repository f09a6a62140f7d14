//! Sums of which each number travels as bfloat16, 2 bytes instead of 4.
//!
//! Every rank owns one chunk of the bucket. For a step with contributions `x_r` of the ranks `r`:
//!
//! ```text
//! y_r = bf16(x_r + e_r)            sent to the owners of the chunks
//! s   = Σ_r y_r                    by the owner, in f32, in the order of ranks
//! z   = bf16(s)                    sent to all: the sum of this step
//! e_r ← x_r + e_r - y_r            what rounding left out, for the next step
//! e_o ← e_o + s - z                at the owner of the chunk, `o`
//! ```
//!
//! So nothing is lost: over any number of steps the sums `z` add up to the exact sums but for the last `Σ_r e_r`, which
//! is at most `2⁻⁸` of the last `Σ_r |x_r|` when all are of one size (half a unit of bf16's 8 bits, twice).

use crate::communicator::HostBucket;

/// Numbers in a chunk; the last chunks are filled up with zeros.
pub(crate) fn chunk_length(length: usize, world_size: usize) -> usize {
    length.div_ceil(world_size)
}

/// This rank's numbers, rounded: one chunk for each rank.
pub(crate) fn round_local(host: &mut HostBucket, world_size: usize) -> Vec<u16> {
    host.residual.resize(host.local.len(), 0.0);
    let mut halves = Vec::with_capacity(chunk_length(host.local.len(), world_size) * world_size);
    halves.extend(host.local.iter().zip(&mut host.residual).map(|(local, residual)| {
        let value = local + *residual;
        let half = round(value);
        *residual = left_out(value, half);
        half
    }));
    halves.resize(halves.capacity(), 0);
    halves
}

/// The sum of this rank's chunk, from the chunks of all ranks.
pub(crate) fn sum_own_chunk(
    host: &mut HostBucket,
    rank: usize,
    world_size: usize,
    chunks: &[u16],
) -> Vec<u16> {
    let length = chunk_length(host.local.len(), world_size);
    let mut sums = vec![0.0; length];
    for chunk in chunks.chunks_exact(length.max(1)) {
        sums.iter_mut().zip(chunk).for_each(|(sum, half)| *sum += widen(*half));
    }
    let halves: Vec<_> = sums.iter().map(|sum| round(*sum)).collect();
    let owned = host.residual.iter_mut().skip(rank * length);
    for ((residual, sum), half) in owned.zip(&sums).zip(&halves) {
        *residual += left_out(*sum, *half);
    }
    halves
}

/// The sums of all chunks.
pub(crate) fn widen_sums(host: &mut HostBucket, halves: &[u16]) {
    let length = host.local.len();
    host.sum.clear();
    host.sum.extend(halves[..length].iter().map(|half| widen(*half)));
}

/// To the nearest, ties to even; what is no number stays none.
fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let even = 0x7fff + ((bits >> 16) & 1);
    // A quiet bit, lest only the low half says that this is no number.
    let half = if value.is_nan() { (bits >> 16) | 0x40 } else { (bits + even) >> 16 };
    half as u16
}

fn widen(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// An infinity would stay for ever.
fn left_out(value: f32, half: u16) -> f32 {
    let rest = value - widen(half);
    if rest.is_finite() { rest } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Wire;
    use proptest::prelude::*;

    /// One step of all ranks.
    fn step(buckets: &mut [HostBucket]) {
        let world_size = buckets.len();
        let sent: Vec<_> = buckets.iter_mut().map(|host| round_local(host, world_size)).collect();
        let length = chunk_length(buckets[0].local.len(), world_size);
        let mut sums = Vec::new();
        for (rank, host) in buckets.iter_mut().enumerate() {
            let chunks: Vec<_> =
                sent.iter().flat_map(|halves| &halves[rank * length..][..length]).copied().collect();
            sums.extend(sum_own_chunk(host, rank, world_size, &chunks));
        }
        buckets.iter_mut().for_each(|host| widen_sums(host, &sums));
    }

    proptest! {
        #[test]
        fn rounding_is_to_the_nearest(value in any::<f32>()) {
            let half = widen(round(value));
            prop_assert_eq!(half.is_nan(), value.is_nan());
            if half.is_finite() {
                // Half a unit of 8 bits; below the normal numbers units no longer shrink.
                let bound = value.abs() / 256.0 + f32::from_bits(1 << 15);
                prop_assert!((half - value).abs() <= bound, "{value} became {half}");
            }
            // What is a bfloat16 stays itself.
            prop_assert!(half.is_nan() || widen(round(half)) == half);
        }

        #[test]
        fn nothing_is_lost_over_many_steps(
            world_size in 1usize..5, length in 0usize..9, seed in any::<u32>(), steps in 1usize..200,
        ) {
            let mut state = seed;
            // In [-1, 1).
            let mut draw = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state as i32 as f32 / -(i32::MIN as f32)
            };
            let mut buckets = vec![HostBucket::new(length, Wire::Bf16); world_size];
            let (mut exact, mut summed) = (vec![0f64; length], vec![0f64; length]);
            for _ in 0..steps {
                for host in &mut buckets {
                    host.local.fill_with(&mut draw);
                    exact.iter_mut().zip(&host.local).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                step(&mut buckets);
                prop_assert!(buckets.iter().all(|host| host.sum == buckets[0].sum));
                summed.iter_mut().zip(&buckets[0].sum).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            for (exact, summed) in exact.iter().zip(&summed) {
                // Σ|x| ≤ world_size: 2⁻⁸ of it, and as much again for residuals and f32 sums.
                let bound = 2.0 * world_size as f64 / 256.0;
                prop_assert!((exact - summed).abs() <= bound, "{exact} and {summed} after {steps} steps");
            }
        }
    }

    #[test]
    fn infinities_do_not_stay() {
        let mut buckets = vec![HostBucket::new(2, Wire::Bf16); 2];
        buckets[0].local = vec![f32::INFINITY, f32::NAN];
        step(&mut buckets);
        assert!(buckets[1].sum[0] == f32::INFINITY && buckets[1].sum[1].is_nan());
        buckets.iter_mut().for_each(|host| host.local = vec![1.0, 2.0]);
        step(&mut buckets);
        assert_eq!(buckets[0].sum, [2.0, 4.0]);
    }
}
