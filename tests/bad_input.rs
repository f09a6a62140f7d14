//! What users get wrong, through the real program: a message that says what, where and what to do; exit code 2 for a
//! command or configuration that makes no sense, 1 for a failure; earlier results untouched.

#[path = "support/program.rs"]
mod program;

use program::{World, fails, only_run, succeeds};

#[test]
fn a_missing_folder_is_named() {
    let world = World::new();
    fails(&world.harvest(&["train", "--data", "nowhere"]), 1, &["nowhere"]);
    fails(&world.harvest(&["train"]), 2, &["data.root", "harvest init"]);
    fails(&world.harvest(&["init", "project", "--images", "nowhere", "--classes", "a,b"]), 1, &["nowhere"]);
    fails(&world.harvest(&["evaluate", "nowhere"]), 1, &["nowhere"]);
    fails(&world.harvest(&["predict", "--model", "nowhere", "images"]), 1, &["nowhere", "bundle"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let world = World::new();
    // Below a regular file nobody can write, not even the administrator.
    world.write("file", "");
    fails(&world.train(&["--set", "run.folder=file/runs"]), 1, &["file/runs", "cannot"]);
}

#[test]
fn a_class_with_too_few_labels_is_named() {
    let world = World::new();
    let output = world.train(&["--labels-per-class", "40"]);
    fails(&output, 2, &["--labels-per-class"]);
    let output = world.train(&["--set", "data.labels_per_class=40"]);
    // The named flag of the helper wins over --set only if it comes later; here the last one counts.
    fails(&output, 1, &["dark", "40", "label more"]);
}

#[test]
fn label_files_are_checked_line_by_line() {
    let world = World::new();
    succeeds(&world.harvest(&["init", "project", "--images", "images", "--classes", "rust,mildew"]));
    succeeds(&world.harvest(&["scan", "-q", "--project", "project", "--set", "data.kind=\"folder\""]));
    let label = |text: &str| {
        world.write("labels.csv", text);
        world.harvest(&["label", "labels.csv", "--project", "project"])
    };
    fails(&label("path,label\ndark/1.png,rust\ndark/99.png,rust\n"), 1, &["labels.csv:3", "dark/99.png"]);
    fails(&label("path,label\ndark/1.png,rusty\n"), 1, &["labels.csv:2", "rusty", "rust"]);
    let text = succeeds(&label("path,label\ndark/1.png,rust\nlight/1.png,mildew\n"));
    assert!(text.contains("2 labels"), "{text}");
}

#[test]
fn settings_are_checked_and_hinted() {
    let world = World::new();
    let recipe = world.write("recipe.toml", "[training]\nstepz = 3\n");
    let recipe = recipe.to_str().expect("a temporary path is text");
    fails(
        &world.harvest(&["train", "--config", recipe, "--data", "images"]),
        2,
        &["recipe.toml", "2", "stepz", "training.steps"],
    );
    world.write("recipe.toml", "[training]\nsteps = \"many\"\n");
    fails(&world.harvest(&["train", "--config", recipe, "--data", "images"]), 2, &["recipe.toml", "steps"]);
    fails(&world.harvest(&["config", "show", "--set", "training.rate=1"]), 2, &["training.rate"]);
    fails(&world.harvest(&["config", "show", "--config", "nowhere.toml"]), 2, &["nowhere.toml"]);
    fails(&world.train(&["--set", "run.device=\"tpu\""]), 2, &["tpu"]);
    fails(&world.train(&["--set", "model.name=\"resnet9\""]), 2, &["resnet9", "resnet8"]);
    fails(&world.harvest(&["trian"]), 2, &["trian", "train"]);
}

#[test]
fn a_checkpoint_of_another_model_is_refused_and_left_alone() {
    let world = World::new();
    succeeds(&world.train(&[]));
    let run = only_run(&world.path("runs"));
    std::fs::remove_file(run.join("DONE")).expect("the mark of its end");
    let last = std::fs::read_to_string(run.join("checkpoints/last")).expect("a checkpoint");
    let state = run.join("checkpoints").join(last.trim()).join("state.json");
    let text = std::fs::read_to_string(&state).expect("its state");
    let other = text.replace("freematch", "fixmatch");
    assert_ne!(text, other);
    std::fs::write(&state, &other).expect("the changed state");
    fails(&world.train(&[]), 1, &["fixmatch", "freematch", "--fresh"]);
    assert_eq!(std::fs::read_to_string(&state).expect("its state"), other);
    let reason = std::fs::read_to_string(run.join("FAILED")).expect("the reason in the run folder");
    assert!(reason.contains("--fresh"), "{reason}");
    succeeds(&world.train(&["--fresh"]));
}

#[test]
fn a_full_disk_is_told_and_earlier_results_stay() {
    let world = World::new();
    succeeds(&world.train(&[]));
    let run = only_run(&world.path("runs"));
    let report = std::fs::read(run.join("report.html")).expect("the first report");
    // A limit on the size of files acts like a full disk and needs no rights.
    let program = assert_cmd::cargo::cargo_bin("harvest");
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {} train -q --data images --model resnet8 --device cpu --steps 2 \
         --labels-per-class 4 --set training.batch=2 --set model.image_size=16 --set data.test_fraction=0.25 \
         --set training.warmup_steps=0 --seed 9",
        program.display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(world.0.path())
        .output()
        .expect("a shell");
    fails(&output, 1, &["cannot write"]);
    assert_eq!(std::fs::read(run.join("report.html")).expect("the first report"), report);
    assert!(run.join("DONE").exists());
}

#[test]
fn unusable_images_are_set_aside_not_fatal() {
    let world = World::new();
    world.write("images/dark/notes.jpg", "not a picture");
    world.write("images/dark/empty.png", "");
    let text = succeeds(&world.harvest(&["scan", "-q", "--data", "images"]));
    assert!(text.contains("24 images") && text.contains("2 files set aside"), "{text}");
    assert!(text.contains("dark/notes.jpg") && text.contains("dark/empty.png"), "{text}");
}

#[test]
fn the_whole_loop_leaves_what_it_promises() {
    let world = World::new();
    succeeds(&world.train(&["--set", "training.evaluate_every=1"]));
    let run = only_run(&world.path("runs"));
    for file in [
        "config.toml",
        "metrics.csv",
        "report.html",
        "confusion.svg",
        "scores.json",
        "environment.json",
        "DONE",
        "inputs/split.json",
        "bundle/model.safetensors",
        "bundle/config.json",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let folder = run.to_str().expect("a temporary path is text");
    let text = succeeds(&world.harvest(&["evaluate", folder, "-q"]));
    assert!(text.contains("error rate") && text.contains("dark"), "{text}");
    succeeds(&world.harvest(&["labels", folder, "-q"]));
    let labels = std::fs::read_to_string(run.join("labels.csv")).expect("labels");
    assert_eq!(labels.lines().count(), 25, "{labels}");
    assert!(labels.contains(",expert"), "{labels}");
    let lists = std::fs::read_to_string(run.join("classes.json")).expect("lists");
    assert!(lists.contains("images/dark/0.png"), "{lists}");
    let table = succeeds(&world.harvest(&["predict", "--model", folder, "images/light", "--device", "cpu"]));
    assert_eq!(table.lines().count(), 13, "{table}");
    succeeds(&world.harvest(&["export", folder, "--out", "model"]));
    let table = succeeds(&world.harvest(&["predict", "--model", "model", "images/light/3.png"]));
    assert_eq!(table.lines().count(), 2, "{table}");
    // The same command on a finished run begins a new one and leaves the old one alone.
    succeeds(&world.train(&["--set", "training.evaluate_every=1"]));
}

#[test]
fn hyper_parameters_out_of_range_are_refused() {
    let world = World::new();
    for (setting, words) in [
        ("algorithm.fixmatch.threshold=1.5", ["algorithm.fixmatch.threshold", "1.5"]),
        ("algorithm.flexmatch.threshold=-0.1", ["algorithm.flexmatch.threshold", "0 or more"]),
        ("algorithm.adamatch.threshold=1.01", ["algorithm.adamatch.threshold", "1 or less"]),
        ("algorithm.pseudolabel.threshold=2", ["algorithm.pseudolabel.threshold", "1 or less"]),
        ("algorithm.freematch.temperature=-1", ["algorithm.freematch.temperature", "more than 0"]),
        ("algorithm.softmatch.temperature=0", ["algorithm.softmatch.temperature", "more than 0"]),
        ("algorithm.softmatch.n_sigma=0", ["algorithm.softmatch.n_sigma", "more than 0"]),
        ("algorithm.mixmatch.temperature=-0.5", ["algorithm.mixmatch.temperature", "more than 0"]),
        ("algorithm.mixmatch.alpha=0", ["algorithm.mixmatch.alpha", "more than 0"]),
        ("algorithm.remixmatch.temperature=0", ["algorithm.remixmatch.temperature", "more than 0"]),
        ("algorithm.remixmatch.rotation_weight=-1", ["algorithm.remixmatch.rotation_weight", "0 or more"]),
        ("algorithm.meanteacher.decay=1", ["algorithm.meanteacher.decay", "less than 1"]),
        ("algorithm.meanteacher.unsup_warm_up=1.1", ["algorithm.meanteacher.unsup_warm_up", "1 or less"]),
        ("algorithm.freematch.decay=1", ["algorithm.freematch.decay", "less than 1"]),
        ("algorithm.uda.threshold=7", ["algorithm.uda.threshold", "1 or less"]),
        ("training.unlabelled_ratio=0", ["training.unlabelled_ratio", "1 or more"]),
        ("training.batch=0", ["training.batch", "1 or more"]),
        ("labels.smoothing=1", ["labels.smoothing", "less than 1"]),
        ("labels.logit_adjustment=-1", ["labels.logit_adjustment", "0 or more"]),
        ("labels.ordinal_width=-1", ["labels.ordinal_width", "0 or more"]),
        ("labels.sampling=\"class\"", ["labels.sampling", "classes"]),
    ] {
        // Refused although the chosen algorithm is another: the mistake would wait for the day it is chosen.
        fails(&world.train(&["--set", setting]), 2, &words);
    }
    assert!(!world.path("runs").exists(), "nothing was begun");
    let both = ["--algorithm", "adamatch", "--set", "labels.alignment=\"uniform\""];
    fails(&world.train(&both), 2, &["labels.alignment", "adamatch", "aligns by itself"]);
    fails(&world.train(&["--set", "labels.ordinal_width=1"]), 1, &["ordinal_width", "no order"]);
}

#[test]
fn fewer_labelled_images_than_a_batch_are_repeated() {
    let world = World::new();
    for algorithm in ["freematch", "adamatch", "mixmatch"] {
        let text = succeeds(&world.train(&[
            "--algorithm",
            algorithm,
            "--set",
            "data.labels_per_class=1",
            "--set",
            "data.evaluation_fraction=0",
            "--set",
            "training.batch=7",
            "--set",
            "training.unlabelled_ratio=5",
        ]));
        assert!(text.contains("images right"), "{text}");
    }
}

#[test]
fn a_class_without_images_is_named() {
    let world = World::new();
    succeeds(&world.harvest(&["init", "project", "--images", "images", "--classes", "dark,light,grey"]));
    succeeds(&world.harvest(&["scan", "-q", "--project", "project", "--set", "data.kind=\"folder\""]));
    world.write("labels.csv", "path,label\ndark/1.png,dark\ndark/2.png,dark\nlight/1.png,light\n");
    succeeds(&world.harvest(&["label", "labels.csv", "--project", "project"]));
    let output = world.harvest(&[
        "train",
        "-q",
        "--project",
        "project",
        "--model",
        "resnet8",
        "--set",
        "data.kind=\"folder\"",
        "--device",
        "cpu",
    ]);
    fails(&output, 1, &["grey", "label more"]);
}

/// A project of percentage bins, some images of which show something else.
fn percentage_project(world: &World, labels: &str) -> Vec<String> {
    let init = ["init", "project", "--images", "images", "--kind", "percentage", "--bins", "4"];
    succeeds(&world.harvest(&init));
    succeeds(&world.harvest(&["scan", "-q", "--project", "project", "--set", "data.kind=\"folder\""]));
    world.write("labels.csv", labels);
    succeeds(&world.harvest(&["label", "labels.csv", "--project", "project"]));
    let train = "train -q --project project --model resnet8 --device cpu --steps 2 --set training.batch=2 \
                 --set model.image_size=16 --set data.kind=\"folder\" --set data.test_fraction=0.5 \
                 --set training.warmup_steps=0 --set data.labels_per_class=1 --set data.evaluation_fraction=0";
    train.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn percentage_bins_tell_how_far_off_they_are_everywhere() {
    let world = World::new();
    let bins = ["0-25 %", "25-50 %", "50-75 %", "75-100 %"];
    let rows = (0..12).map(|i| format!("dark/{i}.png,{}\n", bins[i % 4]));
    let labels: String = std::iter::once("path,label\n".to_owned()).chain(rows).collect();
    let mut train = percentage_project(&world, &labels);
    train.extend(["--set", "labels.ordinal_width=0.5"].map(str::to_owned));
    let text = succeeds(&world.harvest(&train.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(text.contains("% off on average"), "{text}");
    let run = only_run(&world.path("project/runs"));
    let report = std::fs::read_to_string(run.join("report.html")).expect("a report");
    assert!(report.contains("Mean absolute error"), "{report}");
    let scores = std::fs::read_to_string(run.join("scores.json")).expect("scores");
    assert!(scores.contains("mean_absolute_error"), "{scores}");
    let text = succeeds(&world.harvest(&["evaluate", "-q", run.to_str().expect("text"), "--device", "cpu"]));
    assert!(text.contains("% off on average"), "{text}");
    let bundle = std::fs::read_to_string(run.join("bundle/config.json")).expect("a bundle");
    assert!(bundle.contains("mean absolute error"), "{bundle}");
}

#[test]
fn images_of_no_class_are_not_pseudo_labelled() {
    let world = World::new();
    let mut labels = "path,label\n".to_owned();
    for (i, bin) in ["0-25 %", "25-50 %", "50-75 %", "75-100 %"].iter().enumerate() {
        labels += &format!("dark/{i}.png,{bin}\ndark/{}.png,{bin}\n", i + 4);
    }
    labels += "light/0.png,none of these\nlight/1.png,bad image\nlight/2.png,not sure\n";
    let train = percentage_project(&world, &labels);
    succeeds(&world.harvest(&train.iter().map(String::as_str).collect::<Vec<_>>()));
    let run = only_run(&world.path("project/runs"));
    let images = std::fs::read_to_string(run.join("inputs/images.jsonl")).expect("the images");
    // The first line is the head of the list.
    let image = |name: &str| {
        let position = images.lines().skip(1).position(|line| line.contains(&format!("\"{name}\"")));
        serde_json::Value::from(position.expect(name))
    };
    let split = std::fs::read_to_string(run.join("inputs/split.json")).expect("the split");
    let split: serde_json::Value = serde_json::from_str(&split).expect("JSON");
    let holds = |list: &str, name: &str| split[list].as_array().expect(list).contains(&image(name));
    for name in ["light/0.png", "light/1.png"] {
        assert!(holds("left_out", name) && !holds("unlabelled", name) && !holds("labelled", name), "{name}");
    }
    // Not sure is not none: the image may belong to a class, and the others surely may.
    for name in ["light/2.png", "light/3.png"] {
        assert!(holds("unlabelled", name), "{name}");
    }
}

#[test]
fn a_dry_run_tells_and_leaves_no_run() {
    let world = World::new();
    let text = succeeds(&world.train(&["--dry-run"]));
    for words in ["24 of 2 classes", "freematch", "one step on two images of noise", "nothing was trained"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let runs = std::fs::read_dir(world.path("runs")).expect("the list of images lies there");
    assert!(runs.flatten().all(|entry| !entry.path().join("config.toml").exists()));
    fails(&world.train(&["--dry-run", "--set", "published.classes=3"]), 1, &["2 classes instead of 3"]);
}
