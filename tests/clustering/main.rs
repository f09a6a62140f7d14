//! Learning without labels: pretraining, stored features, clusters.

#[path = "../support/linked.rs"]
mod linked;

mod features;
mod pretraining;
mod scan;
mod world;
