//! Uploaded pictures and what the model says of them, line by line as they are done. Nothing of them stays on the server: they are
//! in files without a name, which are gone when the answer is.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::extract::multipart::Multipart;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::labelling_of;
use super::oracle::{Asked, Oracle};
use super::upload::receive;
use crate::config::{Sources, resolve};
use crate::project::Project;
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::off_thread;
use crate::web::results::runs::folder_of;

/// Uploads that are taken at the same time; the others wait at the door.
const AT_ONCE: usize = 4;
/// Lines that wait for a slow reader before the network has to.
const LINES: usize = 64;
/// Time between two empty lines.
const SIGN: Duration = Duration::from_secs(15);

/// What uploads share.
#[derive(Clone)]
pub struct Uploads {
    oracle: Oracle,
    door: Arc<Semaphore>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { oracle: Oracle::default(), door: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// The answer is a line of JSON for each picture, as [`super::oracle::Line`] says.
pub async fn predict(
    AtDesk(desk): AtDesk,
    Path((_, run)): Path<(String, String)>,
    Extension(uploads): Extension<Uploads>,
    form: Multipart,
) -> Result<Response, WebError> {
    let asked = off_thread(move || asked(&desk.project(), &run)).await?;
    let closed = |_| WebError::Refused("the server is ending".into());
    let place = uploads.door.clone().acquire_owned().await.map_err(closed)?;
    let sent = receive(form).await?;
    let (sender, lines) = mpsc::channel::<Bytes>(LINES);
    let signs = signs_of_life(sender.clone());
    tokio::spawn(async move {
        let tell = move |line| {
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            match sender.try_send(text.into()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                // The network waits for whoever reads, on its own thread.
                Err(mpsc::error::TrySendError::Full(text)) => sender.blocking_send(text).is_ok(),
            }
        };
        uploads.oracle.ask(asked, sent, tell).await;
        signs.abort();
        drop(place);
    });
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CACHE_CONTROL, "no-store"),
        // A proxy that collects the answer would hide its progress.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let body = Body::from_stream(ReceiverStream::new(lines).map(Ok::<_, std::convert::Infallible>));
    Ok((headers, body).into_response())
}

/// An empty line now and then: whoever waits in line must not be taken for somebody who has gone.
fn signs_of_life(sender: mpsc::Sender<Bytes>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SIGN).await;
            if sender.send(Bytes::from_static(b"\n")).await.is_err() {
                return;
            }
        }
    })
}

fn asked(project: &Project, run: &str) -> Result<Asked, WebError> {
    let folder = folder_of(project, run)?;
    if !folder.join("DONE").is_file() {
        return Err(WebError::Bad("this run is not finished; it has no model yet".into()));
    }
    let names = labelling_of(project, &folder)?.names().to_vec();
    Ok(Asked { folder, device: device_of(project)?, names })
}

/// The device that is configured for the project.
fn device_of(project: &Project) -> Result<String, WebError> {
    let sources = Sources { project: Some(project.file()), ..Sources::of_this_machine() };
    let config = resolve(&sources).map_err(crate::experiment::ExperimentError::from)?;
    Ok(config.value.run.device)
}
