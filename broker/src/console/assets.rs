//! The pages: written by hand, embedded in the binary. The first page names the other files under a folder that is called after what
//! is in them all: a browser keeps those for ever and asks for one page only. A node of another version gives its own files under
//! that name, and says that they are not to be kept.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

/// A file of the console.
struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! assets {
    ($($file:literal as $kind:ident,)*) => {
        const ASSETS: &[Asset] = &[$(Asset {
            path: concat!("/console/", $file),
            kind: $kind,
            text: include_str!(concat!("assets/", $file)),
        },)*];
    };
}

assets! {
    "index.html" as HTML,
    "console.css" as STYLE,
    "icon.svg" as IMAGE,
    "main.js" as SCRIPT,
    "dom.js" as SCRIPT,
    "api.js" as SCRIPT,
    "format.js" as SCRIPT,
    "chart.js" as SCRIPT,
    "dialog.js" as SCRIPT,
    "table.js" as SCRIPT,
    "overview.js" as SCRIPT,
    "brokers.js" as SCRIPT,
    "topics.js" as SCRIPT,
    "topic.js" as SCRIPT,
    "messages.js" as SCRIPT,
    "groups.js" as SCRIPT,
    "configs.js" as SCRIPT,
}

/// The console's files; `/` leads to them. What the address shows behind `#` is the page.
pub(super) fn router() -> Router {
    let mut router = Router::new()
        .route("/", get(async || Redirect::temporary("/console/")))
        .route("/console", get(async || Redirect::temporary("/console/")))
        .route("/console/", get(async |headers: HeaderMap| answer(&ASSETS[0], &headers)));
    for asset in ASSETS {
        router = router.route(asset.path, get(async |headers: HeaderMap| answer(asset, &headers)));
    }
    router.route("/console/{version}/{file}", get(versioned))
}

/// What all files together are, as text.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for asset in ASSETS {
        asset.text.hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
});

/// The first page, naming the others by their version.
static FIRST_PAGE: LazyLock<String> =
    LazyLock::new(|| ASSETS[0].text.replace("\"./", &format!("\"./{}/", *VERSION)));

async fn versioned(Path((version, file)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let asset = ASSETS.iter().skip(1).find(|asset| asset.path.strip_prefix("/console/") == Some(&*file));
    match asset {
        Some(asset) if version == *VERSION => {
            let forever = [(header::CACHE_CONTROL, "max-age=31536000, immutable")];
            (forever, [(header::CONTENT_TYPE, asset.kind)], asset.text).into_response()
        }
        Some(asset) => answer(asset, &headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let text = if asset.kind == HTML { &**FIRST_PAGE } else { asset.text };
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    // A node of a newer version answers at the same address: a browser asks each time whether its copy is still right.
    let always = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if known {
        return (StatusCode::NOT_MODIFIED, always).into_response();
    }
    (always, [(header::CONTENT_TYPE, asset.kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_only_files_that_are_there_and_no_other_host() {
        for asset in ASSETS {
            assert!(!asset.text.contains("http://") || asset.kind == IMAGE, "{}", asset.path);
            assert!(!asset.text.contains("https://"), "{}", asset.path);
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!asset.text.contains(word), "{} uses {word}", asset.path);
            }
            let named = asset.text.split(['"', '\'']).filter_map(|word| word.strip_prefix("./"));
            for name in named {
                let path = format!("/console/{name}");
                assert!(ASSETS.iter().any(|asset| asset.path == path), "{} names {name}", asset.path);
            }
        }
    }
}
