//! Starting from published weights of another class count or image size, as USB's loader does.

use burn::tensor::TensorData;

use crate::classifier::Classifier;
use crate::groups::is_classifier;
use crate::weights::{NamedTensors, WeightsError};

impl Classifier {
    /// Takes everything but the linear classifier from `tensors` and resizes the position table to this image size.
    ///
    /// The classifier keeps its values, also where the shapes agree: its classes are others. Apart from that every tensor
    /// must be there and fit; a first name component beginning with `module` is dropped.
    pub fn load_pretrained(&mut self, tensors: &NamedTensors) -> Result<(), WeightsError> {
        let own = self.to_tensors();
        let mut merged = NamedTensors::new();
        for (name, data) in tensors {
            let name = match name.split_once('.') {
                Some((first, rest)) if first.starts_with("module") => rest,
                _ => name,
            };
            if is_classifier(name) {
                continue;
            }
            let data = match own.get(name) {
                Some(table) if name == "pos_embed" => resize_positions(data, table)?,
                _ => data.clone(),
            };
            merged.insert(name.to_owned(), data);
        }
        merged.extend(own.into_iter().filter(|(name, _)| is_classifier(name)));
        self.load_tensors(&merged)
    }
}

/// The position table `table`, `[1, p + n², dim]`, for the grid of `target`: bicubic (a = −0.75, half-pixel centres, no
/// antialiasing), the first `p` rows copied, which are those of the class token and registers, if they have any.
pub fn resize_positions(table: &TensorData, target: &TensorData) -> Result<TensorData, WeightsError> {
    let misshapen = || WeightsError::Shape {
        name: "pos_embed".to_owned(),
        found: table.shape().to_vec(),
        expected: target.shape().to_vec(),
    };
    let (Some((before, from, dim)), Some((to_before, to, target_dim))) = (grid(table), grid(target)) else {
        return Err(misshapen());
    };
    if dim != target_dim || before != to_before {
        return Err(misshapen());
    }
    let values = table.as_slice::<f32>().map_err(|_| misshapen())?;
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|i| cubic_taps(i, to, from)).collect();
    let mut out = Vec::with_capacity(target.num_elements());
    out.extend_from_slice(&values[..before * dim]);
    for row in &taps {
        for column in &taps {
            for d in 0..dim {
                let along = |y: usize| -> f32 {
                    column.iter().map(|(x, w)| w * values[(before + y * from + x) * dim + d]).sum()
                };
                out.push(row.iter().map(|(y, w)| w * along(*y)).sum());
            }
        }
    }
    Ok(TensorData::new(out, target.shape().clone()))
}

/// Rows before the grid, its side and values a token, if this is a position table. The grid is the largest square that
/// the rows hold: true while there are fewer rows before it than a square of one more on each side adds.
fn grid(table: &TensorData) -> Option<(usize, usize, usize)> {
    let [1, tokens, dim] = *table.shape().as_slice() else {
        return None;
    };
    let side = tokens.isqrt();
    (side > 0).then_some((tokens - side * side, side, dim))
}

/// The four input positions under output position `i` and their weights (Keys, 1981), edges repeated.
fn cubic_taps(i: usize, to: usize, from: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let centre = (i as f32 + 0.5) * from as f32 / to as f32 - 0.5;
    let first = centre.floor();
    let t = centre - first;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    std::array::from_fn(|k| {
        let position = (first as i64 + k as i64 - 1).clamp(0, from as i64 - 1);
        (position as usize, weights[k])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClassifierConfig;
    use crate::vit::{Pooling, VitConfig};
    use burn::tensor::Device;

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
        net.load_pretrained(&source).expect("fits");
        let now = net.to_tensors();
        assert_eq!(now["head.weight"], head);
        assert_eq!(now["blocks.0.attn.qkv.weight"], source["module.blocks.0.attn.qkv.weight"]);
        assert_eq!(now["pos_embed"].shape().as_slice(), [1, 37, 8]);
    }

    #[test]
    fn a_table_of_patches_alone_is_resized_and_one_with_other_rows_before_them_refused() {
        let device = Device::flex();
        let with = |image_size, registers, class_position| {
            let ClassifierConfig::Vit(vit) = config(image_size, 3) else { unreachable!("a transformer") };
            ClassifierConfig::Vit(VitConfig { registers, class_position, ..vit })
        };
        let source = with(16, 2, false).init(1, &device).expect("valid").to_tensors();
        let mut net = with(24, 2, false).blank(&device).expect("valid");
        net.load_pretrained(&source).expect("fits");
        assert_eq!(net.to_tensors()["pos_embed"].shape().as_slice(), [1, 36, 8]);
        let mut other = with(24, 2, true).blank(&device).expect("valid");
        let error = other.load_pretrained(&source).expect_err("no rows for class token and registers");
        assert!(matches!(error, WeightsError::Shape { name, .. } if name == "pos_embed"));
    }

    #[test]
    fn the_classifier_alone_is_kept_in_every_family() {
        let device = Device::flex();
        for (preset, kept, taken) in [
            ("mobilenetv2_100", "classifier.weight", "conv_head.weight"),
            ("convnext_tiny", "head.fc.weight", "head.norm.weight"),
        ] {
            let config = |classes| ClassifierConfig::preset(preset, classes).expect("a preset");
            let mut source = config(2).blank(&device).expect("valid").to_tensors();
            let shape = source[taken].shape().clone();
            source.insert(taken.to_owned(), TensorData::full(shape, 2.5f32));
            let mut net = config(3).blank(&device).expect("valid");
            let before = net.to_tensors();
            net.load_pretrained(&source).expect("fits");
            let now = net.to_tensors();
            assert_eq!(now[kept], before[kept]);
            assert_eq!(now[taken], source[taken]);
        }
    }

    #[test]
    fn a_network_of_another_width_is_refused() {
        let device = Device::flex();
        let source = ClassifierConfig::preset("vit_tiny_patch2_32", 3).expect("known");
        let source = source.blank(&device).expect("valid").to_tensors();
        let mut net = config(32, 3).blank(&device).expect("valid");
        let error = net.load_pretrained(&source).expect_err("another width");
        assert!(matches!(error, WeightsError::Shape { name, .. } if name == "pos_embed"));
    }
}
