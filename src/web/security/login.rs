//! Signing in and out, and one's name.

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::Visitor;
use super::address::page_of_ours;
use super::door::Refusal;
use super::gate::redirect;
use super::patience::Peer;
use crate::web::error::WebError;
use crate::web::layout;
use crate::web::state::{App, AppState};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/login", get(come).post(knock))
        .route("/logout", post(leave))
        .route("/api/me", get(me))
        .route("/api/name", post(rename))
}

/// What the address of the sign-in page may say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Arrival {
    token: Option<String>,
    next: Option<String>,
}

/// The sign-in page, or the one-time address.
async fn come(State(app): State<App>, Query(arrival): Query<Arrival>, request: Request) -> Response {
    let next = arrival.next.as_deref();
    if request.extensions().get::<Visitor>().is_some() {
        return redirect(&landing(&app, next));
    }
    match arrival.token {
        // A program that only looks whether the page is there must not use the address up.
        Some(token) if app.door.by_address() && *request.method() == Method::GET => {
            enter(&app, &request, &token, None, next)
        }
        _ => form(&app, next, None).into_response(),
    }
}

/// What the sign-in page, and the Connect button of Open OnDemand, send.
#[derive(Deserialize)]
struct Knock {
    #[serde(default)]
    secret: String,
    name: Option<String>,
    next: Option<String>,
}

async fn knock(
    State(app): State<App>,
    parts: axum::http::request::Parts,
    Form(knock): Form<Knock>,
) -> Response {
    let request = Request::from_parts(parts, axum::body::Body::empty());
    // Somebody may paste the whole one-time address.
    let secret = knock.secret.rsplit_once("?token=").map_or(knock.secret.as_str(), |(_, token)| token);
    enter(&app, &request, secret, knock.name.as_deref(), knock.next.as_deref())
}

/// Opens the door to whoever knows the word.
fn enter(app: &AppState, request: &Request, word: &str, name: Option<&str>, next: Option<&str>) -> Response {
    let headers = request.headers();
    if let Err(refusal) = app.door.knock(&caller(request), word) {
        return refused(app, headers, next, &refusal);
    }
    // A portal that has asked people who they are says so.
    let known = headers.get("x-forwarded-user").and_then(|name| name.to_str().ok());
    let name = [name, known].into_iter().flatten().find_map(Visitor::name_from);
    let name = name.unwrap_or_else(|| app.options.name.clone());
    let secure =
        headers.get("x-forwarded-proto").is_some_and(|protocol| protocol.as_bytes().starts_with(b"https"));
    let mut response = redirect(&landing(app, next));
    if let Ok(cookie) = HeaderValue::from_str(&app.door.sign_in(&name, secure)) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// For counting wrong tries: the other end, and who it says it speaks for if it is a proxy.
fn caller(request: &Request) -> String {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let peer = peer.map_or_else(String::new, |ConnectInfo(peer)| peer.address.ip().to_string());
    let behind = request.headers().get("x-forwarded-for").and_then(|all| all.to_str().ok());
    let behind = behind.and_then(|all| all.rsplit(',').next()).unwrap_or_default().trim();
    format!("{peer} {}", behind.chars().take(64).collect::<String>())
}

/// Where to go after signing in, relative to the root.
fn landing(app: &AppState, next: Option<&str>) -> String {
    match (next.and_then(page_of_ours), &app.first) {
        (Some(next), _) => next.to_owned(),
        (None, Some(key)) => format!("p/{key}/"),
        (None, None) => "./".to_owned(),
    }
}

fn refused(app: &AppState, headers: &HeaderMap, next: Option<&str>, refusal: &Refusal) -> Response {
    let words = refusal.to_string();
    let (status, wait) = match refusal {
        Refusal::Wrong(_) => (StatusCode::FORBIDDEN, None),
        Refusal::Wait { left } => (StatusCode::TOO_MANY_REQUESTS, Some(left.as_secs() + 1)),
    };
    let json =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    let mut response = if json {
        (status, Json(serde_json::json!({ "error": words }))).into_response()
    } else {
        (status, form(app, next, Some(&words))).into_response()
    };
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn form(app: &AppState, next: Option<&str>, wrong: Option<&str>) -> Markup {
    let (what, hint) = if app.door.by_address() {
        (
            "One-time address",
            "The terminal where harvest serve runs shows an address that ends with ?token=…; open it, or paste it here. Each is good once.",
        )
    } else {
        (
            "Secret",
            "It stands in the file that harvest serve was started with. From Open OnDemand, press Connect there instead.",
        )
    };
    layout::plain(
        "Sign in",
        0,
        Some("login.js"),
        html! {
            h1 { "Sign in" }
            form.card.sign-in method="post" action="login" data-next=(next.and_then(page_of_ours).unwrap_or("./")) {
                @if let Some(next) = next.and_then(page_of_ours) { input type="hidden" name="next" value=(next); }
                div.field {
                    label for="secret" { (what) }
                    input #secret type="password" name="secret" required autocomplete="current-password" autofocus
                        aria-describedby="secret-hint secret-error" aria-invalid=[wrong.map(|_| "true")];
                    small #secret-hint { (hint) }
                    p #secret-error.error role="alert" { @if let Some(wrong) = wrong { (layout::sentence(wrong)) } }
                }
                div.field {
                    label for="name" { "Your name" }
                    input #name name="name" autocomplete="name" maxlength="60" aria-describedby="name-hint";
                    small #name-hint { "Labels are kept with who gave them. Without one it is " (app.options.name) "." }
                }
                button.primary type="submit" { "Sign in" }
            }
        },
    )
}

async fn leave(State(app): State<App>, headers: HeaderMap) -> Response {
    let cookie = HeaderValue::from_str(&app.door.sign_out(&headers));
    let mut response = redirect("login");
    if let Ok(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Who one is.
#[derive(Serialize)]
struct Me {
    name: String,
}

async fn me(visitor: Visitor) -> Json<Me> {
    Json(Me { name: visitor.name })
}

#[derive(Deserialize)]
struct NewName {
    name: String,
}

async fn rename(
    State(app): State<App>,
    _: Visitor,
    headers: HeaderMap,
    Json(new): Json<NewName>,
) -> Result<Json<Me>, WebError> {
    let name = Visitor::name_from(&new.name)
        .ok_or_else(|| WebError::Bad("a name needs at least a letter".into()))?;
    app.door.rename(&headers, &name);
    Ok(Json(Me { name }))
}
