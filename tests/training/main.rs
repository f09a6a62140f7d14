//! Training as a whole: what a step computes, and that a run survives everything that can happen to it.

mod algorithms;
mod checkpoints;
mod determinism;
mod divergence;
mod kernels;
mod kill;
mod labels;
mod resume;
mod skip;
mod tuning;
mod world;
