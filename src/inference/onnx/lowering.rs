//! What all families share: weights as constants, affine maps, convolutions, normalisations.

use harvest_models::NamedTensors;
use harvest_models::batch_norm::BatchNorm;

use super::graph::{Graph, Value, float, int, ints};
use super::quantise::quantise;
use super::{OnnxError, Storage};

/// A graph in the making, with the weights it takes its constants from.
pub struct Lowering<'a> {
    /// The graph so far.
    pub graph: Graph,
    tensors: &'a NamedTensors,
    storage: Storage,
    /// The weights as the graph computes with them.
    pub effective: NamedTensors,
}

/// Stride, padding on all sides and number of groups of a convolution.
#[derive(Clone, Copy)]
pub struct Window {
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl<'a> Lowering<'a> {
    /// An empty graph.
    pub fn new(tensors: &'a NamedTensors, storage: Storage) -> Self {
        Self { graph: Graph::default(), tensors, storage, effective: tensors.clone() }
    }

    /// Whether the network has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Channels that the convolution `name` gives.
    pub fn outputs(&self, name: &str) -> Result<usize, OnnxError> {
        let name = format!("{name}.weight");
        let (shape, _) = self.values(&name)?;
        shape.first().copied().ok_or(OnnxError::Rank { name, found: shape, rank: 4 })
    }

    /// A parameter as it is, in single precision.
    pub fn parameter(&mut self, name: &str) -> Result<Value, OnnxError> {
        let (shape, values) = self.values(name)?;
        Ok(self.graph.floats(name, &shape, &values))
    }

    /// An affine map of the last axis of `x`, `[.., in]` → `[.., out]`.
    pub fn linear(&mut self, x: &str, name: &str) -> Result<Value, OnnxError> {
        let weight = self.matrix(&format!("{name}.weight"), true)?;
        let bias = self.parameter(&format!("{name}.bias"))?;
        let product = self.graph.node("MatMul", &[x, &weight], Vec::new());
        Ok(self.graph.node("Add", &[&product, &bias], Vec::new()))
    }

    /// The classifier: an affine map of `[B, in]` to the output `logits`.
    pub fn head(&mut self, x: &str, name: &str) -> Result<(), OnnxError> {
        let weight = self.matrix(&format!("{name}.weight"), false)?;
        let bias = self.parameter(&format!("{name}.bias"))?;
        self.graph.named("Gemm", &[x, &weight, &bias], vec![int("transB", 1)], super::LOGITS);
        Ok(())
    }

    /// A convolution with the bias `name.bias`, if there is one.
    pub fn conv(&mut self, x: &str, name: &str, window: Window) -> Result<Value, OnnxError> {
        let weight_name = format!("{name}.weight");
        let (shape, _) = self.values(&weight_name)?;
        let [_, _, height, width] = shape[..] else {
            return Err(OnnxError::Rank { name: weight_name, found: shape, rank: 4 });
        };
        let weight = self.matrix(&weight_name, false)?;
        let bias_name = format!("{name}.bias");
        let mut inputs = vec![x.to_owned(), weight];
        if self.has(&bias_name) {
            inputs.push(self.parameter(&bias_name)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = vec![
            ints("kernel_shape", &[height as i64, width as i64]),
            ints("strides", &[window.stride as i64; 2]),
            ints("pads", &[window.padding as i64; 4]),
            int("group", window.groups as i64),
        ];
        Ok(self.graph.node("Conv", &inputs, attributes))
    }

    /// Normalises each channel by the running statistics.
    pub fn batch_norm(&mut self, x: &str, name: &str) -> Result<Value, OnnxError> {
        let mut inputs = vec![x.to_owned()];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.parameter(&format!("{name}.{part}"))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.graph.node("BatchNormalization", &inputs, vec![float("epsilon", BatchNorm::EPS)]))
    }

    /// Normalises the last axis.
    pub fn layer_norm(&mut self, x: &str, name: &str, epsilon: f32) -> Result<Value, OnnxError> {
        let weight = self.parameter(&format!("{name}.weight"))?;
        let bias = self.parameter(&format!("{name}.bias"))?;
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        Ok(self.graph.node("LayerNormalization", &[x, &weight, &bias], attributes))
    }

    /// `x · (1 + erf(x / √2)) / 2`
    pub fn gelu(&mut self, x: &str) -> Value {
        let graph = &mut self.graph;
        let scaled = graph.with_number("Mul", x, std::f32::consts::FRAC_1_SQRT_2);
        let erf = graph.node("Erf", &[&scaled], Vec::new());
        let sum = graph.with_number("Add", &erf, 1.0);
        let half = graph.with_number("Mul", x, 0.5);
        graph.node("Mul", &[&half, &sum], Vec::new())
    }

    /// `x` times a factor for each value of its last axis.
    pub fn scaled(&mut self, x: &str, name: &str) -> Result<Value, OnnxError> {
        let factors = self.parameter(name)?;
        Ok(self.graph.node("Mul", &[x, &factors], Vec::new()))
    }

    /// A weight whose first axis is the output channel, with its two axes exchanged if `transposed`.
    fn matrix(&mut self, name: &str, transposed: bool) -> Result<Value, OnnxError> {
        let (shape, values) = self.values(name)?;
        let rows = shape.first().copied().unwrap_or(1);
        let width = values.len() / rows.max(1);
        if transposed && shape.len() != 2 {
            return Err(OnnxError::Rank { name: name.to_owned(), found: shape, rank: 2 });
        }
        let dims = if transposed { vec![width, rows] } else { shape.clone() };
        if self.storage == Storage::Float32 {
            let values = if transposed { transpose(&values, rows, width) } else { values };
            return Ok(self.graph.floats(name, &dims, &values));
        }
        let quantised = quantise(name, &values, rows)?;
        let effective = burn::tensor::TensorData::new(quantised.dequantised(), shape);
        self.effective.insert(name.to_owned(), effective);
        let values = if transposed { transpose(&quantised.values, rows, width) } else { quantised.values };
        let weight = self.graph.bytes(name, &dims, &values);
        let scale = self.graph.floats(&format!("{name}.scale"), &[rows], &quantised.scales);
        let axis = int("axis", i64::from(transposed));
        Ok(self.graph.node("DequantizeLinear", &[&weight, &scale], vec![axis]))
    }

    fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), OnnxError> {
        let data = self.tensors.get(name).ok_or_else(|| OnnxError::Missing { name: name.to_owned() })?;
        let values: Vec<f32> = data.iter::<f32>().collect();
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(OnnxError::NotFinite { name: name.to_owned(), value: *value });
        }
        Ok((data.shape().to_vec(), values))
    }
}

/// `[rows, width]` → `[width, rows]`
fn transpose<T: Copy>(values: &[T], rows: usize, width: usize) -> Vec<T> {
    (0..width).flat_map(|column| (0..rows).map(move |row| values[row * width + column])).collect()
}
