//! Vision transformer: Dosovitskiy et al., arXiv:2010.11929, with timm's parameter names.
//!
//! `B` images, `T` patches, `R` registers, `D` values a token. Pre-norm blocks, exact GELU, a learned position table
//! with one more row for the class token. The networks of USB (semilearn 0.3.2) differ from timm's in size only; those
//! of DINOv2 (Oquab et al., arXiv:2304.07193) scale each branch and may have registers, tokens that belong to no patch
//! (Darcet et al., arXiv:2309.16588).

use burn::Tensor;
use burn::module::{Module, Param};
use serde::{Deserialize, Serialize};

use crate::Output;
use crate::adapter::Adapter;
use crate::config::ConfigError;
use crate::initial::{Initialiser, Start};
use crate::layers::{LayerNorm, LayerScale, Linear, Patches};
use crate::mode::{Mode, Precision, leave};
use crate::tuning::Tuning;

/// Shape of a [`Vit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the square input, in pixels; a multiple of `patch`.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Values a token, `D`; a multiple of `heads`.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads in each block.
    pub heads: usize,
    /// Width of each block's hidden layer over `dim`.
    #[serde(default = "mlp_ratio")]
    pub mlp_ratio: f64,
    /// Stochastic depth: drop rate of the last block, from 0 at the first in equal steps; in `[0, 1)`.
    #[serde(default)]
    pub drop_path: f64,
    /// What the features are.
    #[serde(default)]
    pub pooling: Pooling,
    /// Registers, `R`: learned tokens that take part in attention and are dropped at the end.
    #[serde(default)]
    pub registers: usize,
    /// Starting value of the factors of each branch; absent: the branches have none. DINOv2: 1e-5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_scale: Option<f64>,
    /// Whether the position table has rows for the class token and the registers, or for patches only (timm's
    /// `no_embed_class`).
    #[serde(default = "yes")]
    pub class_position: bool,
    /// Number of classes.
    pub classes: usize,
}

fn yes() -> bool {
    true
}

fn mlp_ratio() -> f64 {
    4.0
}

/// What of the last block's output becomes the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The normalised class token, as in the paper, in timm and in USB.
    #[default]
    ClassToken,
    /// The mean of the normalised patch tokens. The class token still takes part in attention.
    MeanOfPatches,
}

impl VitConfig {
    /// What is wrong with this configuration, if anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("image_size", self.image_size),
            ("patch", self.patch),
            ("dim", self.dim),
            ("depth", self.depth),
            ("heads", self.heads),
            ("classes", self.classes),
        ];
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { field });
        }
        for (field, value, of, divisor) in
            [("image_size", self.image_size, "patch", self.patch), ("dim", self.dim, "heads", self.heads)]
        {
            if !value.is_multiple_of(divisor) {
                return Err(ConfigError::NotAMultiple { field, value, of, divisor });
            }
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(ConfigError::Range { field: "drop_path", value: self.drop_path, range: "[0, 1)" });
        }
        if let Some(value) = self.layer_scale.filter(|value| !value.is_finite()) {
            return Err(ConfigError::Range { field: "layer_scale", value, range: "finite" });
        }
        if !self.mlp_ratio.is_finite() || self.hidden() == 0 {
            return Err(ConfigError::Range { field: "mlp_ratio", value: self.mlp_ratio, range: "above 0" });
        }
        Ok(())
    }

    fn hidden(&self) -> usize {
        (self.dim as f64 * self.mlp_ratio) as usize
    }

    /// With `more` hidden units in every block.
    pub(crate) fn wider(&self, more: usize) -> Self {
        let hidden = self.hidden() + more;
        let wider = |units: f64| VitConfig { mlp_ratio: units / self.dim as f64, ..self.clone() };
        let exact = wider(hidden as f64);
        // Where rounding loses a unit on the way back, half a unit more brings it back.
        if exact.hidden() == hidden { exact } else { wider(hidden as f64 + 0.5) }
    }

    pub(crate) fn patches(&self) -> usize {
        (self.image_size / self.patch).pow(2)
    }

    /// Rows of the position table.
    fn positions(&self) -> usize {
        self.patches() + if self.class_position { 1 + self.registers } else { 0 }
    }
}

/// A vision transformer with a linear classifier.
#[derive(Module, Debug)]
pub struct Vit {
    /// `[1, 1, D]`
    pub cls_token: Param<Tensor<3>>,
    /// `[1, R, D]`
    pub reg_token: Option<Param<Tensor<3>>>,
    /// `[1, 1 + R + T, D]`, or `[1, T, D]`
    pub pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    /// Drop rate of each branch: two for each block.
    #[module(skip)]
    rates: Vec<f32>,
    #[module(skip)]
    pooling: Pooling,
    class_position: bool,
    #[module(skip)]
    precision: Precision,
}

