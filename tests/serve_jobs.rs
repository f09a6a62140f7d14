//! Jobs of the page: started by somebody, watched, stopped, and found again by a server that knows nothing of them.

#[path = "support/served.rs"]
mod served;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use served::{Person, Server, leaves};

/// A training that takes a while and saves often.
fn training(more: &[(&str, &str)]) -> Value {
    let mut set = json!({
        "model.name": "resnet8",
        "model.image_size": "16",
        "run.device": "cpu",
        "training.steps": "400",
        "training.batch": "2",
        "training.checkpoint_every": "5",
        "training.log_every": "5",
        "training.evaluate_every": "100",
        "training.lr": "",
    });
    for (key, value) in more {
        set[*key] = json!(value);
    }
    json!({ "kind": "train", "settings": { "set": set }, "where": "here" })
}

fn label(person: &mut Person, project: &str, images: &[String], class: u16, request: &str) {
    let body = json!({ "request": request, "images": images, "label": class, "how": "test" });
    let (status, answer) = person.post(project, "api/label", &body).expect("the server is there");
    assert_eq!(status, 200, "{answer}");
}

/// Asks until the job is as wanted.
fn until(person: &mut Person, project: &str, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let job = person.get(project, &format!("api/jobs/{id}"));
        if wanted(&job) {
            return job;
        }
        assert!(Instant::now() < end, "waited in vain: {job}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn start(person: &mut Person, project: &str, ask: &Value) -> String {
    let (status, answer) = person.post(project, "api/jobs", ask).expect("the server is there");
    assert_eq!(status, 200, "{answer}");
    answer["id"].as_str().expect("a name").to_owned()
}

fn labelled(folder: &Path, id: &str) -> usize {
    let bytes = std::fs::read(folder.join("project/jobs").join(id).join("labels.json")).expect("frozen");
    let frozen: Value = serde_json::from_slice(&bytes).expect("JSON");
    frozen["labels"].as_object().expect("labels").len()
}

#[test]
fn a_training_outlives_the_server_and_is_stopped_and_resumed_from_the_page() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    leaves(folder.path(), 40);
    let server = Server::start(folder.path());
    let mut ann = Person::new("ann");
    let project = server.project();
    let images = ann.images(&project);
    label(&mut ann, &project, &images[..8], 0, "a");
    label(&mut ann, &project, &images[8..16], 1, "b");
    let id = start(&mut ann, &project, &training(&[]));
    assert_eq!(labelled(folder.path(), &id), 16);
    until(&mut ann, &project, &id, |job| {
        job["progress"]["phase"] == "train" && job["progress"]["position"].as_u64() > Some(10)
    });
    // The server is gone; the training is not. Labels and settings change meanwhile.
    server.kill();
    let file = folder.path().join("project/harvest.toml");
    let settings = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, format!("{settings}\n[training]\nweight_decay = 0.25\n")).expect("writable");
    let server = Server::start(folder.path());
    let project = server.project();
    let mut bob = Person::new("bob");
    label(&mut bob, &project, &images[16..24], 0, "c");
    let job = until(&mut bob, &project, &id, |job| job["state"] == "running");
    assert_eq!(job["who"], "ann");
    assert_eq!(job["can"], json!({ "stop": true, "resume": false, "forget": false }));
    let (status, _) = bob.post(&project, &format!("api/jobs/{id}/forget"), &json!({})).expect("there");
    assert_eq!(status, 400, "it runs");
    let (status, answer) = bob.post(&project, &format!("api/jobs/{id}/stop"), &json!({})).expect("there");
    assert_eq!(status, 200, "{answer}");
    let job = until(&mut bob, &project, &id, |job| job["state"] == "stopped");
    assert!(job["run"].is_null() && job["can"]["resume"] == true, "{job}");
    let (status, answer) = bob.post(&project, &format!("api/jobs/{id}/resume"), &json!({})).expect("there");
    assert_eq!(status, 200, "{answer}");
    let job = until(&mut bob, &project, &id, |job| job["state"] == "done" || job["state"] == "failed");
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(labelled(folder.path(), &id), 16, "as they were");
    let run = job["run"].as_str().expect("it made one");
    let run_folder = folder.path().join("project/runs").join(run);
    assert!(run_folder.join("DONE").exists());
    let settings = std::fs::read_to_string(run_folder.join("config.toml")).expect("readable");
    assert!(!settings.contains("weight_decay = 0.25"), "as they were: {settings}");
    let log = job["log"].as_str().expect("text");
    assert!(log.contains("going on after step"), "{log}");
    let curves = bob.get(&project, &format!("api/jobs/{id}/curves"));
    assert!(curves["loss"].as_array().is_some_and(|points| points.len() > 10), "{curves}");
    assert!(curves["accuracy"].as_array().is_some_and(|points| points.len() > 1), "{curves}");
    // A next one can start from its model.
    let mut next = training(&[("training.steps", "2")]);
    next["settings"]["from"] = json!(run);
    let id = start(&mut bob, &project, &next);
    assert_eq!(labelled(folder.path(), &id), 24);
    let job = until(&mut bob, &project, &id, |job| job["state"] == "done" || job["state"] == "failed");
    assert_eq!(job["state"], "done", "{job}");
    assert!(job["log"].as_str().expect("text").contains("starting from"), "{job}");
    let run_folder = folder.path().join("project/runs").join(job["run"].as_str().expect("it made one"));
    let settings = std::fs::read_to_string(run_folder.join("config.toml")).expect("readable");
    assert!(settings.contains("weight_decay = 0.25"), "as they are now: {settings}");
    assert_eq!(bob.get(&project, "api/jobs")["jobs"].as_array().expect("a list").len(), 2);
    let (status, _) = bob.post(&project, &format!("api/jobs/{id}/forget"), &json!({})).expect("there");
    assert_eq!(status, 200);
    assert_eq!(bob.get(&project, "api/jobs")["jobs"].as_array().expect("a list").len(), 1);
}

