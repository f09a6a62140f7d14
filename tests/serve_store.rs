//! `harvest serve` is killed at random moments while people label: what it has acknowledged is there.

#[path = "support/served.rs"]
mod served;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use served::{Person, Server, leaves};

const PEOPLE: usize = 8;
const ACTIONS: usize = 1000;
/// Of the server, while they label.
const KILLS: usize = 12;
const IMAGES: usize = 80;

/// What the server has told somebody that their images are labelled as.
type Acknowledged = BTreeMap<String, Value>;

/// Somebody who labels images of their own, takes labels back, and sends everything again until it is acknowledged.
fn labels(
    number: usize,
    images: &[String],
    server: &RwLock<Server>,
    left: &AtomicUsize,
) -> (Acknowledged, Vec<i64>) {
    let mut random = ChaCha8Rng::seed_from_u64(number as u64);
    let name = format!("person {number}");
    let mut person = Person::new(&name);
    let mut known = Acknowledged::new();
    let mut actions = Vec::new();
    let mut turn = 0;
    while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        turn += 1;
        let request = format!("{name}, turn {turn}");
        let chosen: Vec<&String> = images.iter().filter(|_| random.random_bool(0.3)).collect();
        let back = random.random_bool(0.2) || chosen.is_empty();
        let label =
            [json!(0), json!(1), json!("u"), json!("b"), Value::Null][random.random_range(0..5)].clone();
        let (path, body) = match back {
            true => ("api/undo", json!({ "request": request })),
            false => {
                ("api/label", json!({ "request": request, "images": chosen, "label": label, "how": "test" }))
            }
        };
        let answer = loop {
            let url = server.read().expect("nobody dies").project();
            match person.post(&url, path, &body) {
                Some((200, answer)) => break answer,
                Some((status, answer)) if status >= 500 => eprintln!("{status}: {answer}"),
                Some((status, answer)) => panic!("{status}: {answer}"),
                // Killed: before it was written, or before that was told.
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        actions.extend(answer["action"].as_i64());
        if back {
            for image in answer["images"].as_array().expect("a list") {
                known.insert(image[0].as_str().expect("a hash").into(), image[1].clone());
            }
        } else {
            known.extend(chosen.into_iter().map(|image| (image.clone(), label.clone())));
        }
    }
    (known, actions)
}

#[test]
fn everything_acknowledged_survives_being_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    leaves(folder.path(), IMAGES);
    let server = Arc::new(RwLock::new(Server::start(folder.path())));
    let images = Person::new("who looks").images(&server.read().expect("nobody dies").project());
    assert_eq!(images.len(), IMAGES);
    let left = Arc::new(AtomicUsize::new(ACTIONS));
    let people: Vec<_> = (0..PEOPLE)
        .map(|number| {
            let own: Vec<String> = images.iter().skip(number).step_by(PEOPLE).cloned().collect();
            let (server, left) = (server.clone(), left.clone());
            std::thread::spawn(move || labels(number, &own, &server, &left))
        })
        .collect();
    let killer = {
        let (server, left, folder) = (server.clone(), left.clone(), folder.path().to_owned());
        std::thread::spawn(move || {
            let mut random = ChaCha8Rng::seed_from_u64(7);
            for kill in 1..=KILLS {
                // By how far they have come, and a moment more: a fast machine is killed as often as a slow one.
                while left.load(Ordering::SeqCst) > ACTIONS - kill * ACTIONS / (KILLS + 1) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_micros(random.random_range(0..5000)));
                server.read().expect("nobody dies").kill();
                // What a killed process left is taken back by whoever opens it next.
                let again = Server::start(&folder);
                *server.write().expect("nobody dies") = again;
            }
        })
    };
    let told: Vec<(Acknowledged, Vec<i64>)> =
        people.into_iter().map(|person| person.join().expect("every answer made sense")).collect();
    killer.join().expect("it only kills");
    let actions: Vec<i64> = told.iter().flat_map(|(_, actions)| actions.clone()).collect();
    println!("{} actions of {PEOPLE} people, {KILLS} kills", actions.len());

    server.read().expect("nobody dies").kill();
    let database = rusqlite::Connection::open(folder.path().join("project/project.db")).expect("it opens");
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("readable");
    assert_eq!(sound, "ok");
    let count: usize =
        database.query_row("SELECT count(*) FROM actions", [], |row| row.get(0)).expect("readable");
    assert_eq!(count, actions.len(), "each request is one action, however often it was sent");
    assert_eq!(actions.iter().collect::<HashSet<_>>().len(), count, "and each has its own");
    drop(database);

    // A server that begins anew says the same, and each person can take back all they did.
    *server.write().expect("nobody dies") = Server::start(folder.path());
    let url = server.read().expect("nobody dies").project();
    let mut looker = Person::new("who looks");
    for (known, _) in &told {
        for (image, label) in known {
            let history = looker.get(&url, &format!("api/history?image={image}&count=1"));
            assert_eq!(&history["entries"][0]["label"], label, "{image}");
        }
    }
    let labelled = looker.get(&url, "api/project")["counts"].clone();
    let expected =
        told.iter().flat_map(|(known, _)| known.values()).filter(|label| label.is_number()).count();
    assert_eq!(labelled["labelled"], expected);
    for number in 0..PEOPLE {
        let mut person = Person::new(&format!("person {number}"));
        for turn in 0.. {
            let body = json!({ "request": format!("back {turn}") });
            let (status, answer) = person.post(&url, "api/undo", &body).expect("nobody kills it now");
            assert_eq!((status, &answer["skipped"]), (200, &json!(0)));
            if answer["action"].is_null() {
                assert!(turn > 10, "person {number} had done more than {turn} things");
                break;
            }
        }
    }
    let counts = looker.get(&url, "api/project")["counts"].clone();
    assert_eq!(counts["unlabelled"], IMAGES, "{counts}");
}
