//! Tensors as an ONNX file stores them.

use harvest_onnx::TensorProto;
use harvest_onnx::tensor_proto::{DataLocation, DataType};

use crate::tensor::{Element, Tensor};

/// The stored numbers, or what is wrong with them.
pub(crate) fn tensor(stored: &TensorProto) -> Result<Tensor, String> {
    if stored.data_location == Some(DataLocation::External as i32) || !stored.external_data.is_empty() {
        return Err("its numbers are in another file; export the model as one file".into());
    }
    let shape: Option<Vec<usize>> = stored.dims.iter().map(|&side| usize::try_from(side).ok()).collect();
    let shape = shape.filter(|shape| shape.len() <= 16).ok_or_else(|| format!("shape {:?}", stored.dims))?;
    let kind = stored.data_type.unwrap_or_default();
    let small = || stored.int32_data.iter();
    let raw = stored.raw_data.as_deref().filter(|raw| !raw.is_empty());
    match DataType::try_from(kind).unwrap_or(DataType::Undefined) {
        DataType::Float => build(shape, raw, f32::from_le_bytes, || stored.float_data.clone()),
        DataType::Int64 => build(shape, raw, i64::from_le_bytes, || stored.int64_data.clone()),
        DataType::Int32 => build(shape, raw, i32::from_le_bytes, || stored.int32_data.clone()),
        DataType::Int8 => build(shape, raw, i8::from_le_bytes, || small().map(|&x| x as i8).collect()),
        DataType::Uint8 => build(shape, raw, u8::from_le_bytes, || small().map(|&x| x as u8).collect()),
        _ => Err(format!("numbers of ONNX's kind {kind} are not known")),
    }
}

fn build<T: Element, const N: usize>(
    shape: Vec<usize>,
    raw: Option<&[u8]>,
    number: impl Fn([u8; N]) -> T,
    listed: impl FnOnce() -> Vec<T>,
) -> Result<Tensor, String> {
    let values = match raw {
        Some(raw) => {
            let (numbers, rest) = raw.as_chunks::<N>();
            if !rest.is_empty() {
                return Err(format!("{} bytes are no whole numbers of {N} bytes", raw.len()));
            }
            numbers.iter().map(|&bytes| number(bytes)).collect()
        }
        None => listed(),
    };
    Tensor::new(shape, values).map_err(|error| error.to_string())
}
