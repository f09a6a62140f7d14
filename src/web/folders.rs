//! The picker of folders: what lies below the roots, and how many images it seems to hold.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::error::WebError;
use super::security::{Roots, Visitor};
use super::state::App;
use crate::project::FILE;

/// Endings of files that are images, most likely.
const IMAGES: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];
/// Folders listed at most.
const LISTED: usize = 500;
/// Files of a folder looked at in counting: it is to help choosing, not to be exact.
const COUNTED: usize = 20_000;
/// Time for all counts of one answer.
const TIME: Duration = Duration::from_millis(1500);

pub fn routes() -> Router<App> {
    Router::new().route("/api/folders", get(folders))
}

#[derive(Deserialize)]
struct Where {
    path: Option<PathBuf>,
}

/// A folder and what is in it.
#[derive(Debug, Serialize)]
struct Listing {
    /// Its true path; `None` for the list of roots.
    path: Option<String>,
    /// The folder above, if the page may use it.
    parent: Option<String>,
    /// Whether there is nothing above, neither a folder nor a list of roots.
    top: bool,
    /// Images that lie in it and below, and whether there may be more.
    images: Count,
    /// Folders in it.
    folders: Vec<Folder>,
    /// Whether some are left out.
    more: bool,
}

#[derive(Debug, Serialize)]
struct Folder {
    name: String,
    path: String,
    images: Count,
    /// Whether it is a project's.
    project: bool,
}

/// Files that seem to be images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Count {
    count: usize,
    /// Whether not all files were looked at.
    more: bool,
}

async fn folders(
    State(app): State<App>,
    _: Visitor,
    Query(at): Query<Where>,
) -> Result<Json<Listing>, WebError> {
    let asked = at.path.filter(|path| !path.as_os_str().is_empty());
    let list = move || match (asked, app.roots.all()) {
        (Some(path), _) => below(&app.roots, &path),
        // A list of one is no help.
        (None, [only]) => below(&app.roots, only),
        (None, _) => Ok(roots(&app.roots)),
    };
    let listing = tokio::task::spawn_blocking(list).await;
    listing.map_err(|_| WebError::Bad("the folder could not be listed".into()))?.map(Json)
}

fn roots(roots: &Roots) -> Listing {
    let until = Instant::now() + TIME;
    let folders = roots.all().iter().filter_map(|root| folder(root.to_str()?, root, until)).collect();
    Listing { path: None, parent: None, top: true, images: Count::default(), folders, more: false }
}

fn below(roots: &Roots, path: &Path) -> Result<Listing, WebError> {
    let path = roots.inside(path)?;
    let unreadable =
        |error: std::io::Error| WebError::Bad(format!("`{}` cannot be listed: {error}", path.display()));
    let mut names: Vec<String> = std::fs::read_dir(&path)
        .map_err(unreadable)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort_by_cached_key(|name| name.to_lowercase());
    let until = Instant::now() + TIME;
    let images = count(&path, until);
    let inside = |name: &String| roots.inside(&path.join(name)).ok().filter(|path| path.is_dir());
    let mut found = names.iter().filter_map(|name| folder(name, &inside(name)?, until));
    let folders: Vec<Folder> = found.by_ref().take(LISTED).collect();
    let more = found.next().is_some();
    let parent = path.parent().and_then(|parent| roots.inside(parent).ok());
    Ok(Listing {
        path: text(&path),
        top: parent.is_none() && roots.all().len() == 1,
        parent: parent.as_deref().and_then(text),
        images,
        folders,
        more,
    })
}

/// `None` if its path is no text, which no settings could hold.
fn folder(name: &str, path: &Path, until: Instant) -> Option<Folder> {
    Some(Folder {
        name: name.to_owned(),
        path: text(path)?,
        images: count(path, until),
        project: path.join(FILE).is_file(),
    })
}

fn text(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}

/// Files in `path` and below that seem to be images; links are not followed.
fn count(path: &Path, until: Instant) -> Count {
    let mut found = Count::default();
    let hidden = |entry: &walkdir::DirEntry| {
        entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    let entries = WalkDir::new(path).into_iter().filter_entry(|entry| !hidden(entry));
    for (looked_at, entry) in entries.enumerate() {
        if looked_at >= COUNTED || (looked_at % 64 == 0 && Instant::now() >= until) {
            found.more = true;
            break;
        }
        let Ok(entry) = entry else { continue };
        let ending = entry.path().extension().and_then(|ending| ending.to_str()).map(str::to_lowercase);
        found.count += usize::from(
            ending.is_some_and(|ending| IMAGES.contains(&ending.as_str())) && !entry.file_type().is_dir(),
        );
    }
    found
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_listing_counts_images_and_shows_nothing_outside() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().canonicalize().expect("it is there").join(name);
        for name in ["root/Beets/deep", "root/apples", "root/.hidden", "outside"] {
            std::fs::create_dir_all(at(name)).expect("writable");
        }
        for name in [
            "root/Beets/1.JPG",
            "root/Beets/deep/2.tiff",
            "root/Beets/notes.txt",
            "root/.hidden/3.png",
            "root/apples/harvest.toml",
        ] {
            std::fs::write(at(name), "").expect("writable");
        }
        std::os::unix::fs::symlink(at("outside"), at("root/link")).expect("links");
        let all = Roots::new(&[at("root")]);
        let listing = below(&all, &at("root")).expect("inside");
        let shown: Vec<_> = listing
            .folders
            .iter()
            .map(|folder| (folder.name.as_str(), folder.images.count, folder.project))
            .collect();
        assert_eq!(shown, [("apples", 0, true), ("Beets", 2, false)]);
        assert_eq!((listing.images, listing.parent), (Count { count: 2, more: false }, None));
        assert_eq!(below(&all, &at("root/Beets")).expect("inside").parent, text(&at("root")));
        assert!(below(&all, &at("outside")).is_err());
        assert!(below(&all, &at("root/link")).is_err());
        assert_eq!(roots(&all).folders[0].images.count, 2);
    }
}
