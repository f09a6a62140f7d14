//! A ConvNeXt, in the order of `harvest_models::convnext`.

use harvest_models::convnext::ConvNextConfig;
use harvest_models::layers::LayerNorm;

use super::OnnxError;
use super::graph::{Value, int, ints};
use super::lowering::{Lowering, Window};

/// Normalised images `[B, 3, H, W]` → the output `logits`.
pub fn lower(config: &ConvNextConfig, lowering: &mut Lowering<'_>, images: &str) -> Result<(), OnnxError> {
    let mut x = lowering.conv(images, "stem.0", patches(4))?;
    x = norm(lowering, &x, "stem.1")?;
    for (i, stage) in config.stages.iter().enumerate() {
        let name = format!("stages.{i}");
        if i > 0 {
            x = norm(lowering, &x, &format!("{name}.downsample.0"))?;
            x = lowering.conv(&x, &format!("{name}.downsample.1"), patches(2))?;
        }
        for block in 0..stage.blocks {
            x = self::block(lowering, &x, &format!("{name}.blocks.{block}"), stage.dim)?;
        }
    }
    let mean = lowering.graph.node("ReduceMean", &[&x], vec![ints("axes", &[2, 3]), int("keepdims", 0)]);
    let features = lowering.layer_norm(&mean, "head.norm", LayerNorm::EPS)?;
    lowering.head(&features, "head.fc")
}

/// Squares of `side` pixels that do not overlap.
fn patches(side: usize) -> Window {
    Window { stride: side, padding: 0, groups: 1 }
}

/// `x + gamma · mlp(norm(depthwise(x)))`
fn block(lowering: &mut Lowering<'_>, x: &str, name: &str, dim: usize) -> Result<Value, OnnxError> {
    let window = Window { stride: 1, padding: 3, groups: dim };
    let mixed = lowering.conv(x, &format!("{name}.conv_dw"), window)?;
    let places = lowering.graph.transpose(&mixed, &[0, 2, 3, 1]);
    let places = lowering.layer_norm(&places, &format!("{name}.norm"), LayerNorm::EPS)?;
    let hidden = lowering.linear(&places, &format!("{name}.mlp.fc1"))?;
    let hidden = lowering.gelu(&hidden);
    let branch = lowering.linear(&hidden, &format!("{name}.mlp.fc2"))?;
    let branch = lowering.scaled(&branch, &format!("{name}.gamma"))?;
    let branch = lowering.graph.transpose(&branch, &[0, 3, 1, 2]);
    Ok(lowering.graph.node("Add", &[x, &branch], Vec::new()))
}

/// Normalises the channels of each place of `[B, D, H, W]`.
fn norm(lowering: &mut Lowering<'_>, x: &str, name: &str) -> Result<Value, OnnxError> {
    let places = lowering.graph.transpose(x, &[0, 2, 3, 1]);
    let places = lowering.layer_norm(&places, name, LayerNorm::EPS)?;
    Ok(lowering.graph.transpose(&places, &[0, 3, 1, 2]))
}
