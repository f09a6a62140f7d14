//! Everything that must not work on the page: coming in without the secret, reading what lies elsewhere, acting for somebody
//! from another page, and being shown what somebody else has written as anything but text.

mod client;
mod written;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use client::{Answer, OUTSIDE, World, mode};

const PAGE: (&str, &str) = ("Accept", "text/html,application/xhtml+xml");

#[test]
fn a_wrong_secret_is_refused_and_many_lock_the_door() {
    let world = World::new();
    let server = world.serve();
    for _ in 0..5 {
        let refused = server.sign_in("guess", &[]);
        assert_eq!((refused.status, refused.cookie()), (403, None));
        assert!(refused.body.contains("This is not the secret."), "{}", refused.body);
    }
    let locked = server.sign_in(&world.secret(), &[]);
    assert_eq!((locked.status, locked.cookie()), (429, None));
    assert!(locked.body.contains("wait 15 seconds"), "{}", locked.body);
    let wait: u64 = locked.header("retry-after").expect("it says when").parse().expect("seconds");
    assert!((1..=16).contains(&wait));
    // Somebody else behind a proxy is not held up, and a program is told in JSON.
    let other = server.sign_in(&world.secret(), &[("X-Forwarded-For", "10.0.0.7")]);
    assert_eq!(other.status, 303);
    let told = server.sign_in("guess", &[("Accept", "application/json")]);
    assert!(told.body.starts_with("{\"error\":"), "{}", told.body);
}

