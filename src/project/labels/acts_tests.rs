//! Undo and redo of several people against a model that fits on one screen; requests that come twice; groups.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::super::tests::{HEALTHY, RUST, current_of, image, open};
use super::*;
use crate::project::{ClassChange, Classes};

fn act(who: &str, deed: Deed) -> Act {
    Act { who: who.into(), request: None, deed }
}

fn give(who: &str, images: &[u8], label: Option<Label>) -> Act {
    let labels = images.iter().map(|number| (image(*number), label)).collect();
    act(who, Deed::Label { labels, from: "test".into(), retires: None })
}

fn done(store: &mut LabelStore, act: &Act) -> Done {
    store.act(act).expect("it makes sense")
}

/// The label an image has, and the action that gave it.
type Stamp = (usize, Option<Label>);

/// What an action made of an image: before and after.
type Change = (u8, Stamp, Stamp);

/// What undo and redo are to do, without a history.
#[derive(Default)]
struct Model {
    now: BTreeMap<u8, Stamp>,
    stamps: usize,
    undo: BTreeMap<String, Vec<Vec<Change>>>,
    redo: BTreeMap<String, Vec<Vec<Change>>>,
}

impl Model {
    /// Number of images changed and left alone; `None` if there is nothing to do.
    fn does(&mut self, act: &Act) -> Option<(usize, u64)> {
        let who = act.who.clone();
        match &act.deed {
            Deed::Label { labels, .. } => {
                self.stamps += 1;
                let mut changes = Vec::new();
                for (image, label) in labels {
                    let after = (self.stamps, *label);
                    let before = self.now.insert(image[0], after).unwrap_or_default();
                    changes.push((image[0], before, after));
                }
                let count = changes.len();
                self.undo.entry(who.clone()).or_default().push(changes);
                self.redo.remove(&who);
                Some((count, 0))
            }
            Deed::Undo | Deed::Redo => {
                let (from, to) = match act.deed {
                    Deed::Undo => (&mut self.undo, &mut self.redo),
                    _ => (&mut self.redo, &mut self.undo),
                };
                let changes = from.get_mut(&who)?.pop()?;
                let mut back = Vec::new();
                let mut skipped = 0;
                for (image, before, after) in changes {
                    if self.now.get(&image).copied().unwrap_or_default().0 == after.0 {
                        self.now.insert(image, before);
                        back.push((image, after, before));
                    } else {
                        skipped += 1;
                    }
                }
                let count = back.len();
                to.entry(who).or_default().push(back);
                Some((count, skipped))
            }
        }
    }

    fn current(&self) -> Vec<(u8, Label)> {
        self.now.iter().filter_map(|(image, (_, label))| Some((*image, (*label)?))).collect()
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    let label = prop_oneof![
        Just(None),
        Just(Some(HEALTHY)),
        Just(Some(RUST)),
        Just(Some(Label::NotSure)),
        Just(Some(Label::BadImage)),
    ];
    let who = prop_oneof![Just("ada"), Just("bob"), Just("eve")];
    let images = prop::collection::btree_set(0u8..5, 1..4);
    (who, 0..5, images, label).prop_map(|(who, kind, images, label)| match kind {
        0 | 1 => give(who, &images.into_iter().collect::<Vec<_>>(), label),
        2 | 3 => act(who, Deed::Undo),
        _ => act(who, Deed::Redo),
    })
}

fn without_waiting(folder: &Path) -> LabelStore {
    let store = open(folder);
    // Nothing dies here, and thousands of actions need not wait for the disk.
    store.database.pragma_update(None, "synchronous", "OFF").expect("a setting");
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn undo_and_redo_are_those_of_the_model(groups in prop::collection::vec((prop::collection::vec(any_act(), 1..6), any::<bool>()), 1..16)) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut store = without_waiting(folder.path());
        let mut model = Model::default();
        for (acts, reopened) in groups {
            if reopened {
                drop(store);
                store = without_waiting(folder.path());
            }
            let outcomes = store.act_together(&acts);
            prop_assert_eq!(outcomes.len(), acts.len());
            for (act, outcome) in acts.iter().zip(outcomes) {
                let done = outcome.expect("every act makes sense");
                let seen = done.action.map(|_| (done.images.len(), done.skipped));
                prop_assert_eq!(seen, model.does(act), "{:?}", act);
            }
            prop_assert_eq!(current_of(&store), model.current());
        }
    }
}

