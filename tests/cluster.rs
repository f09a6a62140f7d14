//! `harvest cluster` and `harvest sample` through the real program: from pictures without labels to labels of chosen ones.

#[path = "support/program.rs"]
mod program;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use program::{World, fails, only_run, succeeds};

/// Settings that make clustering a matter of a second.
const SMALL: [&str; 10] = [
    "--model",
    "resnet8",
    "--device",
    "cpu",
    "-q",
    "--set",
    "clustering.simclr.steps=4",
    "--set",
    "clustering.neighbours=4",
    "--set",
];

fn cluster(world: &World, more: &[&str]) -> std::process::Output {
    let arguments = [&["cluster"][..], &SMALL, &["clustering.scan.epochs=2"], more].concat();
    world.harvest(&arguments)
}

fn project(world: &World) {
    succeeds(&world.harvest(&["init", "project", "--images", "images", "--classes", "dark,light"]));
}

/// The only folder of clusters.
fn found(world: &World) -> PathBuf {
    only_run(&world.path("project/clusters"))
}

/// Fills the column `label` of a round by the pictures' folders; returns the paths.
fn fill_in(world: &World, round: &str) -> Vec<String> {
    let file = world.path("project/rounds").join(round);
    let text = std::fs::read_to_string(&file).expect("a round");
    let mut lines = text.lines();
    let mut filled = lines.next().expect("a heading").to_owned() + "\n";
    let mut paths = Vec::new();
    for line in lines {
        let (path, rest) = line.split_once(',').expect("columns");
        let class = path.split('/').next().expect("a folder");
        filled += &format!("{path},{class}{rest}\n");
        paths.push(path.to_owned());
    }
    std::fs::write(&file, filled).expect("writable");
    paths
}

