//! What is answered is written, in the order it was told, whatever happens to the folder in between.

use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::config::SourceKind;
use crate::project::Classes;

const HEALTHY: Option<Label> = Some(Label::Class(0));
const RUST: Option<Label> = Some(Label::Class(1));

#[derive(Default)]
struct Listener {
    labels: Mutex<Vec<(ImageHash, Option<Label>)>>,
    classes: Mutex<Vec<Vec<String>>>,
    found_again: Mutex<Vec<usize>>,
}

impl Audience for Listener {
    fn labelled(&self, _: &str, images: &[(ImageHash, Option<Label>)]) -> u64 {
        let mut labels = self.labels.lock().expect("no thread has died");
        labels.extend_from_slice(images);
        labels.len() as u64
    }

    fn version(&self) -> u64 {
        self.labels.lock().expect("no thread has died").len() as u64
    }

    fn reclassed(&self, project: Project) {
        let names = project.classes().displayed().map(|class| class.name.clone()).collect();
        self.classes.lock().expect("no thread has died").push(names);
    }

    fn found_again(&self, labels: BTreeMap<ImageHash, Label>) {
        self.found_again.lock().expect("no thread has died").push(labels.len());
    }
}

fn project(folder: &Path) -> Project {
    let dir = folder.join("leaves");
    let classes = Classes::categorical(["healthy", "rust"]).expect("the names are good");
    Project::init(&dir, "leaves", folder, SourceKind::Folder, &classes).expect("all is well")
}

fn scribe(project: &Project) -> (Scribe, Arc<Listener>) {
    let listener = Arc::new(Listener::default());
    let store = project.labels().expect("it can be opened");
    (Scribe::start(project.clone(), store, listener.clone()).expect("threads can be started"), listener)
}

fn image(number: u8) -> ImageHash {
    [number; 32]
}

fn give(who: &str, number: u8, label: Option<Label>) -> Act {
    let deed = Deed::Label { labels: vec![(image(number), label)], from: "test".into(), retires: None };
    Act { who: who.into(), request: None, deed }
}

fn back(who: &str, deed: Deed) -> Act {
    Act { who: who.into(), request: None, deed }
}

fn current(project: &Project) -> Vec<(u8, Label)> {
    let labels = LabelStore::read(project.dir()).expect("readable");
    labels.into_iter().map(|(image, label)| (image[0], label)).collect()
}

fn names(project: &Project) -> Vec<String> {
    let project = Project::open(project.dir()).expect("good");
    project.classes().displayed().map(|class| class.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_people_at_once_lose_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let project = project(folder.path());
    let (scribe, listener) = scribe(&project);
    let scribe = Arc::new(scribe);
    let people = (0..10u8).map(|person| {
        let scribe = scribe.clone();
        tokio::spawn(async move {
            for turn in 0..40u8 {
                // Everybody labels images of their own and, in between, one that all fight for.
                let number = if turn % 4 == 0 { 255 } else { person * 4 + turn % 4 };
                let label = if (person + turn) % 2 == 0 { HEALTHY } else { RUST };
                let act = give(&format!("person {person}"), number, label);
                let written = scribe.act(act).await.expect("all is well");
                assert!(written.done.action.is_some());
            }
        })
    });
    for person in people.collect::<Vec<_>>() {
        person.await.expect("nobody fails");
    }
    drop(scribe);
    let store = project.labels().expect("the lock is free again");
    let history = store.history(None).expect("readable");
    assert_eq!(history.len(), 400);
    let written: Vec<_> = history.iter().map(|entry| (entry.image, entry.label)).collect();
    assert_eq!(
        *listener.labels.lock().expect("no thread has died"),
        written,
        "told in the order of the history"
    );
    for person in 0..10u8 {
        let own: Vec<_> = history.iter().filter(|entry| entry.who == format!("person {person}")).collect();
        let labels: Vec<_> =
            (0..40u8).map(|turn| if (person + turn) % 2 == 0 { HEALTHY } else { RUST }).collect();
        assert_eq!(own.iter().map(|entry| entry.label).collect::<Vec<_>>(), labels);
    }
}

#[tokio::test]
async fn merged_classes_come_back_with_undo_and_go_with_redo() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let project = project(folder.path());
    let (first, listener) = scribe(&project);
    for (number, label) in [(1, RUST), (2, HEALTHY), (3, RUST)] {
        first.act(give("ada", number, label)).await.expect("fine");
    }
    let merge = ClassDeed::Merge { from: 1, into: 0 };
    first.change_classes("ada".into(), Some("m".into()), merge.clone()).await.expect("fine");
    assert_eq!(current(&project), [(1, Label::Class(0)), (2, Label::Class(0)), (3, Label::Class(0))]);
    assert_eq!(names(&project), ["healthy"]);
    first.change_classes("ada".into(), Some("m".into()), merge).await.expect("it is the same request");
    assert!(
        matches!(first.act(give("bob", 4, RUST)).await, Err(WebError::Store(_))),
        "there is no such class"
    );
    // Another day.
    drop(first);
    let project = Project::open(project.dir()).expect("good");
    let (second, _) = scribe(&project);
    let undone = second.act(back("ada", Deed::Undo)).await.expect("fine");
    assert_eq!(undone.notes, ["The class “rust” is there again."]);
    assert_eq!(current(&project), [(1, Label::Class(1)), (2, Label::Class(0)), (3, Label::Class(1))]);
    assert_eq!(names(&project), ["healthy", "rust"]);
    second.act(give("bob", 4, RUST)).await.expect("it is there again");
    let redone = second.act(back("ada", Deed::Redo)).await.expect("fine");
    assert_eq!(redone.notes, ["The class “rust” stays, since 1 images have it by now."]);
    second.act(back("ada", Deed::Undo)).await.expect("fine");
    second.act(back("bob", Deed::Undo)).await.expect("fine");
    let redone = second.act(back("ada", Deed::Redo)).await.expect("fine");
    assert!(redone.notes.is_empty(), "{:?}", redone.notes);
    assert_eq!(names(&project), ["healthy"]);
    second.change_classes("ada".into(), None, ClassDeed::Delete { id: 0 }).await.expect("fine");
    assert_eq!(current(&project), []);
    for _ in 0..2 {
        second.act(back("ada", Deed::Undo)).await.expect("fine");
    }
    assert_eq!(current(&project), [(1, Label::Class(1)), (2, Label::Class(0)), (3, Label::Class(1))]);
    assert_eq!(names(&project), ["healthy", "rust"]);
    let told = listener.classes.lock().expect("no thread has died");
    assert_eq!(*told, [["healthy"]]);
}

