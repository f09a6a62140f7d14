//! Against the reference.

use burn::tensor::{DType, Device, Tensor};

use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
use crate::{attention, attention_reference};

/// Output and gradient.
fn run(
    [batch, tokens, heads, head]: [usize; 4],
    (device, dtype): (&Device, DType),
    attention: fn(Tensor<3>, usize) -> Tensor<3>,
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let dim = heads * head;
    let qkv = rough([batch, tokens, 3 * dim], 1, (&device, dtype)).require_grad();
    let y = attention(qkv.clone(), heads);
    let grads = weighted(y.clone(), rough([batch, tokens, dim], 2, (&device, dtype))).backward();
    vec![read(y.inner()), read(qkv.grad(&grads).expect("tracked"))]
}

#[test]
fn attention_on_a_gpu_equals_its_reference() {
    let (gpu, _held) = device();
    // A kernel is compiled for each width of a head, which takes seconds here.
    let sizes = [[1, 1, 1, 7], [2, 5, 3, 7], [1, 33, 2, 7], [1, 65, 2, 64], [1, 35, 1, 100], [1, 17, 2, 128]];
    for sizes in sizes {
        let expected = run(sizes, (&Device::flex(), DType::F32), attention_reference);
        // Sums of up to 128 terms in another order, and exponentials of them.
        let found = run(sizes, (&gpu, DType::F32), attention);
        assert_agree(&format!("{sizes:?}"), &found, &expected, 1e-5);
        for dtype in narrow_types(&gpu).filter(|_| sizes[3] == 7) {
            let found = run(sizes, (&gpu, dtype), attention);
            assert_agree(&format!("{sizes:?} {dtype:?}"), &found, &expected, 2e-2);
        }
    }
}

#[test]
fn attention_on_a_gpu_stays_finite_for_large_scores_and_shows_what_is_not_a_number() {
    let (gpu, _held) = device();
    let large = |device: &Device| {
        let values = read(rough([1, 40, 12], 1, (&Device::flex(), DType::F32)) * 100.0);
        Tensor::<1>::from_floats(values.as_slice(), device).reshape([1, 40, 12])
    };
    let expected = read(attention_reference(large(&Device::flex()), 1));
    assert_agree("large", &[read(attention(large(&gpu), 1))], &[expected], 1e-4);
    let broken = Tensor::<3>::full([1, 40, 12], f32::NAN, &gpu);
    assert!(read(attention(broken, 1)).iter().all(|value| value.is_nan()));
}
