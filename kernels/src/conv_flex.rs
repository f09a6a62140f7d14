//! Between burn's tensors and plain slices: who may take the CPU path, and how values go in and out.

use burn::Tensor;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::DType;
use burn_flex::FlexTensor;

/// True for an `f32` tensor of the CPU backend, in an autodiff graph or not, unless the reference is chosen.
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
    if !crate::choice::fused() {
        return false;
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

/// `x` itself where it is contiguous: a second handle would keep the result from taking its place.
pub(crate) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.as_slice::<f32>().is_some() { x } else { x.to_contiguous() }
}

/// True where a contiguous tensor is all of its storage, so that it may be written as a whole.
pub(crate) fn fills_storage(tensor: &FlexTensor) -> bool {
    size_of_val(values(tensor)) == tensor.bytes().len()
}

/// The values of a contiguous `f32` tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous and f32: checked before dispatch")
}