#[test]
fn labels_of_others_are_left_alone_and_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    done(&mut store, &give("ada", &[1, 2, 3], Some(HEALTHY)));
    done(&mut store, &give("bob", &[2], Some(RUST)));
    let undone = done(&mut store, &act("ada", Deed::Undo));
    assert_eq!((undone.images.len(), undone.skipped, undone.undoes), (2, 1, Some(1)));
    assert_eq!(current_of(&store), [(2, RUST)]);
    let again = done(&mut store, &act("ada", Deed::Redo));
    assert_eq!((again.images.len(), again.skipped), (2, 0), "what was left alone is no part of it");
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, RUST), (3, HEALTHY)]);
    // Bob takes his back: the label is Ada's again, and hers to take back.
    done(&mut store, &act("bob", Deed::Undo));
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, HEALTHY), (3, HEALTHY)]);
    assert_eq!(done(&mut store, &act("bob", Deed::Undo)).action, None, "Bob did nothing else");
}

#[test]
fn a_request_that_comes_twice_counts_once() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    let mut first = give("ada", &[1, 2], Some(HEALTHY));
    first.request = Some("r1".into());
    let answer = done(&mut store, &first);
    assert_eq!((answer.action, answer.changed, answer.repeated), (Some(1), 2, false));
    done(&mut store, &give("bob", &[2], Some(RUST)));
    let mut undo = act("ada", Deed::Undo);
    undo.request = Some("r2".into());
    let undone = done(&mut store, &undo);
    drop(store);
    let mut store = open(folder.path());
    let repeated = |done: Done| Done { repeated: true, ..done };
    assert_eq!(done(&mut store, &first), repeated(answer));
    assert_eq!(done(&mut store, &undo), repeated(undone));
    assert_eq!(store.history(None).expect("readable").len(), 4);
    // Also within one group, and where there was nothing to do.
    let mut nothing = act("eve", Deed::Redo);
    nothing.request = Some("r1".into());
    let outcomes = store.act_together(&[nothing.clone(), nothing]);
    let repeated: Vec<_> = outcomes.into_iter().map(|done| done.expect("fine").repeated).collect();
    assert_eq!(repeated, [false, true]);
    assert!(store.knows_request("eve", "r1").expect("readable"));
    assert!(!store.knows_request("eve", "r2").expect("readable"), "it is Ada's");
}

#[test]
fn an_image_named_twice_has_one_entry() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    let labels = vec![(image(1), Some(HEALTHY)), (image(2), None), (image(1), Some(RUST))];
    let done = done(&mut store, &act("ada", Deed::Label { labels, from: "test".into(), retires: None }));
    assert_eq!((done.images.len(), done.changed), (2, 1), "image 2 had no label before");
    assert_eq!(current_of(&store), [(1, RUST)]);
}

#[test]
fn a_group_stops_behind_what_needs_a_class() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    let merge =
        Deed::Label { labels: vec![(image(1), Some(HEALTHY))], from: "test".into(), retires: Some(1) };
    done(&mut store, &give("ada", &[1], Some(RUST)));
    done(&mut store, &act("ada", merge));
    let all = store.classes().clone();
    let fewer = all.changed(&ClassChange::Retire { id: 1 }, None).expect("it is there");
    store.set_classes(&fewer).expect("no image has it");
    let acts = [give("bob", &[2], Some(HEALTHY)), act("ada", Deed::Undo), give("ada", &[3], Some(HEALTHY))];
    let outcomes = store.act_together(&acts);
    assert_eq!(outcomes.len(), 2, "Ada's label has to wait for her undo");
    assert!(outcomes[0].is_ok());
    assert!(
        outcomes[1].as_ref().is_err_and(|error| matches!(**error, LabelError::RetiredClass { class: 1 }))
    );
    store.set_classes(&all).expect("more is always fine");
    let undone = done(&mut store, &acts[1]);
    assert_eq!((undone.retires, undone.images), (Some(1), vec![(image(1), Some(RUST))]));
    assert!(matches!(store.set_classes(&fewer), Err(LabelError::LostClass { class: 1, count: 1 })));
}

/// A history of version 1, as it was written then.
fn version_1(folder: &Path) {
    let database = rusqlite::Connection::open(folder.join("project.db")).expect("it can be made");
    database.execute_batch(include_str!("version_1.sql")).expect("it was valid");
}

