//! A model as it is run: checked, constants computed, what can be merged merged.

use std::collections::HashMap;

use harvest_onnx::prost::Message;
use harvest_onnx::tensor_shape_proto::dimension::Value as Side;
use harvest_onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};

use crate::error::{Limits, ModelError, OpError};
use crate::ops::Op;
use crate::tensor::Tensor;

/// Versions of ONNX's operators whose meaning here is the same.
const VERSIONS: std::ops::RangeInclusive<i64> = 13..=22;

/// A value's place among all of the graph.
pub(crate) type Value = usize;

/// One operation between values.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Option<Value>>,
    pub outputs: Vec<Value>,
    /// Values nobody needs after it.
    pub frees: Vec<Value>,
}

impl Node {
    pub fn error(&self, source: OpError) -> ModelError {
        ModelError::Node { node: self.name.clone(), operator: self.op.name(), source }
    }
}

/// What a model takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its name in the file.
    pub name: String,
    /// Whether images come as bytes (`uint8`), with the normalisation inside the model; else they are `float32`.
    pub bytes: bool,
    /// Its sides; nothing where any length will do.
    pub sides: Vec<Option<usize>>,
    pub(crate) value: Value,
}

/// A loaded model.
#[derive(Debug)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// By value; nothing for what is computed.
    pub(crate) constants: Vec<Option<Tensor>>,
    pub(crate) input: Input,
    pub(crate) outputs: Vec<(String, Value)>,
    pub(crate) limits: Limits,
}

impl Graph {
    /// Reads an ONNX file with one input.
    ///
    /// # Errors
    /// If it is no such file, is damaged, needs an operator that is not implemented, or costs more than `limits`.
    pub fn load(bytes: &[u8], limits: Limits) -> Result<Self, ModelError> {
        let model = ModelProto::decode(bytes)?;
        let own = model
            .opset_import
            .iter()
            .find(|set| matches!(set.domain.as_deref(), None | Some("" | "ai.onnx")));
        let version = own.and_then(|set| set.version).ok_or(ModelError::Missing("operator version"))?;
        if !VERSIONS.contains(&version) {
            return Err(ModelError::OperatorVersion {
                found: version,
                first: *VERSIONS.start(),
                last: *VERSIONS.end(),
            });
        }
        let graph = model.graph.ok_or(ModelError::Missing("graph"))?;
        let mut loader = Loader { names: HashMap::new(), constants: Vec::new(), live: 0, limits };
        let mut graph = loader.graph(graph)?;
        crate::merge::merge(&mut graph)?;
        graph.plan();
        Ok(graph)
    }

    /// What it takes.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Names of what it gives.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Bytes of its weights, as they lie in memory.
    pub fn weight_bytes(&self) -> usize {
        self.constants.iter().flatten().map(Tensor::bytes).sum()
    }

    /// Finds after which node each value is needed no more, and drops constants nobody reads.
    fn plan(&mut self) {
        let mut used: Vec<bool> = vec![false; self.constants.len()];
        for (_, value) in &self.outputs {
            used[*value] = true;
        }
        for node in self.nodes.iter_mut().rev() {
            for &value in node.inputs.iter().flatten().chain(&node.outputs) {
                if !std::mem::replace(&mut used[value], true) {
                    node.frees.push(value);
                }
            }
        }
        for (constant, used) in self.constants.iter_mut().zip(&used) {
            if !used {
                *constant = None;
            }
        }
    }
}

struct Loader {
    names: HashMap<String, Value>,
    constants: Vec<Option<Tensor>>,
    /// Numbers in all constants.
    live: usize,
    limits: Limits,
}

