//! The one style and the one script, in the binary, at addresses that name their content: whoever has one has it for
//! good, and a new release's pages name new ones.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Bytes of the hash that go into the address.
const HASH_LEN: usize = 8;

/// A file of the console.
pub(in crate::http) struct Asset {
    /// Its address.
    pub(in crate::http) path: String,
    text: &'static str,
    media: &'static str,
}

fn asset(name: &str, extension: &str, text: &'static str, media: &'static str) -> Asset {
    let hash = HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..HASH_LEN]);
    Asset { path: format!("/assets/{name}-{hash}.{extension}"), text, media }
}

/// How it looks.
pub(in crate::http) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| asset("console", "css", include_str!("assets/console.css"), "text/css; charset=utf-8"));

/// What goes on in it.
pub(in crate::http) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    asset("console", "js", include_str!("assets/console.js"), "text/javascript; charset=utf-8")
});

/// What stands in the browser's tab.
pub(in crate::http) static ICON: LazyLock<Asset> =
    LazyLock::new(|| asset("console", "svg", include_str!("assets/console.svg"), "image/svg+xml"));

impl Asset {
    fn answer(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.media)),
            (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        ];
        (headers, self.text).into_response()
    }
}

pub(in crate::http) async fn style() -> Response {
    STYLE.answer()
}

pub(in crate::http) async fn script() -> Response {
    SCRIPT.answer()
}

pub(in crate::http) async fn icon() -> Response {
    ICON.answer()
}
