//! Each way a configuration can go wrong, by its message; and that layers win in the documented order.

use std::path::{Path, PathBuf};

use super::*;

/// Writes the files into a fresh folder.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a temporary file can be written");
    }
    folder
}

fn recipe(text: &str) -> Result<Resolved, String> {
    let folder = folder(&[("recipe.toml", text)]);
    let path = folder.path().join("recipe.toml");
    let sources = Sources { recipe: Some(path), ..Sources::default() };
    resolve(&sources).map_err(|error| relative(&error, folder.path()))
}

fn relative(error: &ConfigError, folder: &Path) -> String {
    error.to_string().replace(&format!("{}/", folder.display()), "")
}

fn set(settings: &[&str]) -> Result<Resolved, String> {
    let overrides = settings.iter().map(|setting| Override::parse(setting)).collect::<Result<_, _>>();
    let overrides = overrides.map_err(|error| error.to_string())?;
    resolve(&Sources { overrides, ..Sources::default() }).map_err(|error| error.to_string())
}

fn environment(name: &str, value: &str) -> Result<Resolved, String> {
    let environment = vec![(name.to_string(), value.to_string())];
    resolve(&Sources { environment, ..Sources::default() }).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(result: Result<Resolved, String>, message: &str) {
    assert_eq!(result.map(|document| document.value).expect_err("must be refused"), message);
}

#[test]
fn defaults_pass_their_own_check() {
    let document = resolve(&Sources::default()).expect("defaults are valid");
    assert_eq!(document.value, Config::default());
    assert!(document.entries().iter().all(|entry| entry.origin == Origin::Default));
}

#[test]
fn later_layers_win_and_every_value_knows_its_origin() {
    let steps = |steps: u32| format!("[training]\nsteps = {steps}\n");
    let folder = folder(&[
        ("site.toml", &(steps(10) + "batch = 1\n")),
        ("user.toml", &(steps(20) + "lr = 1\n")),
        ("project.toml", &format!("[project]\nname = \"p\"\n[data]\nseed = 3\n{}ema = 0.5\n", steps(30))),
        ("recipe.toml", &(steps(40) + "momentum = 0.1\n")),
    ]);
    let path = |name: &str| Some(folder.path().join(name));
    let mut sources = Sources {
        sweep: None,
        site: path("site.toml"),
        user: path("user.toml"),
        project: path("project.toml"),
        frozen_project: None,
        recipe: path("recipe.toml"),
        environment: vec![
            ("HARVEST_TRAINING__STEPS".into(), "50".into()),
            ("HARVEST_TRAINING__OPTIMIZER".into(), "sgd".into()),
        ],
        overrides: vec![Override::parse("training.steps=60").expect("well formed")],
    };
    sources.overrides.push(Override::flag("--steps", "training.steps", 70));

    let document = resolve(&sources).expect("all layers are valid");
    let training = &document.value.training;
    assert_eq!((training.batch, training.lr, training.ema, training.momentum), (1, 1.0, 0.5, 0.1));
    assert_eq!((training.steps, training.optimizer), (Some(70), OptimizerName::Sgd));
    let file = |name: &str, line| Origin::File { path: folder.path().join(name), line };
    assert_eq!(document.origin("training.batch"), file("site.toml", 3));
    assert_eq!(document.origin("training.lr"), file("user.toml", 3));
    assert_eq!(document.origin("data.seed"), file("project.toml", 4));
    assert_eq!(document.origin("training.ema"), file("project.toml", 7));
    assert_eq!(document.origin("training.momentum"), file("recipe.toml", 3));
    assert_eq!(document.origin("training.optimizer").to_string(), "environment HARVEST_TRAINING__OPTIMIZER");
    assert_eq!(document.origin("training.steps").to_string(), "--steps 70");
    assert_eq!(document.origin("training.seed"), Origin::Default);

    sources.overrides.clear();
    assert_eq!(resolve(&sources).expect("valid").value.training.steps, Some(50));
    sources.environment.clear();
    assert_eq!(resolve(&sources).expect("valid").value.training.steps, Some(40));
    sources.recipe = None;
    assert_eq!(resolve(&sources).expect("valid").value.training.steps, Some(30));
    sources.project = None;
    assert_eq!(resolve(&sources).expect("valid").value.training.steps, Some(20));
    sources.user = path("no such file");
    assert_eq!(resolve(&sources).expect("valid").value.training.steps, Some(10));
}

#[test]
fn unknown_keys_name_file_line_and_the_key_meant() {
    refused(recipe("\ntrainng = 1\n"), "recipe.toml:2: unknown key `trainng`; did you mean `training`?");
    refused(recipe("steps = 5"), "recipe.toml:1: unknown key `steps`; did you mean `training.steps`?");
    refused(
        recipe("[data]\nseed = 1\n\n[training]\nlr = 1\nstpes = 5\n"),
        "recipe.toml:6: unknown key `training.stpes`; did you mean `training.steps`?",
    );
    refused(
        recipe("[algorithm.freematch]\ndecya = 0.9\n"),
        "recipe.toml:2: unknown key `algorithm.freematch.decya`; did you mean `algorithm.freematch.decay`?",
    );
    refused(
        recipe("[algorithm]\nfreematch = { decya = 0.9 }\n"),
        "recipe.toml:2: unknown key `algorithm.freematch.decya`; did you mean `algorithm.freematch.decay`?",
    );
    refused(recipe("training.watermelon = 1"), "recipe.toml:1: unknown key `training.watermelon`");
    refused(
        recipe("[training.lr.deep]\nx = 1"),
        "recipe.toml:1: `training.lr` must be a finite number, not a table",
    );
}

#[test]
fn wrong_types_name_file_line_and_what_is_right() {
    for (text, message) in [
        (
            "[training]\nbatch = \"8\"",
            "recipe.toml:2: `training.batch` must be a whole number from 0 to 4294967295, not \"8\"",
        ),
        (
            "[training]\nbatch = -1",
            "recipe.toml:2: `training.batch` must be a whole number from 0 to 4294967295, not -1",
        ),
        (
            "[training]\nbatch = 1.5",
            "recipe.toml:2: `training.batch` must be a whole number from 0 to 4294967295, not 1.5",
        ),
        ("[training]\nlr = nan", "recipe.toml:2: `training.lr` must be a finite number, not nan"),
        ("[training]\nlr = [1]", "recipe.toml:2: `training.lr` must be a finite number, not a list"),
        ("[views]\nflip = 1", "recipe.toml:2: `views.flip` must be true or false, not 1"),
        ("training = 3", "recipe.toml:1: `training` must be a section, not 3"),
        ("[model]\nname = 3", "recipe.toml:2: `model.name` must be a string, not 3"),
        ("[data]\nroot = 3", "recipe.toml:2: `data.root` must be a path, not 3"),
        ("[data]\nseed = -3", "recipe.toml:2: `data.seed` must be a whole number, 0 or more, not -3"),
        (
            "[training]\n\noptimizer = \"adam\"",
            "recipe.toml:3: `training.optimizer` must be \"adamw\" or \"sgd\", not \"adam\"; did you mean `adamw`?",
        ),
    ] {
        refused(recipe(text), message);
    }
}

#[test]
fn values_out_of_range_name_their_place() {
    refused(recipe("[training]\nlr = 0"), "recipe.toml:2: `training.lr` is 0; it must be more than 0");
    refused(
        recipe("[data]\nevaluation_fraction = 1"),
        "recipe.toml:2: `data.evaluation_fraction` is 1; it must be 0 or more and less than 1",
    );
    refused(
        set(&["training.batch=0"]),
        "--set training.batch=0: `training.batch` is 0; it must be 1 or more",
    );
    refused(
        environment("HARVEST_RUN__DEVICE", "gpu"),
        "environment HARVEST_RUN__DEVICE: `run.device` is \"gpu\"; it must be auto, cpu, cuda, or cuda:N with a device's number",
    );
    refused(
        set(&["training.steps=5", "training.warmup_steps=5"]),
        "--set training.warmup_steps=5: `training.warmup_steps` is 5, but there are only 5 steps; it must be less",
    );
    for limit in ["0", "-1"] {
        let text = format!("training.clip_norm={limit}");
        let message = format!("--set {text}: `training.clip_norm` is {limit}; it must be more than 0");
        refused(set(&[&text]), &message);
    }
}

#[test]
fn text_that_is_not_toml_names_its_line() {
    let message = recipe("[training]\nlr = 1\nlr = = 2").map(drop).expect_err("not TOML");
    assert!(message.starts_with("recipe.toml:3: "), "{message}");
    let message = recipe("[training]\nlr = 1\nlr = 2").map(drop).expect_err("a key twice");
    assert!(message.starts_with("recipe.toml:3: "), "{message}");
}

#[test]
fn a_missing_recipe_is_an_error() {
    let sources = Sources { recipe: Some(PathBuf::from("/no/such/recipe.toml")), ..Sources::default() };
    let error = resolve(&sources).expect_err("the file is missing");
    assert_eq!(error.to_string(), "cannot read the configuration `/no/such/recipe.toml`");
    assert!(
        matches!(error, ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
}

#[test]
fn an_error_in_an_early_layer_is_not_hidden_by_a_later_one() {
    let folder =
        folder(&[("user.toml", "[training]\nsteps = \"many\""), ("recipe.toml", "training.steps = 5")]);
    let sources = Sources {
        user: Some(folder.path().join("user.toml")),
        recipe: Some(folder.path().join("recipe.toml")),
        ..Sources::default()
    };
    let message = resolve(&sources).map_err(|error| relative(&error, folder.path())).map(drop);
    assert_eq!(
        message.expect_err("the user's file is wrong"),
        "user.toml:2: `training.steps` must be a whole number from 0 to 4294967295, not \"many\""
    );
}

#[test]
fn bad_settings_are_quoted_as_typed() {
    refused(
        set(&["training.lr"]),
        "--set training.lr: write it as KEY=VALUE, for example `--set training.lr=3e-4`",
    );
    refused(set(&["=3"]), "--set =3: write it as KEY=VALUE, for example `--set training.lr=3e-4`");
    refused(set(&["lr=3"]), "--set lr=3: unknown key `lr`; did you mean `training.lr`?");
    refused(
        set(&["training.lr=fast"]),
        "--set training.lr=fast: `training.lr` must be a finite number, not \"fast\"",
    );
    refused(set(&["training=1"]), "--set training=1: `training` must be a section, not 1");
    refused(
        set(&["training.seed=1\ntraining.lr = 2"]),
        "--set training.seed=1\ntraining.lr = 2: `training.seed` must be a whole number, 0 or more, not \"1\\ntraining.lr = 2\"",
    );
}

#[test]
fn bad_variables_are_refused_and_foreign_ones_passed_over() {
    refused(
        environment("HARVEST_TRAINING__LEARN", "1"),
        "environment HARVEST_TRAINING__LEARN: unknown key `training.learn`",
    );
    refused(
        environment("HARVEST_TRAINING__STEP", "1"),
        "environment HARVEST_TRAINING__STEP: unknown key `training.step`; did you mean `HARVEST_TRAINING__STEPS`?",
    );
    refused(
        environment("HARVEST_TRAINING_LR", "1"),
        "environment HARVEST_TRAINING_LR: keys are written with two underscores between their parts; did you mean `HARVEST_TRAINING__LR`?",
    );
    refused(
        environment("HARVEST_VIEWS__FLIP", "maybe"),
        "environment HARVEST_VIEWS__FLIP: `views.flip` must be true or false, not \"maybe\"",
    );
    assert!(environment("HARVEST_REFERENCE", "/somewhere").is_ok());
    assert!(environment("TRAINING__LR", "x").is_ok());
}

#[test]
fn words_outside_files_need_no_quotes() {
    let document =
        set(&["model.name=resnet8", "training.precision=bf16", "views.flip=false", "training.lr=3e-4"]);
    let config = document.expect("all are valid").value;
    assert_eq!((config.model.name.as_str(), config.training.precision), ("resnet8", Precision::Bf16));
    assert_eq!((config.views.flip, config.training.lr), (false, 3e-4));
    assert_eq!(set(&["model.name=123"]).expect("a string").value.model.name, "123");
    assert_eq!(set(&["model.name=\"a b\""]).expect("a string").value.model.name, "a b");
}

#[test]
fn relative_paths_are_taken_from_the_file_that_says_them() {
    let folder = folder(&[("recipe.toml", "[data]\nroot = \"images\"")]);
    let sources = Sources { recipe: Some(folder.path().join("recipe.toml")), ..Sources::default() };
    let root = resolve(&sources).expect("valid").value.data.root;
    assert_eq!(root.expect("was set").0, folder.path().join("images"));
    let here = std::env::current_dir().expect("tests have a folder");
    assert_eq!(set(&["data.root=x/y"]).expect("valid").value.data.root.expect("was set").0, here.join("x/y"));
    assert_eq!(
        set(&["data.root=/x"]).expect("valid").value.data.root.expect("was set").0,
        PathBuf::from("/x")
    );
}

#[test]
fn a_copy_of_a_projects_file_is_read_as_if_it_were_that_file() {
    let files = [
        ("harvest.toml", "[training]\nsteps = 9"),
        ("copy.toml", "[data]\nroot = \"images\"\n[training]\nsteps = \"x\""),
    ];
    let folder = folder(&files);
    let sources = Sources {
        project: Some(folder.path().join("harvest.toml")),
        frozen_project: Some(folder.path().join("copy.toml")),
        ..Sources::default()
    };
    let message = resolve(&sources)
        .map_err(|error| relative(&error, folder.path()))
        .map(drop)
        .expect_err("x is no number");
    assert!(message.contains("harvest.toml:4"), "{message}");
    std::fs::create_dir(folder.path().join("job")).expect("a folder");
    std::fs::write(folder.path().join("job/copy.toml"), "[data]\nroot = \"images\"").expect("writable");
    let sources = Sources { frozen_project: Some(folder.path().join("job/copy.toml")), ..sources };
    let read = resolve(&sources).expect("valid").value;
    assert_eq!(read.data.root.expect("was set").0, folder.path().join("images"));
    assert_eq!(read.training.steps, None);
}

#[test]
fn what_is_written_reads_back_the_same() {
    let document =
        set(&["training.steps=7", "data.root=/a \"b\"", "algorithm.freematch.decay=0.99"]).expect("valid");
    let text = document.to_toml();
    assert!(
        text.contains("[algorithm.freematch]\ndecay = 0.99 # --set algorithm.freematch.decay=0.99\n"),
        "{text}"
    );
    assert!(text.contains("fairness_weight = 0.001 # default\n"), "{text}");
    assert!(text.contains("# image_size is unset\n"), "{text}");
    let again = recipe(&text).expect("what was written is valid");
    assert_eq!(again.value, document.value);
    assert_eq!(again.fingerprint(), document.fingerprint());
    for entry in again.entries() {
        assert_eq!(entry.value.is_some(), matches!(entry.origin, Origin::File { .. }), "{}", entry.key);
    }
}

#[test]
fn the_fingerprint_changes_with_every_result_but_not_with_the_device() {
    let base = set(&[]).expect("valid").fingerprint();
    assert_eq!(base, set(&["run.device=cpu"]).expect("valid").fingerprint());
    assert_eq!(base, set(&["training.batch=8"]).expect("the default, said aloud").fingerprint());
    assert_ne!(base, set(&["training.seed=1"]).expect("valid").fingerprint());
    assert_ne!(base, set(&["training.steps=9"]).expect("valid").fingerprint());
    assert_ne!(base, set(&["training.clip_norm=1"]).expect("valid").fingerprint());
}

/// As they were computed before `training.clip_norm` was a key: unfinished runs of then are found.
#[test]
fn a_key_that_came_later_changes_no_fingerprint_while_unset() {
    let document = set(&[]).expect("valid");
    let mut hasher = blake3::Hasher::new();
    let ignored = ["run.", "published.", "distribution.bucket_mib", "training.clip_norm"];
    for entry in document.entries().iter().filter(|e| !ignored.iter().any(|start| e.key.starts_with(start))) {
        let value = entry.value.as_ref().map_or(String::new(), toml::Value::to_string);
        for part in [&entry.key, &value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    assert_eq!(document.fingerprint(), hasher.finalize());
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let text = set(&["training.lr=3e-4"]).expect("valid").show();
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).expect("every key is shown");
    assert!(line("training.lr ").ends_with("# --set training.lr=3e-4"));
    assert!(line("training.lr ").starts_with("training.lr = 0.0003 "), "{text}");
    assert!(line("data.root ").starts_with("data.root is unset "));
    assert!(line("training.clip_norm ").starts_with("training.clip_norm is unset "));
    let limited = set(&["training.clip_norm=1"]).expect("valid");
    assert_eq!(limited.value.training.clip_norm, Some(1.0));
    assert!(
        line("algorithm.fixmatch.threshold").starts_with("algorithm.fixmatch.threshold = 0.95 "),
        "{text}"
    );
}
