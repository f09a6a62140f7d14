//! What people write is shown as they wrote it, never taken for a part of the page.

use crate::client::World;
use crate::{PAGE, key};

const EVIL: &str = "<img src=x onerror=alert(1)>\"'&";

#[test]
fn names_with_markup_are_text_on_every_page() {
    let world = World::new();
    // As file names may be.
    let folder = world.at("root/images").join("<b>folder&\"'");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, level) in [("<img src=x onerror=alert(1)>.png", 3), ("same.png", 3), ("other.png", 90)] {
        world.picture(&format!("root/images/<b>folder&\"'/{name}"), level);
    }
    std::fs::write(folder.join("<script>alert(1)<.txt"), "no picture").expect("a file");
    let server = world.serve();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("secret={}&name=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", world.secret());
    let cookie = server.ask("POST", "/login", &form, &body).cookie().expect("a cookie");
    let cookie = ("Cookie", &*cookie);
    let form = serde_json::json!({
        "images": world.at("root/images"), "folder": world.at("root/evil"), "name": EVIL,
        "classes": [{"name": EVIL, "description": EVIL}, {"name": "</title><script>alert(1)</script>", "description": "b"}],
    });
    let made = server.post("/api/projects", &[cookie], &form.to_string());
    assert_eq!(made.status, 200, "{made:?}");
    assert!(world.harvest(&["scan", "--project", "evil"]).status.success());
    drop(server);
    let server = world.serve();
    let cookie = server.cookie(&world);
    let cookie = ("Cookie", &*cookie);
    let key = key(&server.get("/", &[cookie]));
    let label = serde_json::json!({ "request": "1", "images": [], "label": 0, "how": EVIL });
    server.post(&format!("/p/{key}/api/label"), &[cookie], &label.to_string());

    let mut shown = 0;
    for page in ["/".to_owned(), "/new".into()].into_iter().chain(
        [
            "",
            "images",
            "label",
            "train",
            "results",
            "take",
            "results/<img src=x onerror=alert(1)>",
            "jobs/<img src=x onerror=alert(1)>",
        ]
        .map(|part| format!("/p/{key}/{}", part.replace('<', "%3C").replace('>', "%3E").replace(' ', "%20"))),
    ) {
        let answer = server.get(&page, &[cookie, PAGE]);
        assert!([200, 303, 400, 404].contains(&answer.status), "{page}: {answer:?}");
        for raw in ["<img src=x", "<script>alert", "<b>folder", "</title><script"] {
            assert!(!answer.body.contains(raw), "{page} holds {raw}");
        }
        shown += usize::from(answer.body.contains("&lt;img src=x"));
    }
    assert!(shown >= 5, "the names are on most pages, and on {shown} only");
    // What scripts are given is JSON, and no browser takes it for anything else.
    for path in ["api/project", "api/history", "api/view", "api/jobs"] {
        let answer = server.get(&format!("/p/{key}/{path}"), &[cookie, PAGE]);
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{path} is {kind}");
    }
    // Nor is what went wrong.
    let answer = server.get("/api/folders?path=%3Cscript%3Ealert(1)%3C%2Fscript%3E", &[cookie, PAGE]);
    assert_eq!(answer.status, 403);
    assert!(
        answer.body.contains("&lt;script&gt;") && !answer.body.contains("<script>alert"),
        "{}",
        answer.body
    );
}
