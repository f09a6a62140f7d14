//! Weights in and out under PyTorch's names and layouts, bit for bit.
//!
//! A parameter keeps its name; the weight of an affine map, which is every parameter of rank 2, is `[in, out]` in memory
//! and `[out, in]` outside. Batch normalisation adds the buffers `running_mean`, `running_var` and
//! `num_batches_tracked` (I64). Loading is strict: what is missing, left over or of another shape is an error that names
//! it, and then the network is as it was.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path as FilePath, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use crate::batch_norm::Statistics;
use crate::checkpoint::{Problem, safetensors};
use crate::classifier::Classifier;
use crate::groups::{ParameterInfo, Path};
use crate::tuning::is_added;

/// Tensors by PyTorch name, in PyTorch's layout: F32, and I64 for `num_batches_tracked`.
pub type NamedTensors = BTreeMap<String, TensorData>;

impl Classifier {
    /// All parameters and buffers as they are now.
    pub fn to_tensors(&self) -> NamedTensors {
        let mut tensors = export(self);
        for (name, norm) in self.batch_norms() {
            let Statistics { mean, var, batches } = norm.running().get();
            let no_axes: [usize; 0] = [];
            tensors.extend([
                (format!("{name}.running_mean"), mean.into_data()),
                (format!("{name}.running_var"), var.into_data()),
                (format!("{name}.num_batches_tracked"), TensorData::new(vec![batches as i64], no_axes)),
            ]);
        }
        tensors
    }

    /// Replaces all parameters and buffers; parameters keep their ids and whether they are tracked.
    ///
    /// What [`Classifier::tuned`] added stays as it is if `tensors`, as those of an ordinary network, hold nothing of it.
    pub fn load_tensors(&mut self, tensors: &NamedTensors) -> Result<(), WeightsError> {
        self.check(tensors)?;
        let mut import = Import { path: Path::default(), tensors };
        *self = self.clone().map(&mut import);
        let device = self.device().inner();
        for (name, norm) in self.batch_norms() {
            let get = |buffer: &str| tensors[&format!("{name}.{buffer}")].clone();
            let vector = |buffer: &str| Tensor::from_data(get(buffer), (&device, DType::F32));
            norm.running().set(Statistics {
                mean: vector("running_mean"),
                var: vector("running_var"),
                batches: get("num_batches_tracked").iter::<i64>().next().unwrap_or(0).max(0) as u64,
            });
        }
        Ok(())
    }

    /// Writes all parameters and buffers to a safetensors file that PyTorch reads; an existing file is replaced whole.
    pub fn save_safetensors(&self, path: &FilePath) -> Result<(), WeightsError> {
        write_safetensors(path, &self.to_tensors(), HashMap::from([("format".to_owned(), "pt".to_owned())]))
    }

    /// Reads what [`Classifier::save_safetensors`], timm or torchvision wrote.
    pub fn load_safetensors(&mut self, path: &FilePath) -> Result<(), WeightsError> {
        self.load_tensors(&read_safetensors(path)?)
    }

    /// The first thing that keeps `tensors` from being exactly this network's.
    fn check(&self, tensors: &NamedTensors) -> Result<(), WeightsError> {
        let ordinary = !tensors.keys().any(|name| is_added(name));
        let mut expected: BTreeMap<String, (Vec<usize>, DType)> = self
            .parameters()
            .into_iter()
            .filter(|parameter| !(ordinary && parameter.is_added()))
            .map(|p| (p.name, (p.shape, DType::F32)))
            .collect();
        for (name, norm) in self.batch_norms() {
            let shape = norm.running().get().mean.dims().to_vec();
            expected.insert(format!("{name}.running_mean"), (shape.clone(), DType::F32));
            expected.insert(format!("{name}.running_var"), (shape, DType::F32));
            expected.insert(format!("{name}.num_batches_tracked"), (Vec::new(), DType::I64));
        }
        check(&expected, tensors)
    }
}

/// The first thing that keeps `tensors` from being exactly the `expected` ones.
fn check(
    expected: &BTreeMap<String, (Vec<usize>, DType)>,
    tensors: &NamedTensors,
) -> Result<(), WeightsError> {
    for (name, (shape, dtype)) in expected {
        let found = tensors.get(name).ok_or_else(|| WeightsError::Missing { name: name.clone() })?;
        if found.shape().as_slice() != shape.as_slice() {
            let (found, expected) = (found.shape().to_vec(), shape.clone());
            return Err(WeightsError::Shape { name: name.clone(), found, expected });
        }
        if found.dtype() != *dtype {
            let found = format!("{:?}", found.dtype());
            return Err(WeightsError::Type { name: name.clone(), found, expected: format!("{dtype:?}") });
        }
    }
    match tensors.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(WeightsError::Unexpected { name: name.clone() }),
        None => Ok(()),
    }
}

