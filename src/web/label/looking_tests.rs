//! Views, lines, thumbnails and pictures through the real addresses.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt;

use crate::config::SourceKind;
use crate::data::{Manifest, ScanOptions, Silent, Source, scan};
use crate::experiment::Places;
use crate::project::{Classes, Project};
use crate::thumbs;
use crate::web::desk::Desk;
use crate::web::{AppState, ServeOptions, signed_in};

struct World {
    folder: tempfile::TempDir,
    manifest: Manifest,
    desk: Arc<Desk>,
    router: Router,
}

/// Three pictures, one of them large and lying on its side; with thumbnails if they are asked for.
fn world(thumbnails: bool) -> World {
    use crate::data::testing::{jpeg, png, with_orientation};
    let folder = tempfile::tempdir().expect("temporary folder");
    let (images, dir) = (folder.path().join("images"), folder.path().join("project"));
    std::fs::create_dir_all(images.join("deep")).expect("writable");
    let picture =
        |width, height| image::RgbImage::from_fn(width, height, |x, _| image::Rgb([(x % 251) as u8, 90, 9]));
    std::fs::write(images.join("a.jpg"), with_orientation(&jpeg(&picture(3000, 1000)), 6)).expect("writable");
    std::fs::write(images.join("deep/b.png"), png(&picture(30, 20))).expect("writable");
    std::fs::write(images.join("deep/c.png"), png(&picture(31, 20))).expect("writable");
    let classes = Classes::categorical(["rust", "healthy"]).expect("good names");
    let project = Project::init(&dir, "leaves", &images, SourceKind::Folder, &classes).expect("all is well");
    let places = Places::in_project(&project);
    let stop = AtomicBool::new(false);
    let manifest =
        scan(&Source::Folder { root: images }, &ScanOptions::default(), &Silent, &stop).expect("three");
    manifest.write(&places.manifest).expect("writable");
    if thumbnails {
        thumbs::make(&manifest, &places.thumbnails(), &Silent, &stop).expect("writable");
    }
    let app = AppState::new(ServeOptions::local(vec![folder.path().to_owned()]));
    let desk = app.open(&project).expect("nobody else has it");
    World { folder, manifest, desk, router: signed_in(app) }
}

impl World {
    async fn ask(&self, path: &str, known: Option<&str>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(format!("/p/{}/{path}", self.desk.key));
        if let Some(tag) = known {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).expect("a good address");
        let (parts, body) = self.router.clone().oneshot(request).await.expect("always answers").into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("whole").to_vec();
        (parts.status, parts.headers, body)
    }

