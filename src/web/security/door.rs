//! Who may come in: the secret or the one-time address, and the sessions of those who have.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::Visitor;
use super::throttle::Throttle;
use crate::files::{WriteError, sync_folder};

/// A session ends after this time without a request.
const IDLE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Sessions kept; the oldest go first.
const SESSIONS: usize = 2000;
/// Bytes of a secret, a one-time address and a session's id before they are written in hexadecimal.
const RANDOM_BYTES: usize = 32;
/// The shortest secret taken from a file.
const SHORTEST_SECRET: usize = 16;

/// BLAKE3 of something secret, so that the thing itself need not be kept and comparing takes the same time for all.
type Digest = [u8; 32];

fn digest(secret: &str) -> Digest {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

/// Something that nobody guesses, in hexadecimal.
fn random() -> String {
    use std::fmt::Write as _;
    rand::random::<[u8; RANDOM_BYTES]>().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A secret file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read the secret in `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Others may read it.
    #[error(
        "`{path}` can be read by others than you, who could then come in; make a new secret \
        (rm '{path}' and start again) or, if nobody has read it yet: chmod 600 '{path}'",
        path = path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It can be guessed.
    #[error("the secret in `{path}` is shorter than {SHORTEST_SECRET} characters, too easy to guess; remove the file and \
        start again, and a good one is made", path = path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// A secret that opens the door, as often as it is said.
#[derive(Clone)]
pub struct Secret(Digest);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Of the file `path`, which is made with a new secret if it is not there; only its owner may read it.
    ///
    /// # Errors
    /// If it cannot be read or made, others can read it, or it is too short.
    pub fn of_file(path: &Path) -> Result<Self, SecretError> {
        let read = |source| SecretError::Read { path: path.to_owned(), source };
        if !path.exists() {
            write_private(path, format!("{}\n", random()).as_bytes())?;
        }
        let mut file = fs::File::open(path).map_err(read)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            // Of what was opened: the name may lead elsewhere a moment later.
            if file.metadata().map_err(read)?.mode() & 0o077 != 0 {
                return Err(SecretError::Open { path: path.to_owned() });
            }
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).map_err(read)?;
        match text.trim() {
            secret if secret.len() < SHORTEST_SECRET => Err(SecretError::Short { path: path.to_owned() }),
            secret => Ok(Self(digest(secret))),
        }
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Temporary files are made so that only their owner can read them.
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(WriteError::at(path))
}

/// What opens the door.
enum Key {
    /// A secret of a file.
    Secret(Digest),
    /// A one-time address, another after each use.
    Once(Mutex<Digest>),
}

/// Why somebody stays outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not the secret.
    #[error("{0}")]
    Wrong(&'static str),
    /// Too many wrong ones came before.
    #[error("there were too many wrong tries; wait {} and try again", in_words(*left))]
    Wait {
        /// For how long.
        left: Duration,
    },
}

fn in_words(time: Duration) -> String {
    match time.as_millis().div_ceil(1000) {
        1 => "a second".into(),
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// Told the address at which one may come in, each time there is a new one.
pub type Announce = Box<dyn Fn(&str) + Send + Sync>;

/// Lets people in, and knows those who are.
pub struct Door {
    key: Key,
    /// Name of the cookie: browsers do not keep those of several ports apart.
    cookie: String,
    /// The address of the sign-in page.
    address: String,
    announce: Announce,
    throttle: Mutex<Throttle>,
    sessions: Mutex<Sessions>,
}

impl Door {
    /// A door at `address`, such as `http://127.0.0.1:8765/login`. Without a secret every visitor comes in by a one-time address
    /// that is told to `announce`. Sessions are kept in `file`, if one is given.
    pub fn new(
        address: String,
        port: u16,
        secret: Option<Secret>,
        file: Option<PathBuf>,
        announce: Announce,
    ) -> Self {
        let bound =
            secret.as_ref().map_or_else(String::new, |secret| blake3::hash(&secret.0).to_hex().to_string());
        let key = match secret {
            Some(Secret(digest)) => Key::Secret(digest),
            None => Key::Once(Mutex::new(digest(&random()))),
        };
        Self {
            key,
            cookie: format!("harvest_{port}"),
            address,
            announce,
            throttle: Mutex::default(),
            sessions: Mutex::new(Sessions::load(file, bound)),
        }
    }

    /// Tells the address at which one may come in; with a one-time address, a new one, and no other is good any more.
    pub fn announce(&self) {
        match &self.key {
            Key::Secret(_) => (self.announce)(&self.address),
            Key::Once(token) => {
                let new = random();
                *lock(token) = digest(&new);
                (self.announce)(&format!("{}?token={new}", self.address));
            }
        }
    }

    /// Whether visitors come by a one-time address rather than with a secret.
    pub fn by_address(&self) -> bool {
        matches!(self.key, Key::Once(_))
    }

    /// Whether `word`, said by somebody at `from`, opens the door. If it was a one-time address it is used up now.
    ///
    /// # Errors
    /// If it does not, or too many wrong ones were said before.
    pub fn knock(&self, from: &str, word: &str) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut throttle = lock(&self.throttle);
        if let Some(left) = throttle.wait(from, now) {
            return Err(Refusal::Wait { left });
        }
        let said = digest(word.trim());
        let right = match &self.key {
            Key::Secret(secret) => bool::from(secret.ct_eq(&said)),
            Key::Once(token) => {
                let mut token = lock(token);
                let right = bool::from(token.ct_eq(&said));
                if right {
                    // Used up before anybody else can say it.
                    *token = digest(&random());
                }
                right
            }
        };
        if !right {
            throttle.wrong(from, now);
            return Err(Refusal::Wrong(match self.key {
                Key::Secret(_) => "this is not the secret",
                Key::Once(_) => {
                    "this address was used already or is not complete; the newest one stands in the terminal where \
                    `harvest serve` runs"
                }
            }));
        }
        throttle.right(from);
        drop(throttle);
        if self.by_address() {
            self.announce();
        }
        Ok(())
    }

    /// Begins a session; returns the value of `Set-Cookie`. `secure`: the browser came by https.
    ///
    /// The cookie names no path: a browser then keeps it to the folder of the sign-in page, which is the application's root as the
    /// browser sees it, whatever a proxy makes of that.
    pub fn sign_in(&self, name: &str, secure: bool) -> String {
        let id = random();
        lock(&self.sessions).add(digest(&id), name);
        let secure = if secure { "; Secure" } else { "" };
        format!("{}={id}; HttpOnly; SameSite=Strict{secure}", self.cookie)
    }

    /// Who makes a request, if they have come in.
    pub fn visitor(&self, headers: &HeaderMap) -> Option<Visitor> {
        let ids = self.ids(headers);
        let mut sessions = lock(&self.sessions);
        ids.iter().find_map(|id| sessions.find(id)).map(|name| Visitor { name })
    }

    /// Gives the one who makes a request another name.
    pub fn rename(&self, headers: &HeaderMap, name: &str) {
        let ids = self.ids(headers);
        lock(&self.sessions).rename(&ids, name);
    }

    /// Ends the session of a request; returns the value of `Set-Cookie`.
    pub fn sign_out(&self, headers: &HeaderMap) -> String {
        let ids = self.ids(headers);
        lock(&self.sessions).remove(&ids);
        format!("{}=; HttpOnly; SameSite=Strict; Max-Age=0", self.cookie)
    }

    /// Of all cookies of our name: one of another prefix may be among them.
    fn ids(&self, headers: &HeaderMap) -> Vec<Digest> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(name, _)| *name == self.cookie)
            .take(8)
            .map(|(_, id)| digest(id))
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who are in, by the digest of their session's id: who reads the file cannot come in with it.
struct Sessions {
    file: Option<PathBuf>,
    /// Tells the secret they came in with from another; empty for one-time addresses.
    bound: String,
    all: HashMap<Digest, Session>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    name: String,
    /// Seconds since 1970 of the last request, to the day.
    seen: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct SessionFile {
    bound: String,
    sessions: HashMap<String, Session>,
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Sessions {
    /// What cannot be read is no loss: one signs in anew.
    fn load(file: Option<PathBuf>, bound: String) -> Self {
        let text = file.as_ref().and_then(|file| fs::read(file).ok()).unwrap_or_default();
        let kept: SessionFile = serde_json::from_slice(&text).unwrap_or_default();
        let all = if kept.bound == bound { kept.sessions } else { HashMap::new() };
        let all = all
            .into_iter()
            .filter_map(|(id, session)| Some((*blake3::Hash::from_hex(id).ok()?.as_bytes(), session)))
            .collect();
        Self { file, bound, all }
    }

    fn add(&mut self, id: Digest, name: &str) {
        let now = seconds();
        self.all.retain(|_, session| now.saturating_sub(session.seen) < IDLE.as_secs());
        if self.all.len() >= SESSIONS
            && let Some(oldest) = self.all.iter().min_by_key(|(_, session)| session.seen).map(|(id, _)| *id)
        {
            self.all.remove(&oldest);
        }
        self.all.insert(id, Session { name: name.to_owned(), seen: now });
        self.save();
    }

    fn find(&mut self, id: &Digest) -> Option<String> {
        let now = seconds();
        let session = self.all.get_mut(id)?;
        if now.saturating_sub(session.seen) >= IDLE.as_secs() {
            self.all.remove(id);
            return None;
        }
        let name = session.name.clone();
        // The file need not be written with every request.
        if now.saturating_sub(session.seen) > 24 * 3600 {
            session.seen = now;
            self.save();
        }
        Some(name)
    }

    fn rename(&mut self, ids: &[Digest], name: &str) {
        if let Some(session) = ids.iter().find(|id| self.all.contains_key(*id)) {
            self.all.entry(*session).and_modify(|session| session.name = name.to_owned());
            self.save();
        }
    }

    fn remove(&mut self, ids: &[Digest]) {
        ids.iter().for_each(|id| drop(self.all.remove(id)));
        self.save();
    }

    /// A file that cannot be written only means signing in anew after a restart.
    fn save(&self) {
        let Some(file) = &self.file else { return };
        let hex = |id: &Digest| blake3::Hash::from_bytes(*id).to_hex().to_string();
        let sessions = self.all.iter().map(|(id, session)| (hex(id), session.clone())).collect();
        let kept = SessionFile { bound: self.bound.clone(), sessions };
        if let Ok(text) = serde_json::to_vec(&kept) {
            let _ = write_private(file, &text);
        }
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
