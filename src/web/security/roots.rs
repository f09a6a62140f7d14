//! Folders that the page may read; nothing outside of them exists for it.

use std::path::{Component, Path, PathBuf};

use crate::web::WebError;

/// Folders below which projects and images may lie, links resolved.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<PathBuf>);

impl Roots {
    /// Of `folders`; those that do not exist are left out, and those that lie within others too.
    pub fn new(folders: &[PathBuf]) -> Self {
        let mut all: Vec<PathBuf> = folders.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        all.sort();
        all.dedup();
        let within = |folder: &PathBuf| all.iter().any(|other| other != folder && folder.starts_with(other));
        Self(all.iter().filter(|folder| !within(folder)).cloned().collect())
    }

    /// All of them, none within another.
    pub fn all(&self) -> &[PathBuf] {
        &self.0
    }

    /// The true path of something that exists: links followed, `..` resolved, inside one of the folders.
    ///
    /// Read what this returns, never what was given: between the two a link may lead elsewhere.
    ///
    /// # Errors
    /// If it lies outside, or is not there. What lies outside is refused alike whether it exists or not.
    pub fn inside(&self, path: &Path) -> Result<PathBuf, WebError> {
        let found = path.canonicalize();
        match found {
            Ok(path) if self.hold(&path) => Ok(path),
            Err(_) if self.hold(&plain(path)) => {
                Err(WebError::Missing { what: format!("`{}`", path.display()) })
            }
            _ => Err(WebError::Refused(format!(
                "`{}` lies outside of the folders that this page may use; start `harvest serve` with --roots to allow others",
                path.display()
            ))),
        }
    }

    /// The true path of a folder that may be made: its parent exists inside.
    ///
    /// # Errors
    /// As [`Self::inside`], or if the last part is no name.
    pub fn new_folder(&self, path: &Path) -> Result<PathBuf, WebError> {
        if path.exists() {
            return self.inside(path);
        }
        let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back())
        else {
            return Err(WebError::Bad(format!("`{}` is no name for a folder", path.display())));
        };
        Ok(self.inside(parent)?.join(name))
    }

    /// Whether a true path lies inside.
    fn hold(&self, path: &Path) -> bool {
        self.0.iter().any(|root| path.starts_with(root))
    }
}

/// `path` with `.` and `..` taken out by their names alone, for what does not exist.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_outside() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().canonicalize().expect("it is there").join(name);
        for name in ["root/deep", "root-too", "outside"] {
            std::fs::create_dir_all(at(name)).expect("writable");
        }
        std::fs::write(at("outside/secret"), "x").expect("writable");
        symlink(at("outside"), at("root/link")).expect("links");
        symlink(at("outside/secret"), at("root/file")).expect("links");
        symlink(at("root/deep"), at("root/good")).expect("links");
        let roots = Roots::new(&[at("root"), at("root/deep"), at("nothing")]);
        assert_eq!(roots.all(), [at("root")]);

        assert_eq!(roots.inside(&at("root/deep/..")).expect("inside"), at("root"));
        assert_eq!(roots.inside(&at("root/good")).expect("a link that stays"), at("root/deep"));
        for path in [
            "root/../outside/secret",
            "root/link/secret",
            "root/link",
            "root/file",
            "root-too",
            "root/../nothing",
            "root/deep/../../outside/nothing",
            "root/link/nothing",
        ] {
            let refused = roots.inside(&at(path));
            // What a link leads to and is not there is not told apart from what is not there at all.
            assert!(
                matches!(refused, Err(WebError::Refused(_))) || path == "root/link/nothing",
                "{path}: {refused:?}"
            );
        }
        assert!(matches!(roots.inside(&at("root/nothing")), Err(WebError::Missing { .. })));
        assert!(
            matches!(roots.inside(Path::new("etc")), Err(WebError::Refused(_))),
            "relative paths lead nowhere"
        );

        assert_eq!(roots.new_folder(&at("root/deep/new")).expect("may be made"), at("root/deep/new"));
        for path in ["outside/new", "root/link/new", "root/..", "root/deep/../../new"] {
            assert!(roots.new_folder(&at(path)).is_err(), "{path}");
        }
    }
}
