//! A pickle machine that builds data and can do nothing else.
//!
//! Python's own machine calls whatever a file names. This one knows the operations that PyTorch writes, and a short list
//! of names; of these, some make tensors and dictionaries, others are remembered as [`Value::Opaque`]: something without
//! meaning here. Every other name ends the reading with [`Problem::Code`]. Values live in one flat list and refer to each
//! other by index, so that no nesting, however deep, and no circle costs more than its bytes.

mod machine;
mod objects;

use std::collections::HashMap;
use std::rc::Rc;

use machine::Machine;

use super::error::Problem;
use super::numbers::Kind;

/// Bytes of one pickle, at most. Those of published checkpoints have less than one million, optimizer state included.
pub(super) const LENGTH: usize = 32 << 20;

/// Index of a list, tuple or dictionary.
pub(super) type Id = usize;

#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Tuple(Id),
    List(Id),
    Dict(Id),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Strided>),
    /// Something that is no weight: numbers of the training, settings.
    Opaque,
}

/// The names that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2` and the older one with fewer arguments.
    Tensor,
    Parameter,
    Storage(Kind),
    /// Harmless data of a training run.
    Opaque,
}

/// A piece of the file that tensors are views of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub key: String,
    pub kind: Kind,
    pub elements: usize,
    /// First element within the storage of that key, for views in legacy files.
    pub offset: usize,
}

/// A tensor as the file describes it; nothing is checked against the storage yet.
#[derive(Debug)]
pub(super) struct Strided {
    pub storage: Rc<Storage>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// What a pickle says.
pub(super) struct Pickled {
    pub top: Value,
    /// Bytes it took.
    pub length: usize,
    /// What every storage it refers to holds, by key.
    pub storages: HashMap<String, Kind>,
    items: Vec<Items>,
}

#[derive(Debug)]
enum Items {
    Sequence(Vec<Value>),
    Pairs(Vec<(Value, Value)>),
}

impl Pickled {
    pub fn sequence(&self, id: Id) -> &[Value] {
        match &self.items[id] {
            Items::Sequence(values) => values,
            Items::Pairs(_) => &[],
        }
    }

    pub fn pairs(&self, id: Id) -> &[(Value, Value)] {
        match &self.items[id] {
            Items::Pairs(pairs) => pairs,
            Items::Sequence(_) => &[],
        }
    }
}

/// Reads the pickle at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickled, Problem> {
    Machine::run(bytes)
}
