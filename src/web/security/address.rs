//! Addresses: the prefix that a proxy leaves, paths that try to climb, and the way back to the root.

use axum::http::uri::{PathAndQuery, Uri};
use percent_encoding::percent_decode_str;

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Below<'a> {
    /// This path, which begins with `/`, below the application's root.
    Path(&'a str),
    /// To the root, but without the slash that relative addresses need; it is to be asked for with it.
    NoSlash,
}

/// `path` without `prefix`, or as it is where the proxy takes the prefix away itself.
pub fn below<'a>(path: &'a str, prefix: &str) -> Below<'a> {
    match path.strip_prefix(prefix) {
        Some("") if !prefix.is_empty() => Below::NoSlash,
        Some(rest) if rest.starts_with('/') => Below::Path(rest),
        _ => Below::Path(path),
    }
}

/// `uri` with another path.
pub fn with_path(uri: &Uri, path: &str) -> Uri {
    let whole = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // A part of a path that was one is one.
    PathAndQuery::try_from(whole).map_or_else(|_| uri.clone(), Uri::from)
}

/// Whether a path climbs, names a drive or ends a string, plainly or encoded up to three times over. No address of ours does.
pub fn climbs(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..4 {
        if path.contains(['\\', '\0']) || path.split('/').any(|part| part == "..") {
            return true;
        }
        match percent_decode_str(&path).decode_utf8() {
            Ok(decoded) if decoded == path => return false,
            Ok(decoded) => path = decoded.into_owned(),
            Err(_) => return true,
        }
    }
    false
}

/// Relative address of the root as seen from the page at `path`, such as `../../`; of itself, `./`.
pub fn root_from(path: &str) -> String {
    match depth(path) {
        0 => "./".to_owned(),
        depth => "../".repeat(depth),
    }
}

/// Folders between the root and the page at `path`, which begins with `/`.
pub fn depth(path: &str) -> usize {
    path.matches('/').count().saturating_sub(1)
}

/// `next` if it leads to a page of ours, relative to the root.
pub fn page_of_ours(next: &str) -> Option<&str> {
    let path = next.split('?').next().unwrap_or_default();
    let ours = path == "new" || path.starts_with("p/");
    let plain = !next.contains(['\\', '#']) && !next.chars().any(char::is_control) && !climbs(path);
    (ours && plain).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_proxies_lead_to_the_same_place() {
        let prefix = "/node/n17/8080";
        assert_eq!(below("/node/n17/8080/p/x/label", prefix), Below::Path("/p/x/label"));
        assert_eq!(below("/p/x/label", prefix), Below::Path("/p/x/label"));
        assert_eq!(below("/node/n17/8080", prefix), Below::NoSlash);
        assert_eq!(below("/node/n17/80801/p", prefix), Below::Path("/node/n17/80801/p"));
        assert_eq!(below("/", ""), Below::Path("/"));
    }

    #[test]
    fn climbing_is_seen_through_encodings() {
        for path in [
            "/a/../b",
            "/..",
            "/a/%2e%2e/b",
            "/a/%252e%252E%252fb",
            "/a%2f..%2fb",
            "/a/..%5cb",
            "/a%00",
            "/%ff",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/", "/p/a..b/label", "/assets/12/...js", "/p/100%25/x"] {
            assert!(!climbs(path), "{path}");
        }
    }

    #[test]
    fn the_way_back_counts_folders() {
        for (path, root) in
            [("/", "./"), ("/new", "./"), ("/p/x/", "../../"), ("/p/x/results/r", "../../../")]
        {
            assert_eq!(root_from(path), root, "{path}");
        }
    }

    #[test]
    fn a_sign_in_leads_to_no_other_site() {
        for next in [
            "//evil",
            "https://evil",
            "p/../../x",
            "\\\\evil",
            "p/x\r\nSet-Cookie: a",
            "javascript:x",
            "p/x#y",
        ] {
            assert_eq!(page_of_ours(next), None, "{next}");
        }
        assert_eq!(page_of_ours("p/x/label?label=u"), Some("p/x/label?label=u"));
    }
}
