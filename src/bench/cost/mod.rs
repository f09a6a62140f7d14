//! A model of what a step costs on many ranks, and what follows for one to a thousand of them.
//!
//! ```text
//! T(n) = forward + gathers(n) + backward + exposed(n) + waiting(n) + optimizer
//!
//! ring       2 (n-1) α + 2 (n-1)/n · B/β                       Patarasuk and Yuan, JPDC 2009
//! tree       2 ⌈log₂ n⌉ α + 2 B/β                              pieces follow each other
//! hierarchy  ring(m, B, within) + min(ring, tree)(n/m, B, between)
//! exposed    what is left of the sums when the backward pass ends; a bucket starts when its last gradient is there and
//!            the bucket before it has arrived
//! waiting    σ · computing · E[largest of n normal variables]: all wait for the slowest, once a step
//! ```
//!
//! `B`: bytes of a bucket; α, β: latency and bandwidth of a [`Link`]; `m`: ranks of a node, which share its link to other
//! nodes. Computing takes the same time on any number of ranks, and links carry nothing else: so these are upper bounds of
//! efficiency as far as the parameters are right. [`calibrate()`] takes them from measurements and states the error on each
//! of these when it is left out.

mod ascend;
mod calibration;
mod network;
mod prediction;
mod step;
mod workload;

pub use ascend::{Published, PublishedTime, Speed, a100, ascend, published, published_flops};
pub use calibration::{Calibration, CalibrationError, MeasuredStep, MeasuredSum, calibrate, read_lines};
pub use network::{LeftOut, Link, Network, Sample, Way};
pub use prediction::{Plan, Prediction, arithmetic, predict, sensitivity};
pub use step::{Stage, StepProfile, Timeline, slowest_of};
pub use workload::{Device, Workload};
