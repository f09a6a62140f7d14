//! The mean of gradients over ranks.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::algorithms::Ranks;

/// Replaces the gradients of `module` by their means over all ranks, which must call it in the same order. All ranks have
/// gradients for the same parameters, for they run the same network.
pub(crate) fn average_gradients<M: Module>(module: &M, gradients: &mut GradientsParams, ranks: &dyn Ranks) {
    if ranks.world_size() == 1 {
        return;
    }
    let mut flat = Flatten { gradients, parts: Vec::new() };
    module.visit(&mut flat);
    let parts = flat.parts;
    if parts.is_empty() {
        return;
    }
    // As one row: a rank speaks once a step, whatever the number of parameters.
    let mean = ranks.gather(Tensor::cat(parts, 0).unsqueeze_dim(0)).mean_dim(0).squeeze_dim::<1>(0);
    module.visit(&mut Spread { gradients, mean, next: 0 });
}

struct Flatten<'a> {
    gradients: &'a GradientsParams,
    parts: Vec<Tensor<1>>,
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(parameter.id) {
            let count = gradient.dims().iter().product::<usize>();
            self.parts.push(gradient.reshape([count]));
        }
    }
}

struct Spread<'a> {
    gradients: &'a mut GradientsParams,
    mean: Tensor<1>,
    /// Where the next parameter's share begins.
    next: usize,
}

impl ModuleVisitor for Spread<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(parameter.id) {
            let shape = gradient.dims();
            let count = shape.iter().product::<usize>();
            let mean = self.mean.clone().narrow(0, self.next, count).reshape(shape);
            self.gradients.register::<D>(parameter.id, mean);
            self.next += count;
        }
    }
}
