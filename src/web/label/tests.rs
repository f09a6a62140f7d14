//! The API as scripts use it, without a network.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::catalogue::Query;
use crate::config::SourceKind;
use crate::data::testing::record;
use crate::data::{Manifest, Source};
use crate::experiment::Places;
use crate::project::{Classes, Project};
use crate::web::desk::Desk;
use crate::web::state::AppState;
use crate::web::{ServeOptions, signed_in};

/// A served project of six images; the fourth and fifth are the same.
struct World {
    _folder: tempfile::TempDir,
    router: Router,
    desk: Arc<Desk>,
    hashes: Vec<String>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = folder.path().join("pictures");
        std::fs::create_dir(&root).expect("writable");
        let classes = Classes::categorical(["healthy", "rust"]).expect("the names are good");
        let dir = folder.path().join("leaves");
        let project =
            Project::init(&dir, "leaves", &root, SourceKind::Folder, &classes).expect("all is well");
        let images =
            (0..6).map(|n| record(&format!("field{}/{n}.png", n % 2), if n == 4 { 3 } else { n })).collect();
        let source = Source::Folder { root: root.clone() };
        let mut manifest =
            Manifest { source, root, classes: Vec::new(), images, set_aside: Vec::new(), hidden: 0 };
        manifest.link_duplicates();
        manifest.write(&Places::in_project(&project).manifest).expect("writable");
        let app = AppState::new(ServeOptions::local(vec![folder.path().to_owned()]));
        let desk = app.open(&project).expect("it can be opened");
        let hashes = manifest.images.iter().map(|image| image.hash.to_string()).collect();
        Self { _folder: folder, router: signed_in(app), desk, hashes }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.expect("it always answers");
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("it is short");
        (status, serde_json::from_slice(&bytes).expect("every answer is JSON"))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let address = format!("/p/{}/{path}", self.desk.key);
        self.send(Request::get(address).body(Body::empty()).expect("plain")).await
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let address = format!("/p/{}/{path}", self.desk.key);
        let request = Request::post(address).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).expect("plain")).await
    }

    /// What must succeed.
    async fn done(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, &body).await;
        assert_eq!(status, StatusCode::OK, "{path} {body}: {answer}");
        answer
    }

    /// What must fail, and why.
    async fn refused(&self, path: &str, body: Value) -> (StatusCode, String) {
        let (status, answer) = self.post(path, &body).await;
        (status, answer["error"].as_str().unwrap_or_else(|| panic!("{path} {body}: {answer}")).to_owned())
    }
}