#[test]
fn pictures_are_grouped_chosen_labelled_and_learned_from() {
    let world = World::new();
    project(&world);
    let text = succeeds(&cluster(&world, &["--project", "project"]));
    assert!(text.contains("24 images in 2 clusters") && text.contains("SCAN"), "{text}");
    let folder = found(&world);
    for file in ["clusters.csv", "clusters.json", "clusters.html", "map.svg", "sheets/cluster-00.jpg", "DONE"]
    {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let table = std::fs::read_to_string(folder.join("clusters.csv")).expect("a table");
    assert_eq!(table.lines().count(), 25);

    // Dark and light pictures are told apart without a label.
    let text =
        succeeds(&world.harvest(&["sample", "-q", "--project", "project", "--by", "typical", "-n", "2"]));
    assert!(text.contains("2 images to label") && text.contains("harvest label"), "{text}");
    let mut chosen = fill_in(&world, "round-001.csv");
    chosen.sort();
    assert!(chosen[0].starts_with("dark/") && chosen[1].starts_with("light/"), "{chosen:?}");
    assert!(world.path("project/rounds/round-001.jpg").is_file());
    succeeds(&world.harvest(&["label", "project/rounds/round-001.csv", "--project", "project"]));

    // What is labelled is not chosen again, and the same seed chooses the same.
    for by in ["random", "clusters", "coverage"] {
        succeeds(&world.harvest(&["sample", "-q", "--project", "project", "--by", by, "-n", "6"]));
    }
    for round in ["round-002.csv", "round-003.csv", "round-004.csv"] {
        let paths = fill_in(&world, round);
        assert_eq!(paths.len(), 6);
        assert!(paths.iter().all(|path| !chosen.contains(path)), "{round}");
    }
    succeeds(&world.harvest(&["label", "project/rounds/round-003.csv", "--project", "project"]));

    // Labels change no cluster; the page tells what they say of each.
    let before = std::fs::read(folder.join("clusters.csv")).expect("a table");
    let text = succeeds(&cluster(&world, &["--project", "project"]));
    assert!(text.contains("% right"), "{text}");
    assert_eq!(before, std::fs::read(found(&world).join("clusters.csv")).expect("a table"));
    let page = std::fs::read_to_string(folder.join("clusters.html")).expect("a page");
    assert!(page.contains("labelled are") && page.contains("data:image/jpeg;base64,"));
    assert!(folder.join("confusion.svg").is_file());

    // A model doubts some images; those come next.
    fails(&world.harvest(&["sample", "-q", "--project", "project", "--by", "uncertain"]), 2, &["--run"]);
    succeeds(&world.harvest(&[
        "train",
        "-q",
        "--project",
        "project",
        "--model",
        "resnet8",
        "--device",
        "cpu",
        "--steps",
        "2",
        "--set",
        "training.batch=4",
    ]));
    let run = only_run(&world.path("project/runs"));
    let run = run.to_str().expect("a temporary path is text");
    let by_doubt = ["sample", "-q", "--project", "project", "--by", "uncertain", "-n", "3", "--run", run];
    succeeds(&world.harvest(&by_doubt));
    assert_eq!(fill_in(&world, "round-005.csv").len(), 3);
}

#[test]
fn what_cannot_be_grouped_is_said() {
    let world = World::new();
    fails(&world.harvest(&["sample", "--data", "images"]), 2, &["harvest init"]);
    let pictures = world.path("plain");
    std::fs::create_dir(&pictures).expect("a folder");
    for i in 0..5 {
        let name = format!("{i}.png");
        std::fs::copy(world.path("images/dark").join(&name), pictures.join(&name)).expect("copied");
    }
    // Nobody has said how many clusters, or too many for the images.
    fails(&cluster(&world, &["--data", "plain"]), 2, &["--clusters"]);
    fails(&cluster(&world, &["--data", "plain", "--clusters", "1"]), 2, &["--clusters", "2 or more"]);
    fails(&cluster(&world, &["--data", "plain", "--clusters", "6"]), 1, &["5 images", "6 clusters"]);
    fails(&cluster(&world, &["--data", "plain", "--method", "best"]), 2, &["clustering.method", "kmeans"]);
    project(&world);
    fails(&world.harvest(&["sample", "-q", "--project", "project"]), 1, &["harvest cluster"]);
    // Five images of one kind make two clusters all the same.
    succeeds(&cluster(&world, &["--data", "plain", "--clusters", "2"]));
}

#[test]
fn equal_pictures_have_a_result_and_images_that_go_are_no_failure() {
    let world = World::new();
    project(&world);
    succeeds(&world.harvest(&["scan", "-q", "--project", "project"]));
    for name in ["3.png", "4.png"] {
        std::fs::remove_file(world.path("images/dark").join(name)).expect("was there");
    }
    let text = succeeds(&cluster(&world, &["--project", "project"]));
    assert!(text.contains("22 images"), "{text}");
    // One more goes before anything is chosen, and one comes.
    std::fs::remove_file(world.path("images/light/5.png")).expect("was there");
    image::RgbImage::from_pixel(16, 16, image::Rgb([9, 200, 3]))
        .save(world.path("images/light/new.png"))
        .expect("a picture");
    let output = world.harvest(&["sample", "-q", "--project", "project", "--by", "random", "-n", "40"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    succeeds(&output);
    assert!(words.contains("only 21") && words.contains("1 images came after"), "{words}");

    let equal = world.path("equal");
    std::fs::create_dir(&equal).expect("a folder");
    for i in 0..6 {
        let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([50; 3]));
        picture.save(equal.join(format!("{i}.png"))).expect("a picture");
    }
    let text = succeeds(&cluster(&world, &["--data", "equal", "--clusters", "3"]));
    assert!(text.contains("random order"), "{text}");
}

#[test]
fn an_interrupted_clustering_goes_on_where_it_was() {
    let world = World::new();
    project(&world);
    let arguments = [
        &["cluster"][..],
        &SMALL[..6],
        &[
            "clustering.simclr.steps=200",
            "--set",
            "clustering.simclr.checkpoint_every=5",
            "--project",
            "project",
        ],
    ]
    .concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_harvest"))
        .args(&arguments)
        .current_dir(world.path(""))
        .env("XDG_CONFIG_HOME", world.path("no-such-folder"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let begun = Instant::now();
    let checkpoint = || {
        let runs = std::fs::read_dir(world.path("project/clusters")).ok()?;
        let run = runs.flatten().map(|entry| entry.path()).find(|path| path.join("simclr").is_dir())?;
        run.join("simclr/checkpoints/last").is_file().then_some(run)
    };
    while checkpoint().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(stopped.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(!found(&world).join("DONE").exists());
    succeeds(&world.harvest(&arguments));
    assert!(found(&world).join("DONE").is_file(), "the same folder was finished");
}

#[test]
fn loaded_weights_look_at_the_images_and_are_known_by_their_content() {
    let world = World::new();
    project(&world);
    let weights = |seed: &str| {
        let more = ["--set", seed, "--set", "run.folder=runs", "--fresh"];
        succeeds(&world.train(&more));
        let runs = std::fs::read_dir(world.path("runs")).expect("runs").flatten();
        let mut runs: Vec<PathBuf> =
            runs.map(|run| run.path()).filter(|run| run.join("DONE").exists()).collect();
        runs.sort();
        let newest = runs.pop().expect("a run").join("bundle/model.safetensors");
        std::fs::copy(newest, world.path("net.safetensors")).expect("copied");
    };
    let count = || std::fs::read_dir(world.path("project/clusters")).expect("clusters").count();
    weights("training.seed=1");
    let text = succeeds(&cluster(&world, &["--project", "project", "--pretrained", "net.safetensors"]));
    assert!(text.contains("24 images in 2 clusters"), "{text}");
    assert!(!found(&world).join("simclr").exists(), "nothing is learned where weights are given");
    succeeds(&cluster(&world, &["--project", "project", "--pretrained", "net.safetensors"]));
    assert_eq!(count(), 1);
    weights("training.seed=2");
    succeeds(&cluster(&world, &["--project", "project", "--pretrained", "net.safetensors"]));
    assert_eq!(count(), 2, "other weights under the same name are other features");
    fails(&cluster(&world, &["--project", "project", "--pretrained", "nowhere"]), 1, &["nowhere", "weights"]);
}