    async fn json(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask(path, None).await;
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    fn hash(&self, image: usize) -> String {
        self.manifest.images[image].hash.to_string()
    }
}

#[tokio::test]
async fn thumbnails_and_pictures_are_upright_and_kept_for_ever() {
    for packed in [true, false] {
        let world = world(packed);
        for (address, size) in [
            (format!("t/{}.jpg", world.hash(0)), (64, 192)),
            (format!("t/{}.jpg", world.hash(1)), (30, 20)),
            (format!("i/{}", world.hash(0)), (853, 2560)),
            (format!("i/{}", world.hash(2)), (31, 20)),
        ] {
            let (status, headers, body) = world.ask(&address, None).await;
            assert_eq!(status, StatusCode::OK, "{address}: {}", String::from_utf8_lossy(&body));
            assert_eq!(image::load_from_memory(&body).expect("a JPEG").into_rgb8().dimensions(), size);
            assert_eq!(headers[header::CONTENT_TYPE], "image/jpeg");
            assert!(headers[header::CACHE_CONTROL].to_str().expect("text").contains("immutable"));
            let tag = headers[header::ETAG].to_str().expect("text");
            let (status, _, body) = world.ask(&address, Some(tag)).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        }
    }
}

#[tokio::test]
async fn nothing_but_the_projects_images_can_be_read() {
    let world = world(false);
    let stranger = "0".repeat(64);
    for address in [
        format!("t/{stranger}.jpg"),
        format!("i/{stranger}"),
        "t/..%2F..%2Fharvest.toml".to_owned(),
        "i/..%2F..%2F..%2Fetc%2Fpasswd".to_owned(),
        format!("t/{}", world.hash(0)),
    ] {
        let (status, _, _) = world.ask(&address, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{address}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_has_become_a_link_to_elsewhere_is_refused() {
    for packed in [true, false] {
        let world = world(packed);
        let outside = tempfile::tempdir().expect("temporary folder");
        let deep = world.folder.path().join("images/deep");
        let secret = outside.path().join("c.png");
        std::fs::rename(deep.join("c.png"), &secret).expect("moves");
        std::os::unix::fs::symlink(&secret, deep.join("c.png")).expect("links");
        for address in [format!("t/{}.jpg", world.hash(2)), format!("i/{}", world.hash(2))] {
            let (status, _, body) = world.ask(&address, None).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{address}: {}", String::from_utf8_lossy(&body));
        }
        // A link that stays within the folders that the page may use is as good as a file.
        std::fs::remove_file(deep.join("b.png")).expect("was there");
        let copy = world.folder.path().join("elsewhere.png");
        write_picture(&copy, 30, 20);
        std::os::unix::fs::symlink(&copy, deep.join("b.png")).expect("links");
        let (status, _, _) = world.ask(&format!("i/{}", world.hash(1)), None).await;
        assert_eq!(status, StatusCode::OK);
    }
}

fn write_picture(path: &Path, width: u32, height: u32) {
    let picture = image::RgbImage::from_fn(width, height, |x, _| image::Rgb([(x % 251) as u8, 90, 9]));
    picture.save(path).expect("writable");
}

#[tokio::test]
async fn a_changed_or_missing_file_is_explained_and_its_thumbnail_stays() {
    let world = world(true);
    let deep = world.folder.path().join("images/deep");
    write_picture(&deep.join("b.png"), 50, 50);
    let (status, body) = world.json(&format!("i/{}", world.hash(1))).await;
    assert!(status == StatusCode::NOT_FOUND && body["error"].to_string().contains("scan again"), "{body}");
    std::fs::remove_file(deep.join("c.png")).expect("was there");
    assert_eq!(world.ask(&format!("i/{}", world.hash(2)), None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.ask(&format!("t/{}.jpg", world.hash(2)), None).await.0, StatusCode::OK);
}

#[tokio::test]
async fn lists_are_asked_for_line_by_line_and_nonsense_is_refused_in_words() {
    let world = world(false);
    let (status, view) = world.json("api/view?order=-date&folder=deep&label=none").await;
    assert_eq!((status, &view["total"]), (StatusCode::OK, &2.into()));
    let token = view["view"].as_str().expect("a token");
    let (_, rows) = world.json(&format!("api/rows?view={token}&from=1&count=5")).await;
    let rows = rows["rows"].as_array().expect("a list");
    assert_eq!((rows.len(), &rows[0]["i"], &rows[0]["d"]), (1, &1.into(), &1.into()));
    assert!(rows[0]["l"].is_null() && rows[0]["p"].is_null() && rows[0]["w"][1] == 20);
    let hash = rows[0]["h"].as_str().expect("text");
    let (_, found) = world.json(&format!("api/locate?view={token}&image={hash}")).await;
    assert_eq!(found["at"], 1);
    assert_eq!(
        world.json(&format!("api/locate?view={token}&image={}", world.hash(0))).await.1["at"],
        Value::Null
    );
    assert_eq!(world.json("api/rows?view=nothing").await.0, StatusCode::GONE);
    for nonsense in [
        "order=up",
        "label=q",
        "min=lots",
        "min=nan",
        "box=1,2,3",
        "like=77",
        "part=all",
        "copies=2",
        "cluster=-1",
    ] {
        let (status, body) = world.json(&format!("api/view?{nonsense}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{nonsense}");
        assert!(body["error"].as_str().is_some_and(|words| !words.is_empty()));
    }
    let (status, body) = world.json("api/view?order=doubt").await;
    assert!(status == StatusCode::BAD_REQUEST && body["error"].to_string().contains("train first"), "{body}");
    assert_eq!(world.json("api/map").await.1["points"], serde_json::json!([]));
}
