//! The list of parameters, and how training treats each: depth for layer-wise learning rates, weight decay or not.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::classifier::Classifier;
use crate::config::ClassifierConfig;

/// A parameter, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// PyTorch's name, such as `blocks.0.attn.qkv.weight`.
    pub name: String,
    /// burn's key for it, by which gradients are found; equal in clones and in [`Classifier::detached`].
    pub id: ParamId,
    /// As in PyTorch: weights of affine maps are `[out, in]`.
    pub shape: Vec<usize>,
    /// Whether its gradient is tracked now.
    pub tracked: bool,
    /// Layers above it: 0 for the classifier, 1 for the last block and the final norm, and so on down to the embedding.
    pub depth: usize,
    /// Whether weight decay applies.
    pub decays: bool,
}

impl Classifier {
    /// Every trainable parameter, in PyTorch's order. Running statistics are not among them.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        let mut parameters = list(self);
        let blocks = parameters.iter().filter_map(|p| block_of(&p.name)).collect::<Vec<_>>();
        for parameter in &mut parameters {
            parameter.depth = depth(&parameter.name, &blocks);
            parameter.decays = decays(&parameter.name, &parameter.shape);
        }
        parameters
    }

    /// Length of [`crate::Output::features`].
    pub fn feature_size(&self) -> usize {
        let classifier = self.parameters().into_iter().find(|p| p.depth == 0 && p.shape.len() == 2);
        classifier.expect("every network ends in a linear classifier").shape[1]
    }

    /// Number of trainable values, as PyTorch counts.
    pub fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }
}

impl ClassifierConfig {
    /// [`ParameterInfo::depth`] of every parameter is at most this: the number of blocks + 1.
    pub fn max_depth(&self) -> usize {
        match self {
            ClassifierConfig::Vit(config) => config.depth + 1,
            ClassifierConfig::ResNet(config) => config.blocks.iter().sum::<usize>() + 1,
            ClassifierConfig::EfficientNet(config) => config.blocks() + 1,
            ClassifierConfig::ConvNext(config) => config.blocks() + 1,
        }
    }
}

/// No weight decay on vectors (biases, norms), the class token, the registers and the position table.
fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() > 1 && !matches!(name, "cls_token" | "reg_token" | "pos_embed")
}

/// True for the parameters of the linear classifier, which another set of classes replaces.
pub(crate) fn is_classifier(name: &str) -> bool {
    let layer = name.rsplit_once('.').map_or(name, |(layer, _)| layer);
    matches!(layer, "head" | "fc" | "classifier" | "head.fc")
}

/// The block that a parameter is part of: (stage, index), stage 0 in a transformer. What brings a stage of ConvNeXt to
/// its resolution counts to the stage's first block.
fn block_of(name: &str) -> Option<(usize, usize)> {
    let number = |part: &str| part.parse::<usize>().ok();
    match *name.split('.').collect::<Vec<_>>().as_slice() {
        ["stages", stage, "downsample", ..] => Some((number(stage)?, 0)),
        ["stages", stage, "blocks", block, ..] => Some((number(stage)?, number(block)?)),
        ["blocks", first, second, ..] => match (number(first)?, number(second)) {
            (stage, Some(block)) => Some((stage, block)),
            (block, None) => Some((0, block)),
        },
        [stage, block, ..] => Some((number(stage.strip_prefix("layer")?)?, number(block)?)),
        _ => None,
    }
}

/// `blocks`: the block of every parameter in order, so that each block is one run of equal entries.
fn depth(name: &str, blocks: &[(usize, usize)]) -> usize {
    let count = |from: &[(usize, usize)]| from.chunk_by(|a, b| a == b).count();
    match (name, block_of(name)) {
        (name, _) if is_classifier(name) => 0,
        (name, None) if ["norm.", "head.norm.", "conv_head.", "bn2."].iter().any(|p| name.starts_with(p)) => {
            1
        }
        (_, Some(block)) => {
            let first = blocks.iter().position(|b| *b == block).unwrap_or(0);
            count(&blocks[first..])
        }
        _ => count(blocks) + 1,
    }
}

/// Joins the names of nested modules. Variants of an enum are not part of PyTorch's names.
#[derive(Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.to_owned());
        }
    }

    pub(crate) fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    pub(crate) fn name(&self) -> String {
        self.0.join(".")
    }
}

/// The parameters of any module, all at depth 0 and without decay.
pub(crate) fn list<M: Module>(module: &M) -> Vec<ParameterInfo> {
    let mut list = List::default();
    module.visit(&mut list);
    list.parameters
}

#[derive(Default)]
struct List {
    path: Path,
    parameters: Vec<ParameterInfo>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let mut shape = tensor.dims().to_vec();
        if D == 2 {
            shape.reverse();
        }
        self.parameters.push(ParameterInfo {
            name: self.path.name(),
            id: param.id,
            shape,
            tracked: tensor.is_require_grad(),
            depth: 0,
            decays: false,
        });
    }
}
