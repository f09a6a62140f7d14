//! A browser as far as its requests go: a session, and connections that stay open.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

use super::PageError;

/// Time a server has to come up. A million images take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server started for the measurement, killed when it is dropped.
pub(super) struct Server {
    process: Child,
    /// The application's root, with a slash at its end.
    root: String,
    cookie: String,
    /// The project's address below the root, with a slash at its end.
    project: String,
    /// From its start until it told its address.
    pub seconds_to_open: f64,
}

impl Server {
    /// Starts `harvest serve` on a project, and signs in. `work`: a folder for its secret.
    pub(super) fn start(program: &Path, project: &Path, work: &Path) -> Result<Self, PageError> {
        let (secret, ready) = (work.join("secret"), work.join("ready"));
        let begin = Instant::now();
        let mut command = Command::new(program);
        command.arg("serve").arg("--project").arg(project).args(["--port", "0"]);
        command.arg("--secret-file").arg(&secret).arg("--ready-file").arg(&ready);
        // What this machine remembers of other servers is none of our business.
        command.env("XDG_STATE_HOME", work).stdout(Stdio::null());
        let process = command.spawn().map_err(PageError::server(program))?;
        let (root, cookie, opened) = (String::new(), String::new(), String::new());
        let mut server = Self { process, root, cookie, project: opened, seconds_to_open: 0.0 };
        let address = server.address(&ready)?;
        server.seconds_to_open = begin.elapsed().as_secs_f64();
        server.root =
            address.split(['?', '#']).next().unwrap_or_default().trim_end_matches("login").to_owned();
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(PageError::server(path));
        server.sign_in(read(&secret)?.trim())?;
        Ok(server)
    }

    /// What the server writes into its file once it can be asked.
    fn address(&mut self, ready: &Path) -> Result<String, PageError> {
        let begin = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(ready)
                && text.ends_with('\n')
            {
                return Ok(text.trim().to_owned());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(PageError::Answer {
                    address: "harvest serve".into(),
                    words: format!("it ended: {status}"),
                });
            }
            if begin.elapsed() > PATIENCE {
                let words = format!("no address after {} seconds", PATIENCE.as_secs());
                return Err(PageError::Answer { address: "harvest serve".into(), words });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn sign_in(&mut self, secret: &str) -> Result<(), PageError> {
        let address = format!("{}login", self.root);
        let sent = agent().post(&address).send_form([("secret", secret), ("name", "first")]);
        let answer = sent.map_err(PageError::request(&address))?;
        let cookies = answer.headers().get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
        let pairs: Vec<&str> = cookies.filter_map(|cookie| cookie.split(';').next()).collect();
        if pairs.is_empty() {
            let words = format!("signing in was answered with {}", answer.status());
            return Err(PageError::Answer { address, words });
        }
        self.cookie = pairs.join("; ");
        // Whoever signs in is led to the project that the server was started with.
        let landing =
            answer.headers().get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
        self.project = landing.trim_start_matches(['.', '/']).to_owned();
        Ok(())
    }

    /// A visitor of the project, with a connection of its own.
    pub(super) fn visitor(&self) -> Visitor {
        let base = format!("{}{}", self.root, self.project);
        Visitor { agent: agent(), base, cookie: self.cookie.clone() }
    }

    /// Most memory it has had at once, in MiB; `None` where the system does not tell.
    pub(super) fn peak_mib(&self) -> Option<u64> {
        crate::bench::process::peak_of(&format!("/proc/{}/status", self.process.id()))
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(60)))
        .build();
    config.new_agent()
}

/// Somebody who has signed in.
#[derive(Clone)]
pub(super) struct Visitor {
    agent: Agent,
    base: String,
    cookie: String,
}

impl Visitor {
    /// The answer's body.
    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, PageError> {
        let address = format!("{}{path}", self.base);
        let asked = self.agent.get(&address).header("cookie", &self.cookie).call();
        read(&address, asked)
    }

    /// The answer as JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, PageError> {
        json(path, &self.bytes(path)?)
    }

    /// Sends JSON, reads JSON.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, PageError> {
        let address = format!("{}{path}", self.base);
        let request = self.agent.post(&address).header("cookie", &self.cookie);
        let sent = request.header("content-type", "application/json").send(body.to_string());
        json(path, &read(&address, sent)?)
    }

    /// Somebody else's connection in the same session.
    pub(super) fn another(&self) -> Self {
        Self { agent: agent(), ..self.clone() }
    }
}

fn read(
    address: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Vec<u8>, PageError> {
    let mut answer = answer.map_err(PageError::request(address))?;
    let bytes = answer.body_mut().read_to_vec().map_err(PageError::request(address))?;
    if !answer.status().is_success() {
        let words = format!("{}: {}", answer.status(), String::from_utf8_lossy(&bytes));
        return Err(PageError::Answer { address: address.to_owned(), words });
    }
    Ok(bytes)
}

fn json(path: &str, bytes: &[u8]) -> Result<Value, PageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| PageError::Answer { address: path.to_owned(), words: error.to_string() })
}