#[tokio::test]
async fn labels_are_given_counted_taken_back_and_remembered() {
    let world = World::new();
    let (hashes, version) = (&world.hashes, |answer: &Value| answer["version"].as_u64().expect("a number"));
    let click = json!({ "request": "1", "images": [hashes[0], hashes[1], hashes[3]], "label": 1, "how": "page: grid" });
    let first = world.done("api/label", click.clone()).await;
    assert_eq!((&first["changed"], &first["count"]), (&json!(3), &json!(3)));
    let again = world.done("api/label", click).await;
    assert_eq!(again["action"], first["action"]);
    world.done("api/label", json!({ "request": "2", "images": [hashes[2]], "label": "x" })).await;
    let project = world.get("api/project").await.1;
    assert_eq!(
        project["counts"],
        json!({ "images": 6, "distinct": 5, "labelled": 3, "unlabelled": 1, "not_sure": 0, "none": 1, "bad": 0 })
    );
    assert_eq!(
        project["classes"][1],
        json!({ "id": 1, "name": "rust", "colour": "#e69f00", "description": "", "count": 3 })
    );
    assert_eq!(
        (&project["me"], &project["kind"], &project["target"]),
        (&json!("tester"), &json!("categorical"), &json!(80))
    );
    let undone = world.done("api/undo", json!({ "request": "3" })).await;
    assert_eq!(undone["images"], json!([[hashes[2], null]]));
    assert_eq!(undone["words"], "Taken back: 1 image, now without a label.");
    let redone = world.done("api/redo", json!({ "request": "4" })).await;
    assert_eq!(redone["words"], "Done again: 1 image, now “none of these”.");
    assert!(version(&redone) > version(&undone));
    for request in ["5", "6"] {
        world.done("api/undo", json!({ "request": request })).await;
    }
    let nothing = world.done("api/undo", json!({ "request": "7" })).await;
    assert_eq!(
        (&nothing["action"], &nothing["words"]),
        (&Value::Null, &json!("There is nothing to take back."))
    );
    let history = world.get(&format!("api/history?image={}", hashes[0])).await.1;
    let entries = history["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["label"], &entries[0]["undoes"]), (&Value::Null, &json!(1)));
    assert_eq!((&entries[1]["name"], &entries[1]["from"]), (&json!("rust"), &json!("page: grid")));
    assert_eq!((&entries[1]["who"], &entries[1]["path"]), (&json!("tester"), &json!("field0/0.png")));
    let page = world.get("api/history?count=3&before=7").await.1;
    assert_eq!(page["more"], true);
    let ids: Vec<_> =
        page["entries"].as_array().expect("a list").iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(ids, [6, 5, 4]);
}

#[tokio::test]
async fn places_in_a_view_stand_for_images() {
    let world = World::new();
    let view = world.desk.catalogue().view(&Query::default()).expect("there are images").token;
    let click = json!({ "request": "1", "view": view, "from": 1, "to": 4, "label": 0 });
    assert_eq!(world.done("api/label", click).await["count"], 3);
    for (body, status, words) in [
        (
            json!({ "request": "2", "view": "gone", "from": 0, "to": 1, "label": 0 }),
            StatusCode::GONE,
            "load it again",
        ),
        (
            json!({ "request": "2", "view": view, "from": 9, "to": 12, "label": 0 }),
            StatusCode::BAD_REQUEST,
            "no image",
        ),
        (
            json!({ "request": "2", "view": view, "cluster": 3, "label": 0 }),
            StatusCode::BAD_REQUEST,
            "no image",
        ),
        (json!({ "request": "2", "view": view, "label": 0 }), StatusCode::BAD_REQUEST, "say which images"),
        (json!({ "request": "2", "images": [], "label": 0 }), StatusCode::BAD_REQUEST, "no image"),
        (
            json!({ "request": "2", "images": ["0".repeat(64)], "label": 0 }),
            StatusCode::BAD_REQUEST,
            "not in the project",
        ),
        (json!({ "request": "2", "images": ["zz"], "label": 0 }), StatusCode::BAD_REQUEST, ""),
        (
            json!({ "request": "2", "images": [world.hashes[0]], "label": 7 }),
            StatusCode::BAD_REQUEST,
            "no class number 7",
        ),
        (
            json!({ "request": "2", "images": [world.hashes[0]], "label": "q" }),
            StatusCode::BAD_REQUEST,
            "no label",
        ),
        (json!({ "request": "2", "images": [world.hashes[0]] }), StatusCode::BAD_REQUEST, "label"),
        (
            json!({ "request": "", "images": [world.hashes[0]], "label": 0 }),
            StatusCode::BAD_REQUEST,
            "characters",
        ),
        (json!({ "request": "2", "image": "x", "label": 0 }), StatusCode::BAD_REQUEST, "unknown field"),
    ] {
        let (found, said) = world.refused("api/label", body).await;
        assert!(found == status && said.contains(words), "{found} {said}");
    }
    assert_eq!(world.get("api/project").await.1["counts"]["labelled"], 3);
}

#[tokio::test]
async fn classes_change_and_everybody_is_told() {
    let world = World::new();
    let (mut told, _, _) = world.desk.watch();
    let names = |project: &Value| -> Vec<String> {
        let classes = project["classes"].as_array().expect("a list");
        classes.iter().map(|class| class["name"].as_str().expect("text").to_owned()).collect()
    };
    let added =
        world.done("api/classes", json!({ "op": "add", "name": "blight", "colour": "#123456" })).await;
    assert_eq!(names(&added), ["healthy", "rust", "blight"]);
    world
        .done("api/classes", json!({ "op": "change", "id": 1, "name": "leaf rust", "description": "orange" }))
        .await;
    let ordered = world.done("api/classes", json!({ "op": "reorder", "ids": [2, 0, 1] })).await;
    assert_eq!(names(&ordered), ["blight", "healthy", "leaf rust"]);
    world.done("api/label", json!({ "request": "1", "images": [world.hashes[0]], "label": 2 })).await;
    let merged =
        world.done("api/classes", json!({ "op": "merge", "from": 2, "into": 1, "request": "m" })).await;
    assert_eq!(
        (names(&merged), &merged["classes"][1]["count"]),
        (vec!["healthy".into(), "leaf rust".into()], &json!(1))
    );
    let undone = world.done("api/undo", json!({ "request": "2" })).await;
    assert_eq!(undone["words"], "Taken back: 1 image, now “blight”. The class “blight” is there again.");
    let deleted = world.done("api/classes", json!({ "op": "delete", "id": 2 })).await;
    assert_eq!((names(&deleted).len(), &deleted["counts"]["unlabelled"]), (2, &json!(5)));
    let history = world.get(&format!("api/history?image={}", world.hashes[0])).await.1;
    assert_eq!(history["entries"][0]["from"], "classes: blight deleted");
    assert_eq!(history["entries"][1]["name"], "blight", "the history still knows it");
    for (body, words) in [
        (json!({ "op": "add", "name": "healthy" }), "twice"),
        (json!({ "op": "add", "name": "x", "colour": "red" }), "#rrggbb"),
        (json!({ "op": "change", "id": 2, "name": "x" }), "no number 2"),
        (json!({ "op": "merge", "from": 0, "into": 0 }), "into itself"),
        (json!({ "op": "paint" }), "unknown variant"),
    ] {
        let (status, said) = world.refused("api/classes", body).await;
        assert!(status == StatusCode::BAD_REQUEST && said.contains(words), "{status} {said}");
    }
    let mut events = Vec::new();
    while let Ok(told) = told.try_recv() {
        events.push(serde_json::to_value(&*told.event).expect("plain"));
    }
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("text")).collect();
    let expected = [
        "classes", "classes", "classes", "labels", "labels", "classes", "classes", "labels", "labels",
        "classes",
    ];
    assert_eq!(kinds, expected);
    assert_eq!((&events[3]["who"], &events[3]["images"]), (&json!("tester"), &json!([[world.hashes[0], 2]])));
}

