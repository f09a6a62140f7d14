//! What an optimizer remembers, and how it is saved: by parameter name, so that a checkpoint is plain tensors and a resumed
//! run continues to the same numbers.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use harvest_models::{NamedTensors, ParameterInfo};

use super::Optimizer;
use crate::config::OptimizerName;

/// State of one parameter.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    /// Flattened: AdamW's two moments, or SGD's momentum buffer.
    pub parts: Vec<Tensor<1>>,
    /// Updates of the optimizer before the first of this parameter, which may have been kept fixed for a while. AdamW's
    /// moments start when they are first needed, as in PyTorch, and are corrected for their own age.
    pub since: u32,
}

/// A saved state that does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// Of another network or another optimizer.
    #[error("the saved optimizer state does not fit this network and optimizer: {reason}")]
    Foreign {
        /// What does not fit.
        reason: String,
    },
}

impl Optimizer {
    /// The whole state by name: `first/…` and `second/…`, or `momentum/…`, the number of updates, and `since/…` for
    /// parameters that were not there from the first one.
    pub fn state(&self) -> NamedTensors {
        let parts = self.parts();
        let mut state: NamedTensors = self
            .slots
            .iter()
            .flat_map(|(name, slots)| {
                let data = slots.parts.iter().map(Tensor::to_data);
                parts.iter().zip(data).map(move |(part, data)| (format!("{part}/{name}"), data))
            })
            .collect();
        let late = self.slots.iter().filter(|(_, slots)| slots.since > 0);
        state.extend(late.map(|(name, slots)| {
            (format!("since/{name}"), TensorData::new(vec![i64::from(slots.since)], [1]))
        }));
        state.insert("updates".to_owned(), TensorData::new(vec![i64::from(self.updates)], [1]));
        state
    }

    /// Takes back what [`Optimizer::state`] gave, for the `parameters` it was made for, on `device` (without autodiff).
    ///
    /// # Errors
    /// If it belongs to another optimizer or network; the optimizer is then as it was.
    pub fn restore(
        &mut self,
        mut state: NamedTensors,
        parameters: Vec<ParameterInfo>,
        device: &Device,
    ) -> Result<(), OptimizerError> {
        let foreign = |reason: String| OptimizerError::Foreign { reason };
        let number = |data: TensorData| data.iter::<i64>().next().and_then(|count| u32::try_from(count).ok());
        let updates = state
            .remove("updates")
            .and_then(number)
            .ok_or_else(|| foreign("it does not tell the number of updates".to_owned()))?;
        let mut slots = BTreeMap::new();
        for parameter in parameters {
            let mut own = Vec::new();
            for part in self.parts() {
                let key = format!("{part}/{}", parameter.name);
                let Some(data) = state.remove(&key) else { continue };
                let expected: usize = parameter.shape.iter().product();
                if data.num_elements() != expected {
                    let found = data.num_elements();
                    return Err(foreign(format!("`{key}` has {found} values, not {expected}")));
                }
                own.push(Tensor::from_data(data, device));
            }
            match own.len() {
                0 => {}
                n if n == self.parts().len() => {
                    let since = state.remove(&format!("since/{}", parameter.name)).map_or(Some(0), number);
                    let since = since.filter(|since| *since <= updates).ok_or_else(|| {
                        foreign(format!("`since/{}` is no number of updates", parameter.name))
                    })?;
                    slots.insert(parameter.name, Slots { parts: own, since });
                }
                _ => return Err(foreign(format!("`{}` is incomplete", parameter.name))),
            }
        }
        if let Some(name) = state.into_keys().next() {
            return Err(foreign(format!("it holds `{name}`")));
        }
        (self.slots, self.updates) = (slots, updates);
        Ok(())
    }

    fn parts(&self) -> &'static [&'static str] {
        match self.config.rule {
            OptimizerName::AdamW => &["first", "second"],
            OptimizerName::Sgd => &["momentum"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ADAMW, SGD, after_a_step, net};
    use super::*;
    use crate::training::OptimizerConfig;

    #[test]
    fn a_restored_state_goes_on_to_the_same_numbers() {
        for config in [ADAMW, SGD] {
            let net = net();
            let mut first = Optimizer::new(config.clone(), &net);
            let start = after_a_step(&mut first, net, 0.1);
            let (mut second, other) = (Optimizer::new(config, &start), start.clone());
            second
                .restore(first.state(), start.parameters(), &start.device().inner())
                .expect("its own state");
            assert_eq!(second.state(), first.state());
            let ends = [after_a_step(&mut first, start, 0.1), after_a_step(&mut second, other, 0.1)];
            assert_eq!(ends[0].to_tensors(), ends[1].to_tensors());
            assert_eq!(second.state(), first.state());
        }
    }

    #[test]
    fn a_foreign_state_is_refused_and_changes_nothing() {
        let state = |config: OptimizerConfig| {
            let net = net();
            let mut optimizer = Optimizer::new(config, &net);
            after_a_step(&mut optimizer, net, 0.1);
            optimizer.state()
        };
        let changed = |change: &dyn Fn(&mut NamedTensors)| {
            let mut state = state(ADAMW);
            change(&mut state);
            state
        };
        let (first, second) = ("first/head.bias", "second/head.bias");
        for (foreign, word) in [
            (state(SGD), "momentum/"),
            (changed(&|s| drop(s.remove("updates"))), "number of updates"),
            (changed(&|s| drop(s.remove(second))), "`head.bias` is incomplete"),
            (
                changed(&|s| drop(s.insert(first.into(), TensorData::new(vec![0f32; 2], [2])))),
                "2 values, not 3",
            ),
            (
                changed(&|s| drop(s.insert("first/fc.bias".into(), TensorData::new(vec![0f32; 3], [3])))),
                "fc.bias",
            ),
            (NamedTensors::new(), "number of updates"),
        ] {
            let net = net();
            let mut optimizer = Optimizer::new(ADAMW, &net);
            let net = after_a_step(&mut optimizer, net, 0.1);
            let before = optimizer.state();
            let error = optimizer
                .restore(foreign, net.parameters(), &net.device().inner())
                .expect_err("it does not fit")
                .to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!(optimizer.state(), before);
        }
    }
}
