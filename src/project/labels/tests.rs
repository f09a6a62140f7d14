//! The history keeps everything, whatever happens to the process that writes it.

use super::*;
use crate::project::LockError;

pub(super) const HEALTHY: Label = Label::Class(0);
pub(super) const RUST: Label = Label::Class(1);

fn classes() -> Classes {
    Classes::categorical(["healthy", "rust"]).expect("the names are good")
}

pub(super) fn image(number: u8) -> ImageHash {
    [number; 32]
}

pub(super) fn open(folder: &Path) -> LabelStore {
    LabelStore::open(folder, &classes()).expect("it can be opened")
}

fn label(store: &mut LabelStore, number: u8, label: Label) -> i64 {
    store.append(&[(image(number), Some(label))], "ada", "test").expect("the label is good")
}

pub(super) fn current_of(store: &LabelStore) -> Vec<(u8, Label)> {
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

/// What a test that is run again as another process does.
enum Role {
    Dies,
    Holds,
    FillsTheDisk,
}

/// Not a test: the other process of the tests below, which tell it by a variable what to do.
#[test]
#[ignore = "run by other tests"]
fn another_process() {
    let Some(folder) = std::env::var_os("HARVEST_TEST_FOLDER") else { return };
    let folder = Path::new(&folder);
    match std::env::var("HARVEST_TEST_ROLE").as_deref() {
        Ok("dies") => dies_in_the_middle(folder),
        Ok("holds") => holds_the_database(folder),
        Ok("fills") => fills_the_disk(folder),
        _ => {}
    }
}

fn process(role: Role, folder: &Path) -> std::process::Command {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = match role {
        Role::FillsTheDisk => {
            // A small file system of its own, which is gone with the process.
            let mut command = std::process::Command::new("unshare");
            let script = "mount -t tmpfs -o size=256k none \"$HARVEST_TEST_FOLDER\" && exec \"$0\" \"$@\"";
            command.args(["-rm", "sh", "-c", script]).arg(program);
            command
        }
        _ => std::process::Command::new(program),
    };
    let role = match role {
        Role::Dies => "dies",
        Role::Holds => "holds",
        Role::FillsTheDisk => "fills",
    };
    command
        .args(["--exact", "project::labels::tests::another_process", "--ignored", "--nocapture"])
        .env("HARVEST_TEST_FOLDER", folder)
        .env("HARVEST_TEST_ROLE", role);
    command
}

fn many(count: u32) -> Vec<(ImageHash, Option<Label>)> {
    let image = |number: u32| {
        let mut image = [7; 32];
        image[..4].copy_from_slice(&number.to_le_bytes());
        image
    };
    (0..count).map(|number| (image(number), Some(RUST))).collect()
}

fn dies_in_the_middle(folder: &Path) {
    let mut store = open(folder);
    label(&mut store, 1, HEALTHY);
    // Less than an action takes, so that unfinished pages reach the disk.
    store.database.pragma_update(None, "cache_size", 10).expect("a setting");
    let insert = "INSERT INTO label_history (action, image, state, class, who, at, origin)
        VALUES (2, ?1, 'class', 1, 'ada', '2026-11-23T10:00:00Z', 'test')";
    let transaction = store.database.unchecked_transaction().expect("there is no other");
    for (image, _) in many(20_000) {
        transaction.execute(insert, [image]).expect("it is good");
    }
    std::process::abort()
}

#[test]
fn a_process_that_dies_loses_only_its_unfinished_action() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let ended = process(Role::Dies, folder.path()).output().expect("the test program can be run again");
    assert!(!ended.status.success(), "it was to die");
    assert!(folder.path().join("project.db-journal").exists(), "it died too early to show anything");
    // Whoever reads next, without ever writing, sees what was finished.
    assert_eq!(LabelStore::read(folder.path()).expect("readable").len(), 1);
    let mut store = open(folder.path());
    assert_eq!(current_of(&store), [(1, HEALTHY)]);
    label(&mut store, 2, RUST);
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, RUST)]);
}

