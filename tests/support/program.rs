//! The real program, run in a folder of its own on a few small pictures.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;

/// A folder of its own for each test, with a small set of images in two class folders.
pub struct World(pub tempfile::TempDir);

impl World {
    pub fn new() -> Self {
        let world = Self(tempfile::tempdir().expect("a temporary folder"));
        for (class, level) in [("dark", 30u8), ("light", 220)] {
            let folder = world.path("images").join(class);
            std::fs::create_dir_all(&folder).expect("a folder");
            for i in 0..12u8 {
                let picture = image::RgbImage::from_fn(16, 16, |x, y| {
                    image::Rgb([level, level.wrapping_add(i), (x * 7 + y * 3) as u8 / 4 + i])
                });
                picture.save(folder.join(format!("{i}.png"))).expect("a picture");
            }
        }
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[allow(dead_code, reason = "not every test program writes files")]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    pub fn harvest(&self, arguments: &[&str]) -> Output {
        Command::cargo_bin("harvest")
            .expect("the program")
            .args(arguments)
            .current_dir(self.0.path())
            .env("XDG_CONFIG_HOME", self.path("no-such-folder"))
            .output()
            .expect("the program starts")
    }

    /// A training of two steps on the world's images.
    #[allow(dead_code, reason = "not every test program trains so")]
    pub fn train(&self, more: &[&str]) -> Output {
        let small = [
            "train",
            "-q",
            "--data",
            "images",
            "--model",
            "resnet8",
            "--device",
            "cpu",
            "--steps",
            "2",
            "--labels-per-class",
            "4",
            "--set",
            "training.batch=2",
            "--set",
            "model.image_size=16",
            "--set",
            "data.test_fraction=0.25",
            "--set",
            "training.warmup_steps=0",
        ];
        self.harvest(&[&small[..], more].concat())
    }
}

pub fn fails(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

pub fn succeeds(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one run folder below `runs`.
#[allow(dead_code, reason = "not every test program has one run")]
pub fn only_run(runs: &Path) -> PathBuf {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(runs)
        .expect("runs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("config.toml").exists())
        .collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}
