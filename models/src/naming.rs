//! Other programs' names for the same parameters.
//!
//! Inside, parameters carry timm's and torchvision's names. Training scripts put the names of their wrappers before them
//! (`module.backbone.`), Hugging Face and torchvision name the parts of a vision transformer differently, as torchvision
//! does those of a ConvNeXt, and Hugging Face keeps query, key and value apart.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;

use crate::NamedTensors;

/// What wrappers put before a name. A prefix is taken off only while the rest is no name of the network.
const PREFIXES: [&str; 18] = [
    "module.",
    "_orig_mod.",
    "state_dict.",
    "backbone.",
    "teacher.",
    "student.",
    "encoder_q.",
    "base_encoder.",
    "momentum_encoder.",
    "online_network.",
    "encoder.",
    "vit.",
    "dinov2.",
    "model.",
    "net.",
    "network.",
    "base_model.",
    "trunk.",
];

/// First components of weights that other trainings keep beside a network and that mean nothing to it.
const FOREIGN: [&str; 25] = [
    "head",
    "heads",
    "head_dist",
    "fc",
    "classifier",
    "contrastive_head",
    "cluster_head",
    "projector",
    "projection",
    "projection_head",
    "predictor",
    "prototypes",
    "aux_classifier",
    "aux_head",
    "rot_classifier",
    "pooler",
    "pre_logits",
    "mask_token",
    "dist_token",
    "decoder_embed",
    "decoder_pos_embed",
    "decoder_blocks",
    "decoder_norm",
    "decoder_pred",
    "mlp_proj",
];

/// Networks beside the one that is wanted: of two whose parameters would get the same name, the first is kept.
const RIVALS: [(&str, &str); 3] =
    [("teacher", "student"), ("encoder_q", "encoder_k"), ("base_encoder", "momentum_encoder")];

/// A tensor of a file under the network's name.
#[derive(Debug, Clone, PartialEq)]
pub struct Renamed {
    /// The network's name for it, or what is nearest to one.
    pub name: String,
    /// The file's names: three for a joined query, key and value.
    pub from: Vec<String>,
    /// Its numbers.
    pub data: TensorData,
}

/// A file's tensors under a network's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Naming {
    /// Every name once.
    pub renamed: Vec<Renamed>,
    /// The file's names for weights of a second network in it, and what the first is called.
    pub second: Vec<(String, &'static str)>,
}

/// Translates the names of `tensors` to those of a network, which are `own`.
pub fn translate(tensors: &NamedTensors, own: &BTreeSet<String>) -> Naming {
    let mut naming = Naming::default();
    let rival = RIVALS.iter().find(|(first, second)| {
        let has = |part: &str| tensors.keys().any(|name| name.split('.').any(|word| word == part));
        has(first) && has(second)
    });
    let mut parts = BTreeMap::<String, [Option<(&String, &TensorData)>; 3]>::new();
    for (file_name, data) in tensors {
        if let Some((first, second)) = rival
            && file_name.split('.').any(|word| word == *second)
        {
            naming.second.push((file_name.clone(), first));
            continue;
        }
        let name = stripped(file_name, own);
        let convnext = convnext(name).filter(|name| own.contains(name));
        let translated =
            if own.contains(name) { None } else { convnext.or_else(|| vision_transformer(name)) };
        let name = translated.unwrap_or_else(|| name.to_owned());
        match split_part(&name) {
            Some((joined, part)) => parts.entry(joined).or_default()[part] = Some((file_name, data)),
            None => {
                naming.renamed.push(Renamed { name, from: vec![file_name.clone()], data: data.clone() });
            }
        }
    }
    for (name, parts) in parts {
        naming.renamed.extend(join(name, parts));
    }
    naming
}

/// Whether a tensor that the network does not have may be left out without a word: heads and helpers of other trainings.
pub fn is_foreign(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    FOREIGN.contains(&first)
        || matches!(first, "queue" | "queue_ptr" | "register_queue")
        || name.ends_with("mask_token")
}

/// `name` without the wrappers' prefixes.
fn stripped<'a>(name: &'a str, own: &BTreeSet<String>) -> &'a str {
    let mut rest = name;
    while !own.contains(rest) && vision_transformer(rest).is_none() {
        match PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
            Some(shorter) if !shorter.is_empty() => rest = shorter,
            _ => break,
        }
    }
    rest
}

