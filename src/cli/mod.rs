//! The command line: arguments, printing, exit codes. One file for each verb.

mod bench;
mod cluster;
mod config;
mod context;
mod demo;
mod doctor;
mod evaluate;
mod export;
mod init;
mod label;
mod labels;
mod launch;
mod predict;
mod probe;
mod sample;
mod scan;
mod serve;
mod signals;
mod sweep;
mod train;
mod weights;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::jobs;

/// Label a few images of each class; get a classifier trained on all of them.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// See the whole loop at work on drawn leaves, in a few minutes.
    Demo(demo::Demo),
    /// Start a project: where the images are and what the classes are called.
    Init(init::Init),
    /// Decode every image once; list what cannot be used.
    Scan(scan::Scan),
    /// Group like images, without labels.
    Cluster(cluster::Cluster),
    /// Choose the images to label next.
    Sample(sample::Sample),
    /// Take labels over from a CSV file of path,label.
    Label(label::LabelVerb),
    /// Train a classifier on few labels and all images.
    Train(train::Train),
    /// Hand a training in as a job of Slurm.
    Launch(launch::Launch),
    /// Compare algorithms over labels per class and seeds; tables and figures of all runs.
    Sweep(sweep::SweepVerb),
    /// Show how good a finished run's model is.
    Evaluate(evaluate::Evaluate),
    /// Classify new images.
    Predict(predict::Predict),
    /// Judge a network's features: nearest neighbours and a linear classifier on them, nothing trained.
    Probe(probe::Probe),
    /// Write a label for every image of a finished run.
    Labels(labels::Labels),
    /// Copy a finished run's model, to take elsewhere.
    Export(export::Export),
    /// Keep published weights to start from, by name.
    #[command(subcommand)]
    Weights(weights::Weights),
    /// Look at the settings.
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Show the page where images are labelled, models trained and results looked at.
    Serve(serve::Serve),
    /// Show devices, versions, and what is missing.
    Doctor(doctor::Doctor),
    /// Measure speed and memory.
    #[command(subcommand)]
    Bench(bench::Bench),
}

impl Verb {
    /// Whether nothing is lost if it ends as soon as nobody reads what it prints. Those that train, serve or talk to others
    /// write to much else, and must not die of that.
    fn only_prints(&self) -> bool {
        match self {
            Self::Doctor(_)
            | Self::Config(_)
            | Self::Scan(_)
            | Self::Sample(_)
            | Self::Label(_)
            | Self::Init(_) => true,
            Self::Evaluate(_) | Self::Predict(_) | Self::Probe(_) | Self::Labels(_) | Self::Export(_) => true,
            Self::Weights(weights) => weights.only_prints(),
            _ => false,
        }
    }
}

/// For an end that is to be followed by another start; the same as of a rank that has lost another.
const COME_BACK: u8 = harvest_collectives::EXIT_LOST as u8;

/// Runs the program; returns 0, 1 for a failure, 2 for a command or configuration that makes no sense, 130 when stopped by a
/// person, 75 when stopped or lost in order to be started again.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.verb.only_prints() {
        signals::end_with_the_reader();
    }
    let result = match arguments.verb {
        Verb::Demo(verb) => verb.run(),
        Verb::Init(verb) => verb.run(),
        Verb::Scan(verb) => verb.run(),
        Verb::Cluster(verb) => verb.run(),
        Verb::Sample(verb) => verb.run(),
        Verb::Label(verb) => verb.run(),
        Verb::Train(verb) => verb.run(),
        Verb::Launch(verb) => verb.run(),
        Verb::Sweep(verb) => verb.run(),
        Verb::Evaluate(verb) => verb.run(),
        Verb::Predict(verb) => verb.run(),
        Verb::Probe(verb) => verb.run(),
        Verb::Labels(verb) => verb.run(),
        Verb::Export(verb) => verb.run(),
        Verb::Weights(verb) => verb.run(),
        Verb::Config(verb) => verb.run(),
        Verb::Serve(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
    };
    if let Some(watched) = crate::report::watched() {
        watched.finish();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = message(&error);
            eprintln!("error: {message}");
            let code = exit_code(&error);
            // Another start would meet the same, unless this one was stopped in order to go on.
            if ![jobs::COME_BACK, 130].map(ExitCode::from).contains(&code) {
                jobs::note_failure(&message);
            }
            code
        }
    }
}

/// All causes on one line, without repeating what a transparent error passes on.
fn message(error: &anyhow::Error) -> String {
    crate::experiment::chain(error.as_ref())
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    use crate::clustering::{ClusterError, LearnError};
    use crate::device::DeviceError;
    use crate::experiment::ExperimentError;
    use crate::training::TrainError;
    if error.is::<context::ComeBack>() {
        return ExitCode::from(COME_BACK);
    }
    for cause in error.chain() {
        // What is wrong with a member of self-training is what is wrong.
        let cause: &(dyn std::error::Error + 'static) = match cause.downcast_ref() {
            Some(ExperimentError::Member { source, .. }) => source.as_ref(),
            _ => cause,
        };
        if let Some(error) = cause.downcast_ref::<TrainError>()
            && let Some(code) = interrupted(error)
        {
            return code;
        }
        let usage = cause.is::<ConfigError>()
            || cause.is::<context::Usage>()
            || cause.is::<DeviceError>()
            || cause.is::<harvest_models::ConfigError>()
            || matches!(cause.downcast_ref(), Some(ExperimentError::NoRoot));
        if usage {
            return ExitCode::from(2);
        }
        if matches!(cause.downcast_ref(), Some(crate::thumbs::ThumbError::Interrupted)) {
            return ExitCode::from(130);
        }
        // Transparent variants hide the cause they pass on.
        match cause.downcast_ref() {
            Some(ExperimentError::Train(error)) => {
                if let Some(code) = interrupted(error) {
                    return code;
                }
            }
            Some(ExperimentError::Cluster(LearnError::Cluster(ClusterError::Interrupted))) => {
                return ExitCode::from(130);
            }
            Some(ExperimentError::HowManyClusters) => return ExitCode::from(2),
            Some(
                ExperimentError::Device(_)
                | ExperimentError::Model(_)
                | ExperimentError::Scope(_)
                | ExperimentError::Config(_),
            ) => {
                return ExitCode::from(2);
            }
            _ => {}
        }
    }
    ExitCode::FAILURE
}

/// The code of a training that has come to its end early but orderly.
fn interrupted(error: &crate::training::TrainError) -> Option<ExitCode> {
    match error {
        crate::training::TrainError::Interrupted { come_back: true, .. } => Some(ExitCode::from(COME_BACK)),
        crate::training::TrainError::Interrupted { .. } => Some(ExitCode::from(130)),
        _ => None,
    }
}
