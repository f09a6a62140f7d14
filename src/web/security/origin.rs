//! Requests that a browser makes for somebody else's page.

use axum::http::{HeaderMap, Method, header};

use crate::web::WebError;

/// Refuses what changes something and comes from a page that is not ours.
///
/// Browsers tell where such requests come from; programs tell nothing, and have no cookie to be misused.
///
/// # Errors
/// If a browser says that the request comes from elsewhere.
pub fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), WebError> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = match (headers.get(header::ORIGIN), text("sec-fetch-site")) {
        (Some(origin), _) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.is_some_and(|(scheme, origin)| {
                hosts(headers).any(|host| bare(host, scheme).eq_ignore_ascii_case(bare(origin, scheme)))
            })
        }
        (None, Some(site)) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
    };
    if ours {
        return Ok(());
    }
    Err(WebError::Refused(
        "this request came from a page of another address and was refused; open HARVEST's own page and try there".into(),
    ))
}

/// Refuses names that are not this machine's own: a page elsewhere may have its name lead here for a moment (DNS rebinding).
///
/// `known` are further names that a proxy on this machine is reached by.
///
/// # Errors
/// If the request names another host.
pub fn check_host(headers: &HeaderMap, known: &[String]) -> Result<(), WebError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = name_of(host);
    let local = name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if local || known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(WebError::Refused(format!(
        "this page is not known as `{name}`; open the address that `harvest serve` prints, or start it with --behind {name} \
        if a proxy shows it under that name"
    )))
}

/// What the request calls this server, and what proxies before it were called.
fn hosts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let named = [header::HOST.as_str(), "x-forwarded-host"].into_iter();
    named
        .flat_map(|name| headers.get_all(name))
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|host| !host.is_empty())
}

/// Without the port that goes without saying.
fn bare<'a>(host: &'a str, scheme: &str) -> &'a str {
    let usual = if scheme == "https" { ":443" } else { ":80" };
    host.strip_suffix(usual).unwrap_or(host)
}

/// Without the port, and without the brackets of IPv6.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            let name: header::HeaderName = name.parse().expect("a header's name");
            (name, value.parse().expect("a header's value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn writes_from_elsewhere_are_refused() {
        let here = ("host", "ood.example.edu");
        for (allowed, pairs) in [
            (true, vec![here]),
            (true, vec![here, ("origin", "https://ood.example.edu")]),
            (
                true,
                vec![
                    ("host", "n17:8080"),
                    ("x-forwarded-host", "ood.example.edu"),
                    ("origin", "https://OOD.example.edu"),
                ],
            ),
            (true, vec![("host", "127.0.0.1:80"), ("origin", "http://127.0.0.1")]),
            (true, vec![here, ("sec-fetch-site", "same-origin")]),
            (false, vec![here, ("origin", "https://evil.example")]),
            (false, vec![here, ("origin", "https://ood.example.edu.evil.example")]),
            (false, vec![here, ("origin", "https://ood.example.edu:444")]),
            (false, vec![here, ("origin", "null")]),
            (false, vec![here, ("sec-fetch-site", "cross-site")]),
            (false, vec![here, ("sec-fetch-site", "same-site")]),
            (false, vec![("origin", "http://127.0.0.1")]),
        ] {
            let result = check_origin(&Method::POST, &headers(&pairs));
            assert_eq!(result.is_ok(), allowed, "{pairs:?}");
            assert!(check_origin(&Method::GET, &headers(&pairs)).is_ok());
        }
    }

    #[test]
    fn a_name_made_to_lead_here_is_refused() {
        let known = ["farm.example.edu".to_owned()];
        for host in
            ["127.0.0.1:8765", "localhost", "[::1]:8765", "x.localhost:1", "127.8.8.8", "FARM.example.edu:80"]
        {
            assert!(check_host(&headers(&[("host", host)]), &known).is_ok(), "{host}");
        }
        for host in ["evil.example:8765", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", ""] {
            assert!(check_host(&headers(&[("host", host)]), &known).is_err(), "{host}");
        }
        assert!(check_host(&HeaderMap::new(), &known).is_err());
    }
}