/// The parameters of any module by name, in PyTorch's layout.
pub(crate) fn export<M: Module>(module: &M) -> NamedTensors {
    let mut export = Export::default();
    module.visit(&mut export);
    export.tensors
}

/// A module of plain parameters, with values from `tensors`, which must hold exactly these.
pub(crate) fn import<M: Module>(
    module: &M,
    parameters: &[ParameterInfo],
    tensors: &NamedTensors,
) -> Result<M, WeightsError> {
    let expected = parameters.iter().map(|p| (p.name.clone(), (p.shape.clone(), DType::F32))).collect();
    check(&expected, tensors)?;
    Ok(module.clone().map(&mut Import { path: Path::default(), tensors }))
}

/// Reads every tensor of a safetensors file: floats become F32, integers I64.
pub fn read_safetensors(path: &FilePath) -> Result<NamedTensors, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    safetensors(&bytes).map_err(|source| WeightsError::Format { path: path.to_owned(), source })
}

/// Writes tensors (F32 or I64) with `metadata`; an existing file is replaced whole.
pub fn write_safetensors(
    path: &FilePath,
    tensors: &NamedTensors,
    metadata: HashMap<String, String>,
) -> Result<(), WeightsError> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, data) in tensors {
        let dtype = match data.dtype() {
            DType::F32 => Dtype::F32,
            DType::I64 => Dtype::I64,
            other => {
                let (found, expected) = (format!("{other:?}"), "F32 or I64".to_owned());
                return Err(WeightsError::Type { name: name.clone(), found, expected });
            }
        };
        let view = TensorView::new(dtype, data.shape().to_vec(), data.as_bytes())
            .expect("the length of a tensor's data is what its shape says");
        views.push((name.as_str(), view));
    }
    // With neither tensors nor metadata, safetensors 0.8 writes a header that it cannot read.
    let metadata = (!metadata.is_empty()).then_some(metadata);
    safetensors::serialize_to_file(views, metadata, path)
        .and_then(|()| Ok(share_as_usual(path)?))
        .map_err(|source| WeightsError::Write { path: path.to_owned(), source })
}

/// Gives a file that was written as a temporary one, for its owner alone, the permissions of any new file.
fn share_as_usual(path: &FilePath) -> std::io::Result<()> {
    let probe = path.with_extension(format!("permissions-{}", std::process::id()));
    let permissions = std::fs::File::create(&probe)?.metadata()?.permissions();
    std::fs::remove_file(&probe)?;
    std::fs::set_permissions(path, permissions)
}

/// Why weights could not be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The network has a tensor that the file has not.
    #[error("`{name}` is missing")]
    Missing {
        /// PyTorch's name.
        name: String,
    },
    /// The file has a tensor that the network has not.
    #[error("`{name}` is not part of this model")]
    Unexpected {
        /// PyTorch's name.
        name: String,
    },
    /// A tensor has another shape than the network's.
    #[error("`{name}` has shape {found:?}, the model needs {expected:?}")]
    Shape {
        /// PyTorch's name.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// In the network.
        expected: Vec<usize>,
    },
    /// A tensor has another element type than it can have.
    #[error("`{name}` holds {found}, expected {expected}")]
    Type {
        /// PyTorch's name.
        name: String,
        /// In the file.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The file cannot be read.
    #[error("cannot read weights from `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("`{path}` is not a complete safetensors file")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Problem,
    },
    /// The file cannot be written.
    #[error("cannot write weights to `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SafeTensorError,
    },
}

#[derive(Default)]
struct Export {
    path: Path,
    tensors: NamedTensors,
}

impl ModuleVisitor for Export {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().inner();
        let tensor = if D == 2 { tensor.swap_dims(0, 1) } else { tensor };
        self.tensors.insert(self.path.name(), tensor.into_data());
    }
}

/// Holds names, shapes and types that [`Classifier::check`] has passed; what is not among them stays.
struct Import<'a> {
    path: Path,
    tensors: &'a NamedTensors,
}

impl ModuleMapper for Import<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.tensors.get(&self.path.name()).cloned() else { return param };
        param.map(|old| {
            let data = if D == 2 { transposed(&data) } else { data };
            let tensor = Tensor::<D>::from_data(data, (&old.device(), DType::F32));
            tensor.set_require_grad(old.is_require_grad())
        })
    }
}

