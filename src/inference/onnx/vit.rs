//! A vision transformer, in the order of `harvest_models::vit`.

use harvest_models::layers::LayerNorm;
use harvest_models::vit::{Pooling, VitConfig};

use super::OnnxError;
use super::graph::{Value, int, ints};
use super::lowering::{Lowering, Window};

/// Normalised images `[B, 3, H, W]` → the output `logits`.
pub fn lower(config: &VitConfig, lowering: &mut Lowering<'_>, images: &str) -> Result<(), OnnxError> {
    let mut tokens = embed(config, lowering, images)?;
    for block in 0..config.depth {
        let name = format!("blocks.{block}");
        let normed = norm(lowering, &tokens, &format!("{name}.norm1"))?;
        let branch = attention(config, lowering, &normed, &format!("{name}.attn"))?;
        tokens = add_branch(config, lowering, &tokens, branch, &format!("{name}.ls1"))?;
        let normed = norm(lowering, &tokens, &format!("{name}.norm2"))?;
        let hidden = lowering.linear(&normed, &format!("{name}.mlp.fc1"))?;
        let hidden = lowering.gelu(&hidden);
        let branch = lowering.linear(&hidden, &format!("{name}.mlp.fc2"))?;
        tokens = add_branch(config, lowering, &tokens, branch, &format!("{name}.ls2"))?;
    }
    let features = pool(config, lowering, &tokens)?;
    lowering.head(&features, "head")
}

fn norm(lowering: &mut Lowering<'_>, x: &str, name: &str) -> Result<Value, OnnxError> {
    lowering.layer_norm(x, name, LayerNorm::EPS)
}

/// `x + branch`, the branch times its factors where the network has some.
fn add_branch(
    config: &VitConfig,
    lowering: &mut Lowering<'_>,
    x: &str,
    mut branch: Value,
    scale: &str,
) -> Result<Value, OnnxError> {
    if config.layer_scale.is_some() {
        branch = lowering.scaled(&branch, &format!("{scale}.gamma"))?;
    }
    Ok(lowering.graph.node("Add", &[x, &branch], Vec::new()))
}

/// Tokens of the patches behind the class token and the registers, `[B, 1 + R + T, D]`.
fn embed(config: &VitConfig, lowering: &mut Lowering<'_>, images: &str) -> Result<Value, OnnxError> {
    let window = Window { stride: config.patch, padding: 0, groups: 1 };
    let patches = lowering.conv(images, "patch_embed.proj", window)?;
    let position = lowering.parameter("pos_embed")?;
    let patches = lowering.graph.reshape(&patches, &[0, config.dim as i64, -1]);
    let mut patches = lowering.graph.transpose(&patches, &[0, 2, 1]);
    if !config.class_position {
        patches = lowering.graph.node("Add", &[&patches, &position], Vec::new());
    }
    let mut tokens = vec![repeated(lowering, "cls_token", &patches, [1, config.dim])?];
    if config.registers > 0 {
        tokens.push(repeated(lowering, "reg_token", &patches, [config.registers, config.dim])?);
    }
    tokens.push(patches);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let tokens = lowering.graph.node("Concat", &tokens, vec![int("axis", 1)]);
    if !config.class_position {
        return Ok(tokens);
    }
    Ok(lowering.graph.node("Add", &[&tokens, &position], Vec::new()))
}

/// The parameter `name`, `[1, count, D]`, once for each image of `like`; how many there are is known when the graph runs.
fn repeated(
    lowering: &mut Lowering<'_>,
    name: &str,
    like: &str,
    shape: [usize; 2],
) -> Result<Value, OnnxError> {
    let parameter = lowering.parameter(name)?;
    let graph = &mut lowering.graph;
    let whole = graph.node("Shape", &[like], Vec::new());
    let batch = graph.slice(&whole, 0, 0, 1);
    let rest = graph.integers(&format!("{name}.shape"), &shape.map(|length| length as i64));
    let shape = graph.node("Concat", &[&batch, &rest], vec![int("axis", 0)]);
    Ok(graph.node("Expand", &[&parameter, &shape], Vec::new()))
}

fn attention(
    config: &VitConfig,
    lowering: &mut Lowering<'_>,
    x: &str,
    name: &str,
) -> Result<Value, OnnxError> {
    let (heads, width) = (config.heads as i64, config.dim / config.heads);
    let joined = lowering.linear(x, &format!("{name}.qkv"))?;
    let graph = &mut lowering.graph;
    let [queries, keys, values] =
        graph.thirds(&joined, config.dim).map(|part| graph.reshape(&part, &[0, 0, heads, width as i64]));
    let queries = graph.transpose(&queries, &[0, 2, 1, 3]);
    let queries = graph.with_number("Mul", &queries, 1.0 / (width as f32).sqrt());
    let keys = graph.transpose(&keys, &[0, 2, 3, 1]);
    let values = graph.transpose(&values, &[0, 2, 1, 3]);
    let scores = graph.node("MatMul", &[&queries, &keys], Vec::new());
    let weights = graph.node("Softmax", &[&scores], vec![int("axis", -1)]);
    let mixed = graph.node("MatMul", &[&weights, &values], Vec::new());
    let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
    let mixed = graph.reshape(&mixed, &[0, 0, config.dim as i64]);
    lowering.linear(&mixed, &format!("{name}.proj"))
}

/// `[B, 1 + R + T, D]` → `[B, D]`
fn pool(config: &VitConfig, lowering: &mut Lowering<'_>, tokens: &str) -> Result<Value, OnnxError> {
    match config.pooling {
        Pooling::ClassToken => {
            let class = lowering.graph.slice(tokens, 1, 0, 1);
            let class = norm(lowering, &class, "norm")?;
            Ok(lowering.graph.reshape(&class, &[0, config.dim as i64]))
        }
        Pooling::MeanOfPatches => {
            let count = (config.image_size / config.patch).pow(2) as i64;
            let before = 1 + config.registers as i64;
            let patches = lowering.graph.slice(tokens, 1, before, before + count);
            let patches = norm(lowering, &patches, "norm")?;
            let attributes = vec![ints("axes", &[1]), int("keepdims", 0)];
            Ok(lowering.graph.node("ReduceMean", &[&patches], attributes))
        }
    }
}
