//! Which images, in which order, and the lines of a list of them.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::Query as UrlQuery;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::code::LabelCode;
use crate::catalogue::{Copies, LabelFilter, Order, Query, Row};
use crate::data::ContentHash;
use crate::experiment::RunPart;
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::off_thread;
use crate::web::state::App;

/// Lines sent at once.
const MOST_ROWS: usize = 1000;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/api/view", get(view))
        .route("/api/rows", get(rows))
        .route("/api/locate", get(locate))
}

async fn view(
    AtDesk(desk): AtDesk,
    UrlQuery(asked): UrlQuery<HashMap<String, String>>,
) -> Result<Json<Value>, WebError> {
    let mut query = parse(&asked)?;
    query.classes = desk.project().classes().displayed().map(|class| class.id).collect();
    let view = off_thread(move || desk.catalogue().view(&query)).await?;
    Ok(Json(json!({ "view": view.token, "total": view.total, "version": view.version })))
}

#[derive(Deserialize)]
struct RowsAsked {
    view: String,
    #[serde(default)]
    from: usize,
    #[serde(default = "some_rows")]
    count: usize,
}

fn some_rows() -> usize {
    200
}

/// A line, with names as short as they can be: a page reads very many.
#[derive(Serialize)]
struct Line<'a> {
    i: usize,
    h: String,
    n: &'a str,
    l: LabelCode,
    p: Option<u16>,
    c: Option<f64>,
    k: Option<u32>,
    d: u32,
    w: [u32; 2],
    t: i64,
}

impl<'a> Line<'a> {
    fn new(i: usize, row: Row<'a>) -> Self {
        Self {
            i,
            h: row.hash.to_string(),
            n: row.path,
            l: LabelCode(row.label),
            p: row.believed.map(|believed| believed.class),
            // Four digits: more would be noise, and longer to send.
            c: row.believed.map(|believed| (f64::from(believed.confidence) * 1e4).round() / 1e4),
            k: row.cluster,
            d: row.copies + 1,
            w: row.size,
            t: row.modified,
        }
    }
}

async fn rows(AtDesk(desk): AtDesk, UrlQuery(asked): UrlQuery<RowsAsked>) -> Result<Json<Value>, WebError> {
    let catalogue = desk.catalogue();
    let rows = catalogue.rows(&asked.view, asked.from, asked.count.min(MOST_ROWS));
    let rows = rows.ok_or(WebError::ViewGone)?;
    let lines: Vec<Line<'_>> = (asked.from..).zip(rows).map(|(i, row)| Line::new(i, row)).collect();
    Ok(Json(json!({ "from": asked.from, "rows": lines })))
}

#[derive(Deserialize)]
struct Sought {
    view: String,
    image: String,
}

async fn locate(AtDesk(desk): AtDesk, UrlQuery(asked): UrlQuery<Sought>) -> Result<Json<Value>, WebError> {
    let sought = image(&asked.image).ok_or_else(|| not_an_image(&asked.image))?;
    let at = desk.catalogue().locate(&asked.view, &sought.0).ok_or(WebError::ViewGone)?;
    Ok(Json(json!({ "at": at })))
}

/// An image by the 64 digits of its hash.
pub(super) fn image(digits: &str) -> Option<ContentHash> {
    blake3::Hash::from_hex(digits).ok().map(|hash| ContentHash(*hash.as_bytes()))
}

fn not_an_image(text: &str) -> WebError {
    WebError::Bad(format!("`{text}` is not the number of an image, which has 64 digits"))
}

/// What an address asks for. Empty values are as if they were not there.
fn parse(asked: &HashMap<String, String>) -> Result<Query, WebError> {
    let given = |key: &str| asked.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
    let like = given("like").map(|text| image(text).ok_or_else(|| not_an_image(text))).transpose()?;
    Ok(Query {
        labels: list(given("label"), "label", label_filter)?,
        predicted: list(given("predicted"), "predicted", |text| text.parse().ok())?,
        clusters: list(given("cluster"), "cluster", |text| text.parse().ok())?,
        folder: given("folder").map(str::to_owned),
        min: number(given("min"), "min")?,
        max: number(given("max"), "max")?,
        copies: one(given("copies"), "copies", |text| match text {
            "first" | "0" => Some(Copies::First),
            "all" | "1" => Some(Copies::All),
            "only" => Some(Copies::Only),
            _ => None,
        })?
        .unwrap_or_default(),
        part: one(given("part"), "part", RunPart::named)?,
        text: given("q").map(str::to_owned),
        within: one(given("box"), "box", |text| {
            let numbers: Option<Vec<f32>> = text.split(',').map(finite).collect();
            numbers?.try_into().ok()
        })?,
        order: one(given("order"), "order", order)?.unwrap_or_default(),
        like,
        run: given("run").map(str::to_owned),
        classes: Vec::new(),
    })
}

fn label_filter(text: &str) -> Option<LabelFilter> {
    match text {
        "none" => Some(LabelFilter::Unlabelled),
        "any" => Some(LabelFilter::AnyClass),
        code => LabelCode::from_str(code).ok().and_then(|LabelCode(label)| label).map(LabelFilter::Is),
    }
}

fn order(text: &str) -> Option<Order> {
    Some(match text {
        "path" => Order::Path,
        "unlabelled" => Order::Unlabelled,
        "class" => Order::Class,
        "predicted" => Order::Predicted,
        "confidence" => Order::Confidence,
        "-confidence" => Order::Sure,
        "doubt" => Order::Doubt,
        "disagreement" => Order::Disagreement,
        "cluster" => Order::Cluster,
        "folder" => Order::Folder,
        "date" => Order::Date,
        "-date" => Order::Newest,
        "duplicates" => Order::Duplicates,
        "similar" => Order::Similar,
        _ => return None,
    })
}

fn finite(text: &str) -> Option<f32> {
    f32::from_str(text.trim()).ok().filter(|number| number.is_finite())
}

fn number(text: Option<&str>, key: &str) -> Result<Option<f32>, WebError> {
    one(text, key, finite)
}

fn one<T>(text: Option<&str>, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, WebError> {
    text.map(|text| read(text).ok_or_else(|| makes_no_sense(key, text))).transpose()
}

fn list<T>(text: Option<&str>, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, WebError> {
    let parts = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    parts.map(|part| read(part).ok_or_else(|| makes_no_sense(key, part))).collect()
}

fn makes_no_sense(key: &str, text: &str) -> WebError {
    WebError::Bad(format!("`{key}={text}` makes no sense in this address"))
}
