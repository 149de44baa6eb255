//! What strangers wrote is shown as they wrote it, and does nothing.

use serde_json::json;

use crate::fixture::{Browser, Fleet};

/// Ends an attribute, an element and a line of an event, and would run.
pub(super) const HOSTILE: &str =
    "'\"></script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{7*7}}";

/// The page has it as text, and not otherwise.
#[track_caller]
pub(super) fn is_escaped(page: &str, shown: bool) {
    for raw in ["<script>alert", "<img src=x", "</script><script>"] {
        assert!(!page.contains(raw), "{page}");
    }
    let escaped = "&#39;&#34;&#62;&#60;/script&#62;&#60;script&#62;alert(1)";
    assert_eq!(page.contains(escaped), shown, "{page}");
}

#[tokio::test]
async fn hostile_texts_are_text() {
    let fleet = Fleet::small().await;
    let body = json!({"name": HOSTILE, "operator": true, "role": "operator"});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let browser = Browser::of(&fleet.operator, made["secret"].as_str().unwrap()).await;
    // Its key's name is on every page.
    is_escaped(&browser.page("/").await, true);
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let reason = json!({"reason": HOSTILE});
    fleet.operator.post("/admin/v1/trunks/acme-waw-1/disable", &reason).await.is(200);
    fleet.operator.post("/admin/v1/nodes/waw-1/drain", &reason).await.is(200);
    for path in ["/", "/trunks/acme-waw-1", "/nodes/waw-1"] {
        is_escaped(&browser.page(path).await, true);
    }
    let encoded: String = HOSTILE.bytes().map(|b| format!("%{b:02X}")).collect();
    is_escaped(&browser.page(&format!("/?q={encoded}")).await, true);
    is_escaped(&browser.page(&format!("/?region={encoded}")).await, true);
    // An address that is not one of ours is not kept.
    is_escaped(&browser.page(&format!("/sign-in?next=/{encoded}")).await, false);
    for path in [format!("/trunks/{encoded}"), format!("/nodes/{encoded}/drain"), format!("/?page={encoded}")]
    {
        let answer = browser.get(&path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}");
        is_escaped(&answer.text, false);
    }
    is_escaped(&browser.post("/trunks/acme-waw-1/disable", &[(HOSTILE, HOSTILE)]).await.text, true);
}
