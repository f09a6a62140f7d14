//! Starting from published weights of another class count or image size: every parameter of the network and every tensor
//! of the file is accounted for.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, TensorData};

use crate::classifier::Classifier;
use crate::load_report::{LoadReport, Outcome, Row};
use crate::naming::{Renamed, is_foreign, translate};
use crate::tuning::is_added;
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
    /// scripts; the position table is resized to this image size.
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
        let mut loading = Loading { own: &own, head: self.head_names(), options, ..Loading::new(&own) };
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

/// From a file's tensors to a network's, with the account of both.
struct Loading<'a> {
    own: &'a NamedTensors,
    head: Vec<String>,
    options: LoadOptions,
    merged: NamedTensors,
    rows: Vec<Row>,
    /// The file's name for each of `merged`.
    sources: BTreeMap<String, String>,
    /// Position of the class token, from a table that has one for a network that has none.
    class_position: Option<Vec<f32>>,
    problems: Vec<String>,
    not_finite: Vec<String>,
}

impl<'a> Loading<'a> {
    fn new(own: &'a NamedTensors) -> Self {
        Self {
            own,
            head: Vec::new(),
            options: LoadOptions::default(),
            merged: NamedTensors::new(),
            rows: Vec::new(),
            sources: BTreeMap::new(),
            class_position: None,
            problems: Vec::new(),
            not_finite: Vec::new(),
        }
    }

    /// Finds the parameter that a tensor of the file is for.
    fn place(&mut self, tensor: Renamed) {
        let Renamed { name, from, data } = tensor;
        let shape = data.shape().to_vec();
        let Some(own) = self.own.get(&name) else {
            if !is_foreign(&name) {
                self.problems.push(format!("{} {shape:?} is no part of it", quoted(&from)));
            }
            return self.ignore(from, shape, "no part of this network".into());
        };
        if let Some(earlier) = self.sources.get(&name) {
            self.problems.push(format!("{} and `{earlier}` are both for `{name}`", quoted(&from)));
            return self.ignore(from, shape, format!("`{earlier}` is taken for `{name}`"));
        }
        let is_head = self.head.contains(&name);
        if is_head && self.options.head == Head::New {
            return self.ignore(from, shape, "the classifier of other classes".into());
        }
        match self.fit(&name, &data, own) {
            Ok((data, outcome, note)) => {
                if let Ok(values) = data.as_slice::<f32>()
                    && let Some(value) = values.iter().find(|value| !value.is_finite())
                {
                    self.not_finite.push(format!("{} holds {value}", quoted(&from)));
                }
                self.sources.insert(name.clone(), from.join(", "));
                self.merged.insert(name.clone(), data);
                let from = if from == [name.clone()] { String::new() } else { from.join(", ") };
                self.rows.push(Row { outcome, name, from, shape: own.shape().to_vec(), note });
            }
            Err(reason) => {
                if !is_head {
                    self.problems.push(format!("{} {reason}", quoted(&from)));
                }
                self.ignore(from, shape, reason);
            }
        }
    }

    /// `data` in the shape and type of `own`, what was done to it, and a remark.
    fn fit(
        &mut self,
        name: &str,
        data: &TensorData,
        own: &TensorData,
    ) -> Result<(TensorData, Outcome, String), String> {
        let data = match (own.dtype(), data.dtype()) {
            (DType::I64, DType::F32) => data.clone().convert_dtype(DType::I64),
            (wanted, found) if wanted != found => return Err(format!("holds {found:?}, not {wanted:?}")),
            _ => data.clone(),
        };
        let (found, wanted) = (data.shape().to_vec(), own.shape().to_vec());
        if found == wanted {
            return Ok((data, Outcome::Loaded, String::new()));
        }
        let without_ones =
            |shape: &[usize]| shape.iter().copied().filter(|size| *size != 1).collect::<Vec<_>>();
        if without_ones(&found) == without_ones(&wanted) {
            let data = match data.dtype() {
                DType::I64 => TensorData::new(data.iter::<i64>().collect::<Vec<_>>(), wanted),
                _ => TensorData::new(data.iter::<f32>().collect::<Vec<_>>(), wanted),
            };
            return Ok((data, Outcome::Loaded, format!("{found:?} in the file")));
        }
        let misfit = format!("has shape {found:?}, the network needs {wanted:?}");
        if name != "pos_embed" {
            return Err(misfit);
        }
        let (Some(from), Some(to)) = (Grid::matching(&data, own), Grid::of(own)) else { return Err(misfit) };
        let table = resize_positions(&data, own).map_err(|_| misfit)?;
        if to.prefix == 0 && from.prefix > 0 {
            self.class_position = data.as_slice::<f32>().ok().map(|values| values[..from.dim].to_vec());
        }
        let note = format!("{} × {} → {} × {} patches, bicubic", from.side, from.side, to.side, to.side);
        Ok((table, Outcome::Resized, note))
    }

    fn ignore(&mut self, from: Vec<String>, shape: Vec<usize>, note: String) {
        self.rows.push(Row {
            outcome: Outcome::Ignored,
            name: from.join(", "),
            from: String::new(),
            shape,
            note,
        });
    }