#[test]
fn what_is_shown_is_what_is_started_and_what_makes_no_sense_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    leaves(folder.path(), 12);
    let server = Server::start(folder.path());
    let (mut ann, project) = (Person::new("ann"), server.project());
    let plan = |ann: &mut Person, ask: &Value| ann.post(&project, "api/jobs/plan", ask).expect("there");
    for (key, value, words) in [
        ("training.lr", "fast", "`training.lr` must be a finite number"),
        ("training.lrr", "1", "did you mean `training.lr`?"),
        ("model.name", "resnet9", "there is no model `resnet9`"),
        ("training.epochs", "0", "`training.epochs` is 0"),
    ] {
        let (status, answer) = plan(&mut ann, &training(&[(key, value)]));
        assert_eq!(status, 400, "{answer}");
        let error = answer["error"].as_str().expect("words");
        assert!(error.contains(words), "{error}");
    }
    let (status, answer) = plan(&mut ann, &json!({ "kind": "train", "slurm": { "nodes": "two" } }));
    assert!(status == 400 && answer["error"].as_str().is_some_and(|words| words.contains("two")), "{answer}");
    let mut two = training(&[]);
    two["slurm"] = json!({ "nodes": 2 });
    let (_, answer) = plan(&mut ann, &two);
    assert!(answer["error"].as_str().is_some_and(|words| words.contains("one process")), "{answer}");
    let mut elsewhere = training(&[]);
    elsewhere["settings"]["from"] = json!("../../etc");
    assert_eq!(plan(&mut ann, &elsewhere).0, 404);

    let (status, planned) = plan(&mut ann, &training(&[]));
    assert_eq!(status, 200, "{planned}");
    let script = planned["script"].as_str().expect("text");
    assert!(
        script.contains("jobs/JOB/labels.json")
            && script.contains("jobs/JOB/settings.toml")
            && script.contains("--set training.steps=400"),
        "{script}"
    );
    assert_eq!(std::fs::read_dir(folder.path().join("project/jobs")).into_iter().flatten().count(), 0);

    // Changed by somebody.
    let mut changed = training(&[]);
    changed["script"] = json!("#!/bin/bash\necho 'in its place'\ntouch /no/such/folder/file\nexit 4\n");
    let id = start(&mut ann, &project, &changed);
    let job = until(&mut ann, &project, &id, |job| job["state"] == "failed");
    assert!(job["log"].as_str().expect("text").contains("in its place"), "{job}");
    assert!(job["failure"]["what"].is_string() && job["failure"]["next"].is_string(), "{job}");
    let shown = ann.get(&project, &format!("api/jobs/{id}/details"));
    assert_eq!(shown["script"], changed["script"]);

    // Pages, and what is written by people in them.
    let page = ann.get(&project, "train");
    let page = page.as_str().expect("a page");
    assert!(page.contains("Start training") && page.contains("healthy"), "{page}");
    let page = ann.get(&project, &format!("jobs/{id}"));
    assert!(page.as_str().expect("a page").contains(&format!("data-job=\"{id}\"")));
    let (status, _) = ann.post(&project, "api/jobs/..%2F..%2Fx/stop", &json!({})).expect("there");
    assert!(status == 404 || status == 400, "{status}");
}

#[test]
fn a_scan_shows_what_is_new_once_it_is_done() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    leaves(folder.path(), 12);
    let server = Server::start(folder.path());
    let (mut ann, project) = (Person::new("ann"), server.project());
    assert_eq!(ann.images(&project).len(), 12);
    let picture = image::RgbImage::from_pixel(9, 7, image::Rgb([250, 3, 3]));
    picture.save(folder.path().join("pictures/new.png")).expect("it can be written");
    let id = start(&mut ann, &project, &json!({ "kind": "scan" }));
    let job = until(&mut ann, &project, &id, |job| job["state"] == "done" || job["state"] == "failed");
    assert_eq!(job["state"], "done", "{job}");
    let end = Instant::now() + Duration::from_secs(20);
    while ann.images(&project).len() != 13 {
        assert!(Instant::now() < end, "the new image does not appear");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(folder.path().join("project/thumbs").exists());
}
