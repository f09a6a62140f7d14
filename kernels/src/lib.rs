//! Fused tensor operations with their own backward pass.
//!
//! Every operation has two faces: `name`, which picks the fastest implementation for the tensor's device, and
//! `name_reference`, the same mathematics in burn's own operations. The reference is the contract: tests hold the
//! fused version to it, forward and backward.

mod activation;
mod attention;
mod conv;
mod cpu;
mod gelu;
mod layer_norm;
mod linear;
mod norm;
mod optimizer;
mod residual;

pub use activation::{relu, relu_reference};
pub use attention::{attention, attention_reference};
pub use conv::{conv2d, conv2d_reference};
pub use gelu::{gelu, gelu_reference};
pub use layer_norm::{layer_norm, layer_norm_reference};
pub use linear::{linear, linear_reference};
pub use norm::{batch_norm_train, batch_norm_train_reference};
pub use optimizer::{AdamW, adamw, adamw_reference};
pub use residual::{residual, residual_reference};
