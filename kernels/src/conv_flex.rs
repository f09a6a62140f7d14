//! Between burn's tensors and plain slices: who may take the CPU path, and how values go in and out.

use burn::Tensor;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::DType;
use burn_flex::FlexTensor;

/// True for an `f32` tensor of the CPU backend, in an autodiff graph or not.
pub(crate) fn flex_f32<const D: usize>(tensor: &Tensor<D>) -> bool {
    fn plain(kind: &DispatchTensorKind) -> bool {
        match kind {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.dtype() == DType::F32,
            DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => {
                tensor.primitive().dtype() == DType::F32
            }
            _ => false,
        }
    }
    match &tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Autodiff(inner) => plain(inner),
        kind => plain(kind),
    }
}

/// The sizes of a tensor whose rank is known.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// The values of a contiguous `f32` tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous and f32: checked before dispatch")
}