#[test]
fn a_history_of_version_1_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    version_1(folder.path());
    let before = LabelStore::read(folder.path()).expect("reading needs no new tables");
    let mut store = open(folder.path());
    assert_eq!(store.current().expect("readable"), before);
    assert_eq!(current_of(&store), [(1, HEALTHY), (2, Label::NotSure)]);
    let history = store.history(None).expect("readable");
    assert_eq!(history.len(), 6);
    assert_eq!((history[3].undoes, history[3].label), (Some(2), Some(HEALTHY)));
    // Ada's latest that stands is her first label; her undo can be done again.
    let undone = done(&mut store, &act("ada", Deed::Undo));
    assert_eq!((undone.undoes, undone.images), (Some(1), vec![(image(1), None)]));
    let again = done(&mut store, &act("ada", Deed::Redo));
    assert_eq!(again.images, [(image(1), Some(HEALTHY))]);
    let again = done(&mut store, &act("ada", Deed::Redo));
    assert_eq!((again.undoes, again.images), (Some(3), vec![(image(1), Some(RUST))]));
    assert_eq!(again.skipped, 1, "image 2 is Bob's by now");
    drop(store);
    open(folder.path());
    for statement in ["DELETE FROM label_history", "UPDATE label_history SET class = 1"] {
        let database = rusqlite::Connection::open(folder.path().join("project.db")).expect("it is there");
        database.execute(statement, []).expect_err("the history is append-only still");
    }
}

#[test]
fn pages_go_back_in_time_by_index() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = without_waiting(folder.path());
    for number in 0..7 {
        done(&mut store, &give("ada", &[number % 2], Some(HEALTHY)));
    }
    let ids = |store: &LabelStore, image, before, count| -> Vec<i64> {
        let page = crate::project::HistoryPage { image, before, count };
        store.page(&page).expect("readable").into_iter().map(|entry| entry.id).collect()
    };
    assert_eq!(ids(&store, None, None, 3), [7, 6, 5]);
    assert_eq!(ids(&store, None, Some(5), 9), [4, 3, 2, 1]);
    assert_eq!(ids(&store, Some(image(1)), Some(6), 9), [4, 2]);
    for query in [
        "SELECT * FROM label_history WHERE image = x'00' AND id < 9 ORDER BY id DESC LIMIT 3",
        "SELECT * FROM label_history WHERE id < 9 ORDER BY id DESC LIMIT 3",
        "SELECT * FROM label_history WHERE action = 9 ORDER BY id",
        "SELECT action FROM actions AS c WHERE who = 'a' AND kind = 'undo' AND action > 3
            AND NOT EXISTS (SELECT 1 FROM actions AS u WHERE u.undoes = c.action) ORDER BY action DESC LIMIT 1",
        "SELECT image FROM label_history AS e WHERE class = 1
            AND NOT EXISTS (SELECT 1 FROM label_history AS l WHERE l.image = e.image AND l.id > e.id) ORDER BY id",
        "SELECT max(class) FROM label_history",
        "SELECT max(action) FROM actions WHERE who = 'a' AND kind = 'label'",
    ] {
        let plan: Vec<String> = store
            .database
            .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
            .and_then(|mut plan| plan.query_map([], |row| row.get(3))?.collect())
            .expect("it is valid");
        let slow = plan.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE"));
        assert!(!slow, "{query}: {plan:?}");
    }
}

#[test]
fn a_clock_that_goes_backwards_changes_no_order() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = open(folder.path());
    done(&mut store, &give("ada", &[1], Some(HEALTHY)));
    // What a clock that was years ahead has left.
    let later = "INSERT INTO actions SELECT action + 1, kind, who, '2099-01-01T00:00:00Z', origin, undoes, 1, 0, NULL FROM actions;
        INSERT INTO label_history (action, image, state, class, who, at, origin)
            SELECT action + 1, image, 'class', 1, who, '2099-01-01T00:00:00Z', origin FROM label_history";
    store.database.execute_batch(later).expect("valid");
    assert_eq!(current_of(&store), [(1, RUST)]);
    done(&mut store, &give("ada", &[1], Some(Label::NotSure)));
    assert_eq!(current_of(&store), [(1, Label::NotSure)]);
    assert_eq!(done(&mut store, &act("ada", Deed::Undo)).images, [(image(1), Some(RUST))]);
    assert_eq!(done(&mut store, &act("ada", Deed::Undo)).images, [(image(1), Some(HEALTHY))]);
    let history = store.history(None).expect("readable");
    assert!(history.windows(2).any(|pair| pair[0].at > pair[1].at), "the clock did go backwards");
}

#[test]
fn numbers_of_classes_are_never_given_again() {
    let classes = Classes::categorical(["a", "b"]).expect("the names are good");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut store = LabelStore::open(folder.path(), &classes).expect("it can be opened");
    assert_eq!(store.highest_class().expect("readable"), None);
    store.append(&[(image(1), Some(RUST)), (image(2), Some(Label::BadImage))], "ada", "test").expect("good");
    store.append(&[(image(1), None)], "ada", "test").expect("good");
    assert_eq!(store.highest_class().expect("readable"), Some(1));
}
