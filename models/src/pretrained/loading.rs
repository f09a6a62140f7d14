//! The account: what becomes of every tensor of a file, and where every parameter of a network comes from.

use std::collections::BTreeMap;

use burn::tensor::{DType, TensorData};

use super::patches::resize_patches;
use super::positions::{Grid, resize_positions};
use super::{Head, LoadOptions};
use crate::load_report::{Outcome, Row};
use crate::naming::{Renamed, is_foreign};
use crate::tuning::is_added;
use crate::weights::NamedTensors;

/// From a file's tensors to a network's, with the account of both.
pub(super) struct Loading<'a> {
    own: &'a NamedTensors,
    head: Vec<String>,
    options: LoadOptions,
    pub merged: NamedTensors,
    pub rows: Vec<Row>,
    /// The file's name for each of `merged`.
    sources: BTreeMap<String, String>,
    /// Position of the class token, from a table that has one for a network that has none.
    class_position: Option<Vec<f32>>,
    pub problems: Vec<String>,
    pub not_finite: Vec<String>,
}

impl<'a> Loading<'a> {
    pub fn new(own: &'a NamedTensors, head: Vec<String>, options: LoadOptions) -> Self {
        Self {
            own,
            head,
            options,
            merged: NamedTensors::new(),
            rows: Vec::new(),
            sources: BTreeMap::new(),
            class_position: None,
            problems: Vec::new(),
            not_finite: Vec::new(),
        }
    }

    /// Finds the parameter that a tensor of the file is for.
    pub fn place(&mut self, tensor: Renamed) {
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
        match name {
            "pos_embed" => self.fit_positions(&data, own).ok_or(misfit),
            "patch_embed.proj.weight" => {
                let kernels = resize_patches(&data, own).map_err(|_| misfit)?;
                let side = |shape: &[usize]| shape.last().copied().unwrap_or_default();
                let (from, to) = (side(&found), side(&wanted));
                Ok((kernels, Outcome::Resized, format!("patches of {from} × {from} → {to} × {to} pixels")))
            }
            _ => Err(misfit),
        }
    }

    /// The position table for another number of patches.
    fn fit_positions(
        &mut self,
        data: &TensorData,
        own: &TensorData,
    ) -> Option<(TensorData, Outcome, String)> {
        let (from, to) = (Grid::matching(data, own)?, Grid::of(own)?);
        let table = resize_positions(data, own).ok()?;
        if to.prefix == 0 && from.prefix > 0 {
            self.class_position = data.as_slice::<f32>().ok().map(|values| values[..from.dim].to_vec());
        }
        let note = format!("{} × {} → {} × {} patches, bicubic", from.side, from.side, to.side, to.side);
        Some((table, Outcome::Resized, note))
    }

    pub fn ignore(&mut self, from: Vec<String>, shape: Vec<usize>, note: String) {
        self.rows.push(Row {
            outcome: Outcome::Ignored,
            name: from.join(", "),
            from: String::new(),
            shape,
            note,
        });
    }

    /// A class token without a position is the token with its position added.
    pub fn fold_class_position(&mut self) {
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
    pub fn fill(&mut self) {
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
