//! Patch kernels of another size.
//!
//! Beyer et al., FlexiViT, arXiv:2212.08013, section 3.4. Let `B` resize a patch `x`, bicubic as for images. The kernel `ŵ`
//! that answers resized patches as `w` answers patches, ⟨x, w⟩ ≈ ⟨Bx, ŵ⟩, is
//!
//! ```text
//! ŵ = (Bᵀ)⁺ w        ⁺: pseudo-inverse; exact where patches grow, nearest for white noise where they shrink
//! ```
//!
//! Rows and columns are resized apart, `B = R ⊗ R`, so that `ŵ = P w Pᵀ` with `P = (Rᵀ)⁺`.

use burn::tensor::TensorData;

use crate::weights::WeightsError;

/// The kernels `[D, C, p, p]` with the patch size of `target`, `[D, C, q, q]`.
///
/// # Errors
/// If the shapes differ in more than the patch size.
pub fn resize_patches(kernels: &TensorData, target: &TensorData) -> Result<TensorData, WeightsError> {
    let misshapen = || WeightsError::Shape {
        name: "patch_embed.proj.weight".to_owned(),
        found: kernels.shape().to_vec(),
        expected: target.shape().to_vec(),
    };
    let (&[dim, channels, from, width], &[to_dim, to_channels, to, to_width]) =
        (kernels.shape().as_slice(), target.shape().as_slice())
    else {
        return Err(misshapen());
    };
    let square = from == width && to == to_width && from > 0 && to > 0;
    if !square || (dim, channels) != (to_dim, to_channels) {
        return Err(misshapen());
    }
    let values = kernels.as_slice::<f32>().map_err(|_| misshapen())?;
    let p = inverse_of_transpose(&resize_rows(from, to)).ok_or_else(misshapen)?;
    let mut resized = Vec::with_capacity(target.num_elements());
    for kernel in values.chunks_exact(from * from) {
        let kernel: Vec<Vec<f64>> =
            kernel.chunks_exact(from).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
        let both = product(&product(&p, &kernel), &transposed(&p));
        resized.extend(both.iter().flatten().map(|value| *value as f32));
    }
    Ok(TensorData::new(resized, target.shape().clone()))
}

/// Rows of equal length.
type Matrix = Vec<Vec<f64>>;

/// `R`: `[to, from]`, bicubic (a = −0.5) with half-pixel centres, antialiased where it shrinks, weights at the edges
/// scaled to a sum of 1: as Pillow, and as PyTorch with `antialias`, which timm calls.
fn resize_rows(from: usize, to: usize) -> Matrix {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let row = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
        let end = ((centre + 2.0 * stretch + 0.5) as usize).min(from);
        let mut row = vec![0.0; from];
        for (j, weight) in row.iter_mut().enumerate().take(end).skip(first) {
            *weight = cubic((j as f64 + 0.5 - centre) / stretch);
        }
        let sum: f64 = row.iter().sum();
        row.iter().map(|weight| weight / sum).collect()
    };
    (0..to).map(row).collect()
}

/// Keys, 1981, with a = −0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        _ if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

/// `(Rᵀ)⁺`: `[to, from]`, for `R` of full rank; `None` if it has not.
fn inverse_of_transpose(r: &Matrix) -> Option<Matrix> {
    let r_transposed = transposed(r);
    if r.len() >= r_transposed.len() {
        // R (RᵀR)⁻¹ = ((RᵀR)⁻¹ Rᵀ)ᵀ
        Some(transposed(&solve(product(&r_transposed, r), r_transposed)?))
    } else {
        // (RRᵀ)⁻¹ R
        solve(product(r, &r_transposed), r.clone())
    }
}

/// `A⁻¹ B` by elimination with the largest pivots; `None` if `A` has no inverse.
fn solve(mut a: Matrix, mut b: Matrix) -> Option<Matrix> {
    for column in 0..a.len() {
        let pivot = (column..a.len()).max_by(|i, j| a[*i][column].abs().total_cmp(&a[*j][column].abs()))?;
        if a[pivot][column].abs() < 1e-12 {
            return None;
        }
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in (0..a.len()).filter(|row| *row != column) {
            let factor = a[row][column] / a[column][column];
            for matrix in [&mut a, &mut b] {
                for k in 0..matrix[row].len() {
                    matrix[row][k] -= factor * matrix[column][k];
                }
            }
        }
    }
    let scaled = a.iter().zip(b).enumerate().map(|(i, (a, b))| b.iter().map(|value| value / a[i]).collect());
    Some(scaled.collect())
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let columns = transposed(b);
    let dot = |row: &[f64], column: &[f64]| row.iter().zip(column).map(|(x, y)| x * y).sum();
    a.iter().map(|row| columns.iter().map(|column| dot(row, column)).collect()).collect()
}

fn transposed(a: &Matrix) -> Matrix {
    let width = a.first().map_or(0, Vec::len);
    (0..width).map(|column| a.iter().map(|row| row[column]).collect()).collect()
}
