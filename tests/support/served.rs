//! `harvest serve` as people meet it: started, signed in to, asked, killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Makes a project in `project/` of so many small pictures that differ, scanned.
pub fn leaves(folder: &Path, count: usize) {
    std::fs::create_dir(folder.join("pictures")).expect("a folder");
    for number in 0..count {
        let picture = image::RgbImage::from_fn(9, 7, |x, y| {
            image::Rgb([(number % 251) as u8, (number / 251) as u8, (x * 9 + y * 31) as u8])
        });
        picture.save(folder.join(format!("pictures/{number:04}.png"))).expect("it can be written");
    }
    run(folder, &["init", "project", "--images", "pictures", "--classes", "healthy,rust"]);
    run(folder, &["scan", "--project", "project"]);
}

fn harvest(folder: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("harvest"));
    let nowhere = folder.join("nowhere");
    command
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", &nowhere)
        .env("XDG_STATE_HOME", &nowhere)
        .env("HOME", &nowhere);
    command
}

fn run(folder: &Path, arguments: &[&str]) {
    let output = harvest(folder).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What opens the page; tests need no better one.
const SECRET: &str = "a word that all people of this test know";

/// A running server. It is killed when it is dropped.
pub struct Server {
    child: Mutex<Child>,
    address: String,
    key: String,
}

impl Server {
    /// Serves the project in `folder`.
    pub fn start(folder: &Path) -> Self {
        let (ready, secret) = (folder.join("ready"), folder.join("secret"));
        let _ = std::fs::remove_file(&ready);
        write_secret(&secret);
        let mut child = harvest(folder)
            .args(["serve", "--project", "project", "--port", "0", "--roots", "."])
            .args([Path::new("--ready-file"), &ready, Path::new("--secret-file"), &secret])
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let begun = Instant::now();
        let address = loop {
            let said = std::fs::read_to_string(&ready).unwrap_or_default();
            if let Some((address, _)) = said.trim().rsplit_once("/login") {
                break address.to_owned();
            }
            if begun.elapsed() > Duration::from_secs(60)
                || child.try_wait().is_ok_and(|ended| ended.is_some())
            {
                let _ = child.kill();
                panic!("the server does not begin");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let project = std::fs::canonicalize(folder.join("project")).expect("it is there");
        Self { child: Mutex::new(child), address, key: key(&project) }
    }

    /// Address of the project's pages.
    pub fn project(&self) -> String {
        format!("{}/p/{}", self.address, self.key)
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("nobody dies");
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_secret(file: &Path) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    writeln!(file.expect("it can be made"), "{SECRET}").expect("it can be written");
}

/// As `harvest serve` makes it: part of every address, which people keep.
fn key(project: &Path) -> String {
    let name = project.file_name().expect("it has one").to_str().expect("plain");
    format!("{name}-{}", &blake3::hash(project.as_os_str().as_encoded_bytes()).to_hex()[..8])
}

/// Somebody with a browser.
pub struct Person {
    name: String,
    agent: ureq::Agent,
    /// Where it is good, and the cookie.
    session: Option<(String, String)>,
}

impl Person {
    pub fn new(name: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { name: name.to_owned(), agent: config.into(), session: None }
    }

    /// Sends JSON below a project's address; status and answer, or nothing if the server is not there.
    pub fn post(&mut self, project: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let cookie = self.cookie(project)?;
        let request = self.agent.post(format!("{project}/{path}")).header("cookie", cookie);
        let request = request.header("content-type", "application/json");
        answer(request.send(body.to_string()))
    }

    /// Reads JSON; the server must be there.
    pub fn get(&mut self, project: &str, path: &str) -> Value {
        let cookie = self.cookie(project).expect("the server is there");
        let response = self.agent.get(format!("{project}/{path}")).header("cookie", cookie).call();
        let (status, value) = answer(response).expect("the server is there");
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// Content hashes of all images.
    pub fn images(&mut self, project: &str) -> Vec<String> {
        let view = self.get(project, "api/view")["view"].as_str().expect("a name").to_owned();
        let rows = self.get(project, &format!("api/rows?view={view}&from=0&count=1000"));
        let rows = rows["rows"].as_array().expect("a list");
        rows.iter().map(|row| row["h"].as_str().expect("a hash").to_owned()).collect()
    }

    /// Signs in where the session is not known.
    fn cookie(&mut self, project: &str) -> Option<String> {
        if let Some((known, cookie)) = &self.session
            && known == project
        {
            return Some(cookie.clone());
        }
        let root = project.split("/p/").next().expect("there is a first part");
        let form = [("secret", SECRET), ("name", &self.name)];
        let response = self.agent.post(format!("{root}/login")).send_form(form).ok()?;
        let cookie = response.headers().get("set-cookie")?.to_str().ok()?.split(';').next()?.to_owned();
        self.session = Some((project.to_owned(), cookie.clone()));
        Some(cookie)
    }
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<(u16, Value)> {
    let mut response = response.ok()?;
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().ok()?;
    Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}