/// The transpose of an F32 matrix, in memory and not only in strides: kernels want rows in order.
fn transposed(data: &TensorData) -> TensorData {
    let (rows, columns) = (data.shape()[0], data.shape()[1]);
    let values = data.as_slice::<f32>().expect("checked to be F32");
    let column = |c: usize| (0..rows).map(move |r| values[r * columns + c]);
    TensorData::new((0..columns).flat_map(column).collect::<Vec<f32>>(), [columns, rows])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClassifierConfig, Mode};
    use burn::tensor::Device;

    fn net(name: &str, seed: u64) -> Classifier {
        let config = ClassifierConfig::preset(name, 5).expect("a preset");
        config.init(seed, &Device::flex().autodiff()).expect("a valid preset")
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("harvest-models-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        folder
    }

    #[test]
    fn files_bring_back_every_bit_and_keep_ids() {
        let folder = folder("round-trip");
        let path = folder.join("net.safetensors");
        for name in ["resnet8", "vit_tiny_patch2_32"] {
            let first = net(name, 1);
            if name == "resnet8" {
                let images = Tensor::ones([2, 3, 8, 8], &Device::flex());
                first.detached().forward(images, Mode::train(0));
            }
            first.save_safetensors(&path).expect("writable");
            let mut second = net(name, 2);
            let ids: Vec<_> = second.parameters().into_iter().map(|p| (p.id, p.tracked)).collect();
            assert_ne!(first.to_tensors(), second.to_tensors());
            second.load_safetensors(&path).expect("its own file");
            assert_eq!(first.to_tensors(), second.to_tensors());
            assert_eq!(ids, second.parameters().into_iter().map(|p| (p.id, p.tracked)).collect::<Vec<_>>());
            assert!(ids.iter().all(|(_, tracked)| *tracked));
        }
        std::fs::remove_dir_all(folder).expect("made above");
    }

    #[test]
    fn what_does_not_fit_is_named_and_changes_nothing() {
        let mut net = net("resnet8", 1);
        let good = net.to_tensors();
        let mut load = |change: &dyn Fn(&mut NamedTensors)| {
            let mut tensors = good.clone();
            tensors.insert("fc.bias".into(), TensorData::new(vec![9f32; 5], [5]));
            change(&mut tensors);
            let error = net.load_tensors(&tensors).expect_err("does not fit").to_string();
            assert_eq!(net.to_tensors(), good);
            error
        };
        let missing = load(&|t| drop(t.remove("layer2.0.bn1.running_var")));
        assert_eq!(missing, "`layer2.0.bn1.running_var` is missing");
        let unexpected = load(&|t| drop(t.insert("layer4.0.conv1.weight".into(), good["fc.bias"].clone())));
        assert_eq!(unexpected, "`layer4.0.conv1.weight` is not part of this model");
        let shape = load(&|t| drop(t.insert("fc.weight".into(), good["fc.bias"].clone())));
        assert_eq!(shape, "`fc.weight` has shape [5], the model needs [5, 64]");
        let kind = load(&|t| drop(t.insert("fc.bias".into(), TensorData::new(vec![0i64; 5], [5]))));
        assert_eq!(kind, "`fc.bias` holds I64, expected F32");
    }

    #[test]
    fn no_tensors_are_tensors_too() {
        let folder = folder("empty");
        let path = folder.join("none.safetensors");
        write_safetensors(&path, &NamedTensors::new(), HashMap::new()).expect("writable");
        assert!(read_safetensors(&path).expect("its own file").is_empty());
        std::fs::remove_dir_all(folder).expect("made above");
    }

    #[test]
    fn damaged_and_absent_files_are_errors() {
        let folder = folder("damaged");
        let path = folder.join("net.safetensors");
        assert!(matches!(read_safetensors(&path), Err(WeightsError::Read { .. })));
        net("resnet8", 1).save_safetensors(&path).expect("writable");
        let bytes = std::fs::read(&path).expect("just written");
        for length in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).expect("writable");
            assert!(matches!(read_safetensors(&path), Err(WeightsError::Format { .. })), "{length}");
        }
        let nowhere = folder.join("nowhere").join("net.safetensors");
        assert!(matches!(net("resnet8", 1).save_safetensors(&nowhere), Err(WeightsError::Write { .. })));
        std::fs::remove_dir_all(folder).expect("made above");
    }
}
