//! What every request passes on its way in, and every answer on its way out.

use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
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
    let mut response = if page { in_words(response, depth, signed_in) } else { response };
    harden(response.headers_mut());
    response
}

/// Whether a person looks at the answer, not a script.
fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let asked = accept.split(',').any(|kind| kind.trim().starts_with("text/html"));
    asked && [Method::GET, Method::HEAD, Method::POST].contains(method)
}

/// Lets a request through with its path below the root and its visitor; tells whether it has one. Else what to answer.
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
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(policy) = sandbox {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for name in ["cross-origin-resource-policy", "cross-origin-opener-policy"] {
        headers.insert(name, HeaderValue::from_static("same-origin"));
    }
    // Pages and answers hold what others changed a moment ago; what may be kept says so itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
