//! `harvest bench page` on a small project: the real server, people who label at once, a kill at the end. Times depend on the
//! machine and are not judged here; that nothing is lost or mixed up is.

use assert_cmd::Command;
use serde_json::Value;

#[test]
fn nobody_loses_a_label_when_many_label_at_once() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harvest"));
    command.args(["bench", "page", "--json", "--images", "3000", "--features", "16", "--tries", "3"]);
    command.args(["--people", "10", "--actions", "25", "--without-thumbnails"]);
    let output = command.output().expect("the program starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!((&report["wrong_on_page"], &report["wrong_in_store"]), (&0.into(), &0.into()), "{report}");
    assert!(report["labelled"].as_u64() > Some(300), "{report}");
    assert!(report["times"].as_array().is_some_and(|times| times.len() > 15), "{report}");
}
