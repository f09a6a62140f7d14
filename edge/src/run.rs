//! Runs a loaded model on one batch.

use crate::error::{ModelError, OpError};
use crate::graph::Graph;
use crate::tensor::{Data, Tensor};

impl Graph {
    /// The outputs, in the order of [`Graph::outputs`]. Values are dropped as soon as nobody needs them.
    ///
    /// # Errors
    /// If the batch is not what the model takes, or an operation cannot be done on it.
    pub fn run(&self, batch: Tensor) -> Result<Vec<Tensor>, ModelError> {
        self.check(&batch)?;
        let mut values: Vec<Option<Tensor>> = vec![None; self.constants.len()];
        let mut live = batch.len();
        values[self.input.value] = Some(batch);
        for node in &self.nodes {
            let inputs: Vec<Option<&Tensor>> =
                node.inputs.iter().map(|value| value.and_then(|value| self.value(&values, value))).collect();
            let results = node.op.run(&inputs, &self.limits).map_err(|source| node.error(source))?;
            if results.len() < node.outputs.len() {
                return Err(node.error(OpError::MissingInput { index: results.len() }));
            }
            for (&output, result) in node.outputs.iter().zip(results) {
                live = live.saturating_add(result.len());
                values[output] = Some(result);
            }
            if live > self.limits.live {
                let what = "all values at one time";
                return Err(node.error(OpError::TooLarge { what, needed: live, limit: self.limits.live }));
            }
            for &value in &node.frees {
                live = live.saturating_sub(values[value].take().map_or(0, |tensor| tensor.len()));
            }
        }
        let result = |(name, value): &(String, usize)| {
            self.value(&values, *value).cloned().ok_or_else(|| ModelError::NoOutput(name.clone()))
        };
        self.outputs.iter().map(result).collect()
    }

    fn value<'a>(&'a self, values: &'a [Option<Tensor>], value: usize) -> Option<&'a Tensor> {
        values[value].as_ref().or(self.constants[value].as_ref())
    }

    fn check(&self, batch: &Tensor) -> Result<(), ModelError> {
        let refused = |reason| Err(ModelError::Input { name: self.input.name.clone(), reason });
        if matches!(batch.data(), Data::U8(_)) != self.input.bytes
            || !matches!(batch.data(), Data::U8(_) | Data::F32(_))
        {
            return refused(format!("{} is not the kind of number it takes", batch.kind()));
        }
        let (shape, sides) = (batch.shape(), &self.input.sides);
        let fits = |(&found, wanted): (&usize, &Option<usize>)| wanted.is_none_or(|wanted| found == wanted);
        if shape.len() != sides.len() || !shape.iter().zip(sides).all(fits) {
            return refused(format!("shape {shape:?} does not fit {sides:?}"));
        }
        self.limits.count(shape).map(|_| ()).or_else(|error| refused(error.to_string()))
    }
}
