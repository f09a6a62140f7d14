//! `harvest serve`, and requests to it letter by letter: a client of a library would tidy up what is to be tried here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder with a project in `root/project`, its images in `root/images`, and something outside that nobody may see.
pub struct World {
    folder: tempfile::TempDir,
}

/// What stands in the file that lies outside.
pub const OUTSIDE: &str = "nobody may read this";

impl World {
    pub fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::create_dir_all(world.at("root/images")).expect("a folder");
        std::fs::create_dir_all(world.at("outside")).expect("a folder");
        std::fs::write(world.at("outside/file.txt"), OUTSIDE).expect("a file");
        world
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join(name)
    }

    pub fn picture(&self, name: &str, level: u8) {
        let picture =
            image::RgbImage::from_fn(12, 9, |x, y| image::Rgb([level, (x * 20) as u8, (y * 25) as u8]));
        picture.save(self.at(name)).expect("a picture");
    }

    pub fn harvest(&self, arguments: &[&str]) -> std::process::Output {
        self.command(arguments).output().expect("the program starts")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("harvest"));
        command
            .args(arguments)
            .current_dir(self.at("root"))
            .env("XDG_CONFIG_HOME", self.at("nowhere"))
            .env("XDG_STATE_HOME", self.at("state"))
            .env("HOME", self.at("nowhere"))
            .env("USER", "ada");
        command
    }

    /// Serves `root` with a secret.
    pub fn serve(&self) -> Server {
        self.serve_with(&["--secret-file", "../secret"])
    }

    pub fn serve_with(&self, more: &[&str]) -> Server {
        let ready = self.at("ready");
        let _ = std::fs::remove_file(&ready);
        let arguments = ["serve", "--roots", ".", "--ready-file", "../ready"];
        let port = if more.contains(&"--port") { &[][..] } else { &["--port", "0"] };
        let child = self.command(&[&arguments[..], port, more].concat()).stdout(Stdio::piped()).spawn();
        let mut server = Server { child: child.expect("the program starts"), port: 0, ready };
        let begun = Instant::now();
        while server.port == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not begin");
            std::thread::sleep(Duration::from_millis(10));
            let port = server
                .address()
                .split("127.0.0.1:")
                .nth(1)
                .and_then(|rest| rest.split('/').next()?.parse().ok());
            server.port = port.unwrap_or(0);
        }
        server
    }

    pub fn secret(&self) -> String {
        std::fs::read_to_string(self.at("secret")).expect("it was made").trim().to_owned()
    }
}

/// A running server; it is killed when it is dropped.
pub struct Server {
    pub child: Child,
    pub port: u16,
    ready: PathBuf,
}

impl Server {
    /// The address that was told last.
    pub fn address(&self) -> String {
        std::fs::read_to_string(&self.ready).unwrap_or_default().trim().to_owned()
    }

    /// Sends `GET`.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, "")
    }

    /// Sends JSON.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask("POST", path, &[&[("Content-Type", "application/json")], headers].concat(), body)
    }

    /// Sends what the sign-in page sends.
    pub fn sign_in(&self, secret: &str, headers: &[(&str, &str)]) -> Answer {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        self.ask("POST", "/login", &[&form, headers].concat(), &format!("secret={secret}"))
    }

    /// The cookie of somebody who knows the secret.
    pub fn cookie(&self, world: &World) -> String {
        let answer = self.sign_in(&world.secret(), &[]);
        assert_eq!(answer.status, 303, "{answer:?}");
        answer.cookie().expect("a cookie")
    }

    /// Sends a request as it stands. Without a header `Host` the usual one is sent.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text += &format!("Host: 127.0.0.1:{}\r\n", self.port);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server is there");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("it can be set");
        stream.write_all(format!("{text}\r\n").as_bytes()).expect("it takes the head");
        // One that refuses a body need not take it.
        let _ = stream.write_all(body.as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Answer::of(&bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn cookie(&self) -> Option<String> {
        Some(self.header("set-cookie")?.split(';').next()?.to_owned())
    }
}

#[cfg(unix)]
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}