impl Loader {
    fn graph(&mut self, graph: GraphProto) -> Result<Graph, ModelError> {
        for stored in &graph.initializer {
            let name = stored.name.clone().unwrap_or_default();
            let tensor = crate::weights::tensor(stored).and_then(|tensor| {
                self.limits.count(tensor.shape()).map_err(|error| error.to_string())?;
                Ok(tensor)
            });
            let tensor = tensor.map_err(|reason| ModelError::Weights { name: name.clone(), reason })?;
            self.define(name, "(stored)", Some(tensor))?;
        }
        // Older files list their weights among the inputs as well.
        let mut inputs = graph.input.iter().filter(|input| !self.names.contains_key(input.name()));
        let input = inputs.next().ok_or(ModelError::Missing("input"))?;
        if let Some(second) = inputs.next() {
            let reason = "is a second one; models that take one batch of images are run".to_owned();
            return Err(ModelError::Input { name: second.name().to_owned(), reason });
        }
        let input = self.input(input)?;
        let mut nodes = Vec::new();
        for (index, node) in graph.node.iter().enumerate() {
            let name =
                node.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| format!("#{index}"));
            nodes.extend(self.node(node, name)?);
        }
        let mut outputs = Vec::new();
        for output in &graph.output {
            let name = output.name().to_owned();
            let value = self.names.get(&name).ok_or(ModelError::NoOutput(name.clone()))?;
            outputs.push((name, *value));
        }
        if outputs.is_empty() {
            return Err(ModelError::Missing("output"));
        }
        let constants = std::mem::take(&mut self.constants);
        Ok(Graph { nodes, constants, input, outputs, limits: self.limits })
    }

    fn input(&mut self, info: &ValueInfoProto) -> Result<Input, ModelError> {
        use harvest_onnx::tensor_proto::DataType;
        let name = info.name().to_owned();
        let refused = |reason: &str| ModelError::Input { name: name.clone(), reason: reason.to_owned() };
        let Some(type_proto::Value::TensorType(tensor)) =
            info.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Err(refused("is no tensor"));
        };
        let bytes = match DataType::try_from(tensor.elem_type.unwrap_or_default()) {
            Ok(DataType::Uint8) => true,
            Ok(DataType::Float) => false,
            _ => return Err(refused("is neither uint8 nor float32")),
        };
        let sides = tensor.shape.as_ref().ok_or_else(|| refused("has no shape"))?;
        let side = |value: &Option<Side>| match value {
            Some(Side::DimValue(side)) => usize::try_from(*side).ok().filter(|&side| side > 0),
            _ => None,
        };
        let sides = sides.dim.iter().map(|dim| side(&dim.value)).collect();
        let value = self.define(name.clone(), "(input)", None)?;
        Ok(Input { name, bytes, sides, value })
    }

    fn define(&mut self, name: String, node: &str, tensor: Option<Tensor>) -> Result<Value, ModelError> {
        self.live = self.live.saturating_add(tensor.as_ref().map_or(0, Tensor::len));
        let value = self.constants.len();
        if self.live > self.limits.live {
            let source = OpError::TooLarge {
                what: "all weights together",
                needed: self.live,
                limit: self.limits.live,
            };
            return Err(ModelError::Node { node: node.to_owned(), operator: "Constant", source });
        }
        if self.names.contains_key(&name) {
            return Err(ModelError::Value { value: name, node: node.to_owned(), reason: "is defined twice" });
        }
        self.constants.push(tensor);
        self.names.insert(name, value);
        Ok(value)
    }

    /// Nothing for a node of constants, whose results are computed here.
    fn node(&mut self, stored: &NodeProto, name: String) -> Result<Option<Node>, ModelError> {
        let operator = stored.op_type().to_owned();
        let unknown = || ModelError::Operator { node: name.clone(), operator };
        let op = match Op::parse(stored) {
            Ok(op) => op.ok_or_else(unknown)?,
            Err(source) => return Err(ModelError::Node { node: name, operator: "its settings", source }),
        };
        let mut inputs = Vec::with_capacity(stored.input.len());
        for input in &stored.input {
            inputs.push(match (input.as_str(), self.names.get(input)) {
                ("", _) => None,
                (_, Some(value)) => Some(*value),
                (_, None) => {
                    let reason = "is used before anything computes it";
                    return Err(ModelError::Value { value: input.clone(), node: name, reason });
                }
            });
        }
        let mut node = Node { name, op, inputs, outputs: Vec::new(), frees: Vec::new() };
        let constant = node.inputs.iter().flatten().all(|&value| self.constants[value].is_some());
        let mut results = match constant {
            false => Vec::new(),
            true => {
                let inputs: Vec<_> = node
                    .inputs
                    .iter()
                    .map(|value| value.and_then(|value| self.constants[value].as_ref()))
                    .collect();
                node.op.run(&inputs, &self.limits).map_err(|source| node.error(source))?
            }
        }
        .into_iter();
        for output in &stored.output {
            let result = results.next();
            if constant && result.is_none() {
                let reason = "is not among the operator's results";
                return Err(ModelError::Value { value: output.clone(), node: node.name, reason });
            }
            // Results nobody names have a name nobody can use.
            let unnamed = || format!("\0{}", self.constants.len());
            let output = if output.is_empty() { unnamed() } else { output.clone() };
            node.outputs.push(self.define(output, &node.name, result)?);
        }
        Ok((!constant).then_some(node))
    }
}