/// timm's name for a parameter of Hugging Face's or torchvision's vision transformer, if it is one.
///
/// Query, key and value stay apart, under the names `….attn.{q,k,v}.…`.
fn vision_transformer(name: &str) -> Option<String> {
    const WHOLE: [(&str, &str); 8] = [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.mask_token", "mask_token"),
        ("embeddings.register_tokens", "reg_token"),
        ("register_tokens", "reg_token"),
        ("class_token", "cls_token"),
        ("encoder.pos_embedding", "pos_embed"),
        ("pos_embedding", "pos_embed"),
    ];
    const BEGINNINGS: [(&str, &str); 7] = [
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("conv_proj.", "patch_embed.proj."),
        ("layernorm.", "norm."),
        ("encoder.ln.", "norm."),
        ("pooler.dense.", "pooler.dense."),
        ("classifier.", "head."),
        ("heads.head.", "head."),
    ];
    if let Some((_, own)) = WHOLE.iter().find(|(other, _)| *other == name) {
        return Some((*own).to_owned());
    }
    for (other, own) in BEGINNINGS {
        if let Some(rest) = name.strip_prefix(other) {
            return Some(format!("{own}{rest}"));
        }
    }
    let block =
        name.strip_prefix("encoder.layer.").or_else(|| name.strip_prefix("encoder.layers.encoder_layer_"))?;
    let (index, part) = block.split_once('.')?;
    index.parse::<u16>().ok()?;
    Some(format!("blocks.{index}.{}", block_part(part)))
}

