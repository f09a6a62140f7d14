//! Which of a checkpoint's dictionaries holds the weights.

use std::rc::Rc;

use super::error::Problem;
use super::pickle::{Id, Pickled, Strided, Value};

/// Dictionaries within dictionaries, at most; the deepest published ones have three.
const DEPTH: usize = 6;

/// Of dictionaries with as many tensors each, the first here is taken: averaged weights before live ones, as published
/// accuracies are theirs.
const PREFERRED: [&str; 14] = [
    "ema_model",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "backbone",
    "encoder",
    "student",
];

/// Names and tensors, in the file's order, and the keys that led to them.
pub(super) struct StateDict {
    pub tensors: Vec<(String, Rc<Strided>)>,
    pub within: String,
}

/// The dictionary with most tensors.
pub(super) fn find(pickled: &Pickled) -> Result<StateDict, Problem> {
    let Value::Dict(top) = pickled.top else { return Err(Problem::NoTensors) };
    let mut found = Vec::new();
    let mut seen = std::collections::HashSet::from([top]);
    let mut ahead = vec![(top, String::new(), 0)];
    while let Some((id, within, depth)) = ahead.pop() {
        for (key, value) in pickled.pairs(id) {
            if let (Value::Text(key), Value::Dict(inner)) = (key, value)
                && depth < DEPTH
                && seen.insert(*inner)
            {
                let within = if within.is_empty() { key.to_string() } else { format!("{within}.{key}") };
                ahead.push((*inner, within, depth + 1));
            }
        }
        let count = tensors(pickled, id).count();
        let rank = within.rsplit('.').next().and_then(|key| PREFERRED.iter().position(|known| *known == key));
        found.push((
            count,
            std::cmp::Reverse(rank.unwrap_or(PREFERRED.len())),
            std::cmp::Reverse(within),
            id,
        ));
    }
    let (count, _, within, id) = found.into_iter().max().ok_or(Problem::NoTensors)?;
    if count == 0 {
        return Err(Problem::NoTensors);
    }
    Ok(StateDict { tensors: tensors(pickled, id).collect(), within: within.0 })
}

fn tensors(pickled: &Pickled, id: Id) -> impl Iterator<Item = (String, Rc<Strided>)> {
    pickled.pairs(id).iter().filter_map(|(key, value)| match (key, value) {
        (Value::Text(name), Value::Tensor(tensor)) => Some((name.to_string(), tensor.clone())),
        _ => None,
    })
}