#[tokio::test]
async fn a_class_written_into_the_file_by_hand_counts_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let project = project(folder.path());
    let (scribe, listener) = scribe(&project);
    let text = std::fs::read_to_string(project.file()).expect("readable");
    let more = text.replace("1 = \"rust\"\n", "1 = \"rust\"\n2 = \"mildew\" # new\n");
    std::fs::write(project.file(), &more).expect("writable");
    scribe.act(give("ada", 1, Some(Label::Class(2)))).await.expect("it is in the file");
    assert_eq!(listener.classes.lock().expect("no thread has died").len(), 1);
    // A line that is needed cannot go.
    std::fs::write(project.file(), &text).expect("writable");
    let error = scribe.look().await.expect_err("a label would be lost").to_string();
    assert!(error.contains("1 images are labelled as class 2"), "{error}");
    scribe.act(give("ada", 2, Some(Label::Class(2)))).await.expect("until then all is as before");
    std::fs::write(project.file(), more).expect("writable");
    let add = ClassChange::Add { name: "blight".into(), colour: None, description: String::new() };
    scribe.change_classes("ada".into(), None, ClassDeed::Change(add)).await.expect("fine");
    assert_eq!(names(&project), ["healthy", "rust", "mildew", "blight"]);
}

#[tokio::test]
async fn a_folder_that_vanishes_and_comes_back_costs_nothing_that_was_saved() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let project = project(folder.path());
    let (scribe, listener) = scribe(&project);
    scribe.act(give("ada", 1, HEALTHY)).await.expect("fine");
    let away = folder.path().join("away");
    std::fs::rename(project.dir(), &away).expect("writable");
    for number in [2, 3] {
        let error = scribe.act(give("ada", number, RUST)).await.expect_err("it is gone").to_string();
        assert!(error.contains("nothing was saved") && error.contains("move it back"), "{error}");
    }
    let undo = scribe.act(back("ada", Deed::Undo)).await;
    assert!(undo.is_err(), "{undo:?}");
    std::fs::rename(&away, project.dir()).expect("writable");
    scribe.act(give("ada", 4, RUST)).await.expect("it is back");
    assert_eq!(*listener.found_again.lock().expect("no thread has died"), [1]);
    scribe.act(back("ada", Deed::Undo)).await.expect("fine");
    scribe.act(back("ada", Deed::Redo)).await.expect("fine");
    assert_eq!(current(&project), [(1, Label::Class(0)), (4, Label::Class(1))]);
}

#[tokio::test]
async fn a_project_file_that_cannot_be_written_leaves_labels_as_they_were() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let project = project(folder.path());
    let (scribe, _) = scribe(&project);
    scribe.act(give("ada", 1, RUST)).await.expect("fine");
    let text = std::fs::read_to_string(project.file()).expect("readable");
    std::fs::write(project.file(), "[classes\n").expect("writable");
    let merge = ClassDeed::Merge { from: 1, into: 0 };
    let error = scribe.change_classes("ada".into(), None, merge.clone()).await.expect_err("it is broken");
    assert!(error.to_string().contains("harvest.toml:1"), "{error}");
    assert_eq!(current(&project), [(1, Label::Class(1))]);
    std::fs::write(project.file(), text).expect("writable");
    scribe.change_classes("ada".into(), None, merge).await.expect("fine");
    for (deed, words) in [
        (ClassDeed::Merge { from: 1, into: 0 }, "no number 1"),
        (ClassDeed::Merge { from: 0, into: 0 }, "into itself"),
        (ClassDeed::Merge { from: 0, into: 7 }, "no class number 7"),
        (ClassDeed::Delete { id: 9 }, "no number 9"),
    ] {
        let error = scribe.change_classes("ada".into(), None, deed).await.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(current(&project), [(1, Label::Class(0))]);
}
