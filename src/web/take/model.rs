//! The model as ONNX: made from a run's bundle when it is first asked for, checked, and kept in the run's folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::extract::Path;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::experiment::{ExperimentError, FinishedRun, Shown};
use crate::project::Project;
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::off_thread;
use crate::web::results::runs::folder_of;

/// One is made at a time: it takes memory for several copies of the network.
pub type Exports = Arc<Mutex<()>>;

/// What is wanted.
#[derive(Deserialize)]
pub struct Wanted {
    /// With a file in eight bits, and its accuracy measured.
    #[serde(default)]
    int8: bool,
}

/// Makes it, unless it is there; the download that follows is then quick.
pub async fn make(
    AtDesk(desk): AtDesk,
    Path((_, run)): Path<(String, String)>,
    Extension(exports): Extension<Exports>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>, WebError> {
    let project = desk.project();
    let folder = folder_of(&project, &run)?;
    made(&exports, &project, folder, wanted.int8).await?;
    Ok(Json(json!({ "ready": true })))
}

/// The folder of the exported model, made if need be. It goes on when whoever asked goes away, and is there the next time.
///
/// # Errors
/// If it cannot be made, or does not give the network's own answers.
pub async fn made(
    exports: &Exports,
    project: &Project,
    run: PathBuf,
    int8: bool,
) -> Result<PathBuf, WebError> {
    let folder = run.join(if int8 { "export-int8" } else { "export" });
    let _one_at_a_time = exports.lock().await;
    let cache = project.cache();
    off_thread(move || -> Result<_, WebError> {
        if folder.join("config.json").is_file() {
            return Ok(folder);
        }
        let device = crate::device::by_name("cpu").map_err(ExperimentError::from)?;
        let finished = FinishedRun::open(&run, &device)?;
        // Without the images the self-test has a drawn picture, and eight bits are not measured.
        let images = finished.cache(&cache, &Shown::new(true), &AtomicBool::new(false)).ok();
        finished.export(&folder, images.as_ref(), int8)?;
        Ok(folder)
    })
    .await
}
