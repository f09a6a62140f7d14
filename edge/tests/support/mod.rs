//! Writes small ONNX models, and draws numbers.
#![allow(dead_code, reason = "each test file uses its part")]

use harvest_edge::{Graph, Limits, ModelError, Tensor};
use harvest_onnx::prost::Message;
use harvest_onnx::tensor_shape_proto::{Dimension, dimension};
use harvest_onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

pub const FLOAT: i32 = 1;
pub const BYTES: i32 = 2;

/// A model under construction; its input is `x`, its outputs what is asked for.
pub struct Model {
    graph: GraphProto,
}

impl Model {
    /// `sides` of 0 are open.
    pub fn new(kind: i32, sides: &[i64]) -> Self {
        let dim = sides
            .iter()
            .map(|&side| Dimension {
                value: (side > 0).then_some(dimension::Value::DimValue(side)),
                ..Default::default()
            })
            .collect();
        let tensor = type_proto::Tensor { elem_type: Some(kind), shape: Some(TensorShapeProto { dim }) };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        let input = ValueInfoProto { name: Some("x".into()), r#type: Some(r#type), ..Default::default() };
        Self { graph: GraphProto { input: vec![input], ..Default::default() } }
    }

    pub fn floats(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.graph.initializer.push(TensorProto {
            name: Some(name.into()),
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: Some(FLOAT),
            raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            ..Default::default()
        });
        self
    }

    pub fn integers(mut self, name: &str, values: &[i64]) -> Self {
        self.graph.initializer.push(TensorProto {
            name: Some(name.into()),
            dims: vec![values.len() as i64],
            data_type: Some(7),
            int64_data: values.to_vec(),
            ..Default::default()
        });
        self
    }

    pub fn int8(mut self, name: &str, shape: &[usize], values: &[i8]) -> Self {
        self.graph.initializer.push(TensorProto {
            name: Some(name.into()),
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: Some(3),
            raw_data: Some(values.iter().map(|&value| value as u8).collect()),
            ..Default::default()
        });
        self
    }

    /// Names separated by blanks; `-` is an absent input.
    pub fn node(
        mut self,
        operator: &str,
        inputs: &str,
        outputs: &str,
        attributes: Vec<AttributeProto>,
    ) -> Self {
        let names = |names: &str| -> Vec<String> {
            names
                .split_whitespace()
                .map(|name| if name == "-" { String::new() } else { name.into() })
                .collect()
        };
        self.graph.node.push(NodeProto {
            op_type: Some(operator.into()),
            input: names(inputs),
            output: names(outputs),
            attribute: attributes,
            ..Default::default()
        });
        self
    }

    pub fn file(mut self, outputs: &str) -> Vec<u8> {
        let output = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
        self.graph.output = outputs.split_whitespace().map(output).collect();
        let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
        let model = ModelProto {
            ir_version: Some(8),
            opset_import: vec![opset],
            graph: Some(self.graph),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    pub fn load(self, outputs: &str) -> Result<Graph, ModelError> {
        Graph::load(&self.file(outputs), Limits::default())
    }

    /// Shape and numbers of the output `y`.
    pub fn run(self, input: Tensor) -> (Vec<usize>, Vec<f32>) {
        let results = self.load("y").expect("a sound model").run(input).expect("it runs");
        (results[0].shape().to_vec(), results[0].floats().expect("numbers").to_vec())
    }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ints: values.to_vec(), r#type: Some(7), ..Default::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value), r#type: Some(2), ..Default::default() }
}

/// Numbers from -1 to 1 without a pattern.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    pub fn floats(&mut self, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        (0..count).map(|_| self.next() as f32 / (1u64 << 30) as f32 - 1.0).collect()
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        Tensor::new(shape.to_vec(), self.floats(shape)).expect("as many as the shape says")
    }
}

/// A small network with a bit of everything, from bytes to `logits`: convolutions, normalisation, attention's product.
pub fn everything() -> Model {
    let mut noise = Noise(5);
    let mut floats = |model: Model, name: &str, shape: &[usize]| {
        let values: Vec<f32> = noise.floats(shape).iter().map(|value| value.abs() + 0.1).collect();
        model.floats(name, shape, &values)
    };
    let mut model = Model::new(BYTES, &[0, 8, 8, 3]);
    for (name, shape) in [
        ("mean", &[1, 3, 1, 1][..]),
        ("w1", &[4, 3, 3, 3]),
        ("scale", &[4]),
        ("offset", &[4]),
        ("m", &[4]),
        ("v", &[4]),
        ("w2", &[4, 1, 3, 3]),
        ("b2", &[4]),
        ("g", &[4]),
        ("w4", &[3, 4]),
        ("b4", &[3]),
        ("scales", &[4]),
    ] {
        model = floats(model, name, shape);
    }
    let quantised: Vec<i8> = (0..16).map(|i| i * 7 - 50).collect();
    model
        .int8("q", &[4, 4, 1, 1], &quantised)
        .integers("tokens", &[0, 4, -1])
        .integers("zero", &[0])
        .integers("two", &[2])
        .integers("one", &[1])
        .node("Cast", "x", "f", vec![int("to", 1)])
        .node("Transpose", "f", "t", vec![ints("perm", &[0, 3, 1, 2])])
        .node("Sub", "t mean", "n", vec![])
        .node("Conv", "n w1", "c1", vec![ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])])
        .node("BatchNormalization", "c1 scale offset m v", "bn", vec![])
        .node("Relu", "bn", "r1", vec![])
        .node("Conv", "r1 w2 b2", "c2", vec![ints("pads", &[1, 1, 1, 1]), int("group", 4)])
        .node("DequantizeLinear", "q scales", "w3", vec![int("axis", 0)])
        .node("Conv", "c2 w3", "c3", vec![])
        .node("MaxPool", "c3", "p", vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])])
        .node("Reshape", "p tokens", "s", vec![])
        .node("Transpose", "s", "st", vec![ints("perm", &[0, 2, 1])])
        .node("LayerNormalization", "st g", "ln", vec![])
        .node("MatMul", "ln s", "a", vec![])
        .node("Softmax", "a", "sm", vec![])
        .node("MatMul", "sm ln", "o", vec![])
        .node("Slice", "o zero two one", "sl", vec![])
        .node("Concat", "sl o", "cat", vec![int("axis", 1)])
        .node("ReduceMean", "cat", "rm", vec![ints("axes", &[1]), int("keepdims", 0)])
        .node("Gemm", "rm w4 b4", "logits", vec![int("transB", 1)])
        .node("Softmax", "logits", "probabilities", vec![])
}
