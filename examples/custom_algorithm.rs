//! An algorithm of your own, in one file, outside of the crate.
//!
//! ```text
//! cargo run --release --example custom_algorithm [STEPS]
//! ```
//!
//! FixMatch asks how likely the likeliest class is. Here an unlabelled image counts if the likeliest class is far enough
//! ahead of the second: 0.5 against 0.1 says more than 0.55 against 0.45. We call it MarginMatch. Everything else (views,
//! batches, optimizer, checkpoints, evaluation, report, exported model) is the program's own.
//!
//! For unlabelled image `b`, let `q_b` be the class probabilities of its weak view and `Q_b` those of its strong view:
//!
//! ```text
//! margin_b = largest q_b - second largest q_b
//! L_u      = mean_b [margin_b ≥ τ] · H(argmax q_b, Q_b)
//! L        = L_s + L_u
//! ```

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::activation::softmax;
use harvest::algorithms::{
    Algorithm, AlgorithmBuilder, Network, Problem, PseudoLabels, SslBatch, StepLoss, Student, Targets,
};
use harvest::config::{Override, Sources, resolve};
use harvest::demo::leaves;
use harvest::experiment::{Dataset, Experiment, Finished, Places, Shown, Team, network_config};

/// Step 1. What can be set. A run is told from others by its `Debug` text, so all settings belong in here.
#[derive(Debug)]
struct MarginMatchConfig {
    /// τ, in [0, 1].
    margin: f32,
}

/// Step 2. What lives from one step to the next. Here only the settings; thresholds or histograms would stand here too,
/// with `state` and `restore` below to keep them over an interruption (see `src/algorithms/freematch.rs`).
struct MarginMatch {
    config: MarginMatchConfig,
}

/// Step 3. The loss of one step.
impl Algorithm for MarginMatch {
    fn name(&self) -> &'static str {
        "marginmatch"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        // Off the graph: the logits [U, C] of the weak views, from which pseudo-labels are made.
        let probabilities = softmax(batch.teach(network), 1);
        let (sorted, classes) = probabilities.sort_descending_with_indices(1);
        let column = |number| sorted.clone().narrow(1, number, 1).squeeze_dim::<1>(1);
        let margin = column(0) - column(1);
        let pseudo = PseudoLabels {
            mask: margin.clone().greater_equal_scalar(self.config.margin).float(),
            targets: Targets::Hard(classes.narrow(1, 0, 1).squeeze_dim::<1>(1)),
            threshold: margin.full_like(self.config.margin),
        };

        // On the graph: labelled images and strong views in one pass. Views whose mask is 0 are not even computed, where
        // the network allows it.
        let student = Student::pass(network, batch, &pseudo);
        // `batch.objective` is cross-entropy with whatever the section `[labels]` asks for.
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        StepLoss::of(supervised, student.consistency(), 1.0, pseudo)
    }
}

/// Step 4. How to make one for a run. `Problem` knows classes, images, steps, seed and device.
impl AlgorithmBuilder for MarginMatchConfig {
    fn name(&self) -> &str {
        "marginmatch"
    }

    fn build(&self, _problem: &Problem) -> Box<dyn Algorithm> {
        Box::new(MarginMatch { config: MarginMatchConfig { margin: self.margin } })
    }
}

/// Step 5. Train it: on drawn leaves, so that the example needs nothing but itself.
fn train(folder: &Path, steps: u32) -> Result<Finished, Box<dyn std::error::Error>> {
    let pictures = folder.join("leaves");
    leaves::write_set(&pictures, 60, 20, 0, 32, |_, _| {})?;

    // All settings have defaults; a recipe or the command line would be further layers here.
    let set = |key: &str, value: &str| Override::flag("example", key, value);
    let config = resolve(&Sources {
        overrides: vec![
            set("data.root", &pictures.display().to_string()),
            set("data.labels_per_class", "10"),
            set("data.evaluation_fraction", "0"),
            set("model.name", "resnet8"),
            set("training.steps", &steps.to_string()),
            set("training.batch", "16"),
            set("training.unlabelled_ratio", "2"),
            set("training.lr", "2e-3"),
            set("training.layer_decay", "1"),
        ],
        ..Sources::default()
    })?;

    let (progress, go_on) = (Shown::new(false), AtomicBool::new(false));
    let places = Places::in_runs(&folder.join("runs"), &pictures);
    let dataset = Dataset::load(&config, &places, None, &progress, &go_on)?;
    let split = dataset.split(&config, &places)?;
    let experiment = Experiment {
        config: &config,
        algorithm: &MarginMatchConfig { margin: 0.3 },
        model: network_config(&config.value.model, dataset.classes.len())?,
        dataset: &dataset,
        split: &split,
        device: harvest::device::by_name("auto")?,
        places: &places,
        baseline: None,
        team: &Team::alone(),
    };
    Ok(experiment.execute(false, &[], &progress, &go_on)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps = std::env::args().nth(1).map_or(Ok(300), |steps| steps.parse())?;
    let folder = Path::new("harvest-example");
    let finished = train(folder, steps)?;
    println!("{}", finished.summary());
    println!("report: {}", finished.folder.join("report.html").display());
    Ok(())
}

// Step 6. Once it is worth keeping: move the first four parts to a file in `src/algorithms`, derive `Serialize`,
// `Deserialize` and `Default` for the settings, name it in the table of `src/algorithms/registry.rs`, and it has a
// configuration section, a command line and a place in sweeps.

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_trains_and_leaves_a_report_and_a_model() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let finished = train(folder.path(), 40).expect("the run ends");
        let scores = finished.test.expect("the leaves have test pictures");
        // Guessing one of eight conditions is right in 12.5 % of the cases.
        assert!(scores.accuracy > 0.2, "{}", scores.accuracy);
        let report = std::fs::read_to_string(finished.folder.join("report.html")).expect("a report");
        assert!(report.contains("marginmatch with resnet8"));
        assert!(finished.folder.join("bundle/model.safetensors").exists());
        let name = finished.folder.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.ends_with("-marginmatch-resnet8"), "{name}");
        // What tells it from a run with other settings.
        assert!(finished.folder.join("inputs/algorithm.txt").exists());
    }
}
