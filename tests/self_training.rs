//! Self-training through the real program: members, what is joined of them, and an interruption in the middle.

#[path = "support/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use program::{World, fails, succeeds};
use serde_json::Value;

/// Two members, the second with images, a batch and steps of its own: enough to be killed in.
const RECIPE: &str = r#"
[data]
root = "images"
kind = "class_folders"
labels_per_class = 4
evaluation_fraction = 0.25
test_fraction = 0.25

[model]
name = "resnet8"
image_size = 16

[algorithm]
name = "self_training"

[algorithm.self_training]
members = [
    "resnet8 linear training.steps=3",
    "resnet8 full model.image_size=24 training.steps=120 training.batch=3",
]
join = "probabilities"

[training]
steps = 4
batch = 2
warmup_steps = 0
checkpoint_every = 5

[run]
device = "cpu"
"#;

const TRAIN: [&str; 3] = ["train", "--config", "recipe.toml"];

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is said in the settings of the members' runs and of the run proper.
const FIRST: &str = "tuning = \"linear\"";
const SECOND: &str = "image_size = 24";
const OWN: &str = "name = \"self_training\"";
const ANY: &str = "";

/// Run folders with that in their settings.
fn runs(world: &World, said: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(world.path("runs")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| {
        std::fs::read_to_string(path.join("config.toml")).is_ok_and(|settings| settings.contains(said))
    });
    paths.sort();
    paths
}

/// The only one.
fn run(world: &World, said: &str) -> PathBuf {
    let runs = runs(world, said);
    assert_eq!(runs.len(), 1, "{said}: {runs:?}");
    runs.into_iter().next().expect("just counted")
}

fn tensor(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let view = file.tensor("probabilities").expect("probabilities");
    let values = view.data().as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value));
    (view.shape().to_vec(), values.collect())
}

#[test]
fn the_members_teach_the_run_and_are_told_of_everywhere() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    let output = world.harvest(&TRAIN);
    succeeds(&output);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("member 2 of 2: resnet8 full"), "{told}");

    let [first, second] = [FIRST, SECOND].map(|name| run(&world, name));
    let own = run(&world, OWN);
    let split = json(&own.join("inputs/split.json"));
    let unlabelled = split["unlabelled"].as_array().expect("a list").len();
    let [one, other] = [&first, &second].map(|run| tensor(&run.join("unlabelled.safetensors")));
    let (shape, joined) = tensor(&own.join("inputs/pseudo_labels.safetensors"));
    assert_eq!(shape, [unlabelled, 2]);
    assert!(shape == one.0 && shape == other.0 && one.1 != other.1);
    for ((joined, one), other) in joined.iter().zip(&one.1).zip(&other.1) {
        assert!((joined - (one + other) / 2.0).abs() < 1e-7, "{joined} {one} {other}");
    }

    // Each member's accuracy stands beside the run's own.
    let page = std::fs::read_to_string(own.join("report.html")).expect("a report");
    let card = std::fs::read_to_string(own.join("bundle/MODEL_CARD.md")).expect("a card");
    for (number, member) in [(1, &first), (2, &second)] {
        let test = &json(&member.join("scores.json"))["test"];
        let right = 100.0 * test["accuracy"].as_f64().expect("a score");
        let said = format!("{right:.2} % of {} test images right", test["samples"]);
        assert!(page.contains("<h2>Members ") && page.contains(&said), "{said}: {page}");
        assert!(card.contains(&format!("- member {number}: resnet")) && card.contains(&said), "{card}");
    }

    // The same command trains the run again and no member; another list of members only what is new.
    let output = world.harvest(&TRAIN);
    succeeds(&output);
    assert_eq!(runs(&world, OWN).len(), 2);
    let members = r#"algorithm.self_training.members=["resnet8 linear training.steps=3", "resnet8 full"]"#;
    succeeds(&world.harvest(&[&TRAIN[..], &["--set", members, "--quiet"]].concat()));
    // Three runs of its own, three members.
    assert_eq!((runs(&world, ANY).len(), runs(&world, FIRST).len(), runs(&world, SECOND).len()), (6, 1, 1));
    let votes = [&TRAIN[..], &["--set", "algorithm.self_training.join=votes", "--quiet"]].concat();
    succeeds(&world.harvest(&votes));
    let newest = runs(&world, OWN).pop().expect("four runs");
    let (_, votes) = tensor(&newest.join("inputs/pseudo_labels.safetensors"));
    assert!(votes.iter().all(|share| [0.0, 0.5, 1.0].contains(share)), "{votes:?}");
}

