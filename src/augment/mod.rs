//! From a cached training image to the views that semi-supervised learning compares.
//!
//! - weak view: reflect-pad, random crop, random horizontal flip;
//! - strong view: the same with a draw of its own, then RandAugment's operations and Cutout, as FixMatch uses them
//!   (Sohn et al., NeurIPS 2020, arXiv:2001.07685, appendix D; Cubuk et al., arXiv:1909.13719; DeVries and Taylor,
//!   arXiv:1708.04552);
//! - contrast view: SimCLR's, for pretraining without labels ([`ContrastConfig`]).
//!
//! [`fill_views`] makes a whole batch in parallel; every view has its own stream of randomness, so a batch depends
//! on the seed alone. Each deterministic operation gives the bytes that Pillow and torchvision give. [`plan_view`] draws
//! a weak or strong view and leaves it to the device to make it, of the same bytes.
//!
//! Pixels are 8-bit RGB, interleaved, row by row: a batch of views is `[N, S, S, 3]`.

mod affine;
mod batch;
mod blend;
mod canvas;
mod contrast;
mod cutout;
mod frame;
mod plan;
mod randaugment;
mod tensor;
mod tone;
mod views;

pub use batch::{View, ViewRequest, fill_views, measure_views};
pub use canvas::{Canvas, Pixel};
pub use contrast::ContrastConfig;
pub use cutout::Cutout;
pub use frame::{center_crop, hflip, pad_reflect_crop, rotate_right_angle, vflip};
pub use harvest_picture::{CropBox, Filter, resize, resize_shorter_side, resized_crop};
pub use plan::plan_view;
pub use randaugment::Operation;
pub use tensor::{Normalisation, Planes, interpolate, normalise_batch, to_tensor};
pub use views::{ViewConfig, ViewConfigError, strong_view, weak_view};