/// timm's name within a block; unchanged where it is the same.
fn block_part(part: &str) -> String {
    const PARTS: [(&str, &str); 18] = [
        ("attention.attention.query.", "attn.q."),
        ("attention.attention.key.", "attn.k."),
        ("attention.attention.value.", "attn.v."),
        ("attention.output.dense.", "attn.proj."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
        ("layernorm_before.", "norm1."),
        ("layernorm_after.", "norm2."),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("ln_1.", "norm1."),
        ("ln_2.", "norm2."),
        ("self_attention.in_proj_", "attn.qkv."),
        ("self_attention.out_proj.", "attn.proj."),
        ("mlp.linear_1.", "mlp.fc1."),
        ("mlp.linear_2.", "mlp.fc2."),
        ("mlp.0.", "mlp.fc1."),
        ("mlp.3.", "mlp.fc2."),
    ];
    let known = PARTS.iter().find_map(|(other, own)| Some(format!("{own}{}", part.strip_prefix(other)?)));
    known.unwrap_or_else(|| part.to_owned())
}

/// timm's name for a parameter of torchvision's ConvNeXt, if it can be one: there, `features` holds stem, stages and what
/// lies between them in turn.
fn convnext(name: &str) -> Option<String> {
    const PARTS: [(&str, &str); 5] = [
        ("layer_scale", "gamma"),
        ("block.0.", "conv_dw."),
        ("block.2.", "norm."),
        ("block.3.", "mlp.fc1."),
        ("block.5.", "mlp.fc2."),
    ];
    for (other, own) in [("classifier.0.", "head.norm."), ("classifier.2.", "head.fc.")] {
        if let Some(rest) = name.strip_prefix(other) {
            return Some(format!("{own}{rest}"));
        }
    }
    let (place, rest) = name.strip_prefix("features.")?.split_once('.')?;
    let place: u16 = place.parse().ok()?;
    if place == 0 {
        return Some(format!("stem.{rest}"));
    }
    if place.is_multiple_of(2) {
        return Some(format!("stages.{}.downsample.{rest}", place / 2));
    }
    let (block, part) = rest.split_once('.')?;
    let part = PARTS.iter().find_map(|(other, own)| Some(format!("{own}{}", part.strip_prefix(other)?)))?;
    Some(format!("stages.{}.blocks.{block}.{part}", place / 2))
}

/// The joined name and which third of it, for a query, key or value.
fn split_part(name: &str) -> Option<(String, usize)> {
    ["q", "k", "v"].iter().enumerate().find_map(|(third, letter)| {
        let (block, rest) = name.split_once(&format!(".attn.{letter}."))?;
        Some((format!("{block}.attn.qkv.{rest}"), third))
    })
}

/// Query above key above value, as timm keeps them. Where one is missing or of another kind, those there stay as they are.
fn join(name: String, parts: [Option<(&String, &TensorData)>; 3]) -> Vec<Renamed> {
    if let [Some(q), Some(k), Some(v)] = parts
        && let Some(data) = stacked([q.1, k.1, v.1])
    {
        let from = [q, k, v].map(|(name, _)| name.clone()).to_vec();
        return vec![Renamed { name, from, data }];
    }
    let alone = |(name, data): (&String, &TensorData)| Renamed {
        name: name.clone(),
        from: vec![name.clone()],
        data: data.clone(),
    };
    parts.into_iter().flatten().map(alone).collect()
}

fn stacked(parts: [&TensorData; 3]) -> Option<TensorData> {
    let shape = parts[0].shape().to_vec();
    let mut values = Vec::with_capacity(3 * parts[0].num_elements());
    for part in parts {
        if part.shape().to_vec() != shape {
            return None;
        }
        values.extend_from_slice(part.as_slice::<f32>().ok()?);
    }
    let mut joined = shape;
    *joined.first_mut()? *= 3;
    Some(TensorData::new(values, joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn tensor(values: &[f32]) -> TensorData {
        TensorData::new(values.to_vec(), [values.len()])
    }

    #[test]
    fn prefixes_go_however_many_but_never_a_part_of_an_own_name() {
        let own = own(&["conv1.weight", "model.weight"]);
        for name in ["conv1.weight", "module.conv1.weight", "module.encoder_q.backbone.conv1.weight"] {
            assert_eq!(stripped(name, &own), "conv1.weight");
        }
        assert_eq!(stripped("module.model.weight", &own), "model.weight");
        assert_eq!(stripped("module.", &own), "module.");
    }

    #[test]
    fn names_of_other_libraries_become_timms() {
        for (other, ours) in [
            ("vit.embeddings.cls_token", "cls_token"),
            ("vit.encoder.layer.3.attention.output.dense.bias", "blocks.3.attn.proj.bias"),
            ("encoder.layer.11.output.dense.weight", "blocks.11.mlp.fc2.weight"),
            ("encoder.layers.encoder_layer_2.self_attention.in_proj_weight", "blocks.2.attn.qkv.weight"),
            ("encoder.layers.encoder_layer_2.mlp.3.bias", "blocks.2.mlp.fc2.bias"),
            ("dinov2.encoder.layer.0.norm1.weight", "blocks.0.norm1.weight"),
            ("dinov2.encoder.layer.0.layer_scale1.lambda1", "blocks.0.ls1.gamma"),
            ("conv_proj.weight", "patch_embed.proj.weight"),
        ] {
            let tensors = NamedTensors::from([(other.to_owned(), tensor(&[1.0]))]);
            assert_eq!(translate(&tensors, &own(&[])).renamed[0].name, ours);
        }
    }

    #[test]
    fn query_key_and_value_are_stacked_in_this_order() {
        let name = |part: &str| format!("vit.encoder.layer.0.attention.attention.{part}.bias");
        let mut tensors = NamedTensors::from([
            (name("value"), tensor(&[5.0, 6.0])),
            (name("key"), tensor(&[3.0, 4.0])),
            (name("query"), tensor(&[1.0, 2.0])),
        ]);
        let naming = translate(&tensors, &own(&["blocks.0.attn.qkv.bias"]));
        assert_eq!(naming.renamed.len(), 1);
        assert_eq!(naming.renamed[0].name, "blocks.0.attn.qkv.bias");
        assert_eq!(naming.renamed[0].data, tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(naming.renamed[0].from.len(), 3);
        tensors.remove(&name("key"));
        let naming = translate(&tensors, &own(&[]));
        assert_eq!(naming.renamed.len(), 2, "without its key a query is what it is");
    }

    #[test]
    fn of_teacher_and_student_the_teacher_is_kept() {
        let tensors = NamedTensors::from([
            ("teacher.backbone.norm.bias".to_owned(), tensor(&[1.0])),
            ("student.backbone.norm.bias".to_owned(), tensor(&[2.0])),
        ]);
        let naming = translate(&tensors, &own(&["norm.bias"]));
        assert_eq!(naming.renamed.len(), 1);
        assert_eq!(naming.renamed[0].data, tensor(&[1.0]));
        assert_eq!(naming.second, [("student.backbone.norm.bias".to_owned(), "teacher")]);
    }
}