    /// A class token without a position is the token with its position added.
    fn fold_class_position(&mut self) {
        let (Some(position), Some(token)) = (&self.class_position, self.merged.get("cls_token")) else {
            return;
        };
        let values: Vec<f32> =
            token.iter::<f32>().zip(position).map(|(token, position)| token + position).collect();
        if values.len() == token.num_elements() {
            self.merged.insert("cls_token".into(), TensorData::new(values, token.shape().clone()));
        }
    }

    /// Everything of the network that the file has nothing for.
    fn fill(&mut self) {
        for (name, data) in self.own {
            if self.merged.contains_key(name) {
                continue;
            }
            let counter = name.ends_with("num_batches_tracked");
            let (data, note) = match (counter, self.head.contains(name)) {
                _ if is_added(name) => (data.clone(), "added by the tuning"),
                (true, _) => {
                    (TensorData::new(vec![0i64; data.num_elements()], data.shape().clone()), "starts at 0")
                }
                (_, true) => (data.clone(), "the classifier of these classes"),
                _ => {
                    self.problems.push(format!("`{name}` {:?} is missing", data.shape().to_vec()));
                    (data.clone(), "missing in the file")
                }
            };
            let (name, shape, note) = (name.clone(), data.shape().to_vec(), note.to_owned());
            self.merged.insert(name.clone(), data);
            self.rows.push(Row { outcome: Outcome::New, name, from: String::new(), shape, note });
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The position table `table` for the grid of `target`, both `[1, prefix + n², dim]`: bicubic (a = −0.75, half-pixel
/// centres, no antialiasing). Rows before the grid, of the class token and others, are copied; where `target` has more of
/// them than `table` they are zero, which is what a token without a position has.
pub fn resize_positions(table: &TensorData, target: &TensorData) -> Result<TensorData, WeightsError> {
    let misshapen = || WeightsError::Shape {
        name: "pos_embed".to_owned(),
        found: table.shape().to_vec(),
        expected: target.shape().to_vec(),
    };
    let (Some(from), Some(to)) = (Grid::matching(table, target), Grid::of(target)) else {
        return Err(misshapen());
    };
    if from.dim != to.dim {
        return Err(misshapen());
    }
    let values = table.as_slice::<f32>().map_err(|_| misshapen())?;
    let (prefix, patches) = values.split_at(from.prefix * from.dim);
    let dim = to.dim;
    let mut out = Vec::with_capacity(target.num_elements());
    out.extend_from_slice(&prefix[..from.prefix.min(to.prefix) * dim]);
    out.resize(to.prefix * dim, 0.0);
    if from.side == to.side {
        out.extend_from_slice(patches);
        return Ok(TensorData::new(out, target.shape().clone()));
    }
    let taps: Vec<[(usize, f32); 4]> = (0..to.side).map(|i| cubic_taps(i, to.side, from.side)).collect();
    for row in &taps {
        for column in &taps {
            for d in 0..dim {
                let along = |y: usize| -> f32 {
                    column.iter().map(|(x, w)| w * patches[(y * from.side + x) * dim + d]).sum()
                };
                out.push(row.iter().map(|(y, w)| w * along(*y)).sum());
            }
        }
    }
    Ok(TensorData::new(out, target.shape().clone()))
}

/// Rows of a position table: those of special tokens, then a square grid of patches.
#[derive(Debug, Clone, Copy)]
struct Grid {
    prefix: usize,
    side: usize,
    dim: usize,
}

impl Grid {
    /// With a class token, with none, with a distillation token too, or with four registers too; the first that leaves a
    /// square.
    const PREFIXES: [usize; 4] = [1, 0, 2, 5];

    fn of(table: &TensorData) -> Option<Self> {
        Self::PREFIXES.iter().find_map(|prefix| Self::behind(*prefix, table))
    }

    /// Preferably with as many special rows as `target` has.
    fn matching(table: &TensorData, target: &TensorData) -> Option<Self> {
        Self::of(target).and_then(|target| Self::behind(target.prefix, table)).or_else(|| Self::of(table))
    }

    fn behind(prefix: usize, table: &TensorData) -> Option<Self> {
        let [1, tokens, dim] = *table.shape().as_slice() else {
            return None;
        };
        let side = tokens.checked_sub(prefix)?.isqrt();
        (side > 0 && side * side + prefix == tokens).then_some(Self { prefix, side, dim })
    }
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

    #[test]
    fn tables_with_and_without_special_tokens_become_each_other() {
        let table = |tokens: usize| {
            let values = (0..tokens * 2).map(|i| i as f32).collect::<Vec<_>>();
            TensorData::new(values, [1, tokens, 2])
        };
        let resized = |from, to| {
            let data = resize_positions(&table(from), &table(to)).expect("tables");
            data.iter::<f32>().collect::<Vec<f32>>()
        };
        assert_eq!(resized(10, 9)[..2], [2.0, 3.0], "the class token's row goes");
        assert_eq!(resized(9, 10)[..4], [0.0, 0.0, 0.0, 1.0], "a class token without a position");
        assert_eq!(resized(11, 10)[..4], [0.0, 1.0, 4.0, 5.0], "the distillation token's row goes");
        assert_eq!(resized(17, 10).len(), 20);
    }
}
