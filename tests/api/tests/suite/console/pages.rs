//! Every page of the table: there, framed, and with nothing in it that its own policy would stop.

use controlplane::http::routes::{Id, Needs, Route, table};
use controlplane_core::ids::OrgId;
use reqwest::Method;
use serde_json::json;

use crate::fixture::{Browser, Fleet, NUMBER};

/// Pages that somebody signed in may look at, at an address of something that there is.
fn pages((call, incident, key, notice): &(String, String, String, String)) -> Vec<(String, Route)> {
    let is_page = |route: &Route| {
        let is_other = ["/live", "/audit/export"].contains(&route.path);
        route.method == Method::GET && matches!(route.needs, Needs::Page(_)) && !is_other
    };
    let address = |route: &Route| {
        let path = route.ids.iter().fold(route.path.to_owned(), |path, id| match id {
            Id::Node => path.replace("{name}", "waw-1"),
            Id::Trunk => path.replace("{name}", "acme-waw-1"),
            Id::Call => path.replace("{id}", call),
            Id::Incident => path.replace("{id}", incident),
            Id::Notice => path.replace("{id}", notice),
            Id::Org => path.replace("{id}", OrgId::first().as_str()),
            Id::Event => path.replace("{event}", "evt_00000000000000000000000000"),
            Id::Key => path.replace("{id}", key),
            Id::Recording | Id::Endpoint | Id::Receiver | Id::Hook | Id::Stream | Id::Sound => {
                panic!("no page is of {id:?}")
            }
        });
        // What a question is about.
        match path.rsplit('/').next() {
            Some("add" | "remove") => path + "?net=203.0.113.9",
            Some("replay") => path + "?endpoint=callback",
            Some(_) | None => path,
        }
    };
    table().into_iter().filter(is_page).map(|route| (address(&route), route)).collect()
}

/// A call, an incident, a customer's key and a notice, as pages are about.
async fn things(fleet: &Fleet) -> (String, String, String, String) {
    let call = fleet.call(NUMBER).place().await.ends().await.0["id"].as_str().unwrap().to_owned();
    let hook = json!({"name": "x", "kind": "json", "to": [NUMBER], "speech": {"alert": "{{/text}}"}});
    let hook = fleet.api.post("/v1/hooks", &hook).await.is(201);
    let told = json!({"text": "x"});
    let receipt = fleet.api.post(hook["path"].as_str().unwrap(), &told).await.is(202);
    let incident = receipt["incidents"][0]["incident"].as_str().unwrap().to_owned();
    let keys = fleet.operator.get("/admin/v1/keys").await.is(200);
    let customers = keys["data"].as_array().unwrap().iter().find(|key| !key["org"].is_null());
    let notice = fleet.operator.post("/admin/v1/notices", &json!({"title": "x", "text": "x"})).await.is(201);
    let notice = notice["id"].as_str().unwrap().to_owned();
    (call, incident, customers.unwrap()["id"].as_str().unwrap().to_owned(), notice)
}

#[tokio::test]
async fn every_page_is_shown_with_a_strict_policy_and_nothing_inline() {
    let fleet = Fleet::small().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let things = things(&fleet).await;
    let pages = pages(&things);
    assert!(pages.len() >= 18, "{}", pages.len());
    for (path, _) in pages.iter().chain([&("/sign-in".to_owned(), table().remove(0))]) {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let policy = answer.header("content-security-policy");
        assert_eq!(
            policy,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action \
             'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let text = &answer.text;
        for inline in [" style=", "<style", "javascript:", " onclick", " onload", "<script>"] {
            assert!(!text.contains(inline), "{path} has {inline}");
        }
        assert_eq!(text.matches("<script").count(), 1, "{path}");
        assert_eq!((text.matches("<main").count(), text.matches("<h1").count()), (1, 1), "{path}");
        assert!(text.contains("<html lang=\"en\">") && text.contains("<title>"), "{path}");
    }
}

/// A page that is not there is not linked: every address in every page answers.
#[tokio::test]
async fn every_link_of_every_page_leads_somewhere() {
    let fleet = Fleet::small().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let mut seen = std::collections::BTreeSet::new();
    let things = things(&fleet).await;
    let ban = json!({"net": "203.0.113.8", "reason": "x"});
    fleet.operator.post("/admin/v1/bans", &ban).await.is(201);
    for (path, _) in pages(&things) {
        let text = browser.page(&path).await;
        for attribute in ["href=\"", "src=\"", "action=\""] {
            let links = text.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap());
            seen.extend(links.map(|link| link.replace("&amp;", "&").replace("&#38;", "&")));
        }
    }
    for link in seen {
        assert!(link.starts_with('/') || link.starts_with('#'), "{link} leads outside");
        if link.starts_with('#') || link == "/sign-out" {
            continue;
        }
        // Where a form leads, with what is filled in.
        let link = if link.ends_with("s/add") { link + "?net=203.0.113.9" } else { link };
        let answer = browser.get(&link).await;
        assert_eq!(answer.status, 200, "{link}: {}", answer.text);
        if link.starts_with("/assets/") {
            assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
        }
    }
}

#[tokio::test]
async fn the_fleet_is_told_the_worst_first_and_found_by_name() {
    let fleet = Fleet::square().start().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    crate::fixture::eventually("both nodes are alive", async || {
        browser.page("/").await.matches(">alive</span>").count() == 2
    })
    .await;
    let page = browser.page("/").await;
    assert!(page.contains("Nothing is wrong") && page.contains("Every node is alive"), "{page}");
    assert!(page.contains("id=\"n-fra-1\"") && page.contains("id=\"n-waw-1\""));
    assert!(page.contains("href=\"/trunks/beta-waw-1\"") && page.contains("id=\"r-r-waw-1\""));
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    crate::fixture::eventually("the node is down", async || {
        !fleet.node("waw-1").await["up"].as_bool().unwrap()
    })
    .await;
    let page = browser.page("/").await;
    assert!(page.contains("What is wrong, and why") && page.contains(">node waw-1</a>"), "{page}");
    let place = |what: &str| page.find(what).unwrap_or_else(|| panic!("{what}: {page}"));
    assert!(place("id=\"n-waw-1\"") < place("id=\"n-fra-1\""), "the worst first");
    assert!(!page.contains(">trunk acme-waw-1</a>"), "told once, with its node");
    let found = browser.page("/?q=FRA").await;
    assert!(found.contains("id=\"n-fra-1\"") && !found.contains("id=\"n-waw-1\""));
    let region = browser.page("/?region=r-waw-1").await;
    assert!(!region.contains("id=\"n-fra-1\"") && region.contains("id=\"n-waw-1\""));
    assert!(browser.page("/?q=nothing&page=99").await.contains("0 nodes"));
    let node = browser.page("/nodes/waw-1").await;
    assert!(node.contains("No AMI session"), "{node}");
    assert_eq!(browser.get("/nodes/none").await.status, 404);
    assert_eq!(browser.get("/trunks/No_Name").await.status, 404);
}
