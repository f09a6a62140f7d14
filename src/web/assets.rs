//! Scripts and styles, built into the program.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::RustEmbed;

use super::state::App;

#[derive(RustEmbed)]
#[folder = "src/web/assets"]
struct Assets;

/// What addresses of assets end with, so that a browser keeps a file for ever and asks anew after an update.
pub fn version() -> &'static str {
    static VERSION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let mut hasher = blake3::Hasher::new();
        for name in Assets::iter() {
            let file = Assets::get(&name).expect("iterated over");
            hasher.update(&file.metadata.sha256_hash());
        }
        hasher.finalize().to_hex()[..12].to_owned()
    });
    &VERSION
}

pub fn routes() -> Router<App> {
    // The version is part of the path, so that modules which import each other by relative addresses keep it.
    Router::new().route("/assets/{version}/{*name}", get(asset))
}

async fn asset(Path((_, name)): Path<(String, String)>) -> Response {
    let Some(file) = Assets::get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let kind = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let kept = "public, max-age=31536000, immutable";
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, kept)], file.data).into_response()
}
