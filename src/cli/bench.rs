//! `harvest bench`: speed and memory.

use clap::{Args, Subcommand};

use crate::bench::{
    AlgorithmsOptions, AllReduceOptions, ExpectedOptions, InferenceOptions, InputOptions, LaunchOptions,
    ManifestOptions, NcclOptions, NeighbourOptions, PageOptions, ParityOptions, PictureOptions, Ranks,
    ScalingOptions, SimClrOptions, SizesOptions, StepOptions, algorithms, allreduce, allreduce_threads,
    draw_predictions, expected, inference, input, launch, manifest, nccl, neighbours, page, parity, pictures,
    scaling, simclr, sizes, step,
};

/// Measure speed and memory; each prints one line of JSON.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// A whole training step.
    Step(StepOptions),
    /// A step with each algorithm, relative to FixMatch; a line for each.
    Algorithms(AlgorithmsOptions),
    /// A training step over image sizes, batches and widths; a line for each, and a picture of each.
    Sizes(SizesOptions),
    /// A network over images, forward alone.
    Inference(InferenceOptions),
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
    /// A training step on several ranks. Run it under mpirun or srun, or with --launch.
    Scaling(ScalingVerb),
    /// Sums over ranks, of buckets of many sizes. Run it under mpirun or srun, or with --threads.
    Allreduce(AllReduceOptions),
    /// Time, speed-up and efficiency to be expected of up to 1,024 devices, with the arithmetic.
    Predict(ExpectedOptions),
    /// The label page of a project of a million images, with people who label at once.
    Page(PageOptions),
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
            Self::Inference(options) => println!("{}", serde_json::to_string(&inference(&options)?)?),
            Self::Sizes(options) => {
                let curves = sizes(&options, |report| {
                    println!("{}", serde_json::to_string(report).expect("plain data"));
                })?;
                for curve in curves {
                    if let Some(fall) = curve.worst_fall() {
                        eprintln!("{:?}: at its worst {fall:.2} of the speed at a smaller size", curve.axis);
                    }
                }
            }
            Self::Simclr(options) => println!("{}", serde_json::to_string(&simclr(&options)?)?),
            Self::Input(options) => println!("{}", serde_json::to_string(&input(&options)?)?),
            Self::Manifest(options) => println!("{}", serde_json::to_string(&manifest(&options)?)?),
            Self::Neighbours(options) => println!("{}", serde_json::to_string(&neighbours(&options)?)?),
            Self::Scaling(verb) => verb.run()?,
            Self::Allreduce(options) => sums(&options)?,
            Self::Predict(options) => predict(&options)?,
            Self::Pictures(options) => pictures(&options)?,
            Self::Page(options) => {
                let report = page(&options, &std::env::current_exe()?)?;
                match options.json {
                    true => println!("{}", serde_json::to_string(&report)?),
                    false => print!("{report}"),
                }
                anyhow::ensure!(report.kept_everything(), "labels were lost or mixed up");
            }
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

/// Everything that `harvest bench scaling` may be told.
#[derive(Debug, Args)]
pub struct ScalingVerb {
    #[command(flatten)]
    scaling: ScalingOptions,
    #[command(flatten)]
    launch: LaunchOptions,
}

impl ScalingVerb {
    fn run(&self) -> anyhow::Result<()> {
        if let Some(command) = &self.launch.launch {
            print!("{}", launch(&self.scaling, &self.launch, command)?);
            return Ok(());
        }
        let ranks = Ranks::meet(&format!("{:?}", self.scaling), &self.scaling.step.device)?;
        let report = scaling(&self.scaling, ranks.device(), ranks.communicator(), ranks.launcher())?;
        if ranks.is_first() {
            println!("{}", serde_json::to_string(&report)?);
        }
        ranks.leave();
        Ok(())
    }
}

fn sums(options: &AllReduceOptions) -> anyhow::Result<()> {
    let (found, is_first) = match options.threads {
        Some(threads) => (allreduce_threads(options, threads as usize)?, true),
        None => {
            let ranks = Ranks::meet(&format!("{options:?}"), "cpu")?;
            let found = allreduce(options, &*ranks.communicator(), ranks.launcher())?;
            let is_first = ranks.is_first();
            ranks.leave();
            (found, is_first)
        }
    };
    if is_first && options.json {
        for size in &found.sizes {
            println!("{}", serde_json::to_string(size)?);
        }
    } else if is_first {
        print!("{found}");
    }
    anyhow::ensure!(found.wrong() == 0, "{} numbers of the sums are wrong", found.wrong());
    Ok(())
}

fn predict(options: &ExpectedOptions) -> anyhow::Result<()> {
    let report = expected(options)?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    if let Some(folder) = &options.out {
        for name in draw_predictions(folder, options.speed)? {
            eprintln!("{}", folder.join(name).display());
        }
    }
    Ok(())
}
