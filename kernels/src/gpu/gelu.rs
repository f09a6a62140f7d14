//! Exact GELU, by the same polynomial as on the CPU (`cpu/gelu.rs`): both sides agree to rounding.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use cubecl::prelude::*;

use super::{contiguous, elem, empty_like, unit_each, vector};
use crate::gelu::GeluOps;

/// `exp(-x²/2)`.
#[cube]
fn bell<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    (x * x * Vector::new(-0.5f32)).exp()
}

/// `Φ(x)`, given [`bell`].
#[cube]
fn below<N: Size>(x: Vector<f32, N>, bell: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    let t = one / (x.abs() * Vector::new(0.3f32) + one);
    let mut ratio = t * Vector::new(0.034_930_64f32) + Vector::new(-0.152_475_33f32);
    ratio = ratio * t + Vector::new(0.194_525_2f32);
    ratio = ratio * t + Vector::new(-0.038_242_77f32);
    ratio = ratio * t + Vector::new(0.117_075_495f32);
    ratio = ratio * t + Vector::new(0.104_813_34f32);
    ratio = ratio * t + Vector::new(0.119_639_64f32);
    ratio = ratio * t + Vector::new(0.119_733_82f32);
    let tail = bell * ratio * t;
    select_many(x.greater_equal(&Vector::new(0.0f32)), one - tail, tail)
}

#[cube(launch_unchecked)]
fn values<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    count: usize,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
    y[ABSOLUTE_POS] = Vector::cast_from(x * below::<N>(x, bell::<N>(x)));
}

#[cube(launch_unchecked)]
fn gradients<F: Float, N: Size>(
    x: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    count: usize,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
    let bell = bell::<N>(x);
    // 1/√(2π)
    let slope = below::<N>(x, bell) + x * bell * Vector::new(0.398_942_3f32);
    dx[ABSOLUTE_POS] = Vector::cast_from(Vector::<f32, N>::cast_from(dy[ABSOLUTE_POS]) * slope);
}

impl GeluOps for CubeBackend {
    fn gelu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = contiguous(x);
        let (y, client, dtype) = (empty_like(&x), x.client.clone(), elem(&x));
        let size = vector(x.meta.num_elements());
        let vectors = x.meta.num_elements() / size;
        let (count, dim) = unit_each(&x, vectors);
        // SAFETY: both hold `vectors` vectors.
        unsafe {
            values::launch_unchecked(
                &client,
                count,
                dim,
                size,
                x.into_buffer_arg(),
                y.clone().into_buffer_arg(),
                vectors,
                dtype,
            );
        }
        y
    }

    fn gelu_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, dy) = (contiguous(x), contiguous(dy));
        let (dx, client, dtype) = (empty_like(&x), x.client.clone(), elem(&x));
        let size = vector(x.meta.num_elements());
        let vectors = x.meta.num_elements() / size;
        let (count, dim) = unit_each(&x, vectors);
        // SAFETY: all three hold `vectors` vectors.
        unsafe {
            gradients::launch_unchecked(
                &client,
                count,
                dim,
                size,
                x.into_buffer_arg(),
                dy.into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                vectors,
                dtype,
            );
        }
        dx
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor};

    use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
    use crate::{gelu, gelu_reference};

    /// Output and gradient.
    fn run(
        count: usize,
        (device, dtype): (&Device, DType),
        gelu: fn(Tensor<1>) -> Tensor<1>,
    ) -> Vec<Vec<f32>> {
        let device = device.clone().autodiff();
        // The product is exact in every type.
        let x = (rough([count], 1, (&Device::flex(), DType::F32)) * 4.0).into_data();
        let x = Tensor::<1>::from_data(x, (&device, dtype)).require_grad();
        let y = gelu(x.clone());
        let grads = weighted(y.clone(), rough([count], 2, (&device, dtype))).backward();
        vec![read(y.inner()), read(x.grad(&grads).expect("tracked"))]
    }

    #[test]
    fn gelu_on_a_gpu_is_exact_and_so_is_its_derivative() {
        let (gpu, _held) = device();
        for count in [1, 5, 1024, 4097, 40_000] {
            let expected = run(count, (&Device::flex(), DType::F32), gelu_reference);
            // The exponential of a GPU is good to a few units in the last place.
            assert_agree(&format!("{count}"), &run(count, (&gpu, DType::F32), gelu), &expected, 1e-6);
            for dtype in narrow_types(&gpu) {
                assert_agree(
                    &format!("{count} {dtype:?}"),
                    &run(count, (&gpu, dtype), gelu),
                    &expected,
                    1e-2,
                );
            }
        }
    }

    #[test]
    fn gelu_on_a_gpu_keeps_what_is_not_a_number() {
        let (gpu, _held) = device();
        let x = Tensor::<1>::from_floats([f32::NAN, f32::INFINITY, 80.0, -80.0, 0.0], &gpu);
        let y = read(gelu(x));
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [f32::INFINITY, 80.0, 0.0, 0.0]);
    }
}
