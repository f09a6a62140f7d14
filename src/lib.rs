//! HARVEST: from a folder of unlabelled images and a few labels to a trained image classifier.
//!
//! The rooms, from the program's edge inwards; each uses only those below it:
//!
//! ```text
//! cli → web → sweep, demo, bench → catalogue → experiment → clustering → training → weights → report → probe → inference → project → jobs → config
//!     → thumbs → algorithms → data → augment → metrics, device, random, bounds, errors, cells, files
//! ```
//!
//! Beside them stand the crates `harvest-models` (networks), `harvest-kernels` (fused operations) and `harvest-collectives`
//! (several ranks of one job).

pub mod algorithms;
pub mod augment;
pub mod bench;
pub mod bounds;
pub mod catalogue;
pub mod cells;
pub mod cli;
pub mod clustering;
pub mod config;
pub mod data;
pub mod demo;
pub mod device;
pub mod errors;
pub mod experiment;
pub mod files;
pub mod inference;
pub mod jobs;
pub mod metrics;
pub mod probe;
pub mod project;
pub mod random;
pub mod report;
pub mod sweep;
pub mod thumbs;
pub mod training;
pub mod web;
pub mod weights;
