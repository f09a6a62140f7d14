//! What the benches share: reproducible values, and times of work that is done again and again.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};

/// Reproducible values between `-scale` and `scale`.
pub fn random<const D: usize>(shape: [usize; D], scale: f32, device: &Device) -> Tensor<D> {
    let mut state = 88_172_645_463_325_252u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    };
    Tensor::from_data(
        TensorData::new((0..shape.iter().product()).map(next).collect::<Vec<f32>>(), shape),
        device,
    )
}

/// Runs `work`, which returns the times of its parts in seconds, for `seconds`; prints a line for each part, in microseconds.
pub fn report<const N: usize>(
    name: &str,
    parts: [&str; N],
    seconds: f64,
    mut work: impl FnMut() -> [f64; N],
) {
    work();
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || begin.elapsed().as_secs_f64() < seconds {
        times.push(work());
    }
    for (index, part) in parts.iter().enumerate() {
        let mut times: Vec<f64> = times.iter().map(|times| times[index] * 1e6).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{name:44} {part:9} min {:10.1}  median {:10.1}  p90 {:10.1}  µs, n = {}",
            at(0.0),
            at(0.5),
            at(0.9),
            times.len()
        );
    }
}

/// Seconds that `work` takes, and what it gives.
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed().as_secs_f64(), result)
}
