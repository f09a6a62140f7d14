//! What every request passes on its way in, and every answer on its way out.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::address::{self, Below};
use super::origin::{check_host, check_origin};
use super::patience::Peer;
use crate::web::error::{WebError, Words};
use crate::web::layout;
use crate::web::state::{App, AppState};

/// Time until an answer must begin. Uploads of many images count too.
const LIMIT: Duration = Duration::from_secs(600);

/// Only what is our own may run, load or be sent to; nobody may show our pages inside theirs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
    form-action 'self'; base-uri 'self'; frame-ancestors 'none'";

/// Around all routes.
pub async fn gate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.clone());
    let working = peer.as_ref().map(Peer::work);
    let page = wants_page(request.method(), request.headers());
    let mut depth = address::depth(request.uri().path());
    let mut signed_in = false;
    let response = match admit(&app, &mut request) {
        Ok(inside) => {
            depth = address::depth(request.uri().path());
            signed_in = inside;
            match tokio::time::timeout(LIMIT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => WebError::TooLong.into_response(),
            }
        }
        Err(refusal) => refusal,
    };
    drop(working);
    let response = if is_bare(&response) { worded(response).await } else { response };
    let response = if page { in_words(response, depth, signed_in) } else { response };
    let mut response = if is_for_ever(&response) { ends_with(&app, response) } else { response };
    harden(response.headers_mut());
    response
}

/// Whether an answer is an error of the framework's: a body it cannot read, an address without that method.
fn is_bare(response: &Response) -> bool {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    failed && kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

/// The same as errors of ours are told.
async fn worded(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let words = match String::from_utf8_lossy(&bytes).trim() {
        "" => parts.status.canonical_reason().unwrap_or("the request cannot be answered").to_lowercase(),
        words => words.to_owned(),
    };
    let mut response = WebError::Bad(words).into_response();
    *response.status_mut() = parts.status;
    if let Some(allowed) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    response
}

/// Whether an answer has no end of its own: events.
fn is_for_ever(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer that ends when the server does, and that no proxy holds back until there is more of it.
fn ends_with(app: &AppState, response: Response) -> Response {
    let mut stopping = app.stopping();
    let stop = Box::pin(async move { drop(stopping.wait_for(|stop| *stop).await) });
    let mut response = response.map(|body| Body::from_stream(body.into_data_stream().take_until(stop)));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Whether a person looks at the answer, not a script.
fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let asked = accept.split(',').any(|kind| kind.trim().starts_with("text/html"));
    asked && [Method::GET, Method::HEAD, Method::POST].contains(method)
}

/// Lets a request through with its path below the root and its visitor; tells whether it has one. Else what to answer.
#[expect(clippy::result_large_err, reason = "an answer is an answer, refused or not")]
fn admit(app: &AppState, request: &mut Request) -> Result<bool, Response> {
    let refuse = |error: WebError| error.into_response();
    if app.checks_host() {
        check_host(request.headers(), &app.options.behind).map_err(refuse)?;
    }
    let path = match address::below(request.uri().path(), &app.options.prefix) {
        Below::Path(path) => path.to_owned(),
        Below::NoSlash => {
            let last = app.options.prefix.rsplit('/').next().unwrap_or_default();
            return Err(redirect(&format!("{last}/")));
        }
    };
    if address::climbs(&path) {
        return Err(refuse(WebError::Bad("this is no address of this page".into())));
    }
    *request.uri_mut() = address::with_path(request.uri(), &path);
    check_origin(request.method(), request.headers()).map_err(refuse)?;
    if let Some(visitor) = app.door.visitor(request.headers()) {
        request.extensions_mut().insert(visitor);
        return Ok(true);
    }
    // What is needed to sign in, and nothing of anybody's.
    if path == "/login" || path.starts_with("/assets/") {
        return Ok(false);
    }
    if *request.method() == Method::GET && wants_page(request.method(), request.headers()) {
        let asked = request.uri().path_and_query().map_or("", |asked| asked.as_str());
        let next = address::page_of_ours(asked.trim_start_matches('/')).map_or_else(String::new, |next| {
            format!("?next={}", utf8_percent_encode(next, NON_ALPHANUMERIC))
        });
        return Err(redirect(&format!("{}login{next}", address::root_from(&path))));
    }
    Err(refuse(WebError::SignedOut))
}

/// Leads to a relative address, as any proxy and prefix understands it.
pub fn redirect(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("./"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// An error's words as a page.
fn in_words(response: Response, depth: usize, signed_in: bool) -> Response {
    let Some(Words(words)) = response.extensions().get::<Words>().cloned() else { return response };
    let page = layout::error(response.status(), &words, depth, signed_in);
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Response::from_parts(parts, page.into_string().into())
}

fn harden(headers: &mut HeaderMap) {
    // A report has its style inside, which our pages may not. In a sandbox it can do nothing, and keeps the policy that says so.
    let policy = headers.get(header::CONTENT_SECURITY_POLICY);
    let sandbox = policy.filter(|policy| policy.as_bytes().starts_with(b"sandbox;")).cloned();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: browsers would then hide from us that our own forms are ours.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(policy) = sandbox {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // Pages and answers hold what others changed a moment ago; what may be kept says so itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