/// Every matrix and the position table: normal with deviation 0.02 (timm truncates at ±2, a hundred deviations away).
const WEIGHT: Start = Start::Normal(0.02);
const ZERO: Start = Start::Constant(0.0);

impl Vit {
    /// A network of this shape; parameters start as timm's.
    pub fn new(config: &VitConfig, init: &Initialiser) -> Result<Self, ConfigError> {
        config.validate()?;
        let dim = config.dim;
        let steps = config.depth.saturating_sub(1).max(1) as f64;
        let rate = |block: usize| (config.drop_path * block as f64 / steps) as f32;
        // timm leaves this layer as PyTorch starts convolutions.
        let start = Start::torch_default(3 * config.patch * config.patch);
        let patch_embed = init.part("patch_embed");
        Ok(Vit {
            cls_token: init.parameter("cls_token", [1, 1, dim], Start::Normal(1e-6)),
            reg_token: (config.registers > 0)
                .then(|| init.parameter("reg_token", [1, config.registers, dim], Start::Normal(1e-6))),
            pos_embed: init.parameter("pos_embed", [1, config.positions(), dim], WEIGHT),
            patch_embed: PatchEmbed {
                proj: Patches::new(&patch_embed.part("proj"), 3, dim, config.patch, start, start),
            },
            blocks: (0..config.depth).map(|i| Block::new(config, &init.part("blocks").part(i))).collect(),
            norm: LayerNorm::new(&init.part("norm"), dim),
            head: Linear::new(&init.part("head"), dim, config.classes, WEIGHT, ZERO),
            rates: (0..config.depth).flat_map(|i| [rate(i); 2]).collect(),
            pooling: config.pooling,
            class_position: config.class_position,
            precision: Precision::F32,
        })
    }

    /// Images `[B, 3, H, W]` → features `[B, D]` and logits `[B, classes]`.
    ///
    /// # Panics
    /// When the images do not have the configured size.
    pub fn forward(&self, images: Tensor<4>, mode: Mode<'_>) -> Output {
        let path = mode.drop_path(&self.rates, &images);
        let mut tokens = self.embed(images); // eq. 1: `[B, 1 + R + T, D]`
        for (i, block) in self.blocks.iter().enumerate() {
            let left = self.blocks.len() - i;
            tokens = mode.tap(tokens, left);
            // Tokens act on each other in attention alone: of the last block only what is read of it need be computed.
            let wanted = match self.pooling {
                Pooling::ClassToken if left == 1 => Wanted::ClassToken,
                _ => Wanted::AllTokens,
            };
            let keep = [2 * i, 2 * i + 1].map(|branch| path.keep(branch));
            tokens = block.forward(tokens, wanted, keep, self.precision); // eq. 2, 3
        }
        let features = mode.tap(self.pool(tokens), 0); // eq. 4
        // The head is small: in `f32` it costs nothing and the logits keep all their bits.
        let logits = self.head.forward(features.clone(), Precision::F32);
        Output { features, logits }
    }

