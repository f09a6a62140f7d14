//! The history keeps everything, whatever happens to the process that writes it.

use super::*;

const HEALTHY: Label = Label::Class(0);
const RUST: Label = Label::Class(1);

fn classes() -> Classes {
    Classes::categorical(["healthy", "rust"]).expect("the names are good")
}

fn image(number: u8) -> ImageHash {
    [number; 32]
}

fn open(folder: &Path) -> LabelStore {
    LabelStore::open(folder, &classes()).expect("it can be opened")
}

fn label(store: &mut LabelStore, number: u8, label: Label) -> i64 {
    store.append(&[(image(number), Some(label))], "ada", "test").expect("the label is good")
}

fn current_of(store: &LabelStore) -> Vec<(u8, Label)> {
    let labels = store.current().expect("readable");
    labels.into_iter().map(|(image, label)| (image[0], label)).collect()
}

#[test]
fn the_last_label_counts_and_all_are_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    label(&mut store, 1, HEALTHY);
    label(&mut store, 2, Label::NotSure);
    label(&mut store, 1, RUST);
    store.append(&[(image(2), None), (image(3), Some(Label::BadImage))], "bob", "page").expect("good labels");
    assert_eq!(current_of(&store), [(1, RUST), (3, Label::BadImage)]);
    let history = store.history(Some(&image(1))).expect("readable");
    assert_eq!(history.iter().map(|entry| entry.label).collect::<Vec<_>>(), [Some(HEALTHY), Some(RUST)]);
    let all = store.history(None).expect("readable");
    assert_eq!(
        all.iter().map(|entry| (entry.id, entry.action)).collect::<Vec<_>>(),
        [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)]
    );
    assert_eq!((all[4].who.as_str(), all[4].from.as_str()), ("bob", "page"));
    assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
    drop(store);
    assert_eq!(current_of(&open(folder.path())), [(1, RUST), (3, Label::BadImage)]);
    assert_eq!(LabelStore::read(folder.path()).expect("readable").len(), 2);
}

#[test]
fn undo_walks_back_action_by_action_and_is_an_entry() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    label(&mut store, 1, HEALTHY);
    let both = [(image(1), Some(RUST)), (image(2), Some(RUST))];
    store.append(&both, "ada", "page").expect("good labels");
    let undone = store.undo("ada").expect("works").expect("there is something to undo");
    assert_eq!(undone, Undone { action: 2, images: vec![(image(1), Some(HEALTHY)), (image(2), None)] });
    assert_eq!(current_of(&store), [(1, HEALTHY)]);
    label(&mut store, 1, Label::NotSure);
    assert_eq!(store.undo("ada").expect("works").expect("the new label").action, 4);
    assert_eq!(current_of(&store), [(1, HEALTHY)]);
    assert_eq!(store.undo("ada").expect("works").expect("the first label").action, 1);
    assert_eq!(current_of(&store), []);
    assert_eq!(store.undo("ada").expect("works"), None);
    assert_eq!(store.history(None).expect("readable").len(), 8, "nothing was deleted");
}

#[test]
fn the_history_cannot_be_changed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    label(&mut store, 1, HEALTHY);
    for statement in ["DELETE FROM label_history", "UPDATE label_history SET class = 1"] {
        let error = store.database.execute(statement, []).expect_err("the history is append-only");
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[test]
fn there_is_one_writer() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let first = open(folder.path());
    let error = LabelStore::open(folder.path(), &classes()).expect_err("it is in use");
    assert!(matches!(error, LabelError::Lock(LockError::Held { .. })), "{error}");
    drop(first);
    open(folder.path());
}

#[test]
fn renamed_classes_keep_their_labels_and_lost_ones_are_missed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    label(&mut store, 1, RUST);
    let error = store.append(&[(image(2), Some(HEALTHY)), (image(3), Some(Label::Class(2)))], "ada", "test");
    assert!(matches!(error, Err(LabelError::UnknownClass { class: 2 })));
    assert_eq!(current_of(&store), [(1, RUST)], "all or none");
    drop(store);
    let renamed = Classes::categorical(["fine", "brown rust"]).expect("the names are good");
    let store = LabelStore::open(folder.path(), &renamed).expect("the numbers are the same");
    assert_eq!(current_of(&store), [(1, RUST)]);
    drop(store);
    let fewer = Classes::categorical(["healthy"]).expect("the name is good");
    let error = LabelStore::open(folder.path(), &fewer).expect_err("class 1 is in use");
    assert!(matches!(error, LabelError::LostClass { class: 1, count: 1 }), "{error}");
}

#[test]
fn what_is_no_history_or_a_newer_one_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("project.db");
    std::fs::write(&path, "these are not the labels you are looking for".repeat(50)).expect("writable");
    let error = LabelStore::open(folder.path(), &classes()).expect_err("not a database");
    assert!(matches!(error, LabelError::Database { .. }), "{error}");
    assert!(std::fs::read_to_string(&path).expect("untouched").starts_with("these are not"));
    std::fs::remove_file(&path).expect("writable");
    open(folder.path()).database.pragma_update(None, "user_version", 9).expect("writable");
    let error = LabelStore::open(folder.path(), &classes()).expect_err("from the future");
    assert!(matches!(error, LabelError::Newer { version: 9, .. }), "{error}");
}

/// Not a test: the process that the next one starts and that dies in the middle of an action.
#[test]
#[ignore = "run by a_process_that_dies_loses_only_its_unfinished_action"]
fn dying_writer() {
    let Some(folder) = std::env::var_os("HARVEST_TEST_DYING_WRITER") else { return };
    let mut store = open(Path::new(&folder));
    label(&mut store, 1, HEALTHY);
    let _ = store.in_transaction(|transaction| -> rusqlite::Result<()> {
        // More than SQLite's page cache holds, so that unfinished pages reach the disk.
        transaction.pragma_update(None, "cache_size", 10)?;
        let labels: Vec<_> = (0..20_000u32)
            .map(|number| {
                let mut image = [7; 32];
                image[..4].copy_from_slice(&number.to_le_bytes());
                (image, Some(RUST))
            })
            .collect();
        insert(transaction, 2, &labels, "ada", "test", None)?;
        std::process::abort()
    });
}

#[test]
fn a_process_that_dies_loses_only_its_unfinished_action() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = std::env::current_exe().expect("a test knows its program");
    let ended = std::process::Command::new(program)
        .args(["--exact", "project::labels::tests::dying_writer", "--ignored", "--nocapture"])
        .env("HARVEST_TEST_DYING_WRITER", folder.path())
        .output()
        .expect("the test program can be run again");
    assert!(!ended.status.success(), "it was to die");
    assert!(folder.path().join("project.db-journal").exists(), "it died too early to show anything");
    let mut store = open(folder.path());
    assert_eq!(current_of(&store), [(1, HEALTHY)]);
    label(&mut store, 2, RUST);
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, RUST)]);
}
