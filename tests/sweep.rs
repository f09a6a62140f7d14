//! `harvest sweep` through the real program: what it leaves, and that nothing is done twice or lost.

#[path = "support/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use program::{World, fails, succeeds};

/// What all runs of these sweeps share.
const RECIPE: &str = r#"
[data]
root = "images"
kind = "class_folders"
test_fraction = 0.25
evaluation_fraction = 0.0

[model]
name = "resnet8"
image_size = 16

[training]
steps = 3
batch = 2
warmup_steps = 0
"#;

fn write_sweep(world: &World, axes: &str) {
    world.write("recipe.toml", RECIPE);
    world.write("sweep.toml", &format!("recipe = \"recipe.toml\"\n\n[sweep]\n{axes}\n"));
}

const SMALL: &str = "algorithms = [\"fixmatch\", \"supervised\"]\nlabels_per_class = [2, 4]\nseeds = [0, 1]";

fn sweep(world: &World, more: &[&str]) -> std::process::Output {
    let first = ["sweep", "sweep.toml", "--out", "sweep", "-q", "--device", "cpu"];
    world.harvest(&[&first[..], more].concat())
}

/// Rows of a CSV file of the sweep's folder, by column.
fn rows(world: &World, file: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(world.path("sweep").join(file)).expect(file);
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

fn runs(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.path("sweep")).expect("the sweep's folder");
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    runs.retain(|path| path.join("config.toml").exists());
    runs.sort();
    runs
}

#[test]
fn a_sweep_leaves_results_table_figures_and_page() {
    let world = World::new();
    write_sweep(&world, SMALL);
    let text = succeeds(&sweep(&world, &["--dry-run"]));
    assert_eq!(text.lines().count(), 8, "{text}");
    assert!(text.contains("fixmatch, resnet8, 2 labels per class, seed 0: waiting"), "{text}");
    assert!(!world.path("sweep").exists(), "a dry run leaves nothing");

    let text = succeeds(&sweep(&world, &["--only", "3"]));
    assert!(text.contains("run 3 of 8"), "{text}");
    let done = |rows: &[BTreeMap<String, String>]| rows.iter().filter(|row| row["state"] == "done").count();
    assert_eq!(done(&rows(&world, "results.csv")), 1);
    fails(&sweep(&world, &["--only", "9"]), 2, &["--only 9", "1 to 8"]);

    succeeds(&sweep(&world, &[]));
    let results = rows(&world, "results.csv");
    assert_eq!((results.len(), done(&results), runs(&world).len()), (8, 8, 8));
    for row in &results {
        let number = |column: &str| row[column].parse::<f64>().expect(column);
        assert!(
            number("accuracy_low") <= number("accuracy") && number("accuracy") <= number("accuracy_high")
        );
        assert!((number("accuracy") + number("error_rate") - 1.0).abs() < 1e-5);
        let folder = world.path("sweep").join(&row["run"]);
        let config = std::fs::read_to_string(folder.join("config.toml")).expect("the run's settings");
        assert!(config.contains(&format!("\nseed = {} ", row["seed"])), "{config}");
        assert!(config.contains(&format!("labels_per_class = {} ", row["labels_per_class"])), "{config}");
    }
    // The table is the mean over seeds.
    let table = rows(&world, "table.csv");
    assert_eq!(table.len(), 4);
    for row in &table {
        let same = |run: &&BTreeMap<String, String>| {
            ["algorithm", "model", "labels_per_class"].iter().all(|column| run[*column] == row[*column])
        };
        let own: Vec<f64> =
            results.iter().filter(same).map(|run| run["f1"].parse().expect("a number")).collect();
        assert_eq!((own.len(), row["runs"].as_str()), (2, "2"));
        let mean: f64 = row["f1_mean"].parse().expect("a number");
        assert!((mean - own.iter().sum::<f64>() / 2.0).abs() < 2e-6);
    }
    let read = |file: &str| std::fs::read_to_string(world.path("sweep").join(file)).expect(file);
    assert!(read("error_over_labels.svg").contains("labelled images per class"));
    assert!(read("report.html").contains("8 of 8 runs done"));
    assert!(!world.path("sweep/models.svg").exists(), "there is only one model");

    // Nothing is done twice.
    let before = runs(&world);
    let seconds = |world: &World| {
        rows(world, "results.csv").into_iter().map(|mut row| row.remove("seconds")).collect::<Vec<_>>()
    };
    let times = seconds(&world);
    succeeds(&sweep(&world, &[]));
    assert_eq!((runs(&world), seconds(&world)), (before, times));
}

