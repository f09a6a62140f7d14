//! Measurements of what users wait for, each printed as one line of JSON, and a check of devices against the CPU.
//!
//! - [`step()`]: a whole training step, as the trainer does it;
//! - [`algorithms()`]: the same with each algorithm, and how much of it is the algorithm's own arithmetic;
//! - [`scaling()`]: a training step on several ranks;
//! - [`allreduce()`]: sums over ranks, of many sizes;
//! - [`expected()`]: what is to be expected of many ranks, by the model in [`cost`];
//! - [`simclr()`]: a step of pretraining without labels;
//! - [`sizes()`]: a step at many sizes, drawn;
//! - [`inference()`]: a network over images, forward alone;
//! - [`input()`]: images a second through decoding, cache, views and upload;
//! - [`manifest()`]: lists of a million images;
//! - [`nccl()`]: sums on a GPU, right or wrong;
//! - [`neighbours()`]: the most similar images of each of very many;
//! - [`page()`]: the label page of a project of a million images;
//! - [`parity()`]: the numbers of a device against those of the CPU;
//! - [`pictures()`]: images to measure on, where none are at hand.
//!
//! The keys of [`step()`] and [`input()`] are those of the PyTorch programs in `benches/peers`, so that lines can be laid
//! side by side. What differs in the work done is part of the line.

mod algorithms;
mod allreduce;
pub mod cost;
mod expected;
mod figures;
mod inference;
mod input;
mod launch;
mod manifest;
mod nccl;
mod neighbours;
pub(crate) mod page;
mod parity;
mod pictures;
mod process;
mod scaling;
mod simclr;
mod sizes;
mod step;

pub use algorithms::{AlgorithmReport, AlgorithmsOptions, algorithms};
pub use allreduce::{
    AllReduceError, AllReduceOptions, AllReduceReport, AllReduceReports, WireChoice, allreduce,
    allreduce_threads,
};
pub use expected::{ExpectedOptions, ExpectedReport, expected};
pub use figures::draw_predictions;
pub use inference::{InferenceOptions, InferenceReport, inference};
pub use input::{InputOptions, InputReport, input};
pub use launch::{LaunchError, LaunchOptions, Launched, launch};
pub use manifest::{ManifestOptions, ManifestReport, manifest};
pub use nccl::{NcclOptions, NcclReport, nccl};
pub use neighbours::{NeighbourOptions, NeighbourReport, neighbours};
pub use page::{PageError, PageOptions, PageReport, Spread, page};
pub use parity::{Check, ParityOptions, ParityReport, Subject, parity};
pub use pictures::{PictureOptions, pictures};
pub use scaling::{Ranks, ScalingOptions, ScalingReport, scaling};
pub use simclr::{SimClrOptions, SimClrReport, simclr};
pub use sizes::{Axis, Curve, SizeReport, SizesOptions, sizes};
pub use step::{StepOptions, StepReport, step};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// No such device.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// No such network.
    #[error(transparent)]
    Model(#[from] harvest_models::ConfigError),
    /// The device failed.
    #[error("the device failed: {reason}")]
    Execution {
        /// In the words of the driver.
        reason: String,
    },
    /// The number of threads is fixed already.
    #[error("cannot compute with {threads} threads")]
    Threads {
        /// As asked for.
        threads: usize,
        /// Why not.
        source: rayon::ThreadPoolBuildError,
    },
    /// The images cannot be found.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The images cannot be cached.
    #[error(transparent)]
    Cache(#[from] crate::data::CacheError),
    /// A list of images cannot be written or read.
    #[error(transparent)]
    Manifest(#[from] crate::data::ManifestError),
    /// A generated list cannot be split.
    #[error(transparent)]
    Split(#[from] crate::data::SplitError),
    /// A generated list is too short to be split and sampled.
    #[error(transparent)]
    Sampler(#[from] crate::data::SamplerError),
    /// A picture cannot be written.
    #[error("cannot write `{path}`", path = path.display())]
    Picture {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A folder cannot be made.
    #[error(transparent)]
    Write(#[from] crate::files::WriteError),
    /// Sums over ranks.
    #[error(transparent)]
    AllReduce(#[from] AllReduceError),
    /// What a launcher said makes no sense.
    #[error(transparent)]
    Identity(#[from] harvest_collectives::IdentityError),
    /// Ranks did not meet.
    #[error(transparent)]
    Join(#[from] Box<harvest_collectives::JoinError>),
    /// A rank would have no image.
    #[error(transparent)]
    Ranks(#[from] crate::training::TooManyRanks),
    /// A setting that makes no sense.
    #[error(transparent)]
    Invalid(#[from] crate::bounds::Invalid),
    /// A launcher that failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Lines that a prediction cannot be made from.
    #[error(transparent)]
    Calibration(#[from] cost::CalibrationError),
    /// A file of lines cannot be read.
    #[error("cannot read `{path}`", path = path.display())]
    Lines {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] crate::inference::BundleError),
    /// No temporary folder.
    #[error("cannot make a temporary folder; set TMPDIR to a folder that may be written to")]
    Temporary(#[source] std::io::Error),
}

/// Fixes the number of threads for the whole program, as the environment variable `RAYON_NUM_THREADS` would.
fn limit_threads(threads: Option<usize>) -> Result<usize, BenchError> {
    if let Some(threads) = threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().map_err(|source| BenchError::Threads { threads, source })?;
    }
    Ok(rayon::current_num_threads())
}

/// One of several words, spelled as in configurations.
fn parse_choice<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    T::deserialize(text).map_err(|error| error.to_string())
}

/// Rounds for people and for JSON; six significant digits are more than any timing holds.
fn significant(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// Of sorted values; not a number of none.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        count => (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Precision;

    #[test]
    fn precisions_are_spelled_as_in_configurations() {
        assert_eq!(parse_choice("bf16"), Ok(Precision::Bf16));
        let error = parse_choice::<Precision>("fp8").expect_err("not one of ours");
        assert!(error.contains("fp8") && error.contains("bf16"), "{error}");
    }

    #[test]
    fn numbers_keep_six_digits() {
        assert_eq!(significant(1234.56789), 1234.57);
        assert_eq!(significant(0.000123456789), 0.000123457);
        assert_eq!(significant(0.0), 0.0);
    }
}
