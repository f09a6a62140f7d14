//! Fused tensor operations with their own backward pass.
//!
//! Every operation has two faces: `name`, which picks the fastest implementation for the tensor's device, and
//! `name_reference`, the same mathematics in burn's own operations. The reference is the contract: tests hold the
//! fused version to it, forward and backward. [`choose`] has all of a process take the reference. Where there is a
//! `name_with`, it takes the [`Products`] that the operation is computed with; `name` alone computes in `f32`.
//!
//! With feature `cuda` most operations have kernels for GPUs, which read and write `f32`, `f16` and `bf16` and compute in `f32`.
//! Convolutions, [`relu`], [`channel_affine`], pseudo-labels and gradient norms are burn's operations there, [`linear`] and
//! [`residual`] too, as one step of the graph each: burn merges those with what is around them.

mod attention;
mod augment;
mod batch_norm;
mod channel_affine;
mod channel_cpu;
mod channel_loops;
mod choice;
mod class_attention;
mod conv;
#[cfg(any(test, target_arch = "x86_64"))]
mod conv_bf16;
mod conv_cpu;
mod conv_flex;
mod conv_lanes;
mod conv_layout;
mod conv_memory;
mod conv_product;
mod conv_widest;
mod cpu;
mod cross_entropy;
mod depthwise;
mod gelu;
#[cfg(feature = "cube")]
mod gpu;
mod gradient_norm;
mod joined;
mod layer_norm;
mod linear;
mod linear_gelu;
mod optimizer;
mod pre_norm;
mod products;
mod pseudo_label;
mod rectify;
mod residual;
mod tap;

pub use attention::{attention, attention_reference, attention_with};
pub use augment::{Affine, Augmenter, LARGEST_PICTURE, Patch, Step, ViewPlan, augment_reference};
pub use batch_norm::{
    batch_norm_train, batch_norm_train_joined, batch_norm_train_joined_reference, batch_norm_train_reference,
};
pub use channel_affine::{channel_affine, channel_affine_reference};
pub use choice::{Kernels, choose};
pub use class_attention::{class_attention, class_attention_reference};
pub use conv::{conv2d, conv2d_reference, conv2d_with};
pub use cross_entropy::{
    ClassTargets, cross_entropy, cross_entropy_reference, cross_entropy_rows, cross_entropy_rows_reference,
};
pub use depthwise::{depthwise_conv2d, depthwise_conv2d_reference};
pub use gelu::{gelu, gelu_reference};
pub use gradient_norm::{clip_factor, gradient_norm, gradient_norm_reference};
pub use joined::Exchange;
pub use layer_norm::{layer_norm, layer_norm_reference};
pub use linear::{linear, linear_reference, linear_with};
pub use linear_gelu::{linear_gelu, linear_gelu_reference};
pub use optimizer::{AdamW, Parameter, Sgd, UpdateRule, update_parameters, update_parameters_reference};
pub use pre_norm::{pre_norm_residual, pre_norm_residual_reference};
pub use products::{Products, has_bf16_products, rounds_in_products};
pub use pseudo_label::{
    Predictions, Threshold, class_counts, class_counts_reference, predictions, predictions_reference,
};
pub use rectify::{relu, relu_reference};
pub use residual::{residual, residual_reference};
pub use tap::{Found, Watcher, scaled_into, tap};
