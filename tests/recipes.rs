//! The recipes in `configs/`, walked through the real program: a dry run of each on a generated folder of the same shape.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;

/// The `[published]` section of a recipe.
struct Recipe {
    path: PathBuf,
    classes: usize,
    images: usize,
    error_rate: Option<f64>,
    kind: String,
}

fn recipes(folder: &str) -> Vec<Recipe> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("recipes").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a recipe");
        let table: toml::Table = text.parse().expect("TOML");
        let published = &table["published"];
        let count = |key: &str| published[key].as_integer().expect(key) as usize;
        assert!(published["files"].as_str().is_some_and(|files| !files.is_empty()), "where to get its files");
        Recipe {
            classes: count("classes"),
            images: count("images"),
            error_rate: published.get("error_rate").and_then(toml::Value::as_float),
            kind: table["data"]["kind"].as_str().expect("a kind").to_owned(),
            path,
        }
    };
    paths.into_iter().map(read).collect()
}

/// `images` different tiny pictures in `classes` folders, as evenly as possible; `part`: below a folder `train` or `test`.
fn write_folders(root: &Path, classes: usize, images: usize, part: Option<&str>) {
    let root = part.map_or_else(|| root.to_owned(), |part| root.join(part));
    let shade = if part == Some("test") { 255 } else { 0 };
    let folder = |class: usize| root.join(format!("class{class:03}"));
    (0..classes).for_each(|class| std::fs::create_dir_all(folder(class)).expect("a folder"));
    for number in 0..images {
        let [a, b, c, _] = (number as u32).to_le_bytes();
        let picture = image::RgbImage::from_fn(2, 2, |x, y| match (x, y) {
            (0, 0) => image::Rgb([a, b, c]),
            _ => image::Rgb([shade; 3]),
        });
        picture.save(folder(number % classes).join(format!("{number}.png"))).expect("a picture");
    }
}

fn dry_run(recipe: &Path, data: &Path, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Command::cargo_bin("harvest")
        .expect("the program")
        .args(["train", "--dry-run", "-q", "--device", "cpu", "--config"])
        .arg(recipe)
        .arg("--data")
        .arg(data)
        .args(more)
        .current_dir(folder.path())
        .env("XDG_CONFIG_HOME", folder.path().join("none"))
        .output()
        .expect("the program starts")
}

fn passes(recipe: &Recipe, output: &Output) -> String {
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}: {}", recipe.path.display(), words(&output.stderr));
    let text = words(&output.stdout);
    assert!(text.contains("one step on two images of noise: loss "), "{text}");
    assert!(!text.contains("NaN") && text.contains("nothing was trained"), "{text}");
    assert!(text.contains(&format!(" of {} classes", recipe.classes)), "{text}");
    text
}

/// With exactly the published numbers of classes and images; with one image less, the recipe says so.
fn walk_published(names: &[&str]) {
    let all = recipes("published");
    for name in names {
        let of_name = |recipe: &&Recipe| recipe.path.file_stem().is_some_and(|stem| stem == *name);
        let recipe = all.iter().find(of_name).expect(name);
        let data = tempfile::tempdir().expect("a temporary folder");
        write_folders(data.path(), recipe.classes, recipe.images, None);
        let text = passes(recipe, &dry_run(&recipe.path, data.path(), &[]));
        let rate = recipe.error_rate.expect("a published error rate");
        assert!(text.contains(&format!("error rate {rate} %")), "{text}");

        std::fs::remove_file(data.path().join("class000/0.png")).expect("a picture");
        let output = dry_run(&recipe.path, data.path(), &[]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let found = format!("{} images instead of {}", recipe.images - 1, recipe.images);
        assert!(!output.status.success() && complaint.contains(&found), "{complaint}");
        let advice = format!("--set published.images={}", recipe.images - 1);
        assert!(complaint.contains(&advice), "{complaint}");
        let (_, setting) = advice.split_once(' ').expect("flag and value");
        passes(recipe, &dry_run(&recipe.path, data.path(), &["--set", setting]));
    }
}

#[test]
fn the_large_public_sets_of_the_publication() {
    walk_published(&["plantvillage", "fruits360"]);
}

#[test]
fn the_small_public_sets_of_the_publication() {
    walk_published(&["weed_soybean", "spittle_bug"]);
}

#[test]
fn the_custom_sets_of_the_publication() {
    walk_published(&["corn", "soybean"]);
}

#[test]
fn six_data_sets_were_published() {
    assert_eq!(recipes("published").len(), 6);
}

/// On fewer images, of which the recipe is told; layouts as the recipes describe them.
#[test]
fn standard_benchmarks() {
    for recipe in recipes("benchmarks") {
        if recipe.kind == "idx" {
            // The real images, from Debian's package.
            passes(&recipe, &dry_run(&recipe.path, Path::new("/usr/share/datasets/fashion-mnist"), &[]));
            continue;
        }
        let data = tempfile::tempdir().expect("a temporary folder");
        let stem = recipe.path.file_stem().expect("a name").to_string_lossy().into_owned();
        let (train, test) = (20 * recipe.classes, 3 * recipe.classes);
        let mut images = train;
        if stem == "eurosat" {
            write_folders(data.path(), recipe.classes, train, None);
        } else {
            write_folders(data.path(), recipe.classes, train, Some("train"));
            write_folders(data.path(), recipe.classes, test, Some("test"));
            images += test;
        }
        if stem == "stl10" {
            // Pictures that are nowhere else.
            write_folders(&data.path().join("unlabelled"), 1, 5000, Some("test"));
            images += 5000;
        }
        let setting = format!("published.images={images}");
        let text = passes(&recipe, &dry_run(&recipe.path, data.path(), &["--set", &setting]));
        assert!(stem == "eurosat" || text.contains(&format!("\ntest        {test}\n")), "{text}");
    }
}

/// Every key and member of the recipes that need weights or images of the user's own.
#[test]
fn recipes_for_everyday_use_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut read = 0;
    for entry in std::fs::read_dir(&folder).expect("recipes") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let output = Command::cargo_bin("harvest")
            .expect("the program")
            .args(["config", "show", "--config"])
            .arg(&path)
            .env("XDG_CONFIG_HOME", folder.join("none"))
            .output()
            .expect("the program starts");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complaint}", path.display());
        read += 1;
    }
    assert!(read >= 4, "{read} recipes");
}
