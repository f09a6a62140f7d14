//! Jobs on this machine through the real program: they outlive who started them, stop in order, go on with the labels they
//! began with.

#[path = "support/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use program::{World, fails, only_run, succeeds};
use serde_json::Value;

/// A training that takes a while and saves often.
const TRAIN: [&str; 17] = [
    "train",
    "--model",
    "resnet8",
    "--device",
    "cpu",
    "--steps",
    "600",
    "--set",
    "training.batch=2",
    "--set",
    "model.image_size=16",
    "--set",
    "training.checkpoint_every=5",
    "--set",
    "training.log_every=5",
    "--set",
    "training.evaluate_every=50",
];

/// A project of the world's images with a table of labels.
fn project(world: &World, name: &str, labels: &[(&str, u8)]) {
    if !world.path("project").exists() {
        succeeds(&world.harvest(&["init", "project", "--images", "images", "--classes", "dark,light"]));
        succeeds(&world.harvest(&["scan", "--quiet", "--project", "project"]));
    }
    let rows: String =
        labels.iter().map(|(class, number)| format!("{class}/{number}.png,{class}\n")).collect();
    world.write(name, &format!("path,label\n{rows}"));
    succeeds(&world.harvest(&["label", "--project", "project", name]));
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Folder and process of the job that was launched.
fn launched(said: &str) -> (PathBuf, String) {
    let after = |start: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(start)).expect(start);
        line.trim().to_owned()
    };
    let script = PathBuf::from(after("script: "));
    (script.parent().expect("a folder").to_owned(), after("stop:   kill -TERM -"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default()
}

#[test]
fn a_job_that_goes_on_finds_the_labels_it_began_with() {
    let world = World::new();
    let both = |numbers: std::ops::Range<u8>| {
        numbers.flat_map(|number| [("dark", number), ("light", number)]).collect::<Vec<_>>()
    };
    project(&world, "first.csv", &both(0..5));
    let words = [&["launch", "--here", "--"], &TRAIN[..], &["--project", "project"]].concat();
    let (folder, process) = launched(&succeeds(&world.harvest(&words)));
    // In the project that the labels are of there is none around the current folder: the job is beside the images.
    assert!(folder.starts_with(world.path("jobs")), "{}", folder.display());
    let frozen = json(&folder.join("labels.json"));
    assert_eq!(frozen["labels"].as_object().expect("labels").len(), 10);

    // Stopped once it has begun, as a person at a keyboard does.
    let progress = folder.join("progress.json");
    until("the training begins", || {
        json(&progress)["position"].as_u64().is_some_and(|at| at > 20 && json(&progress)["phase"] == "train")
    });
    let seen = json(&progress);
    assert_eq!(seen["total"], 600);
    assert_eq!(seen["words"], "Learning from labelled and unlabelled images");
    let killed = Command::new("bash").args(["-c", "kill -TERM -- -$0", &process]).status();
    assert!(killed.expect("there is a shell").success());
    until("it ends", || folder.join("exit").exists());
    assert_eq!(std::fs::read_to_string(folder.join("exit")).expect("it was left").trim(), "130");
    let run = only_run(&world.path("project/runs"));
    let fingerprint = std::fs::read(run.join("fingerprint")).expect("it has one");
    assert_eq!(PathBuf::from(json(&progress)["folder"].as_str().expect("it is known")), run);

    // Meanwhile labels, and the name of a class, become others.
    project(&world, "second.csv", &both(5..9));
    let file = world.path("project/harvest.toml");
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, text.replace("\"light\"", "\"bright\"")).expect("writable");

    let status = Command::new("bash").arg(folder.join("job.sh")).output().expect("there is a shell");
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(status.status.success(), "{said}");
    assert!(said.contains("going on after step"), "{said}");
    assert_eq!(only_run(&world.path("project/runs")), run, "it was no other run");
    assert_eq!(std::fs::read(run.join("fingerprint")).expect("it has one"), fingerprint);
    assert!(run.join("DONE").exists());
    let split = json(&run.join("inputs/split.json"));
    let used = ["labelled", "evaluation"].map(|part| split[part].as_array().expect("a list").len());
    assert_eq!(used.iter().sum::<usize>(), 10, "the labels as they were");
    let scalars = &json(&progress)["scalars"];
    assert!(scalars["loss"].is_number() && scalars["evaluation_accuracy"].is_number(), "{scalars}");
}

#[test]
fn labels_of_a_job_need_a_project_and_must_be_whole() {
    let world = World::new();
    project(&world, "labels.csv", &[("dark", 0)]);
    let broken = world.write("broken.json", "{}");
    let broken = broken.to_str().expect("text");
    fails(
        &world.harvest(&["train", "--project", "project", "--labels", broken]),
        1,
        &["broken.json", "damaged", "start a new job"],
    );
    fails(&world.harvest(&["train", "--data", "images", "--labels", broken]), 2, &["--labels", "project"]);
}

#[test]
fn what_cannot_be_here_is_refused_and_leaves_nothing() {
    let world = World::new();
    fails(&world.harvest(&["launch", "--here", "--nodes", "2", "--", "train"]), 2, &["--here", "--nodes"]);
    let site = world.write("site.toml", "most_time = \"1:00:00\"\nmodles = []\n");
    let site = site.to_str().expect("text");
    let refused = world.harvest(&["launch", "--site", site, "--", "train", "--data", "images"]);
    fails(&refused, 2, &["site.toml:2: unknown key `modles`; did you mean `modules`?"]);
    world.write("site.toml", "most_time = \"1:00:00\"\n");
    let refused =
        world.harvest(&["launch", "--site", site, "--time", "2:00:00", "--", "train", "--data", "images"]);
    fails(&refused, 2, &["a time of 2:00:00 is more than the 1:00:00"]);
    assert!(!world.path("jobs").exists());
}

#[test]
fn who_stops_reading_ends_the_program_quietly() {
    let world = World::new();
    let program = assert_cmd::cargo::cargo_bin!("harvest");
    for verb in ["doctor", "config show", "weights list"] {
        let line =
            format!("'{}' {verb} | head -n 1 >/dev/null; echo \"${{PIPESTATUS[0]}}\"", program.display());
        for _ in 0..5 {
            let output = Command::new("bash").arg("-c").arg(&line).current_dir(world.0.path()).output();
            let output = output.expect("there is a shell");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(said, "", "{verb}");
            // It may have said everything before the reader went.
            let code = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            assert!(["0", "141"].contains(&code.as_str()), "{verb}: {code}");
        }
    }
}