/// Starts the program, and sends it `signal` once its second member has a checkpoint it did not have before.
fn interrupt(world: &World, signal: &str) -> Output {
    let newest = || {
        let last = |run: PathBuf| std::fs::read_to_string(run.join("checkpoints/last")).ok();
        runs(world, SECOND).into_iter().find_map(last)
    };
    let before = newest();
    let mut command = Command::new(env!("CARGO_BIN_EXE_harvest"));
    command.args(TRAIN).current_dir(world.0.path()).env("XDG_CONFIG_HOME", world.path("no-such-folder"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    while newest() == before {
        assert!(child.try_wait().expect("it can be asked").is_none(), "it ended before the signal");
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("a shell tool");
    assert!(sent.success());
    child.wait_with_output().expect("it is ours")
}

/// Once with Ctrl-C and once without warning, both in the second member; then the same command ends.
#[test]
fn a_run_stopped_in_its_second_member_ends_as_if_never_interrupted() {
    let [alone, stopped] = [World::new(), World::new()];
    for world in [&alone, &stopped] {
        world.write("recipe.toml", RECIPE);
    }
    succeeds(&alone.harvest(&TRAIN));

    fails(&interrupt(&stopped, "-INT"), 130, &["member 2 of 2", "the same command goes on"]);
    let (first, second) = (run(&stopped, FIRST), run(&stopped, SECOND));
    let finished = std::fs::read(first.join("environment.json")).expect("a session");
    assert_eq!(interrupt(&stopped, "-KILL").status.code(), None);
    assert!(!second.join("DONE").exists() && runs(&stopped, OWN).is_empty());

    succeeds(&stopped.harvest(&TRAIN));
    assert_eq!(run(&stopped, SECOND), second, "the member goes on in its folder");
    let after = std::fs::read(first.join("environment.json")).expect("a session");
    assert_eq!(after, finished, "the first member is left alone");
    let [one, other] = [&alone, &stopped].map(|world| run(world, OWN));
    for file in ["inputs/pseudo_labels.safetensors", "scores.json", "test_predictions.csv"] {
        let read = |run: &Path| std::fs::read(run.join(file)).expect(file);
        assert_eq!(read(&one), read(&other), "{file}");
    }
}

#[test]
fn an_unfinished_run_keeps_its_pseudo_labels_without_its_members() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    succeeds(&world.harvest(&TRAIN));
    let own = run(&world, OWN);
    // As if it had been killed at its end, and the members been tidied away.
    std::fs::remove_file(own.join("DONE")).expect("there");
    let before = std::fs::read(own.join("scores.json")).expect("scores");
    for member in [FIRST, SECOND] {
        std::fs::remove_dir_all(run(&world, member)).expect("there");
    }
    succeeds(&world.harvest(&TRAIN));
    assert_eq!(std::fs::read(run(&world, OWN).join("scores.json")).expect("scores"), before);
    assert!(runs(&world, FIRST).is_empty(), "no member is trained again");
    // A file that is not what was frozen is an error and no other training.
    std::fs::remove_file(own.join("DONE")).expect("there");
    std::fs::write(own.join("inputs/pseudo_labels.safetensors"), b"nothing").expect("writable");
    fails(&world.harvest(&TRAIN), 1, &["pseudo_labels.safetensors", "damaged"]);
}

#[test]
fn a_dry_run_tries_each_member_and_leaves_no_run() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    let text = succeeds(&world.harvest(&[&TRAIN[..], &["--dry-run"]].concat()));
    for words in [
        "member      1: resnet8 linear",
        "member      2: resnet8 full",
        "images of 24 pixels",
        "self_training",
        "nothing was trained",
    ] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    assert!(runs(&world, ANY).is_empty());
}

#[test]
fn what_is_wrong_with_a_member_is_said_before_anything_is_trained() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    for (members, code, words) in [
        ("[]", 2, ["recipe.toml", "is empty", "resnet8 full"]),
        (r#"["resnet8 full", "resnet9 full"]"#, 2, ["element 2", "resnet9", "did you mean"]),
        (
            r#"["resnet8 full", "vit_tiny_patch16_224 lora model.image_size=20"]"#,
            2,
            ["member 2 of self_training", "20", "16"],
        ),
        (
            r#"["resnet8 full", "resnet8 lora"]"#,
            2,
            ["member 2 of self_training", "lora", "vision transformer"],
        ),
        (
            r#"["resnet8 full", "resnet8 linear pretrained=nowhere"]"#,
            1,
            ["member 2 of self_training", "nowhere", "harvest weights add"],
        ),
        (
            r#"["resnet8 full", "resnet8 full training.lr=-1"]"#,
            2,
            ["member 2: training.lr=-1", "more than 0", "-1"],
        ),
    ] {
        let setting = format!("algorithm.self_training.members={members}");
        let said = match members {
            "[]" => {
                let list = RECIPE.find("members").expect("a list");
                let end = list + RECIPE[list..].find("\n]\n").expect("its end") + 3;
                world.write("empty.toml", &(RECIPE[..list].to_owned() + "members = []\n" + &RECIPE[end..]));
                world.harvest(&["train", "--config", "empty.toml"])
            }
            _ => world.harvest(&[&TRAIN[..], &["--set", &setting]].concat()),
        };
        fails(&said, code, &words.map(|word| if word == "recipe.toml" { "empty.toml" } else { word }));
        assert!(runs(&world, ANY).is_empty(), "nothing was begun: {members}");
    }
}

#[test]
fn a_sweep_trains_members_where_its_runs_are() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    let axes = "recipe = \"recipe.toml\"\n[sweep]\nalgorithms = [\"self_training\", \"supervised\"]\n\
                labels_per_class = [2]\nseeds = [0]\n";
    world.write("sweep.toml", axes);
    let sweep = ["sweep", "sweep.toml", "--out", "sweep", "-q"];
    for _ in 0..2 {
        let text = succeeds(&world.harvest(&sweep));
        assert!(!text.contains("failed"), "{text}");
        let folders = std::fs::read_dir(world.path("sweep")).expect("the sweep's folder");
        let folders = folders.filter(|entry| entry.as_ref().expect("an entry").path().join("DONE").exists());
        assert_eq!(folders.count(), 4, "two runs and two members, none twice");
    }
    assert!(runs(&world, ANY).is_empty(), "members lie beside the sweep's runs");
}
