//! The norm of all gradients of a step, and the factor that keeps it below a limit.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use harvest_kernels::{clip_factor, gradient_norm};

use super::flat::flat;

/// The gradients of all modules that learn in a step. Their norm is taken together, as in USB, whose network has its
/// auxiliary head within.
///
/// Of several ranks each has the means over all by now, so that all come to the same factor.
#[derive(Debug, Default)]
pub(super) struct GlobalNorm {
    gradients: Vec<Tensor<1>>,
}

impl GlobalNorm {
    /// Adds the gradients of one module.
    pub fn add<M: Module>(&mut self, module: &M, gradients: &GradientsParams) {
        module.visit(&mut Collect { gradients, found: &mut self.gradients });
    }

    /// The factor on all gradients that brings their norm down to `limit`, `[1]`; `None` if there are no gradients. Where
    /// the norm is no number the factor is none either, and the next loss tells. Nothing is read back from the device.
    pub fn factor(self, limit: f64) -> Option<Tensor<1>> {
        (!self.gradients.is_empty()).then(|| clip_factor(gradient_norm(&self.gradients), limit))
    }
}

struct Collect<'a> {
    gradients: &'a GradientsParams,
    found: &'a mut Vec<Tensor<1>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.found.extend(self.gradients.get::<D>(parameter.id).map(flat));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::training::optimizer::tests::{ADAMW, SGD, gradients, net};
    use crate::training::optimizer::{Optimizer, Pass};

    fn factor(limit: f64) -> Tensor<1> {
        let net = net();
        let mut norm = GlobalNorm::default();
        norm.add(&net, &gradients(&net, 1.0));
        norm.factor(limit).expect("there are gradients")
    }

    fn number(factor: Tensor<1>) -> f64 {
        factor.into_data().iter::<f64>().next().expect("one number")
    }

    #[test]
    fn the_norm_is_over_all_parameters() {
        let root = (net().num_parameters() as f64).sqrt();
        assert!((number(factor(0.5 * root)) - 0.5).abs() < 1e-6);
        assert_eq!(number(factor(2.0 * root)), 1.0);
        assert!(GlobalNorm::default().factor(1.0).is_none());
        let (net, mut norm) = (net(), GlobalNorm::default());
        (0..4).for_each(|_| norm.add(&net, &gradients(&net, 1.0)));
        let of_four = number(norm.factor(root).expect("there are gradients"));
        assert!((of_four - 0.5).abs() < 1e-6, "several modules are taken together: {of_four}");
    }

    /// Weights and state after two updates with gradients of `size` everywhere and this factor on them.
    fn after(adamw: bool, size: f32, clip: Option<Tensor<1>>) -> impl PartialEq + std::fmt::Debug {
        let mut net = net();
        let mut optimizer = Optimizer::new(if adamw { ADAMW } else { SGD }, &net);
        for _ in 0..2 {
            let mut gradients = gradients(&net, size);
            optimizer.apply(&mut net, &mut gradients, Pass { lr: 0.1, clip: clip.clone(), average: None });
        }
        (net.to_tensors(), optimizer.state())
    }

    #[test]
    fn gradients_below_the_limit_are_left_as_they_are() {
        for adamw in [true, false] {
            assert_eq!(after(adamw, 1.0, Some(factor(1e3))), after(adamw, 1.0, None));
        }
    }

    #[test]
    fn larger_ones_are_scaled_and_nothing_else_is() {
        let half = || Tensor::from_floats([0.5], &Device::flex());
        for adamw in [true, false] {
            // Powers of two, so that nothing is rounded.
            assert_eq!(after(adamw, 1.0, Some(half())), after(adamw, 0.5, None));
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_is_not_hidden() {
        for lost in [f32::NAN, f32::INFINITY] {
            let mut net = net();
            let mut norm = GlobalNorm::default();
            norm.add(&net, &gradients(&net, lost));
            let clip = norm.factor(1.0);
            let mut ones = gradients(&net, 1.0);
            Optimizer::new(SGD, &net).apply(&mut net, &mut ones, Pass { lr: 0.1, clip, average: None });
            assert!(net.to_tensors().values().all(|data| data.iter::<f32>().all(f32::is_nan)));
        }
    }
}