fn holds_the_database(folder: &Path) {
    let database = Connection::open(folder.join("project.db")).expect("it is there");
    database.execute_batch("BEGIN EXCLUSIVE").expect("nobody else has it");
    println!("\nheld");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_database_that_another_process_holds_is_named_and_waited_for() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    label(&mut store, 1, HEALTHY);
    let mut holder = process(Role::Holds, folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the test program can be run again");
    let mut lines = BufReader::new(holder.stdout.take().expect("it was asked for")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line == "held")), "it did not get the database");
    store.database.busy_timeout(Duration::from_millis(50)).expect("a setting");
    let error = store.append(&[(image(2), Some(RUST))], "ada", "test").expect_err("it is held");
    assert!(matches!(error, LabelError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("nothing was saved"), "{error}");
    // Let go while the next one waits.
    store.database.busy_timeout(PATIENCE).expect("a setting");
    let stdin = holder.stdin.take();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(stdin);
    });
    label(&mut store, 2, RUST);
    release.join().expect("it only waits");
    holder.wait().expect("it was started here");
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, RUST)]);
}

fn fills_the_disk(folder: &Path) {
    let mut store = open(folder);
    label(&mut store, 1, HEALTHY);
    // A group, of which only the small ones have room.
    let deed = |labels| Act {
        who: "ada".into(),
        request: None,
        deed: Deed::Label { labels, from: "test".into(), retires: None },
    };
    let acts = [deed(vec![(image(2), Some(RUST))]), deed(many(20_000)), deed(vec![(image(3), Some(RUST))])];
    let outcomes = store.act_together(&acts);
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().expect_err("it has no room");
    assert!(matches!(**error, LabelError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    // To the last byte, with the smallest labels.
    let filler = folder.join("filler");
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let full = (0..100).find_map(|_| store.append(&[(image(4), Some(RUST))], "ada", "test").err());
    let full = full.expect("the disk is full");
    assert!(matches!(full, LabelError::Full { .. }), "{full:?}");
    let before = current_of(&store);
    std::fs::remove_file(&filler).expect("it is ours");
    label(&mut store, 5, HEALTHY);
    drop(store);
    let store = open(folder);
    assert_eq!(current_of(&store).len(), before.len() + 1);
    let sound: String =
        store.database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("readable");
    assert_eq!(sound, "ok");
    println!("\nall was seen");
}

#[test]
fn a_full_disk_loses_nothing_that_was_saved() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let may_mount = std::process::Command::new("unshare").args(["-rm", "true"]).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("no file system can be mounted here: see the next test");
        return;
    }
    let output =
        process(Role::FillsTheDisk, folder.path()).output().expect("the test program can be run again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("all was seen"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn no_room_is_said_and_the_next_label_is_saved_when_there_is_some() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    label(&mut store, 1, HEALTHY);
    let pages: i64 =
        store.database.pragma_query_value(None, "page_count", |row| row.get(0)).expect("readable");
    store.database.pragma_update(None, "max_page_count", pages + 1).expect("a setting");
    let error = store.append(&many(5000), "ada", "test").expect_err("there is no room");
    assert!(matches!(error, LabelError::Full { .. }), "{error}");
    store.database.pragma_update(None, "max_page_count", 1_000_000).expect("a setting");
    label(&mut store, 2, RUST);
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, RUST)]);
}

#[test]
fn a_folder_that_vanishes_is_named_and_found_again() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (project, elsewhere) = (folder.path().join("project"), folder.path().join("elsewhere"));
    std::fs::create_dir(&project).expect("writable");
    let mut store = open(&project);
    label(&mut store, 1, HEALTHY);
    std::fs::rename(&project, &elsewhere).expect("writable");
    let error = store.append(&[(image(2), Some(RUST))], "ada", "test").expect_err("it is gone");
    assert!(matches!(error, LabelError::Gone { .. }) && error.needs_reopening(), "{error:?}");
    assert!(error.to_string().contains("move it back"), "{error}");
    drop(store);
    let error = LabelStore::reopen(&project, &classes()).expect_err("it is still gone");
    assert!(matches!(error, LabelError::Gone { .. }), "{error:?}");
    // An empty folder in its place is not it.
    std::fs::create_dir(&project).expect("writable");
    let error = LabelStore::reopen(&project, &classes()).expect_err("it is empty");
    assert!(matches!(error, LabelError::Gone { .. }), "{error:?}");
    std::fs::remove_dir(&project).expect("nothing was made in it");
    std::fs::rename(&elsewhere, &project).expect("writable");
    let mut store = LabelStore::reopen(&project, &classes()).expect("it is back");
    label(&mut store, 2, RUST);
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, RUST)]);
}
