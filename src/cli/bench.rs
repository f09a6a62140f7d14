//! `harvest bench`: speed and memory.

use clap::Subcommand;

use crate::bench::{
    AlgorithmsOptions, InputOptions, ManifestOptions, NcclOptions, NeighbourOptions, ParityOptions,
    PictureOptions, SimClrOptions, StepOptions, algorithms, input, manifest, nccl, neighbours, parity,
    pictures, simclr, step,
};

/// Measure speed and memory; each prints one line of JSON.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// A whole training step.
    Step(StepOptions),
    /// A step with each algorithm, relative to FixMatch; a line for each.
    Algorithms(AlgorithmsOptions),
    /// A step of SimCLR.
    Simclr(SimClrOptions),
    /// Images a second through decoding, cache, views and upload.
    Input(InputOptions),
    /// A list of a million images: write, read, split, sample.
    Manifest(ManifestOptions),
    /// The most similar images of each of very many.
    Neighbours(NeighbourOptions),
    /// Sums over NCCL in the memory of a GPU: right or wrong, and how long they take.
    Nccl(NcclOptions),
    /// The numbers of a device against those of the CPU.
    Parity(ParityOptions),
    /// Draw images to measure on.
    Pictures(PictureOptions),
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Step(options) => println!("{}", serde_json::to_string(&step(&options)?)?),
            Self::Algorithms(options) => {
                for report in algorithms(&options)? {
                    println!("{}", serde_json::to_string(&report)?);
                }
            }
            Self::Simclr(options) => println!("{}", serde_json::to_string(&simclr(&options)?)?),
            Self::Input(options) => println!("{}", serde_json::to_string(&input(&options)?)?),
            Self::Manifest(options) => println!("{}", serde_json::to_string(&manifest(&options)?)?),
            Self::Neighbours(options) => println!("{}", serde_json::to_string(&neighbours(&options)?)?),
            Self::Pictures(options) => pictures(&options)?,
            Self::Nccl(options) => {
                let report = nccl(&options)?;
                println!("{}", serde_json::to_string(&report)?);
                anyhow::ensure!(report.passed(), "sums over NCCL are wrong");
            }
            Self::Parity(options) => {
                let report = parity(&options)?;
                println!("{report}");
                anyhow::ensure!(report.passed(), "the device's numbers differ from the CPU's");
            }
        }
        Ok(())
    }
}
