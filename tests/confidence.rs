//! Confidence, abstaining, the model card and probes, through the real program.

#[path = "support/program.rs"]
mod program;

use std::collections::BTreeMap;

use program::{World, fails, only_run, succeeds};
use serde_json::Value;

fn json(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(|row| row.expect("a row")).collect()
}

#[test]
fn a_run_leaves_its_confidence_everywhere_and_few_images_promise_nothing() {
    let world = World::new();
    succeeds(&world.train(&["--set", "data.evaluation_fraction=0.25"]));
    let run = only_run(&world.path("runs"));
    let run_name = run.to_str().expect("a temporary path is text");
    let confidence = &json(&run.join("bundle/config.json"))["confidence"];
    // Two evaluation images.
    assert_eq!(confidence["temperature"], 1.0, "{confidence}");
    assert_eq!(confidence["temperature_origin"], "too_few_images");
    assert_eq!(confidence["reject_below"], Value::Null);
    let scores = json(&run.join("scores.json"));
    assert_eq!(&scores["confidence"], confidence);
    for set in ["test", "evaluation"] {
        let found = &scores["calibration"][set];
        assert!(found["after"]["expected_error"].is_number(), "{set}: {scores}");
        assert_eq!(found["after"]["bins"].as_array().map(Vec::len), Some(15));
    }
    let page = std::fs::read_to_string(run.join("report.html")).expect("a report");
    assert!(page.contains("<h2>Confidence</h2>") && page.contains("Reliability on test images"));
    let text = succeeds(&world.harvest(&["evaluate", run_name, "-q", "--device", "cpu"]));
    assert!(text.contains("on the test images: expected calibration error"), "{text}");
    assert!(
        text.contains("on the evaluation images: expected") && text.contains("No prediction abstains"),
        "{text}"
    );
    assert!(run.join("reliability.svg").exists());

    let output = world.harvest(&["predict", "--model", run_name, "images", "--device", "cpu"]);
    let predicted = rows(&succeeds(&output));
    assert_eq!(predicted.len(), 24);
    assert!(predicted.iter().all(|row| row["abstained"] == "false"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No prediction abstains"));
    succeeds(&world.harvest(&["labels", run_name, "-q", "--device", "cpu"]));
    let labels = rows(&std::fs::read_to_string(run.join("labels.csv")).expect("labels"));
    assert!(labels.iter().all(|row| row["abstained"] == "false"));
    let test = rows(&std::fs::read_to_string(run.join("test_predictions.csv")).expect("predictions"));
    assert!(!test.is_empty() && test.iter().all(|row| row.contains_key("confidence")));
}

#[test]
fn a_threshold_makes_the_model_abstain_but_no_expert() {
    let world = World::new();
    succeeds(&world.train(&[]));
    let run = only_run(&world.path("runs"));
    let run_name = run.to_str().expect("a temporary path is text");
    let file = run.join("bundle/config.json");
    let mut config = json(&file);
    let plain =
        rows(&succeeds(&world.harvest(&["predict", "--model", run_name, "images", "--device", "cpu"])));
    config["confidence"]["reject_below"] = 0.999.into();
    config["confidence"]["temperature"] = 4.0.into();
    std::fs::write(&file, config.to_string()).expect("writable");

    let output = world.harvest(&["predict", "--model", run_name, "images", "--device", "cpu"]);
    let predicted = rows(&succeeds(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("24 of 24 images abstained (confidence under 0.9990)"), "{said}");
    for (with, without) in predicted.iter().zip(&plain) {
        assert_eq!(with["class"], without["class"], "calibration changes no class");
        assert_eq!(with["abstained"], "true");
    }
    succeeds(&world.harvest(&["labels", run_name, "-q", "--device", "cpu"]));
    let labels = rows(&std::fs::read_to_string(run.join("labels.csv")).expect("labels"));
    for row in &labels {
        assert_eq!(row["abstained"] == "true", row["by"] == "model", "{row:?}");
    }
    assert!(labels.iter().any(|row| row["by"] == "expert"));

    // A bundle of an earlier version says nothing of all this, and still works.
    config.as_object_mut().expect("an object").remove("confidence");
    std::fs::write(&file, config.to_string()).expect("writable");
    let old = succeeds(&world.harvest(&["predict", "--model", run_name, "images", "--device", "cpu"]));
    assert!(rows(&old).iter().all(|row| row["abstained"] == "false"));
    let text = succeeds(&world.harvest(&["evaluate", run_name, "-q", "--device", "cpu"]));
    assert!(text.contains("not calibrated"), "{text}");
}

#[test]
fn the_card_goes_with_the_model_and_names_no_private_folder() {
    let world = World::new();
    succeeds(&world.train(&["--seed", "3"]));
    let run = only_run(&world.path("runs"));
    let card = std::fs::read_to_string(run.join("bundle/MODEL_CARD.md")).expect("a card");
    for words in
        ["`images`", "| dark |", "test images: **", "95 % interval", "seed: 3", "What it does not know"]
    {
        assert!(card.contains(words), "`{words}` is not in:\n{card}");
    }
    let private = world.0.path().to_str().expect("a temporary path is text");
    assert!(!card.contains(private), "{card}");
    let run_name = run.to_str().expect("a temporary path is text");
    succeeds(&world.harvest(&["export", run_name, "--out", "model"]));
    let exported = std::fs::read_to_string(world.path("model/MODEL_CARD.md")).expect("a card");
    assert!(exported.contains("`model.safetensors`") && exported.contains("test images: **"), "{exported}");
}

#[test]
fn settings_of_confidence_are_checked() {
    let world = World::new();
    fails(
        &world.train(&["--set", "confidence.target_error=0"]),
        2,
        &["confidence.target_error", "more than 0"],
    );
    fails(&world.train(&["--set", "confidence.temperature=\"hot\""]), 2, &["confidence.temperature", "fit"]);
}

#[test]
fn features_of_a_run_a_bundle_and_a_preset_are_probed_alike() {
    let world = World::new();
    succeeds(&world.train(&[]));
    let run = only_run(&world.path("runs"));
    let bundle = run.join("bundle");
    let weights = bundle.join("model.safetensors");
    let [run, bundle, weights] = [&run, &bundle, &weights].map(|path| path.to_str().expect("text"));
    let probe = |arguments: &[&str]| {
        let images = [
            "--data",
            "images",
            "-q",
            "--device",
            "cpu",
            "--labels-per-class",
            "4",
            "--set",
            "data.test_fraction=0.25",
        ];
        world.harvest(&[&["probe"], arguments, &images].concat())
    };
    let text = succeeds(&probe(&[run]));
    assert!(text.contains("8 labelled images, 6 test images"), "{text}");
    assert!(text.contains("8 nearest neighbours") && text.contains("linear classifier"), "{text}");
    assert_eq!(succeeds(&probe(&[bundle])), text);
    let preset = ["resnet8", "--pretrained", weights, "--set", "model.image_size=16"];
    assert_eq!(succeeds(&probe(&preset)), text);

    fails(&probe(&["resnet8"]), 2, &["resnet8", "--pretrained"]);
    fails(&probe(&["nowhere"]), 2, &["nowhere", "resnet8"]);
    fails(&probe(&["resnet8", "--pretrained", "nowhere.safetensors"]), 1, &["nowhere.safetensors"]);
    fails(&probe(&[run, "--pretrained", weights]), 2, &["--pretrained"]);
}