#[tokio::test]
async fn whoever_comes_back_after_missing_something_loads_anew() {
    use futures_util::StreamExt as _;
    let world = World::new();
    let first = async |heard: Option<String>| {
        let mut request = Request::get(format!("/p/{}/api/events", world.desk.key));
        if let Some(heard) = heard {
            request = request.header("last-event-id", heard);
        }
        let request = request.body(Body::empty()).expect("plain");
        let response = world.router.clone().oneshot(request).await.expect("it always answers");
        let label = json!({ "request": format!("{}", rand::random::<u64>()), "images": [world.hashes[0]], "label": 0 });
        world.done("api/label", label).await;
        let bytes = response.into_body().into_data_stream().next().await.expect("something was told");
        let text = String::from_utf8(bytes.expect("no error").to_vec()).expect("text");
        let id =
            text.lines().find_map(|line| line.strip_prefix("id: ")).expect("every event has one").to_owned();
        (text, id)
    };
    let (text, id) = first(None).await;
    assert!(text.contains(r#""event":"labels""#), "{text}");
    let (text, last) = first(Some(id.clone())).await;
    assert!(text.contains(r#""event":"labels""#), "nothing was missed: {text}");
    let (text, _) = first(Some(id)).await;
    assert!(text.contains(r#""event":"reload""#), "{text}");
    let (text, _) = first(Some(format!("0{}", &last[1..]))).await;
    assert!(text.contains(r#""event":"reload""#), "another server: {text}");
}

#[tokio::test]
async fn images_can_be_read_anew_while_somebody_labels() {
    let world = World::new();
    let clicks = async {
        for number in 0..40 {
            let image = &world.hashes[number % 3];
            let body = json!({ "request": number.to_string(), "images": [image], "label": number % 2 });
            world.done("api/label", body).await;
        }
    };
    let reloads = async {
        for _ in 0..8 {
            world.desk.reload().await.expect("the list of images is there");
        }
    };
    tokio::join!(clicks, reloads);
    world.desk.reload().await.expect("the list of images is there");
    let catalogue = world.desk.catalogue();
    let labels = world.desk.scribe.current().await.expect("readable");
    assert_eq!(labels.len(), 3);
    for (image, label) in labels {
        assert_eq!(catalogue.label(&image), Some(label));
    }
}

#[tokio::test]
async fn an_edited_project_file_is_seen_and_a_broken_one_named() {
    let world = World::new();
    let file = world.desk.project().file();
    let text = std::fs::read_to_string(&file).expect("readable");
    let edited = text.replace("1 = \"rust\"\n", "1 = \"leaf rust\"\n") + "\nlabels_per_class = 30\n";
    std::fs::write(&file, edited.replace("\nlabels_per_class", "\n[data]\nlabels_per_class"))
        .expect("writable");
    let project = world.get("api/project").await.1;
    let words = project["notes"][0].as_str().expect("[data] is there twice").to_owned();
    assert!(words.contains("harvest.toml:"), "{words}");
    assert_eq!(project["classes"][1]["name"], "rust", "what it said before holds");
    let edited = edited
        .replace("\nlabels_per_class = 30\n", "")
        .replace("[data]\n", "[data]\nlabels_per_class = 30\n");
    std::fs::write(&file, edited).expect("writable");
    let project = world.get("api/project").await.1;
    assert_eq!((&project["classes"][1]["name"], &project["target"]), (&json!("leaf rust"), &json!(30)));
    assert_eq!(project["notes"], json!([]));
}
