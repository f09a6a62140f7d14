//! The page of a real run.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use tower::ServiceExt;

use crate::experiment::testing::{CLASSES, World};
use crate::experiment::{BELIEFS, Finished};
use crate::web::{AppState, ServeOptions, signed_in};

/// The whole router with the world's project open, and its key.
pub(crate) fn site(world: &World) -> (Router, String) {
    let app = AppState::new(ServeOptions::local(vec![world.path()]));
    let key = app.open(&world.project).expect("it opens").key.clone();
    (signed_in(app), key)
}

/// Status, headers of interest, and body of an answer.
pub(crate) async fn get(site: &Router, address: &str) -> (StatusCode, axum::http::HeaderMap, Vec<u8>) {
    let request = Request::get(address).body(Body::empty()).expect("a good address");
    let answer = site.clone().oneshot(request).await.expect("always an answer");
    let (parts, body) = answer.into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.expect("whole").to_vec())
}

async fn page(site: &Router, address: &str) -> String {
    let (status, _, body) = get(site, address).await;
    let text = String::from_utf8(body).expect("text");
    assert_eq!(status, StatusCode::OK, "{address}: {text}");
    assert!(!text.contains("style=\"") && !text.contains("onclick"), "{address}");
    text
}

fn name_of(finished: &Finished) -> String {
    finished.folder.file_name().expect("a run").to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_finished_run_is_told_with_its_baseline_and_cells_that_lead_to_images() {
    let world = World::new();
    let alone = world.train(&["algorithm.name=supervised"], None);
    let finished = world.train(&[], Some(&alone));
    let (site, key) = site(&world);
    let run = name_of(&finished);
    let text = page(&site, &format!("/p/{key}/results/{run}")).await;
    let latest = page(&site, &format!("/p/{key}/results")).await;
    assert!(latest.contains(&format!("data-run=\"{run}\"")), "the latest finished run is shown");
    assert!(
        text.contains("labelled images alone") && text.contains("on the same 6 evaluation images"),
        "{text}"
    );
    assert!(text.contains("Only 6 evaluation images were looked at"), "{text}");
    let confusion = &finished.evaluation.as_ref().expect("evaluated").confusion;
    for (target, (label, name)) in CLASSES.iter().enumerate() {
        assert!(text.contains(name), "{name}");
        for (said, (class, _)) in CLASSES.iter().enumerate() {
            let link = format!("label?label={label}&amp;predicted={class}&amp;part=evaluation&amp;run={run}");
            let count = confusion.count(target, said);
            let cell = text.split("<td").find(|cell| cell.contains(&link) && cell.starts_with(" class="));
            match count {
                0 => assert!(cell.is_none(), "{link}"),
                _ => assert!(cell.expect("a cell").contains(&format!(">{count}</a>")), "{link}"),
            }
        }
    }
    // Every mistake is a tile.
    let mistakes = confusion.total() - confusion.correct();
    assert_eq!(text.matches("class=\"muted\"> called ").count() as u64, mistakes);
    assert!(text.contains("order=doubt&amp;label=none"));

    // A class is called otherwise by now: the page says so, and the number stays.
    let file = world.project.file();
    let toml = std::fs::read_to_string(&file).expect("readable");
    drop(site);
    std::fs::write(&file, toml.replace("\"mildew\"", "\"<b>mould\"")).expect("writable");
    let renamed = crate::project::Project::open(world.project.dir()).expect("still a project");
    let app = AppState::new(ServeOptions::local(vec![world.path()]));
    app.open(&renamed).expect("it opens");
    let text = page(&signed_in(app), &format!("/p/{key}/results/{run}")).await;
    assert!(text.contains("&lt;b&gt;mould") && !text.contains("<b>mould"), "{text}");
    assert!(text.contains("label?label=7&amp;"));
}

#[tokio::test]
async fn without_runs_or_beliefs_the_page_says_what_to_do() {
    let world = World::new();
    let (site, key) = site(&world);
    assert!(page(&site, &format!("/p/{key}/results")).await.contains("No training is finished yet"));
    let finished = world.train(&[], None);
    std::fs::remove_file(finished.folder.join(BELIEFS)).expect("there");
    let text = page(&site, &format!("/p/{key}/results")).await;
    assert!(text.contains("harvest labels "), "{text}");
    let missing = get(&site, &format!("/p/{key}/results/2026-01-01-nothing")).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    for bad in ["..", "%2e%2e", "..%2f..%2fimages", ".hidden", "%00"] {
        let (status, _, _) = get(&site, &format!("/p/{key}/results/{bad}/report")).await;
        assert!(status.is_client_error() || status.is_redirection(), "{bad}: {status}");
    }
}

#[tokio::test]
async fn the_report_is_in_a_sandbox_and_no_link_leads_out_of_it() {
    let world = World::new();
    let finished = world.train(&[], None);
    let (site, key) = site(&world);
    let run = name_of(&finished);
    let address = format!("/p/{key}/results/{run}/report");
    let (status, headers, body) = get(&site, &address).await;
    assert_eq!(status, StatusCode::OK);
    let policies: Vec<_> = headers.get_all(header::CONTENT_SECURITY_POLICY).iter().collect();
    assert_eq!(policies.len(), 1, "{policies:?}");
    let policy = policies[0].to_str().expect("text");
    assert!(policy.starts_with("sandbox; default-src 'none'"), "{policy}");
    assert!(body.starts_with(b"<!doctype html>"));
    let report = finished.folder.join("report.html");
    std::fs::remove_file(&report).expect("there");
    std::os::unix::fs::symlink("/etc/passwd", &report).expect("writable");
    assert_eq!(get(&site, &address).await.0, StatusCode::NOT_FOUND);
    // A run folder that is a link to elsewhere.
    let outside = world.path().join("outside");
    std::fs::create_dir(&outside).expect("writable");
    std::fs::write(outside.join("fingerprint"), "x").expect("writable");
    std::fs::write(outside.join("report.html"), "secret").expect("writable");
    std::os::unix::fs::symlink(&outside, world.project.runs().join("link")).expect("writable");
    assert_eq!(get(&site, &format!("/p/{key}/results/link/report")).await.0, StatusCode::NOT_FOUND);
}
