//! Runs an ONNX file by `tract`, an implementation that shares nothing with the networks here.

use std::path::Path;

use tract_onnx::prelude::{
    Framework, InferenceFact, InferenceModelExt, IntoRunnable, Tensor, TractResult, tvec,
};

use super::OnnxError;

/// Logits of `count` images of `size` × `size` × 3 bytes, row by row.
///
/// # Errors
/// If the file cannot be read or run, or its first output does not have `classes` values for each image.
pub fn run_onnx(
    path: &Path,
    images: &[u8],
    count: usize,
    size: usize,
    classes: usize,
) -> Result<Vec<f32>, OnnxError> {
    let failed = |reason: String| OnnxError::Run { path: path.to_owned(), reason };
    // The file may be damaged or someone else's, and the runtime asserts what it expects.
    let logits = std::panic::catch_unwind(|| run(path, images, [count, size, size, 3]))
        .map_err(|_| failed("it is damaged, or not made by this program".to_owned()))?
        .map_err(|error| failed(format!("{error:#}")))?;
    if logits.len() != count * classes {
        return Err(failed(format!("{} values for {count} images of {classes} classes", logits.len())));
    }
    Ok(logits)
}

fn run(path: &Path, images: &[u8], shape: [usize; 4]) -> TractResult<Vec<f32>> {
    let input = Tensor::from_shape(&shape, images)?;
    let model = tract_onnx::onnx()
        .model_for_path(path)?
        .with_input_fact(0, InferenceFact::dt_shape(input.datum_type(), shape))?
        .into_optimized()?
        .into_runnable()?;
    let outputs = model.run(tvec![input.into()])?;
    let Some(logits) = outputs.first() else { return Ok(Vec::new()) };
    Ok(logits.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}
