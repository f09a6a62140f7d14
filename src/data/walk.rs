//! All files below a folder, in the order of their paths.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{DataError, Problem, SetAside};

/// What a folder holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Paths relative to the root, with `/`, sorted.
    pub files: Vec<String>,
    /// What could not be followed or named.
    pub set_aside: Vec<SetAside>,
    /// Files and folders beginning with a dot, each counted once, not entered.
    pub hidden: u64,
}

/// Follows links, also to folders elsewhere, but never in a circle. Nothing below `exclude` is looked at.
pub(super) fn list(root: &Path, exclude: &[PathBuf]) -> Result<Listing, DataError> {
    let mut listing = Listing::default();
    let mut entries = WalkDir::new(root).follow_links(true).into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                listing.set_aside.push(not_followed(root, error)?);
                continue;
            }
        };
        let skipped = exclude.iter().any(|excluded| entry.path() == excluded);
        let hidden = entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden || skipped {
            listing.hidden += u64::from(hidden);
            if entry.file_type().is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        if entry.file_type().is_dir() {
            continue;
        }
        match relative(root, entry.path()) {
            Ok(path) => listing.files.push(path),
            Err(path) => listing.set_aside.push(SetAside {
                path,
                problem: Problem::Name,
                reason: "the name is not valid UTF-8 (often from an old archive); rename the file or folder"
                    .into(),
            }),
        }
    }
    listing.files.sort_unstable();
    Ok(listing)
}

/// A path below the root in text, or its nearest likeness if it is none.
fn relative(root: &Path, path: &Path) -> Result<String, String> {
    let below = path.strip_prefix(root).unwrap_or(path);
    let text = below.to_str().ok_or_else(|| below.to_string_lossy().into_owned())?;
    Ok(if cfg!(windows) { text.replace('\\', "/") } else { text.to_owned() })
}

fn not_followed(root: &Path, error: walkdir::Error) -> Result<SetAside, DataError> {
    let path = error.path().unwrap_or(root).to_owned();
    let (problem, reason) = match (error.loop_ancestor(), error.io_error()) {
        (Some(above), _) => (
            Problem::Name,
            format!("a link back to the folder `{}` that contains it; not followed", above.display()),
        ),
        (None, Some(io)) if io.kind() == std::io::ErrorKind::NotFound => (
            Problem::Name,
            "a link to something that does not exist, or a file that vanished meanwhile".into(),
        ),
        (None, io) => {
            let words = io.map_or_else(|| error.to_string(), ToString::to_string);
            (Problem::Unreadable, format!("cannot be read: {words}"))
        }
    };
    if error.depth() == 0 {
        let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(reason));
        return Err(DataError::Read { path, source });
    }
    Ok(SetAside { path: relative(root, &path).unwrap_or_else(|lossy| lossy), problem, reason })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_names_and_hidden_files_never_stop_a_walk() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/c")).expect("creates");
        std::fs::create_dir_all(root.join(".git/x")).expect("creates");
        std::fs::create_dir_all(root.join("out")).expect("creates");
        for name in ["b/c/2.png", "b/1.png", "a.png", ".hidden", ".git/x/y", "out/z.png"] {
            std::fs::write(root.join(name), b"x").expect("writes");
        }
        std::fs::write(root.join(OsStr::from_bytes(b"b/\xFF.png")), b"x").expect("writes");
        symlink(root, root.join("b/loop")).expect("links");
        symlink("nowhere", root.join("broken.png")).expect("links");
        symlink(root.join("a.png"), root.join("z.png")).expect("links");

        let listing = list(root, &[root.join("out")]).expect("lists");
        assert_eq!(listing.files, ["a.png", "b/1.png", "b/c/2.png", "z.png"]);
        assert_eq!(listing.hidden, 2);
        let mut aside: Vec<_> = listing.set_aside.iter().map(|file| file.path.as_str()).collect();
        aside.sort_unstable();
        assert_eq!(aside, ["b/loop", "b/\u{FFFD}.png", "broken.png"]);
        assert!(listing.set_aside.iter().all(|file| file.problem == Problem::Name));
    }
}
