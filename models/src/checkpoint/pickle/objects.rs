//! Where Python would call something: storages, tensors, dictionaries, and the names that may stand in a file.

use std::rc::Rc;

use super::super::error::Problem;
use super::super::numbers::Kind;
use super::machine::Machine;
use super::{Global, Id, Items, Storage, Strided, Value};

/// Axes of a tensor, at most.
const AXES: usize = 16;

impl Machine<'_> {
    /// `("storage", type, key, place, elements)`; in legacy files also what the storage is a view of.
    pub(super) fn persistent(&mut self) -> Result<(), Problem> {
        let unclear = || Problem::damaged("it refers to a storage in a way that is not known");
        let Value::Tuple(id) = self.pop()? else { return Err(unclear()) };
        let values = self.values(id);
        let [
            Value::Text(what),
            Value::Global(Global::Storage(kind)),
            Value::Text(key),
            _,
            Value::Int(elements),
            view @ ..,
        ] = values
        else {
            return Err(unclear());
        };
        let offset = match view {
            [] | [Value::None] => 0,
            [Value::Tuple(view)] => match self.values(*view) {
                [_, Value::Int(offset), _] => size(*offset)?,
                _ => return Err(unclear()),
            },
            _ => return Err(unclear()),
        };
        if &**what != "storage" {
            return Err(unclear());
        }
        let storage = Storage { key: key.to_string(), kind: *kind, elements: size(*elements)?, offset };
        if *self.storages.entry(storage.key.clone()).or_insert(storage.kind) != storage.kind {
            return Err(Problem::damaged(format!("storage {} holds numbers of two types", storage.key)));
        }
        self.push(Value::Storage(Rc::new(storage)))
    }

    fn values(&self, id: Id) -> &[Value] {
        match &self.items[id] {
            Items::Sequence(values) => values,
            Items::Pairs(_) => &[],
        }
    }

    /// Where Python would call, this makes one of the few things a weight file is made of.
    pub(super) fn reduce(&mut self) -> Result<(), Problem> {
        let arguments = self.pop()?;
        let callee = self.pop()?;
        let (Value::Global(global), Value::Tuple(id)) = (callee, arguments) else {
            return Err(self.misplaced());
        };
        match global {
            Global::OrderedDict => {
                // Python 2 passes a list of pairs; PyTorch of today none.
                match self.values(id) {
                    [] => self.dict(),
                    _ => Err(Problem::damaged("an ordered dictionary with arguments")),
                }
            }
            Global::Tensor => {
                let tensor = self.tensor(id)?;
                self.push(tensor)
            }
            Global::Parameter => match self.values(id) {
                [tensor @ Value::Tensor(_), ..] => {
                    let tensor = tensor.clone();
                    self.push(tensor)
                }
                _ => Err(Problem::damaged("a parameter without a tensor")),
            },
            Global::Opaque => self.push(Value::Opaque),
            Global::Storage(_) => Err(Problem::damaged("a storage is not made like that")),
        }
    }

    fn tensor(&self, id: Id) -> Result<Value, Problem> {
        let [Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides), ..] =
            self.values(id)
        else {
            return Err(Problem::damaged("a tensor is described in a way that is not known"));
        };
        let sizes = |id: Id| -> Result<Vec<usize>, Problem> {
            let values = self.values(id);
            if values.len() > AXES {
                return Err(Problem::excessive(format!("a tensor of {} axes", values.len())));
            }
            let size = |value: &Value| match value {
                Value::Int(number) => size(*number),
                _ => Err(Problem::damaged("the size of a tensor is no number")),
            };
            values.iter().map(size).collect()
        };
        let (shape, strides) = (sizes(*shape)?, sizes(*strides)?);
        if shape.len() != strides.len() {
            return Err(Problem::damaged("a tensor has another number of strides than of axes"));
        }
        Ok(Value::Tensor(Rc::new(Strided {
            storage: storage.clone(),
            offset: size(*offset)?,
            shape,
            strides,
        })))
    }

    /// State set on an object: PyTorch's is the versions of layers, which nothing here needs.
    pub(super) fn build(&mut self) -> Result<(), Problem> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_) | Value::Opaque | Value::Tensor(_)) => Ok(()),
            _ => Err(self.misplaced()),
        }
    }
}

fn size(number: i64) -> Result<usize, Problem> {
    usize::try_from(number).map_err(|_| Problem::damaged(format!("a size or position of {number}")))
}

/// What the name stands for, if it may stand in a weight file.
pub(super) fn known(module: &str, name: &str) -> Result<Global, Problem> {
    let opaque = Ok(Global::Opaque);
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Ok(Global::Tensor),
        ("torch._utils", "_rebuild_parameter") => Ok(Global::Parameter),
        ("torch" | "torch.storage", _) if Kind::of_storage(name).is_some() => {
            Kind::of_storage(name).map_or(opaque, |kind| Ok(Global::Storage(kind)))
        }
        // What training scripts leave beside the weights: their arguments, scores as NumPy numbers, devices and types.
        ("argparse", "Namespace") => opaque,
        ("collections", "defaultdict") => opaque,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => opaque,
        ("numpy", "dtype" | "float64" | "float32" | "int64") => opaque,
        ("_codecs", "encode") => opaque,
        ("torch", "device" | "Size" | "float32" | "float16" | "bfloat16" | "float64" | "int64") => opaque,
        _ => Err(Problem::Code { name: format!("{module}.{name}") }),
    }
}
