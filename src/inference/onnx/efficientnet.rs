//! A network of inverted residuals, in the order of `harvest_models::efficientnet`.

use harvest_models::efficientnet::{EfficientNetConfig, StageConfig};

use super::OnnxError;
use super::graph::{Value, int};
use super::lowering::{Lowering, Window};

/// Normalised images `[B, 3, H, W]` → the output `logits`.
pub fn lower(
    config: &EfficientNetConfig,
    lowering: &mut Lowering<'_>,
    images: &str,
) -> Result<(), OnnxError> {
    let stem = Window { stride: 2, padding: 1, groups: 1 };
    let mut x = conv(lowering, images, "conv_stem", "bn1", stem)?;
    x = relu6(lowering, &x);
    let mut channels = config.stem;
    for (i, stage) in config.stages.iter().enumerate() {
        for j in 0..stage.blocks {
            let stride = if j == 0 { stage.stride } else { 1 };
            x = block(stage, lowering, &x, &format!("blocks.{i}.{j}"), channels, stride)?;
            channels = stage.channels;
        }
    }
    x = conv(lowering, &x, "conv_head", "bn2", POINT)?;
    x = relu6(lowering, &x);
    let pooled = lowering.graph.node("GlobalAveragePool", &[&x], Vec::new());
    let features = lowering.graph.node("Flatten", &[&pooled], vec![int("axis", 1)]);
    lowering.head(&features, "classifier")
}

/// A convolution of single places.
const POINT: Window = Window { stride: 1, padding: 0, groups: 1 };

/// Up (unless the expansion is 1), depthwise, down; plus the shortcut where size and channels stay.
fn block(
    stage: &StageConfig,
    lowering: &mut Lowering<'_>,
    x: &str,
    name: &str,
    channels: usize,
    stride: usize,
) -> Result<Value, OnnxError> {
    let part = |part: &str| format!("{name}.{part}");
    // A depthwise kernel for each channel, whose number the network rounds.
    let groups = lowering.outputs(&part("conv_dw"))?;
    let depthwise = Window { stride, padding: stage.kernel / 2, groups };
    let layers = [("conv_pw", "bn1", POINT), ("conv_dw", "bn2", depthwise), ("conv_pwl", "bn3", POINT)];
    let separable = [("conv_dw", "bn1", depthwise), ("conv_pw", "bn2", POINT)];
    let layers = if stage.expansion == 1 { &separable[..] } else { &layers[..] };
    let mut y = x.to_owned();
    for (i, (convolution, norm, window)) in layers.iter().enumerate() {
        y = conv(lowering, &y, &part(convolution), &part(norm), *window)?;
        if i + 1 < layers.len() {
            y = relu6(lowering, &y);
        }
    }
    if stride == 1 && channels == stage.channels {
        y = lowering.graph.node("Add", &[x, &y], Vec::new());
    }
    Ok(y)
}

fn conv(
    lowering: &mut Lowering<'_>,
    x: &str,
    name: &str,
    norm: &str,
    window: Window,
) -> Result<Value, OnnxError> {
    let y = lowering.conv(x, name, window)?;
    lowering.batch_norm(&y, norm)
}

fn relu6(lowering: &mut Lowering<'_>, x: &str) -> Value {
    let [low, high] =
        [("zero", 0.0), ("six", 6.0)].map(|(name, value)| lowering.graph.floats(name, &[], &[value]));
    lowering.graph.node("Clip", &[x, &low, &high], Vec::new())
}
