//! Affine maps.

use burn::Tensor;

/// `x W + b`: `x` is `[.., in]`, `weight` `[in, out]` (burn's layout), `bias` `[out]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    linear_reference(x, weight, bias)
}

/// [`linear`] in burn's operations.
pub fn linear_reference<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let dims = x.dims();
    let [d_in, d_out] = weight.dims();
    let rows = dims.iter().product::<usize>() / d_in.max(1);
    let mut out = x.reshape([rows, d_in]).matmul(weight);
    if let Some(bias) = bias {
        out = out + bias.reshape([1, d_out]);
    }
    let mut shape = dims;
    shape[D - 1] = d_out;
    out.reshape(shape)
}
