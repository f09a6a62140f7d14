//! Thumbnails and pictures, by the content of the image: what an address has once shown it shows for ever.
//!
//! Only images of the project's list can be named, and their files must lie in the folders that the page may use, links
//! followed; the list may be wrong, and files may have become links since.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::views;
use crate::data::{ContentHash, ImageRecord};
use crate::project::Project;
use crate::thumbs::{self, DrawError, Thumbs};
use crate::web::desk::{AtDesk, Desk};
use crate::web::error::WebError;
use crate::web::off_thread;
use crate::web::state::App;

/// Pixels of a picture's longer side, at most.
const SIDE: u32 = 2560;
/// Of JPEG: nothing to be seen even when zoomed in.
const QUALITY: u8 = 92;

/// For ever, but not in a proxy that others use too.
const KEPT: &str = "private, max-age=31536000, immutable";

/// Where a project's thumbnails and pictures come from.
pub struct Gallery {
    /// `None` if they cannot be read; each is then made when it is asked for.
    thumbs: Option<Thumbs>,
    /// Pictures that are decoded at the same time.
    drawing: Semaphore,
}

impl Gallery {
    /// Of a project.
    pub fn of(project: &Project) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            thumbs: Thumbs::open(&project.dir().join(thumbs::FOLDER)).ok(),
            drawing: Semaphore::new(threads),
        }
    }
}

pub fn routes() -> Router<App> {
    Router::new().route("/t/{name}", get(thumbnail)).route("/i/{hash}", get(picture))
}

async fn thumbnail(
    State(app): State<App>,
    AtDesk(desk): AtDesk,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let image = name.strip_suffix(".jpg").and_then(views::image).ok_or_else(no_image)?;
    if is_known(&desk, &headers, &image) {
        return Ok(unchanged(&image));
    }
    let packed = {
        let (app, desk) = (app.clone(), desk.clone());
        off_thread(move || packed(&app, &desk, &image)).await?
    };
    let bytes = match packed {
        Some(bytes) => bytes,
        None => drawn(app, desk, image, thumbs::draw).await?,
    };
    Ok(jpeg(&image, bytes))
}

async fn picture(
    State(app): State<App>,
    AtDesk(desk): AtDesk,
    Path((_, hash)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let image = views::image(&hash).ok_or_else(no_image)?;
    if is_known(&desk, &headers, &image) {
        return Ok(unchanged(&image));
    }
    let draw = |pictures: &_, image: &_| thumbs::draw_at(pictures, image, SIDE, QUALITY);
    Ok(jpeg(&image, drawn(app, desk, image, draw).await?))
}

/// The thumbnail that a scan has made, if it has and the image may be shown.
fn packed(app: &App, desk: &Desk, image: &ContentHash) -> Result<Option<Vec<u8>>, WebError> {
    match allowed(app, desk, image) {
        // A disk that is away just now does not take the thumbnails with it.
        Ok(_) | Err(WebError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    if !desk.catalogue().knows(&image.0) {
        return Err(no_image());
    }
    Ok(desk.gallery.thumbs.as_ref().and_then(|thumbs| thumbs.get(image)))
}

/// An image's record with the true path of its file, links followed, which may be read.
fn allowed(app: &App, desk: &Desk, image: &ContentHash) -> Result<ImageRecord, WebError> {
    let catalogue = desk.catalogue();
    let record = catalogue.record(&image.0).ok_or_else(no_image)?;
    let file = catalogue.pictures().file(&record.path);
    let inside = app.roots.inside(&file)?;
    let within = catalogue.pictures().within(&record.path);
    let inside = inside.to_str().ok_or_else(|| {
        WebError::Bad(format!("the true name of `{}` is not valid UTF-8; rename it", file.display()))
    })?;
    // An absolute path counts from nowhere else.
    Ok(ImageRecord { path: format!("{inside}{within}"), ..record })
}

/// Decodes an image, a few at a time, not where requests are waited for.
async fn drawn(
    app: App,
    desk: Arc<Desk>,
    image: ContentHash,
    draw: impl FnOnce(&crate::data::Pictures, &ImageRecord) -> Result<Vec<u8>, DrawError> + Send + 'static,
) -> Result<Vec<u8>, WebError> {
    let queue = desk.clone();
    let _turn = queue.gallery.drawing.acquire().await.map_err(|_| no_image())?;
    off_thread(move || {
        let record = allowed(&app, &desk, &image)?;
        let drawn = draw(desk.catalogue().pictures(), &record);
        drawn.map_err(|error| WebError::Missing {
            what: format!("picture to show: {}", crate::errors::chain(&error)),
        })
    })
    .await
}

fn no_image() -> WebError {
    WebError::Missing { what: "such image in this project".into() }
}

/// Whether the browser has it already, an image that is still one of the project's.
fn is_known(desk: &Desk, headers: &HeaderMap, image: &ContentHash) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    desk.catalogue().knows(&image.0)
        && known.is_some_and(|known| {
            known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == tag_of(image))
        })
}

fn tag_of(image: &ContentHash) -> String {
    format!("\"{image}\"")
}

fn unchanged(image: &ContentHash) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag_of(image)), (header::CACHE_CONTROL, KEPT.into())])
        .into_response()
}

fn jpeg(image: &ContentHash, bytes: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg".to_owned()),
        (header::CACHE_CONTROL, KEPT.to_owned()),
        (header::ETAG, tag_of(image)),
    ];
    (headers, bytes).into_response()
}