#[test]
fn strangers_see_the_sign_in_page_and_nothing_else() {
    let world = World::new();
    world.picture("root/images/a.png", 1);
    assert!(world.harvest(&["init", "project", "--images", "images", "--classes", "a,b"]).status.success());
    let server = world.serve();
    let cookie = server.cookie(&world);
    let key = key(&server.get("/", &[("Cookie", &cookie)]));
    let paths = ["/", "/new", "/api/me", "/api/folders", "/api/nothing"];
    let below = [
        "",
        "label",
        "api/project",
        "api/events",
        "api/history",
        "api/jobs",
        "results",
        "take",
        "images",
        "nothing",
    ];
    let all = paths
        .iter()
        .map(|path| (*path).to_owned())
        .chain(below.iter().map(|path| format!("/p/{key}/{path}")));
    for path in all {
        for stranger in
            [&[][..], &[("Cookie", "harvest_1=00")], &[("Cookie", &*format!("harvest_{}=00", server.port))]]
        {
            let answer = server.get(&path, stranger);
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
            assert!(answer.body.contains("not signed in"), "{path}: {}", answer.body);
        }
        let page = server.get(&path, &[PAGE]);
        assert_eq!(page.status, 303, "{path}");
        let to = page.header("location").expect("it leads on");
        assert!(!to.starts_with('/') && to.contains("login"), "{path} leads to {to}");
    }
    for path in [
        "/api/projects",
        "/api/name",
        "/logout",
        &format!("/p/{key}/api/label"),
        &format!("/p/{key}/api/jobs"),
    ] {
        assert_eq!(server.post(path, &[], "{}").status, 401, "{path}");
    }
    let page = server.get("/login", &[PAGE]);
    assert_eq!(page.status, 200);
    assert!(!page.body.contains(&key) && !page.body.contains("project"), "{}", page.body);
    // What is only guarded by a cookie stays so under another spelling.
    for path in
        ["//", "/./", "/p/../", "/LOGIN", "/login/", "/login/..", "/assets/../", "/assets/x/../../new"]
    {
        let answer = server.get(path, &[]);
        assert!([400, 401, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(server.get("/", &[("Cookie", &cookie)]).status, 200);
    let out = server.post("/logout", &[("Cookie", &cookie)], "{}");
    assert_eq!(out.status, 303);
    assert_eq!(server.get("/", &[("Cookie", &cookie)]).status, 401, "the session is over");
}

/// Key of the one project on the list.
fn key(list: &Answer) -> String {
    let rest = list.body.split("href=\"p/").nth(1).expect("there is a project");
    rest.split('/').next().expect("a key").to_owned()
}

#[test]
fn a_one_time_address_is_good_once() {
    let world = World::new();
    let server = world.serve_with(&[]);
    let first = server.address();
    let path = |address: &str| address.split(&format!(":{}", server.port)).nth(1).expect("a path").to_owned();
    assert_eq!(server.ask("HEAD", &path(&first), &[], "").status, 200, "a program that only looks");
    assert_eq!(server.address(), first, "does not use it up");
    let came = server.get(&path(&first), &[PAGE]);
    assert_eq!((came.status, came.header("location")), (303, Some("./")), "{came:?}");
    let cookie = came.cookie().expect("a cookie");
    let set = came.header("set-cookie").expect("a cookie");
    assert!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.to_lowercase().contains("path="),
        "{set}"
    );
    assert_eq!(server.get("/", &[("Cookie", &cookie)]).status, 200);
    let again = server.get(&path(&first), &[PAGE]);
    assert_eq!((again.status, again.cookie()), (403, None));
    assert!(again.body.contains("used already"), "{}", again.body);
    let second = server.address();
    assert_ne!(first, second);
    assert_eq!(server.get(&path(&second), &[PAGE]).status, 303, "the next visitor has one of their own");
}

#[test]
fn writes_from_other_pages_and_made_up_names_are_refused() {
    let world = World::new();
    let server = world.serve();
    let cookie = server.cookie(&world);
    let here = format!("http://127.0.0.1:{}", server.port);
    let rename = |headers: &[(&str, &str)]| {
        server
            .post("/api/name", &[&[("Cookie", &*cookie)], headers].concat(), r#"{"name": "Mallory"}"#)
            .status
    };
    for (headers, status) in [
        (vec![("Origin", "https://evil.example")], 403),
        (vec![("Origin", "null")], 403),
        (vec![("Origin", "http://127.0.0.1:1")], 403),
        (vec![("Sec-Fetch-Site", "cross-site")], 403),
        (vec![("Sec-Fetch-Site", "same-site")], 403),
        (vec![("Host", "evil.example"), ("Origin", "http://evil.example")], 403),
        (vec![("Origin", &*here), ("Sec-Fetch-Site", "same-origin")], 200),
        (vec![], 200),
    ] {
        assert_eq!(rename(&headers), status, "{headers:?}");
    }
    // A form of another page cannot send JSON, and what it can send is not taken.
    let form = [("Cookie", &*cookie), ("Content-Type", "text/plain")];
    assert_eq!(server.ask("POST", "/api/name", &form, r#"{"name": "Mallory"}"#).status, 415);
    // DNS rebinding: a name elsewhere that leads here for a moment.
    for host in ["evil.example", "127.0.0.1.evil.example", &format!("evil.example:{}", server.port)] {
        let answer = server.get("/login", &[("Host", host), PAGE]);
        assert_eq!(answer.status, 403, "{host}");
    }
    let known = world.serve_with(&["--secret-file", "../secret", "--behind", "farm.example"]);
    assert_eq!(known.get("/login", &[("Host", "farm.example"), PAGE]).status, 200);
    assert_eq!(known.get("/login", &[("Host", "evil.example"), PAGE]).status, 403);
}

#[test]
fn no_path_leads_out() {
    let world = World::new();
    let server = world.serve();
    let cookie = server.cookie(&world);
    let deep = "../".repeat(12);
    let file = world.at("outside/file.txt").display().to_string();
    let climbs = [format!("{deep}{}", &file[1..]), deep.clone() + "etc/passwd", "..".into()];
    for plain in &climbs {
        let once = plain.replace('.', "%2e").replace('/', "%2f");
        let twice = once.replace('%', "%25");
        let back = plain.replace('/', "\\");
        for tail in
            [plain, &once, &twice, &back, &plain.replace("..", "%2e%2e"), &plain.replace("..", "..%00")]
        {
            for head in ["/", "/assets/x/", "/p/x/i/", "/p/x/t/", "/p/", "/login/"] {
                let answer = server.get(&format!("{head}{tail}"), &[("Cookie", &cookie)]);
                assert!([400, 404].contains(&answer.status), "{head}{tail}: {answer:?}");
                assert!(!answer.body.contains(OUTSIDE) && !answer.body.contains("root:"), "{head}{tail}");
            }
        }
    }
    let folders = |path: &str| {
        server.get(&format!("/api/folders?path={}", path.replace('/', "%2F")), &[("Cookie", &cookie)])
    };
    std::os::unix::fs::symlink(world.at("outside"), world.at("root/link")).expect("a link");
    let root = world.at("root").display().to_string();
    assert_eq!(folders(&root).status, 200);
    for path in [
        "/",
        "/etc",
        &format!("{root}/.."),
        &format!("{root}/../outside"),
        &format!("{root}/link"),
        "..",
        "~",
    ] {
        let answer = folders(path);
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
        assert!(!answer.body.contains("file.txt"));
    }
    // Nor is anything made outside.
    let outside = world.at("outside/project").display().to_string();
    for folder in [outside, format!("{root}/link/project"), format!("{root}/../project")] {
        let form = serde_json::json!({
            "images": format!("{root}/images"), "folder": folder, "name": "x", "classes": [{"name": "a"}, {"name": "b"}],
        });
        let answer = server.post("/api/projects", &[("Cookie", &cookie)], &form.to_string());
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("outside of the folders"), "{}", answer.body);
    }
    assert!(!world.at("outside/project").exists() && !world.at("project").exists());
}

#[test]
fn pictures_that_are_links_out_of_the_roots_are_not_shown() {
    let world = World::new();
    world.picture("root/images/inside.png", 10);
    world.picture("outside/picture.png", 200);
    assert!(world.harvest(&["init", "project", "--images", "images", "--classes", "a,b"]).status.success());
    std::os::unix::fs::symlink(world.at("outside/picture.png"), world.at("root/images/link.png"))
        .expect("a link");
    let scanned = world.harvest(&["scan", "--project", "project"]);
    assert!(scanned.status.success(), "{scanned:?}");
    let server = world.serve();
    let cookie = server.cookie(&world);
    let key = key(&server.get("/", &[("Cookie", &cookie)]));
    let list = std::fs::read_to_string(world.at("root/project/images.jsonl")).expect("it was scanned");
    let mut seen = 0;
    for line in list.lines().skip(1) {
        let image: serde_json::Value = serde_json::from_str(line).expect("a line for each image");
        let expected = if image["path"] == "inside.png" { 200 } else { 403 };
        let hash = image["hash"].as_str().expect("a hash");
        for path in [format!("/p/{key}/t/{hash}.jpg"), format!("/p/{key}/i/{hash}")] {
            let answer = server.get(&path, &[("Cookie", &cookie)]);
            assert_eq!(answer.status, expected, "{} as {path}: {}", image["path"], answer.head);
        }
        seen += 1;
    }
    assert_eq!(seen, 2);
    // A project that is a link to one elsewhere is none of ours.
    assert!(
        world
            .harvest(&["init", "../outside/project", "--images", "images", "--classes", "a,b"])
            .status
            .success()
    );
    std::os::unix::fs::symlink(world.at("outside/project"), world.at("root/sneaked")).expect("a link");
    assert!(!server.get("/", &[("Cookie", &cookie)]).body.contains("sneaked"));
}

#[test]
fn both_kinds_of_prefix_lead_to_the_same_pages() {
    let world = World::new();
    let server = world.serve_with(&["--secret-file", "../secret", "--prefix", "/node/n17/8080/"]);
    let cookie = server.cookie(&world);
    let cookie = ("Cookie", &*cookie);
    let kept = server.get("/node/n17/8080/new", &[cookie, PAGE]);
    let taken = server.get("/new", &[cookie, PAGE]);
    assert_eq!((kept.status, &kept.body), (200, &taken.body), "the page does not depend on where it is");
    assert!(kept.body.contains("<base href=\"./\">"));
    for attribute in ["href", "src", "action"] {
        assert!(!kept.body.contains(&format!("{attribute}=\"/")), "an address begins at the host's root");
    }
    let bare = server.get("/node/n17/8080", &[cookie, PAGE]);
    assert_eq!((bare.status, bare.header("location")), (303, Some("8080/")));
    let deep = server.get("/node/n17/8080/p/x/label", &[PAGE]);
    assert_eq!(deep.header("location"), Some("../../login?next=p%2Fx%2Flabel"));
    assert_eq!(server.get("/node/n17/80801/new", &[cookie]).status, 404);
    assert_eq!(server.get("/node/n17/8080/../8080/new", &[cookie]).status, 400);
    // After signing in one is where one wanted to be, and never elsewhere.
    for (next, to) in [
        ("p%2Fx%2Flabel%3Flabel%3Du", "p/x/label?label=u"),
        ("%2F%2Fevil.example", "./"),
        ("https%3A%2F%2Fevil", "./"),
    ] {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = server.ask(
            "POST",
            "/node/n17/8080/login",
            &form,
            &format!("secret={}&next={next}", world.secret()),
        );
        assert_eq!((answer.status, answer.header("location")), (303, Some(to)));
    }
    let secure = server.sign_in(&world.secret(), &[("X-Forwarded-Proto", "https")]);
    assert!(secure.header("set-cookie").expect("a cookie").ends_with("; Secure"));
}

#[test]
fn too_much_is_not_taken() {
    let world = World::new();
    let server = world.serve();
    let cookie = server.cookie(&world);
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(3 << 20));
    assert_eq!(server.post("/api/name", &[("Cookie", &cookie)], &large).status, 413);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(server.ask("POST", "/login", &form, &format!("secret={}", "x".repeat(3 << 20))).status, 413);
    let long = format!("/{}", "a/".repeat(60_000));
    assert!([400, 401, 414, 431].contains(&server.get(&long, &[]).status));
    let many = vec![("X-Filler", "y"); 300];
    assert!([400, 431].contains(&server.get("/login", &many).status));
    assert_eq!(server.get("/", &[("Cookie", &cookie)]).status, 200, "it goes on");
}

#[test]
fn what_is_written_down_is_for_its_owner_alone() {
    let world = World::new();
    let server = world.serve();
    server.cookie(&world);
    assert_eq!(mode(&world.at("secret")), 0o600);
    assert_eq!(mode(&world.at("ready")), 0o600);
    let state = std::fs::read_dir(world.at("state/harvest")).expect("a folder");
    let files: Vec<_> = state.map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.iter().any(|file| file.to_string_lossy().contains("sessions-")), "{files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        let text = std::fs::read_to_string(file).expect("text");
        assert!(!text.contains(&world.secret()), "the secret is not kept");
    }
    drop(server);
    std::process::Command::new("chmod").args(["644"]).arg(world.at("secret")).status().expect("it runs");
    let output = world.harvest(&["serve", "--port", "0", "--secret-file", "../secret"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("can be read by others"), "{words}");
    let open = world.harvest(&["serve", "--port", "0", "--host", "0.0.0.0"]);
    let words = String::from_utf8_lossy(&open.stderr).into_owned();
    assert!(!open.status.success() && words.contains("--secret-file"), "{words}");
}

#[test]
fn every_answer_tells_the_browser_what_it_may_do() {
    let world = World::new();
    let server = world.serve();
    let cookie = server.cookie(&world);
    let asset = server.get("/", &[("Cookie", &cookie)]).body;
    let asset =
        asset.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a script").to_owned();
    for path in ["/", "/login", "/new", "/api/me", "/nothing", "/p/x/label", &format!("/{asset}")] {
        for signed_in in [&[][..], &[("Cookie", &*cookie)], &[("Cookie", &*cookie), PAGE]] {
            let answer = server.get(path, signed_in);
            let policy = answer.header("content-security-policy").unwrap_or_default();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
                "{path}: {answer:?}"
            );
            assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
            let kept = answer.header("cache-control").expect("it says how long");
            assert_eq!(
                kept.contains("immutable"),
                path.contains(".js") && answer.status == 200,
                "{path}: {kept}"
            );
            if answer.header("content-type").is_some_and(|kind| kind.contains("html")) {
                assert!(
                    !answer.body.contains("<script>")
                        && !answer.body.contains(" style=")
                        && !answer.body.contains(" onclick="),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn a_server_that_is_told_to_end_does_though_pages_are_open() {
    let world = World::new();
    world.picture("root/images/a.png", 1);
    assert!(world.harvest(&["init", "project", "--images", "images", "--classes", "a,b"]).status.success());
    let mut server = world.serve();
    let cookie = server.cookie(&world);
    let key = key(&server.get("/", &[("Cookie", &cookie)]));
    let mut watching = TcpStream::connect(("127.0.0.1", server.port)).expect("it is there");
    let head = format!("GET /p/{key}/api/events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    watching.write_all(head.as_bytes()).expect("it takes it");
    let mut first = [0; 12];
    watching.read_exact(&mut first).expect("it begins to answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    let status = std::process::Command::new("kill").arg(server.child.id().to_string()).status();
    assert!(status.expect("it runs").success());
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = server.child.try_wait().expect("it is ours") {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(code.success(), "{code}");
    let mut said = String::new();
    server.child.stdout.take().expect("it is read").read_to_string(&mut said).expect("text");
    assert!(said.contains("the page has ended"), "{said}");
    // Who was in is in again after a new start.
    let port = server.port.to_string();
    let again = world.serve_with(&["--secret-file", "../secret", "--port", &port]);
    assert_eq!(again.get("/", &[("Cookie", &cookie)]).status, 200);
}
