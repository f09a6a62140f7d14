//! The images on a plane, like ones beside each other.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::code::LabelCode;
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::off_thread;
use crate::web::state::App;

/// Points sent at most; of more images these are as good as drawn at random.
const MOST_POINTS: usize = 20_000;

pub fn routes() -> Router<App> {
    Router::new().route("/api/map", get(map))
}

async fn map(AtDesk(desk): AtDesk) -> Result<Json<Value>, WebError> {
    let points = off_thread(move || Ok::<_, WebError>(desk.catalogue().map(MOST_POINTS))).await?;
    // A pixel of a large screen is less than a thousandth.
    let short = |value: f32| (f64::from(value) * 1e4).round() / 1e4;
    let points: Vec<Value> = points
        .into_iter()
        .map(|point| {
            json!([short(point.x), short(point.y), point.cluster, point.hash, LabelCode(point.label)])
        })
        .collect();
    Ok(Json(json!({ "points": points })))
}
