//! Tensors of parameters without their rank: what updates them does not ask for it.

use burn::tensor::Tensor;

/// A tensor taken out of a parameter, and the shape it goes back with.
#[derive(Debug)]
pub(super) struct Flat {
    /// `[n]`
    pub values: Tensor<1>,
    pub shape: Vec<usize>,
}

impl Flat {
    /// The tensor as it was.
    pub fn shaped<const D: usize>(self) -> Tensor<D> {
        let shape: [usize; D] = self.shape.try_into().expect("it goes back where it was taken from");
        self.values.reshape(shape)
    }
}

/// The values of a tensor, `[n]`.
pub(super) fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.dims().iter().product::<usize>();
    tensor.reshape([count])
}

/// What stays in the place of `tensor` while it is out: a single value, for not every device holds tensors of none.
pub(super) fn hollow<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::empty([1; D], &tensor.device())
}
