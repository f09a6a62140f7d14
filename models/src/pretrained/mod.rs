//! Starting from published weights of another class count or image size: every parameter of the network and every tensor
//! of the file is accounted for.

mod loading;
mod patches;
mod positions;

use std::collections::BTreeSet;

use loading::Loading;
pub use patches::resize_patches;
pub use positions::resize_positions;

use crate::classifier::Classifier;
use crate::load_report::LoadReport;
use crate::naming::translate;
use crate::weights::{NamedTensors, WeightsError};

/// What becomes of the network's linear classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// It keeps its values, also where the shapes agree: its classes are others.
    #[default]
    New,
    /// It is taken from the file if that has as many classes.
    Keep,
}

/// How strict [`Classifier::load_pretrained`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// What becomes of the linear classifier.
    pub head: Head,
    /// Parameters without a tensor keep their values, and tensors without a parameter or of another shape are left out,
    /// all named in the report. Weights that are no numbers stay an error.
    pub allow_unexpected: bool,
}

/// Why published weights are not this network's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// They do not fit.
    #[error("the weights do not fit this network: {}", shown(problems))]
    Misfit {
        /// Each in words.
        problems: Vec<String>,
    },
    /// They are damaged.
    #[error("the weights are damaged: {}", shown(problems))]
    NotFinite {
        /// Each in words.
        problems: Vec<String>,
    },
    /// The tensors do not become the network's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// The first few, and how many more.
fn shown(problems: &[String]) -> String {
    const SHOWN: usize = 5;
    let first = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match problems.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}

impl Classifier {
    /// Takes weights published under timm's, torchvision's or Hugging Face's names, with or without prefixes of training
    /// scripts; position table and patch kernels are
    /// resized to this network's.
    ///
    /// # Errors
    /// [`PretrainedError`], and then the network is as it was.
    pub fn load_pretrained(
        &mut self,
        tensors: &NamedTensors,
        options: LoadOptions,
    ) -> Result<LoadReport, PretrainedError> {
        let own = self.to_tensors();
        let names: BTreeSet<String> = own.keys().cloned().collect();
        let naming = translate(tensors, &names);
        let mut loading = Loading::new(&own, self.head_names(), options);
        for (name, first) in naming.second {
            let shape = tensors.get(&name).map(|data| data.shape().to_vec()).unwrap_or_default();
            loading.ignore(vec![name], shape, format!("a second network; `{first}` is taken"));
        }
        for renamed in naming.renamed {
            loading.place(renamed);
        }
        loading.fold_class_position();
        loading.fill();
        if !loading.not_finite.is_empty() {
            return Err(PretrainedError::NotFinite { problems: loading.not_finite });
        }
        if !loading.problems.is_empty() && !options.allow_unexpected {
            return Err(PretrainedError::Misfit { problems: loading.problems });
        }
        self.load_tensors(&loading.merged)?;
        Ok(LoadReport::new(loading.rows))
    }

