//! A residual network, in the order of `harvest_models::resnet`.

use harvest_models::resnet::{BlockKind, ResNetConfig, Stem};

use super::OnnxError;
use super::graph::{Value, int, ints};
use super::lowering::{Lowering, Window};

/// Normalised images `[B, 3, H, W]` → the output `logits`.
pub fn lower(config: &ResNetConfig, lowering: &mut Lowering<'_>, images: &str) -> Result<(), OnnxError> {
    let (kernel, stride) = match config.stem {
        Stem::Standard => (7, 2),
        Stem::SmallImage => (3, 1),
    };
    let mut x = conv(lowering, images, "conv1", "bn1", kernel, stride)?;
    x = relu(lowering, &x);
    if config.stem == Stem::Standard {
        let attributes = vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1; 4])];
        x = lowering.graph.node("MaxPool", &[&x], attributes);
    }
    for (stage, blocks) in config.blocks.iter().enumerate() {
        for index in 0..*blocks {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            x = block(config.block, lowering, &x, &format!("layer{}.{index}", stage + 1), stride)?;
        }
    }
    let pooled = lowering.graph.node("GlobalAveragePool", &[&x], Vec::new());
    let features = lowering.graph.node("Flatten", &[&pooled], vec![int("axis", 1)]);
    lowering.head(&features, "fc")
}

/// `relu(shortcut(x) + branch(x))`
fn block(
    kind: BlockKind,
    lowering: &mut Lowering<'_>,
    x: &str,
    name: &str,
    stride: usize,
) -> Result<Value, OnnxError> {
    // Kernel and stride of each convolution of the branch.
    let branch: &[(usize, usize)] = match kind {
        BlockKind::Basic => &[(3, stride), (3, 1)],
        BlockKind::Bottleneck => &[(1, 1), (3, stride), (1, 1)],
    };
    let mut y = x.to_owned();
    for (i, (kernel, stride)) in branch.iter().enumerate() {
        let number = i + 1;
        let (convolution, norm) = (format!("{name}.conv{number}"), format!("{name}.bn{number}"));
        y = conv(lowering, &y, &convolution, &norm, *kernel, *stride)?;
        if number < branch.len() {
            y = relu(lowering, &y);
        }
    }
    let (convolution, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
    let shortcut = match lowering.has(&format!("{convolution}.weight")) {
        true => conv(lowering, x, &convolution, &norm, 1, stride)?,
        false => x.to_owned(),
    };
    let sum = lowering.graph.node("Add", &[&y, &shortcut], Vec::new());
    Ok(relu(lowering, &sum))
}

/// A convolution padded so that stride 1 keeps the size, then batch normalisation.
fn conv(
    lowering: &mut Lowering<'_>,
    x: &str,
    name: &str,
    norm: &str,
    kernel: usize,
    stride: usize,
) -> Result<Value, OnnxError> {
    let y = lowering.conv(x, name, Window { stride, padding: kernel / 2, groups: 1 })?;
    lowering.batch_norm(&y, norm)
}

fn relu(lowering: &mut Lowering<'_>, x: &str) -> Value {
    lowering.graph.node("Relu", &[x], Vec::new())
}
