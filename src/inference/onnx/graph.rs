//! Builds an ONNX graph node by node.

use std::collections::BTreeSet;

use harvest_onnx::attribute_proto::AttributeType;
use harvest_onnx::tensor_proto::DataType;
use harvest_onnx::tensor_shape_proto::{Dimension, dimension};
use harvest_onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// The oldest operator set that has layer normalisation; more programs read an old one than a new one.
const OPSET: i64 = 17;
/// The version of the file format that came with [`OPSET`].
const IR_VERSION: i64 = 8;

/// A tensor of the graph, by name.
pub type Value = String;

/// Nodes and constants so far.
#[derive(Default)]
pub struct Graph {
    proto: GraphProto,
    constants: BTreeSet<String>,
}

impl Graph {
    /// A constant of floats.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, DataType::Float, dims, bytes)
    }

    /// A constant of bytes with a sign.
    pub fn bytes(&mut self, name: &str, dims: &[usize], values: &[i8]) -> Value {
        let bytes = values.iter().map(|value| value.cast_unsigned()).collect();
        self.constant(name, DataType::Int8, dims, bytes)
    }

    /// A constant list of integers, as shapes and axes are.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, DataType::Int64, &[values.len()], bytes)
    }

    /// A constant of this name is stored once, however often it is asked for.
    fn constant(&mut self, name: &str, kind: DataType, dims: &[usize], bytes: Vec<u8>) -> Value {
        if self.constants.insert(name.to_owned()) {
            self.proto.initializer.push(TensorProto {
                dims: dims.iter().map(|dim| *dim as i64).collect(),
                data_type: Some(kind as i32),
                name: Some(name.to_owned()),
                raw_data: Some(bytes),
                ..TensorProto::default()
            });
        }
        name.to_owned()
    }

    /// A node with one output.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Value {
        let output = self.fresh(operator);
        self.push(operator, inputs, vec![output.clone()], attributes);
        output
    }

    /// A node whose output is called `output`.
    pub fn named(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) {
        self.push(operator, inputs, vec![output.to_owned()], attributes);
    }

    /// `x` in three equal parts along its last axis, `part` wide each.
    pub fn thirds(&mut self, x: &str, part: usize) -> [Value; 3] {
        let sizes = self.integers(&format!("thirds of {part}"), &[part as i64; 3]);
        let name = self.fresh("Split");
        let outputs = [0, 1, 2].map(|i| format!("{name}.{i}"));
        self.push("Split", &[x, &sizes], outputs.to_vec(), vec![int("axis", -1)]);
        outputs
    }

    /// `x` with another shape; 0 keeps an axis, -1 takes what is left.
    pub fn reshape(&mut self, x: &str, shape: &[i64]) -> Value {
        let shape = self.integers(&format!("shape {shape:?}"), shape);
        self.node("Reshape", &[x, &shape], Vec::new())
    }

    /// `x` with its axes in another order.
    pub fn transpose(&mut self, x: &str, order: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![ints("perm", order)])
    }

    /// Positions `from..to` of an axis of `x`.
    pub fn slice(&mut self, x: &str, axis: i64, from: i64, to: i64) -> Value {
        let [from, to, axis] =
            [from, to, axis].map(|value| self.integers(&format!("list [{value}]"), &[value]));
        self.node("Slice", &[x, &from, &to, &axis], Vec::new())
    }

    /// `x` with a number, as `operator` combines two.
    pub fn with_number(&mut self, operator: &str, x: &str, number: f32) -> Value {
        let number = self.floats(&format!("number {number:?}"), &[], &[number]);
        self.node(operator, &[x, &number], Vec::new())
    }

    /// The whole model. Dimensions without a number are called by their text.
    pub fn into_model(
        mut self,
        inputs: Vec<ValueInfoProto>,
        outputs: Vec<ValueInfoProto>,
        metadata: Vec<(&str, String)>,
    ) -> ModelProto {
        self.proto.name = Some("harvest".to_owned());
        self.proto.input = inputs;
        self.proto.output = outputs;
        let entry = |(key, value): (&str, String)| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            producer_name: Some("harvest".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(self.proto),
            metadata_props: metadata.into_iter().map(entry).collect(),
            ..ModelProto::default()
        }
    }

    fn fresh(&self, operator: &str) -> Value {
        format!("{operator}_{}", self.proto.node.len())
    }

    fn push(&mut self, operator: &str, inputs: &[&str], output: Vec<Value>, attribute: Vec<AttributeProto>) {
        self.proto.node.push(NodeProto {
            name: Some(format!("node {}: {operator}", self.proto.node.len())),
            op_type: Some(operator.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output,
            attribute,
            ..NodeProto::default()
        });
    }
}

/// An axis of an input or output.
#[derive(Clone, Copy)]
pub enum Axis {
    /// Of this length.
    Fixed(usize),
    /// Of any length.
    Named(&'static str),
}

/// An input or output of the model.
pub fn port(name: &str, kind: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dimension = |axis: &Axis| {
        let value = match *axis {
            Axis::Fixed(length) => dimension::Value::DimValue(length as i64),
            Axis::Named(name) => dimension::Value::DimParam(name.to_owned()),
        };
        Dimension { value: Some(value), denotation: None }
    };
    let shape = TensorShapeProto { dim: axes.iter().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(kind as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute that lists integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}
