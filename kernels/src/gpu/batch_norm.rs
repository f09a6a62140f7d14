//! Batch normalisation with the statistics of the batch, its residual and its ReLU: three kernels forward, three backward.
//!
//! Images lie with channels first or, as burn's convolutions leave them, with channels last; both are read as they lie, for a
//! copy into the other layout would cost as much as all of this.

mod kernels;
mod launches;
mod step;

pub(crate) use step::fused;

#[cfg(test)]
mod tests;