    /// Weight and bias of the linear classifier.
    fn head_names(&self) -> Vec<String> {
        let parameters = self.parameters();
        let weight = parameters.iter().find(|p| p.depth == 0 && p.shape.len() == 2);
        let stem = weight.and_then(|p| p.name.strip_suffix(".weight")).unwrap_or_default();
        parameters
            .iter()
            .filter(|p| p.name.rsplit_once('.').is_some_and(|(s, _)| s == stem))
            .map(|p| p.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::vit::{Pooling, VitConfig};
    use crate::{ClassifierConfig, Outcome};

    fn config(image_size: usize, classes: usize) -> ClassifierConfig {
        ClassifierConfig::Vit(VitConfig {
            image_size,
            patch: 4,
            dim: 8,
            depth: 1,
            heads: 2,
            mlp_ratio: 2.0,
            drop_path: 0.0,
            pooling: Pooling::ClassToken,
            registers: 0,
            layer_scale: None,
            class_position: true,
            classes,
        })
    }

    #[test]
    fn another_size_and_class_count_take_everything_but_the_head() {
        let device = Device::flex();
        let source = config(16, 7).init(1, &device).expect("valid").to_tensors();
        let source: NamedTensors = source.into_iter().map(|(k, v)| (format!("module.{k}"), v)).collect();
        let mut net = config(24, 3).init(2, &device).expect("valid");
        let head = net.to_tensors()["head.weight"].clone();
        let report = net.load_pretrained(&source, LoadOptions::default()).expect("fits");
        assert_eq!(report.count(Outcome::Resized), 1);
        assert_eq!((report.count(Outcome::New), report.count(Outcome::Ignored)), (2, 2), "the heads");
        let now = net.to_tensors();
        assert_eq!(now["head.weight"], head);
        assert_eq!(now["blocks.0.attn.qkv.weight"], source["module.blocks.0.attn.qkv.weight"]);
        assert_eq!(now["pos_embed"].shape().as_slice(), [1, 37, 8]);
    }

    #[test]
    fn a_network_of_another_width_is_refused() {
        let device = Device::flex();
        let source = ClassifierConfig::preset("vit_tiny_patch2_32", 3).expect("known");
        let source = source.blank(&device).expect("valid").to_tensors();
        let mut net = config(32, 3).blank(&device).expect("valid");
        let before = net.to_tensors();
        let error =
            net.load_pretrained(&source, LoadOptions::default()).expect_err("another width").to_string();
        assert!(
            error.contains("`blocks.0.attn.proj.bias` has shape [192], the network needs [8]"),
            "{error}"
        );
        assert!(error.contains("more"), "{error}");
        assert_eq!(net.to_tensors(), before);
    }

    #[test]
    fn every_parameter_and_every_tensor_is_in_the_report() {
        let device = Device::flex();
        for (name, classes, head) in
            [("resnet8", 3, Head::Keep), ("resnet8", 4, Head::Keep), ("resnet8", 3, Head::New)]
        {
            let source = ClassifierConfig::preset(name, 3).expect("known").init(1, &device).expect("valid");
            let mut source = source.to_tensors();
            source.remove("bn1.num_batches_tracked");
            source.insert("projector.0.weight".into(), TensorData::new(vec![0f32; 4], [2, 2]));
            let mut net =
                ClassifierConfig::preset(name, classes).expect("known").init(2, &device).expect("valid");
            let options = LoadOptions { head, ..LoadOptions::default() };
            let report = net.load_pretrained(&source, options).expect("fits");
            let counts =
                [Outcome::Loaded, Outcome::Resized, Outcome::New, Outcome::Ignored].map(|o| report.count(o));
            let kept = head == Head::Keep && classes == 3;
            assert_eq!(counts[2..], if kept { [1, 1] } else { [3, 3] });
            assert_eq!(counts[0] + counts[1] + counts[2], net.to_tensors().len());
            assert_eq!(counts[0] + counts[1] + counts[3], source.len());
            assert_eq!(net.to_tensors()["fc.bias"] == source["fc.bias"], kept);
        }
    }

    #[test]
    fn what_is_unexpected_is_an_error_unless_allowed_and_nan_is_one_always() {
        let device = Device::flex();
        let source = config(16, 3).init(1, &device).expect("valid").to_tensors();
        let load = |change: &dyn Fn(&mut NamedTensors), allow_unexpected| {
            let mut tensors = source.clone();
            change(&mut tensors);
            let mut net = config(16, 3).init(2, &device).expect("valid");
            net.load_pretrained(&tensors, LoadOptions { allow_unexpected, ..LoadOptions::default() })
        };
        type Change<'a> = (&'a str, &'a dyn Fn(&mut NamedTensors));
        let changes: [Change<'_>; 3] = [
            ("`norm.bias` [8] is missing", &|t| drop(t.remove("norm.bias"))),
            ("`gate` [1] is no part of it", &|t| {
                drop(t.insert("gate".into(), TensorData::new(vec![1f32], [1])))
            }),
            ("`module.norm.bias` and `norm.bias` are both for `norm.bias`", &|t| {
                drop(t.insert("module.norm.bias".into(), t["norm.bias"].clone()));
            }),
        ];
        for (words, change) in changes {
            let error = load(change, false).expect_err("unexpected").to_string();
            assert!(error.contains(words) || words.contains("both") && error.contains("both"), "{error}");
            load(change, true).expect("allowed");
        }
        let nan: &dyn Fn(&mut NamedTensors) =
            &|t| drop(t.insert("norm.bias".into(), TensorData::new(vec![f32::NAN; 8], [8])));
        for allowed in [false, true] {
            let error = load(nan, allowed).expect_err("no numbers").to_string();
            assert!(error.contains("`norm.bias` holds NaN"), "{error}");
        }
    }
}
