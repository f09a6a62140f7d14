//! Minimising a smooth convex function: limited-memory BFGS, Nocedal and Wright, "Numerical Optimization" (2006),
//! algorithms 7.4 and 7.5, halving the step until it brings enough (3.4).

use std::collections::VecDeque;

/// Pairs of steps and gradient changes kept.
const MEMORY: usize = 10;
/// Of the decrease the slope promises, this share must come.
const SUFFICIENT: f64 = 1e-4;

/// From `start` towards the minimum of `function`, which gives value and gradient, until no entry of the gradient exceeds
/// `tolerance` or `iterations` are over.
pub fn minimise(
    start: Vec<f64>,
    iterations: usize,
    tolerance: f64,
    mut function: impl FnMut(&[f64]) -> (f64, Vec<f64>),
) -> Vec<f64> {
    let mut x = start;
    let (mut value, mut gradient) = function(&x);
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::new();
    for _ in 0..iterations {
        if gradient.iter().all(|entry| entry.abs() <= tolerance) {
            break;
        }
        let direction = descent(&gradient, &memory);
        let slope = dot(&gradient, &direction);
        // The first step has no scale yet; later ones are Newton's, of length 1.
        let mut length =
            if memory.is_empty() { (1.0 / dot(&gradient, &gradient).sqrt()).min(1.0) } else { 1.0 };
        let next = loop {
            let candidate: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let (there, slopes) = function(&candidate);
            if there <= value + SUFFICIENT * length * slope {
                break Some((candidate, there, slopes));
            }
            length *= 0.5;
            if length < 1e-12 {
                // Rounding hides any further decrease.
                break None;
            }
        };
        let Some((candidate, there, slopes)) = next else { break };
        let step: Vec<f64> = candidate.iter().zip(&x).map(|(new, old)| new - old).collect();
        let change: Vec<f64> = slopes.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        if dot(&step, &change) > 1e-14 * dot(&change, &change).max(f64::MIN_POSITIVE) {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back((step, change));
        }
        (x, value, gradient) = (candidate, there, slopes);
    }
    x
}

/// Algorithm 7.4: minus the approximate inverse Hessian times the gradient.
fn descent(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(memory.len());
    for (step, change) in memory.iter().rev() {
        let alpha = dot(step, &q) / dot(step, change);
        q.iter_mut().zip(change).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((step, change)) = memory.back() {
        let scale = dot(step, change) / dot(change, change);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((step, change), alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(change, &q) / dot(step, change);
        q.iter_mut().zip(step).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q.iter_mut().for_each(|q| *q = -*q);
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretched_bowl_is_emptied() {
        // Curvatures from 1 to 10,000; the minimum is at 1, 2, 3, ….
        let curvature = |i: usize| 10f64.powi(i as i32);
        let bowl = |x: &[f64]| {
            let off = |i: usize| x[i] - (i + 1) as f64;
            let value = (0..5).map(|i| 0.5 * curvature(i) * off(i) * off(i)).sum();
            (value, (0..5).map(|i| curvature(i) * off(i)).collect())
        };
        let found = minimise(vec![0.0; 5], 200, 1e-9, bowl);
        for (i, x) in found.iter().enumerate() {
            assert!((x - (i + 1) as f64).abs() < 1e-8, "{found:?}");
        }
    }

    #[test]
    fn at_the_minimum_nothing_moves() {
        let found = minimise(vec![3.0], 10, 1e-9, |x| ((x[0] - 3.0).powi(2), vec![2.0 * (x[0] - 3.0)]));
        assert_eq!(found, [3.0]);
    }
}