#[test]
fn few_labels_are_measured_against_all() {
    let world = World::new();
    // What the recipe says of labels does not count: a sweep's own axes win.
    write_sweep(&world, &format!("{SMALL}\nfully_labelled = true\n\n[data]\nfully_labelled = true"));
    let text = succeeds(&sweep(&world, &["--dry-run"]));
    assert_eq!(text.lines().count(), 10, "{text}");
    assert!(text.contains("supervised, resnet8, all labels, seed 1: waiting"), "{text}");

    let text = succeeds(&sweep(&world, &["--only", "5"]));
    assert!(text.contains("run 5 of 10: supervised, resnet8, all labels, seed 0"), "{text}");
    let results = rows(&world, "results.csv");
    let row = &results[4];
    assert_eq!((row["labels_per_class"].as_str(), row["state"].as_str()), ("all", "done"));
    // All that are not kept for the test.
    let read = |path: &str| std::fs::read_to_string(world.path("sweep").join(path)).expect(path);
    let count = |row: &BTreeMap<String, String>, list: &str| {
        let split = read(&format!("{}/inputs/split.json", row["run"]));
        let split: serde_json::Value = serde_json::from_str(&split).expect("JSON");
        split[list].as_array().expect(list).len()
    };
    let all = count(row, "labelled");
    assert!(all > 8 && all == count(row, "unlabelled"), "{all}");
    succeeds(&sweep(&world, &["--only", "2"]));
    assert!(count(&rows(&world, "results.csv")[1], "labelled") < all);

    let figure = read("error_over_labels.svg");
    assert!(figure.contains("all labels: ") && figure.contains("one seed"), "{figure}");
    assert!(!figure.contains(">all<"), "all labels are no place of the axis");
    let table = rows(&world, "table.csv");
    assert_eq!(table.iter().filter(|row| row["labels_per_class"] == "all").count(), 1);
}

#[test]
fn base_models_stand_side_by_side() {
    let world = World::new();
    let axes = "algorithms = [\"supervised\"]\nmodels = [\"resnet8\", \"vit_tiny_patch2_32\"]\nlabels_per_class = [2]\nseeds = [0]";
    write_sweep(&world, axes);
    succeeds(&sweep(&world, &["--set", "training.steps=1"]));
    let figure = std::fs::read_to_string(world.path("sweep/models.svg")).expect("the figure");
    assert!(figure.contains("resnet8") && figure.contains("vit_tiny_patch2_32"));
}

#[test]
fn a_run_that_fails_does_not_stop_the_others() {
    let world = World::new();
    let axes = "algorithms = [\"supervised\"]\nlabels_per_class = [2, 500]\nseeds = [0]";
    write_sweep(&world, axes);
    fails(&sweep(&world, &[]), 1, &["1 of 2 runs failed", "results.csv"]);
    let results = rows(&world, "results.csv");
    assert_eq!((results[0]["state"].as_str(), results[1]["state"].as_str()), ("done", "failed"));
    assert!(results[1]["reason"].contains("500"), "{:?}", results[1]);
    let page = std::fs::read_to_string(world.path("sweep/report.html")).expect("the page");
    assert!(page.contains("1 failed"));
}

#[test]
fn mistakes_in_a_sweep_are_named() {
    let world = World::new();
    write_sweep(&world, "algorithms = [\"fixmach\"]");
    fails(&sweep(&world, &[]), 2, &["sweep.toml:4", "fixmach", "fixmatch"]);
    write_sweep(&world, "algoritms = [\"fixmatch\"]");
    fails(&sweep(&world, &[]), 2, &["sweep.toml:4", "algoritms", "algorithms"]);
    fails(&world.harvest(&["sweep", "nowhere.toml"]), 2, &["nowhere.toml"]);
}

/// The numbers of a finished sweep, without times and folders.
fn numbers(world: &World) -> Vec<BTreeMap<String, String>> {
    let mut rows = rows(world, "results.csv");
    for row in &mut rows {
        row.remove("seconds");
        row.remove("run");
    }
    rows
}

fn kill(process: &mut std::process::Child) {
    process.kill().expect("a running process can be killed");
    process.wait().expect("it has ended");
}

fn a_run_has_begun(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join("checkpoints/last").exists())
}

#[test]
fn a_killed_sweep_goes_on_to_the_same_numbers() {
    let axes = "algorithms = [\"freematch\", \"supervised\"]\nlabels_per_class = [2]\nseeds = [0, 1]";
    let long = ["--set", "training.steps=60", "--set", "training.checkpoint_every=2"];
    let (undisturbed, killed) = (World::new(), World::new());
    write_sweep(&undisturbed, axes);
    succeeds(&sweep(&undisturbed, &long));

    write_sweep(&killed, axes);
    let mut process = std::process::Command::new(assert_cmd::cargo::cargo_bin("harvest"))
        .args(["sweep", "sweep.toml", "--out", "sweep", "-q", "--device", "cpu"])
        .args(long)
        .current_dir(killed.path(""))
        .env("XDG_CONFIG_HOME", killed.path("no-such-folder"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    // Until something is there to lose. A machine too fast to be caught only makes the test easier.
    let patience = Instant::now();
    while !a_run_has_begun(&killed.path("sweep")) && patience.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(&mut process);
    assert!(a_run_has_begun(&killed.path("sweep")));
    succeeds(&sweep(&killed, &long));
    assert_eq!(numbers(&killed), numbers(&undisturbed));
    assert_eq!(runs(&killed).len(), 4, "the killed run went on in its own folder");
}
