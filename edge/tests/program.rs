//! The program on a small bundle: what it prints, and its exit codes.

mod support;

use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = r#"{"format": 1, "harvest": "0.1.0", "model": "any", "classes": ["bee", "wasp, red", "ant"],
    "class_kind": "categorical", "about": {}, "preprocessing": {"size": 8, "resize": "bilinear",
    "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}}"#;

fn bundle(folder: &Path, config: &str) {
    std::fs::write(folder.join("config.json"), config).expect("writable");
    let model = support::everything().file("logits probabilities");
    std::fs::write(folder.join("model.onnx"), model).expect("writable");
    let image = image::RgbImage::from_fn(20, 13, |x, y| image::Rgb([(x * 12) as u8, (y * 19) as u8, 99]));
    image.save(folder.join("one.png")).expect("writable");
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harvest-edge"));
    let Output { status, stdout, stderr } =
        command.args(arguments).current_dir(folder).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

#[test]
fn a_line_for_each_image_and_codes_for_scripts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    bundle(folder.path(), CONFIG);
    let (code, lines, errors) = run(folder.path(), &[".", "one.png", "one.png", "--csv", "--time"]);
    assert_eq!((code, lines.lines().count()), (0, 3), "{errors}");
    assert!(lines.starts_with("path,class,confidence,abstained\none.png,"), "{lines}");
    assert!(lines.trim_end().ends_with(",false") && errors.contains("first answer"), "{lines}{errors}");

    std::fs::write(folder.path().join("broken.jpg"), b"no picture").expect("writable");
    let (code, lines, errors) = run(folder.path(), &[".", "broken.jpg", "one.png", "--json"]);
    assert_eq!((code, lines.lines().count()), (1, 1));
    assert!(errors.contains("`broken.jpg`") && lines.contains("\"probabilities\""), "{errors}{lines}");

    for (arguments, word) in [
        (&["."][..], "at least one image"),
        (&[".", "one.png", "--fast"], "--fast"),
        (&["nowhere", "one.png"], "config.json"),
        (&[".", "one.png", "--int8"], "model.int8.onnx"),
    ] {
        let (code, lines, errors) = run(folder.path(), arguments);
        assert_eq!((code, lines.as_str()), (2, ""));
        assert!(errors.contains(word), "{errors}");
    }
    assert_eq!(run(folder.path(), &["--help"]).0, 0);
}

#[test]
fn doubt_is_said_where_the_bundle_asks_for_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    bundle(
        folder.path(),
        &CONFIG.replace(
            "\"format\": 1,",
            "\"format\": 1, \"confidence\": {\"temperature\": 1e6, \"reject_below\": 0.5},",
        ),
    );
    let (code, lines, _) = run(folder.path(), &[".", "one.png"]);
    assert!(code == 0 && lines.ends_with(",0.333333,true\n"), "{lines}");

    bundle(folder.path(), &CONFIG.replace(", \"ant\"", ""));
    let (code, _, errors) = run(folder.path(), &[".", "one.png"]);
    assert!(code == 1 && errors.contains("3 numbers for 2 classes"), "{errors}");
}
