//! `harvest evaluate`: how good a finished run's model is.

use std::path::PathBuf;

use clap::Args;

use super::context::{Usage, run_cache};
use super::signals::Asked;
use crate::experiment::{FinishedRun, Shown};
use crate::files::atomic_write;
use crate::metrics::Scores;
use crate::report::{confusion_svg, reliability_svg};

/// Show how good a finished run's model is.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The run folder.
    run: PathBuf,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Say nothing but results and errors.
    #[arg(long, short)]
    quiet: bool,
}

impl Evaluate {
    pub fn run(self) -> anyhow::Result<()> {
        let stop = Asked::listen()?.stop;
        let progress = Shown::new(self.quiet);
        let run = FinishedRun::open(&self.run, &crate::device::by_name(&self.device)?)?;
        let (name, indices) = match (&run.split.test, &run.split.evaluation) {
            (test, _) if !test.is_empty() => ("test", test),
            (_, evaluation) if !evaluation.is_empty() => ("evaluation", evaluation),
            _ => return Err(Usage("the run kept no images for test or evaluation".to_owned()).into()),
        };
        let cache = run.cache(&run_cache(&self.run), &progress, &stop)?;
        let (scores, reliable) = run.scores(&cache, indices);
        print(name, &scores, &run.bundle.classes);
        let picture = self.run.join("confusion.svg");
        atomic_write(&picture, confusion_svg(&scores.confusion, &run.bundle.classes).as_bytes())?;
        println!("confusion matrix as a picture: {}", picture.display());
        let (Some(confidence), Some(reliable)) = (&run.bundle.confidence, reliable) else {
            println!(
                "confidences are not calibrated: the run kept no evaluation images, or is of an earlier version"
            );
            return Ok(());
        };
        println!("\n{}\n{}", confidence.temperature_sentence(), confidence.reject_sentence());
        println!("on the {name} images: {}", reliable.sentence());
        if name == "test" {
            println!("on the evaluation images: {}", confidence.error_sentence());
        }
        let diagram = self.run.join("reliability.svg");
        let svg =
            reliability_svg(&format!("Reliability on {name} images"), &reliable.before, &reliable.after);
        atomic_write(&diagram, svg.as_bytes())?;
        println!("confidence against accuracy as a picture: {}", diagram.display());
        Ok(())
    }
}

fn print(set: &str, scores: &Scores, classes: &[String]) {
    println!("{} {set} images", scores.samples);
    println!("error rate {:.1} %, accuracy {}", 100.0 * scores.error_rate, scores.accuracy_text());
    let average = &scores.macro_present;
    println!(
        "macro precision {:.4}, recall {:.4}, F1 {:.4}\n",
        average.precision, average.recall, average.f1
    );
    let width = classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
    println!("{:width$}  precision  recall      F1  images", "class");
    for (name, class) in classes.iter().zip(&scores.per_class) {
        println!(
            "{name:width$}  {:>9.4}  {:>6.4}  {:>6.4}  {:>6}",
            class.precision, class.recall, class.f1, class.support
        );
    }
    println!("\nconfusion: a row for each true class, a column for each prediction");
    let confusion = &scores.confusion;
    let count = classes.len();
    let digits = (0..count * count)
        .map(|i| confusion.count(i / count, i % count).to_string().len())
        .max()
        .unwrap_or(1);
    for (target, name) in classes.iter().enumerate() {
        let row: Vec<String> = (0..count)
            .map(|prediction| format!("{:>digits$}", confusion.count(target, prediction)))
            .collect();
        println!("{name:width$}  {}", row.join(" "));
    }
}
