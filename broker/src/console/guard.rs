//! What stands in front of every page and answer of the console: bounded addresses, changes only from the console's own pages,
//! headers that tell browsers to run nothing else, and who asks.
//!
//! A browser sends a login, or the address that it reaches this port from, along with requests that another site makes it send.
//! So a change needs a header that other sites cannot send without this server's leave, which it never gives, and an origin, if
//! the browser names one, that is this host.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Console;
use super::answer::ApiError;
use crate::http::HttpCaller;

/// Bytes of path and query.
const ADDRESS_BYTES_MAX: usize = 4_096;
/// Requests of the API that are carried out at once.
pub(super) const REQUESTS_MAX: usize = 32;
/// One that does not get its turn within this time is told to come again.
const TURN_MAX: Duration = Duration::from_secs(5);
/// The header that a change carries; any value will do.
pub(super) const CONSOLE_HEADER: &str = "x-ottla-console";

/// Scripts, styles and answers of this server alone; nobody may frame it; forms go nowhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Goes around each request of the API.
pub(super) async fn api(
    State(console): State<Arc<Console>>,
    ConnectInfo(from): ConnectInfo<HttpCaller>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_console = request.headers().contains_key(CONSOLE_HEADER);
    let (method, headers) = (request.method().clone(), request.headers().clone());
    match admit(&console, &from, &method, &headers).await {
        Ok(caller) => {
            let turn = tokio::time::timeout(TURN_MAX, console.turns.acquire()).await;
            let Ok(Ok(_turn)) = turn else {
                return ApiError::busy("too many requests of the console at once").into_response();
            };
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let is_unknown = error.is_unauthenticated();
            let mut response = error.into_response();
            if is_unknown && !is_console {
                // The console has a form of its own: a browser that got this header would ask first.
                let realm = HeaderValue::from_static("Basic realm=\"Ottla\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
            }
            response
        }
    }
}

async fn admit(
    console: &Console,
    from: &HttpCaller,
    method: &Method,
    headers: &HeaderMap,
) -> Result<super::login::Caller, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        check_origin(headers)?;
    }
    console.caller(headers, from).await
}

/// A change comes from the console, not from another site's page.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    if !headers.contains_key(CONSOLE_HEADER) {
        return Err(ApiError::forged(format!("a change needs the header {CONSOLE_HEADER}")));
    }
    let text = |name| headers.get(name).and_then(printable);
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site"))
        && !matches!(site, "same-origin" | "none")
    {
        return Err(ApiError::forged("a page of another site may change nothing"));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = text(header::HOST);
    let of_origin = printable(origin).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    // An origin that cannot be read is not ours.
    if of_origin.is_none() || of_origin != host {
        return Err(ApiError::forged("a page of another site may change nothing"));
    }
    Ok(())
}

/// A header's text; `None`: it is none.
pub(super) fn printable(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// Goes around everything that the console answers.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let length = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = if length > ADDRESS_BYTES_MAX {
        ApiError::too_long(format!("the address is longer than {ADDRESS_BYTES_MAX} bytes")).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_change_needs_the_header_and_this_host_as_its_origin() {
        let console = (CONSOLE_HEADER, "1");
        for good in [
            &[console][..],
            &[console, ("host", "n1:9644"), ("origin", "http://n1:9644")],
            &[console, ("host", "n1:9644"), ("origin", "http://n1:9644"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(check_origin(&headers(good)).is_ok(), "{good:?}");
        }
        for bad in [
            &[][..],
            &[("host", "n1:9644"), ("origin", "http://n1:9644")],
            &[console, ("host", "n1:9644"), ("origin", "http://evil:9644")],
            &[console, ("host", "n1:9644"), ("origin", "http://n1:9645")],
            &[console, ("host", "n1:9644"), ("origin", "null")],
            &[console, ("origin", "http://n1:9644")],
            &[console, ("sec-fetch-site", "cross-site")],
            &[console, ("sec-fetch-site", "same-site")],
        ] {
            assert!(check_origin(&headers(bad)).is_err(), "{bad:?}");
        }
    }
}
