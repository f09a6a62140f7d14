//! Where heads begin, and where a row of a head begins anew.

use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, TensorData};
use harvest_models::{ClusterHeads, NamedTensors, PretextHead};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::clustering::{ClusterError, Embedding, KMeans};

/// Noise on a repaired row, relative to its values.
const NOISE: f32 = 0.1;

/// Head `h` begins as k-means from start `h` would assign: `softmax(-|x - c|² / σ²)`, of which `|x|²` drops out; `σ²` is the mean
/// squared distance of images to their centres.
pub(super) fn at_centres(
    heads: &mut ClusterHeads,
    rows: &Embedding,
    clusters: usize,
    seed: u64,
    device: &Device,
    stop: &AtomicBool,
) -> Result<(), ClusterError> {
    let mut tensors = heads.to_tensors();
    for head in 0..heads.len() {
        let found = KMeans::fit(rows, clusters, 1, seed.wrapping_add(head as u64), device, stop)?;
        let spread = found.inertia() / rows.len() as f64;
        let sharpness = if spread > 1e-9 { (1.0 / spread).min(1e3) as f32 } else { 1.0 };
        let centres = found.centres();
        let mut weights = Vec::with_capacity(centres.values().len());
        let mut biases = Vec::with_capacity(clusters);
        for centre in (0..centres.len()).map(|cluster| centres.row(cluster)) {
            weights.extend(centre.iter().map(|value| 2.0 * sharpness * value));
            biases.push(-sharpness * centre.iter().map(|value| value * value).sum::<f32>());
        }
        let shape = [clusters, rows.dim()];
        tensors.insert(format!("heads.{head}.weight"), TensorData::new(weights, shape));
        tensors.insert(format!("heads.{head}.bias"), TensorData::new(biases, [clusters]));
    }
    heads.load_tensors(&tensors).expect("the shapes are those of the heads");
    Ok(())
}

/// Gives each cluster of `head` that counts no image the row of the largest one, with noise. Returns how many there were.
///
/// `counts`: images of each cluster.
pub(super) fn repair(heads: &mut ClusterHeads, head: usize, counts: &[f32], rng: &mut ChaCha8Rng) -> u64 {
    let largest = crate::metrics::argmax(counts);
    let empty: Vec<usize> = (0..counts.len()).filter(|cluster| counts[*cluster] == 0.0).collect();
    if empty.is_empty() || counts[largest] == 0.0 {
        return 0;
    }
    let mut tensors = heads.to_tensors();
    let (weight, bias) = (format!("heads.{head}.weight"), format!("heads.{head}.bias"));
    let mut weights = values(&tensors, &weight);
    let mut biases = values(&tensors, &bias);
    let dim = weights.len() / counts.len();
    let row = weights[largest * dim..][..dim].to_vec();
    let size = (row.iter().map(|value| value * value).sum::<f32>() / dim as f32).sqrt();
    for &cluster in &empty {
        for (new, old) in weights[cluster * dim..][..dim].iter_mut().zip(&row) {
            // Uniform, with a deviation of 1.
            let draw = (2.0 * rng.random::<f32>() - 1.0) * 3f32.sqrt();
            *new = old + NOISE * size.max(1e-3) * draw;
        }
        biases[cluster] = biases[largest];
    }
    tensors.insert(weight, TensorData::new(weights, [counts.len(), dim]));
    tensors.insert(bias, TensorData::new(biases, [counts.len()]));
    heads.load_tensors(&tensors).expect("the shapes are those of the heads");
    empty.len() as u64
}

fn values(tensors: &NamedTensors, name: &str) -> Vec<f32> {
    tensors[name].iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn heads_begin_as_k_means_would_assign() {
        let device = Device::flex();
        let values =
            (0..40).flat_map(|i| [(i % 4) as f32 * 5.0 + (i % 3) as f32 * 0.1, (i % 2) as f32 * 7.0]);
        let rows = Embedding::new(values.collect(), 2).expect("finite");
        let mut heads = ClusterHeads::new(2, 4, 2, 1, &device);
        at_centres(&mut heads, &rows, 4, 3, &device, &AtomicBool::new(false)).expect("it runs");
        let logits = heads.forward(rows.clone().to_tensor(&device));
        for (head, logits) in logits.into_iter().enumerate() {
            let found: Vec<u32> =
                logits.argmax(1).into_data().iter::<i64>().map(|cluster| cluster as u32).collect();
            let expected =
                KMeans::fit(&rows, 4, 1, 3 + head as u64, &device, &AtomicBool::new(false)).expect("runs");
            assert_eq!(found, expected.assignment());
        }
    }

    #[test]
    fn an_empty_cluster_gets_a_row_like_that_of_the_largest() {
        let device = Device::flex();
        let mut heads = ClusterHeads::new(6, 3, 2, 1, &device);
        let before = heads.to_tensors();
        let mut rng = stream(1, Purpose::Cluster, [0; 3]);
        assert_eq!(repair(&mut heads, 1, &[2.0, 1.0, 3.0], &mut rng), 0);
        assert_eq!(heads.to_tensors(), before);
        assert_eq!(repair(&mut heads, 1, &[2.0, 0.0, 3.0], &mut rng), 1);
        let after = heads.to_tensors();
        assert_eq!(after["heads.0.weight"], before["heads.0.weight"]);
        let weights = values(&after, "heads.1.weight");
        let near = weights[6..12].iter().zip(&weights[12..]).all(|(new, old)| (new - old).abs() < 0.1);
        assert!(near && weights[6..12] != weights[12..]);
        assert_eq!(weights[..6], values(&before, "heads.1.weight")[..6]);
        let logits = heads.forward(Tensor::ones([1, 6], &device)).remove(1);
        assert!(logits.into_data().iter::<f32>().all(f32::is_finite));
    }
}