    /// Tokens of the patches, behind the class token and the registers, each with its row of the position table.
    fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let patches = leave(self.patch_embed.proj.forward(images, self.precision));
        let [batch, rows, columns, dim] = patches.dims();
        let mut patches = patches.reshape([batch, rows * columns, dim]);
        if !self.class_position {
            patches = patches + self.pos_embed.val();
        }
        let mut tokens = vec![self.cls_token.val().expand([batch, 1, dim])];
        tokens.extend(self.reg_token.as_ref().map(|registers| {
            let registers = registers.val();
            let [_, count, _] = registers.dims();
            registers.expand([batch, count, dim])
        }));
        tokens.push(patches);
        let tokens = Tensor::cat(tokens, 1);
        if self.class_position { tokens + self.pos_embed.val() } else { tokens }
    }

    /// `[B, 1 + R + T, D]` → `[B, D]`
    fn pool(&self, tokens: Tensor<3>) -> Tensor<2> {
        let [batch, count, dim] = tokens.dims();
        // The norm acts on each token alone, so tokens that are not used need none.
        let chosen = match self.pooling {
            Pooling::ClassToken => self.norm.forward(tokens.narrow(1, 0, 1)),
            Pooling::MeanOfPatches => {
                let before = 1 + self.reg_token.as_ref().map_or(0, |registers| registers.dims()[1]);
                self.norm.forward(tokens.narrow(1, before, count - before)).mean_dim(1)
            }
        };
        chosen.reshape([batch, dim])
    }

    /// Adds parameters to each block; the output stays the same.
    pub(crate) fn add(&mut self, tuning: Tuning, init: &Initialiser) {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let init = init.part("blocks").part(i);
            match tuning {
                Tuning::Lora { rank, scale } => {
                    let attn = init.part("attn");
                    block.attn.qkv.add_low_rank(&attn.part("qkv"), rank, scale);
                    block.attn.proj.add_low_rank(&attn.part("proj"), rank, scale);
                }
                Tuning::Adapter { rank, scale } => {
                    let dim = block.mlp.fc1.weight.val().dims()[0];
                    let init = init.part("mlp").part("adapter");
                    block.mlp.adapter = Some(Adapter::new(&init, dim, rank, scale));
                }
            }
        }
    }

    /// Makes what was added a part of the ordinary layers. Off autodiff.
    pub(crate) fn merge(&mut self) {
        for block in &mut self.blocks {
            block.attn.qkv.merge();
            block.attn.proj.merge();
            block.mlp.merge();
        }
    }

    pub(crate) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Patches,
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`, each branch times its factors where there are some.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
}

impl Block {
    fn new(config: &VitConfig, init: &Initialiser) -> Self {
        let dim = config.dim;
        let linear = |init: Initialiser, d_in, d_out| Linear::new(&init, d_in, d_out, WEIGHT, ZERO);
        let scale =
            |name: &str| config.layer_scale.map(|value| LayerScale::new(&init.part(name), dim, value));
        let (attn, mlp) = (init.part("attn"), init.part("mlp"));
        Block {
            norm1: LayerNorm::new(&init.part("norm1"), dim),
            attn: Attention {
                qkv: linear(attn.part("qkv"), dim, 3 * dim),
                proj: linear(attn.part("proj"), dim, dim),
                heads: config.heads,
            },
            ls1: scale("ls1"),
            norm2: LayerNorm::new(&init.part("norm2"), dim),
            mlp: Mlp {
                fc1: linear(mlp.part("fc1"), dim, config.hidden()),
                fc2: linear(mlp.part("fc2"), config.hidden(), dim),
                adapter: None,
            },
            ls2: scale("ls2"),
        }
    }

    /// Tokens `[B, 1 + R + T, D]`; `keep`: the branches' factors from stochastic depth. Returns the wanted tokens.
    fn forward(
        &self,
        x: Tensor<3>,
        wanted: Wanted,
        keep: [Option<Tensor<1>>; 2],
        precision: Precision,
    ) -> Tensor<3> {
        let [keep_attention, keep_mlp] = keep;
        let x = self.norm1.residual(x, keep_attention, |normal| {
            scaled(&self.ls1, leave(self.attn.forward(normal, wanted, precision)))
        });
        self.norm2
            .residual(x, keep_mlp, |normal| scaled(&self.ls2, leave(self.mlp.forward(normal, precision))))
    }
}

fn scaled(scale: &Option<LayerScale>, branch: Tensor<3>) -> Tensor<3> {
    match scale {
        Some(scale) => scale.forward(branch),
        None => branch,
    }
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl Attention {
    fn forward(&self, x: Tensor<3>, wanted: Wanted, precision: Precision) -> Tensor<3> {
        let products = precision.products();
        let mixed = match wanted {
            Wanted::ClassToken if self.qkv.low_rank.is_none() => {
                let (weight, bias) =
                    (precision.enter(self.qkv.weight.val()), precision.enter(self.qkv.bias.val()));
                harvest_kernels::class_attention(precision.enter(x), weight, bias, self.heads, products)
            }
            _ => {
                let qkv = self.qkv.forward(x, precision);
                wanted.of(harvest_kernels::attention_with(qkv, self.heads, products))
            }
        };
        self.proj.forward(mixed, precision)
    }
}

/// Which of a block's results are read.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    AllTokens,
    ClassToken,
}

impl Wanted {
    /// These of the tokens `[B, T, D]`.
    fn of(self, tokens: Tensor<3>) -> Tensor<3> {
        match self {
            Wanted::AllTokens => tokens,
            Wanted::ClassToken => tokens.narrow(1, 0, 1),
        }
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    /// What tuning adds; see [`Classifier::tuned`](crate::Classifier::tuned).
    adapter: Option<Adapter>,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>, precision: Precision) -> Tensor<3> {
        let added = self.adapter.as_ref().map(|adapter| adapter.forward(x.clone(), precision));
        let y = self.fc2.forward(self.fc1.forward_gelu(x, precision), precision);
        match added {
            Some(added) => y + added,
            None => y,
        }
    }

    fn merge(&mut self) {
        if let Some(adapter) = self.adapter.take() {
            (self.fc1, self.fc2) = adapter.widen(&self.fc1, &self.fc2);
        }
    }
}
