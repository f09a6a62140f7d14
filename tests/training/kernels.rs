//! The plain path gives the same losses. Through the program, since the choice is one for a whole process.

#[path = "../support/program.rs"]
#[expect(dead_code, reason = "shared with tests of programs that fail")]
mod program;

use std::path::Path;

use program::{World, only_run, succeeds};

/// The logged losses of the run in `runs`.
fn losses(runs: &Path) -> Vec<f64> {
    let mut table = csv::Reader::from_path(only_run(runs).join("metrics.csv")).expect("a table");
    let headings = table.headers().expect("a first line").clone();
    let column = headings.iter().position(|heading| heading == "loss").expect("losses are logged");
    let rows = table.records().map(|row| row.expect("a row"));
    rows.filter_map(|row| row[column].parse().ok()).collect()
}

#[test]
fn the_reference_gives_the_same_losses() {
    let world = World::new();
    for model in ["resnet8", "vit_tiny_patch2_32"] {
        let run = |kernels: &str| {
            let folder = format!("{model}-{kernels}");
            let settings = [
                format!("model.name={model}"),
                format!("run.folder={folder}"),
                "training.steps=6".to_owned(),
                "training.log_every=1".to_owned(),
            ];
            let set = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
            succeeds(&world.train(&["--kernels", kernels].into_iter().chain(set).collect::<Vec<_>>()));
            losses(&world.path(&folder))
        };
        let (fused, reference) = (run("fused"), run("reference"));
        assert!(fused.len() >= 5 && fused.len() == reference.len(), "{fused:?} {reference:?}");
        assert_ne!(fused, reference, "another order of sums: else the choice was not heard");
        for (fused, reference) in fused.iter().zip(&reference) {
            assert!(
                (fused - reference).abs() <= 2e-3 * reference.abs().max(1.0),
                "{model}: {fused} {reference}"
            );
        }
    }
}
