//! Projects there are: those used lately, and those found below the roots.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use super::security::{Roots, write_private};
use crate::project::FILE;

/// Projects remembered.
const REMEMBERED: usize = 50;
/// Folders between a root and a project found below it.
const DEPTH: usize = 4;
/// Folders looked at in search of projects below a root, which may be a whole file system.
const FOLDERS: usize = 4000;
/// Files and folders looked at in each: it may hold a million images.
const ENTRIES: usize = 5000;

/// A project used before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Its folder, links resolved.
    pub dir: PathBuf,
    /// When it was opened last, in seconds since 1970.
    pub at: i64,
}

/// Projects used lately, the latest first, and where others were seen.
pub struct Known {
    file: Option<PathBuf>,
    used: Mutex<Vec<Used>>,
    seen: Mutex<Vec<PathBuf>>,
}

impl Known {
    /// As remembered in `file`, if it is given and can be read.
    pub fn new(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| fs::read(file).ok()).unwrap_or_default();
        let used = serde_json::from_slice(&text).unwrap_or_default();
        Self { file, used: Mutex::new(used), seen: Mutex::default() }
    }

    /// Notes that the project in `dir` is used now.
    pub fn used(&self, dir: &Path) {
        let mut used = lock(&self.used);
        used.retain(|project| project.dir != dir);
        used.insert(0, Used { dir: dir.to_owned(), at: Timestamp::now().as_second() });
        used.truncate(REMEMBERED);
        if let Some(file) = &self.file
            && let Ok(text) = serde_json::to_vec_pretty(&*used)
        {
            // Not to remember is no reason not to work.
            let _ = write_private(file, &text);
        }
    }

    /// Folder of the project that addresses call `key`, if it was used or seen before.
    pub fn of_key(&self, key: &str) -> Option<PathBuf> {
        let used = lock(&self.used).iter().map(|used| used.dir.clone()).collect::<Vec<_>>();
        let seen = lock(&self.seen).clone();
        used.into_iter().chain(seen).find(|dir| Desk::key_of(dir) == key && dir.join(FILE).is_file())
    }

    /// Folders of all projects below `roots`: those used lately first, then the others by path.
    pub fn all(&self, roots: &Roots) -> Vec<(PathBuf, Option<Timestamp>)> {
        let used = lock(&self.used).clone();
        let mut all: Vec<_> = used
            .into_iter()
            .filter_map(|used| Some((roots.inside(&used.dir).ok()?, Timestamp::from_second(used.at).ok())))
            .filter(|(dir, _)| dir.join(FILE).is_file())
            .collect();
        let mut found: Vec<PathBuf> = roots.all().iter().flat_map(|root| search(root)).collect();
        found.sort();
        found.dedup();
        found.retain(|dir| all.iter().all(|(used, _)| used != dir));
        lock(&self.seen).clone_from(&found);
        all.extend(found.into_iter().map(|dir| (dir, None)));
        all
    }
}

/// Folders below `root` that hold a project, links not followed; those near the root first.
fn search(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = VecDeque::from([(root.to_owned(), 0)]);
    for _ in 0..FOLDERS {
        let Some((folder, depth)) = next.pop_front() else { break };
        if folder.join(FILE).is_file() {
            // A project's own folders hold no further ones.
            found.push(folder);
        } else if depth < DEPTH {
            let entries = fs::read_dir(&folder).into_iter().flatten().take(ENTRIES).flatten();
            let inner = entries.filter(|entry| {
                let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir())
            });
            next.extend(inner.map(|entry| (entry.path(), depth + 1)));
        }
    }
    found
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_found_and_remembered_but_only_below_the_roots() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().canonicalize().expect("it is there").join(name);
        for name in ["root/a", "root/b/c/project", "root/.hidden/d", "outside", "root/a/within"] {
            fs::create_dir_all(at(name)).expect("writable");
            fs::write(at(name).join(FILE), "").expect("writable");
        }
        let roots = Roots::new(&[at("root")]);
        let memory = at("projects.json");
        let known = Known::new(Some(memory.clone()));
        known.used(&at("outside"));
        known.used(&at("root/b/c/project"));
        let dirs = |known: &Known| known.all(&roots).into_iter().map(|(dir, _)| dir).collect::<Vec<_>>();
        assert_eq!(dirs(&known), [at("root/b/c/project"), at("root/a")]);
        assert_eq!(known.of_key(&Desk::key_of(&at("root/a"))), Some(at("root/a")));

        let known = Known::new(Some(memory));
        assert_eq!(known.of_key(&Desk::key_of(&at("root/b/c/project"))), Some(at("root/b/c/project")));
        assert_eq!(known.of_key("nothing-0"), None);
        fs::remove_file(at("root/b/c/project").join(FILE)).expect("ours");
        assert_eq!(dirs(&known), [at("root/a")]);
    }
}
