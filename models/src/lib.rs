//! Image classifiers whose parameters carry the names of timm and torchvision.
//!
//! [`Classifier`] is a vision transformer ([`vit`]), a residual network ([`resnet`]), a network of inverted residuals
//! for small devices ([`efficientnet`]) or a [`convnext`], chosen at run time by a [`ClassifierConfig`]. A pass states its [`Mode`] and returns an [`Output`]; whether it records a graph is decided by
//! the parameters alone: those of [`Classifier::detached`] are off autodiff, so nothing is recorded, in either mode.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use harvest_models::{ClassifierConfig, Mode};
//!
//! # fn main() -> Result<(), harvest_models::ConfigError> {
//! let device = Device::flex();
//! let net = ClassifierConfig::preset("resnet8", 10)?.init(1, &device)?;
//! let out = net.forward(Tensor::zeros([2, 3, 32, 32], &device), Mode::Evaluate);
//! assert_eq!(out.logits.dims(), [2, 10]);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod auxiliary;
pub mod batch_norm;
pub mod checkpoint;
mod classifier;
mod config;
pub mod convnext;
pub mod efficientnet;
mod groups;
mod heads;
pub mod initial;
pub mod layers;
mod load_report;
mod lora;
mod mode;
pub mod naming;
pub mod pretrained;
pub mod resnet;
mod tracking;
mod tuning;
pub mod vit;
mod weights;
mod work;

pub use auxiliary::AuxiliaryHead;
pub use classifier::{Classifier, Output};
pub use config::{ClassifierConfig, ConfigError, PRESETS};
pub use groups::ParameterInfo;
pub use heads::{ClusterHeads, PretextHead, ProjectionHead};
pub use load_report::{LoadReport, Outcome, Row};
pub use mode::{Company, Mode, Noise, Precision, Rows};
pub use pretrained::{Head, LoadOptions, PretrainedError};
pub use tuning::Tuning;
pub use weights::{NamedTensors, WeightsError, read_safetensors, write_safetensors};
