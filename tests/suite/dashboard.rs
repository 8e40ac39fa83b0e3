//! The dashboard over plain HTTP: pages, forms, events, and refused requests. `browser.rs` has the tests that need a
//! browser.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, encoded, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::postgres::Postgres;
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};
use crate::support::slow_shard::{ENTRIES, SlowShard};

on_both_stores! {
    the_pages_show_the_same_data_as_the_api,
    what_became_of_leases_is_shown,
    stored_text_never_becomes_markup,
    a_flush_deletes_exactly_what_the_dry_run_announced,
    entries_added_after_the_dry_run_are_reported,
    an_old_or_incomplete_form_deletes_nothing,
    a_search_by_pattern_drops_the_tag,
    a_key_is_deleted_only_after_confirmation,
    the_page_of_a_known_absence_says_so,
    a_source_version_is_shown_if_there_is_one,
    a_form_changes_the_ttl_of_an_entry,
    regression_a_made_up_address_shows_no_deletion,
    another_sites_requests_change_nothing,
    errors_are_pages_with_the_codes_of_the_api,
    short_addresses_redirect_to_the_pages,
    keys_are_listed_page_by_page,
    events_report_a_change,
}

/// The value of an attribute of the first element that has `marker` in its tag.
pub fn attribute(page: &str, marker: &str, name: &str) -> Option<String> {
    let at = page.find(marker)?;
    let start = page[..at].rfind('<')?;
    let tag = &page[start..start + page[start..].find('>')?];
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

#[track_caller]
pub fn number(page: &str, marker: &str, name: &str) -> f64 {
    let found = attribute(page, marker, name).unwrap_or_else(|| panic!("no {marker} with {name} in {page}"));
    found.parse().unwrap_or_else(|_| panic!("{name} of {marker} is not a number: {found}"))
}

fn namespace_page(ns: &str) -> String {
    format!("/dashboard/namespaces/{}", encoded(ns))
}

fn key_page(ns: &str, key: &str) -> String {
    format!("{}/keys/{}", namespace_page(ns), encoded(key))
}

/// The value of `issued` for a form that is sent immediately: the time in milliseconds since 1970.
pub fn now() -> String {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    since.as_millis().to_string()
}

/// Sends forms like a browser, with the cookie and the token of one page.
pub struct Forms {
    client: Client,
    cookie: String,
    token: String,
}

impl Forms {
    pub async fn of(client: &Client, page: &str) -> Forms {
        let answer = client.fetch(page).await.expect(200);
        let cookie = answer.header("set-cookie").expect("a page with forms sets a cookie");
        let cookie = cookie.split(';').next().expect("a cookie begins with its name").to_owned();
        let token = attribute(answer.text(), "name=\"token\"", "value").expect("a form has a token");
        Forms { client: client.clone(), cookie, token }
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_with(path, fields, &[("sec-fetch-site", "same-origin")]).await
    }

    /// Sends a form and returns the page that the answer redirects to.
    async fn post_and_follow(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let answer = self.post(path, fields).await.expect(303);
        let page = answer.header("location").expect("a redirect to the result").to_owned();
        self.client.fetch(&page).await.expect(200)
    }

    pub async fn post_with(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let mut body = format!("token={}", self.token);
        for (name, value) in fields {
            body.push_str(&format!("&{name}={}", encoded(value)));
        }
        let mut all = vec![("content-type", "application/x-www-form-urlencoded"), ("cookie", self.cookie.as_str())];
        all.extend_from_slice(headers);
        self.client.send(Method::POST, path, &all, Some(body.into_bytes())).await
    }
}

async fn the_pages_show_the_same_data_as_the_api(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.fill(&ns, &json!([{"key": "a", "value": "some text"}, {"key": "b", "value": [1, 2]}])).await;
    for key in ["a", "a", "a", "nothing"] {
        cache.get(&ns, key).await;
    }
    let page = cache.fetch(&namespace_page(&ns)).await.expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.header("x-request-id").is_some());
    let stats = cache.stats(&ns).await.expect(200).json();
    for stat in ["hits", "misses", "hit_rate", "total_keys", "memory_used_bytes", "evictions", "expirations"] {
        let shown = number(page.text(), &format!("data-stat=\"{stat}\""), "data-value");
        assert_eq!(Some(shown), stats[stat].as_f64(), "{stat}");
    }
    assert!(!page.text().contains("style=") && !page.text().contains("onclick"), "the policy forbids it");

    let overview = cache.fetch(&format!("/dashboard?q={ns}&sort=keys")).await.expect(200);
    assert!(overview.text().contains(&format!("data-namespace=\"{ns}\"")), "{}", overview.text());
    assert!(attribute(overview.text(), "data-sort=\"keys\"", "href").is_some());
    assert_eq!(attribute(overview.text(), "id=\"status\"", "data-status").as_deref(), Some("healthy"));
    assert!(overview.text().contains("data-state=\"connected\"") && overview.text().contains("data-instance="));
    for path in ["href=\"/dashboard/assets/", "src=\"/dashboard/assets/"] {
        let (_, rest) = overview.text().split_once(path).expect("style and script");
        let asset = format!("/dashboard/assets/{}", rest.split('"').next().expect("a name"));
        let asset = cache.fetch(&asset).await.expect(200);
        assert_eq!(asset.header("cache-control"), Some("public, max-age=31536000, immutable"));
    }

    let page = cache.fetch(&key_page(&ns, "a")).await.expect(200);
    assert!(page.text().contains("&quot;some text&quot;"), "{}", page.text());
    let version = cache.get(&ns, "a").await.header("etag").expect("an ETag").trim_matches('"').to_owned();
    assert_eq!(attribute(page.text(), "data-field=\"version\"", "data-value"), Some(version));
    assert_eq!(number(page.text(), "data-field=\"size\"", "data-value"), 11.0);
}

async fn what_became_of_leases_is_shown(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.set(&ns, "other", "1").await.expect(201);
    let page = cache.fetch(&namespace_page(&ns)).await.expect(200);
    assert!(!page.text().contains("data-stat=\"leases\""), "nobody uses leases");
    let answer = cache.mget_or_lease(&ns, &["a", "b", "c"], 10).await.expect(200).json();
    cache.mget_or_lease(&ns, &["a", "b"], 10).await.expect(200);
    let token = |key: &str| answer["results"][key]["lease"]["token"].clone();
    let entries = json!([
        {"key": "a", "value": 1, "lease": token("a")},
        {"key": "b", "value": 1, "lease": token("a")},
    ]);
    cache.mset(&ns, &entries).await.expect(200);
    eventually(SOON, async || {
        let page = cache.fetch(&namespace_page(&ns)).await.expect(200);
        let won = attribute(page.text(), "data-stat=\"leases\"", "data-value").context("no leases")?;
        let of = |what: &str| attribute(page.text(), &format!("data-leases=\"{what}\""), "data-value");
        let counts = [Some(won), of("held"), of("filled"), of("lost")].map(Option::unwrap_or_default);
        ensure!(counts == ["3", "2", "1", "1"], "{counts:?}");
        Ok(())
    })
    .await;
}

async fn stored_text_never_becomes_markup(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    let key = "\"><script>alert(1)</script>&amp;'";
    let body = json!({"value": "</pre><script>alert(2)</script>", "tags": ["<img src=x>"]}).to_string();
    cache.put(&ns, key, body).await.expect(201);
    cache.get(&ns, key).await.expect(200);
    for path in [namespace_page(&ns), key_page(&ns, key), format!("/dashboard?q={}", encoded(key))] {
        let page = cache.fetch(&path).await.expect(200);
        assert!(!page.text().contains("<script>") && !page.text().contains("<img src=x"), "{path}: {}", page.text());
    }
    let large = format!("[{}1]", "1,".repeat(60_000));
    cache.set(&ns, "large", &large).await.expect(201);
    let page = cache.fetch(&key_page(&ns, "large")).await.expect(200);
    assert!(page.text().contains("id=\"value-cut\"") && page.body.len() < 100_000, "{} bytes", page.body.len());
}

async fn a_flush_deletes_exactly_what_the_dry_run_announced(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    for pattern in ["user_*", ""] {
        cache
            .fill(&ns, &json!((0..30).map(|i| json!({"key": format!("user_{i}"), "value": i})).collect::<Vec<_>>()))
            .await;
        cache.fill(&ns, &json!([{"key": "other", "value": 1, "tags": ["t"]}])).await;
        let forms = Forms::of(&cache, &namespace_page(&ns)).await;
        let flush = format!("{}/flush", namespace_page(&ns));
        let expected = if pattern.is_empty() { 31.0 } else { 30.0 };

        let page = forms.post(&flush, &[("pattern", pattern), ("tag", "")]).await.expect(200);
        assert_eq!(number(page.text(), "id=\"dry-run\"", "data-count"), expected);
        assert_eq!(cache.all_keys(&ns).await.len(), 31, "a dry run deletes nothing");
        let announced = attribute(page.text(), "name=\"announced\"", "value").expect("the announced number");
        let issued = attribute(page.text(), "name=\"issued\"", "value").expect("the time of the form");
        let all = attribute(page.text(), "name=\"all\"", "value");
        assert_eq!(all.as_deref(), pattern.is_empty().then_some("yes"), "a flush of everything has its own field");
        let mut fields = vec![("pattern", pattern), ("tag", ""), ("announced", &announced), ("issued", &issued)];
        fields.extend(all.as_deref().map(|all| ("all", all)));
        let page = forms.post_and_follow(&flush, &fields).await;
        assert_eq!(number(page.text(), "id=\"flushed\"", "data-count"), expected);
        assert!(!page.text().contains("had announced"), "{}", page.text());
        assert_eq!(cache.all_keys(&ns).await, if pattern.is_empty() { vec![] } else { vec!["other"] });
    }
    cache.fill(&ns, &json!([{"key": "a", "value": 1, "tags": ["t"]}, {"key": "b", "value": 1}])).await;
    let forms = Forms::of(&cache, &namespace_page(&ns)).await;
    let flush = format!("{}/flush", namespace_page(&ns));
    let page = forms.post_and_follow(&flush, &[("tag", "t"), ("announced", "1"), ("issued", &now())]).await;
    assert_eq!(number(page.text(), "id=\"flushed\"", "data-count"), 1.0);
    assert_eq!(cache.all_keys(&ns).await, ["b"]);
    eventually(SOON, async || {
        let page = cache.fetch(&namespace_page(&ns)).await.expect(200);
        ensure!(page.text().matches("data-action=\"flush\"").count() == 3, "{}", page.text());
        Ok(())
    })
    .await;
}

async fn a_form_changes_the_ttl_of_an_entry(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    for key in ["a b", "."] {
        let body = json!({"key": key, "value": 1, "ttl": 600, "tags": ["t"]});
        cache.fill(&ns, &json!([body])).await;
        let page = match key {
            "." => format!("{}/key?key=.", namespace_page(&ns)),
            key => key_page(&ns, key),
        };
        let forms = Forms::of(&cache, &page).await;
        let shown = cache.fetch(&page).await.expect(200);
        let action = attribute(shown.text(), "id=\"ttl-form\"", "action").expect("the form");
        let changed = forms.post_and_follow(&action, &[("ttl", "1h 30m")]).await;
        let left = number(changed.text(), "data-field=\"ttl\"", "data-value");
        assert!((5_390.0..=5_400.0).contains(&left), "{left}");
        let endless = forms.post_and_follow(&action, &[("ttl", ""), ("never", "yes")]).await;
        assert!(endless.text().contains("never expires") && endless.text().contains("tag=t"), "{}", endless.text());
        for wrong in ["", "0", "soon"] {
            forms.post(&action, &[("ttl", wrong)]).await.expect(400);
        }
        let foreign = forms.post_with(&action, &[("ttl", "1")], &[("sec-fetch-site", "cross-site")]).await;
        foreign.expect(403);
        assert_eq!(cache.mget(&ns, &[key]).await.expect(200).number("hits"), 1);
    }
    let forms = Forms::of(&cache, &key_page(&ns, "a b")).await;
    cache.delete(&ns, "a b").await.expect(200);
    let gone = forms.post(&format!("{}/ttl", key_page(&ns, "a b")), &[("ttl", "5m")]).await.expect(303);
    cache.fetch(gone.header("location").expect("the page of the entry")).await.expect(404);
}

async fn regression_a_made_up_address_shows_no_deletion(service: &Service) {
    // The bug: the numbers were in the address, so anybody could make them up.
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.set(&ns, "a", "1").await.expect(201);
    for made_up in [
        "/flushed?deleted=1000000&announced=5".to_owned(),
        "/flushed?result=0123456789abcdef0123456789abcdef".to_owned(),
        "/deleted?key=a&was_there=true".to_owned(),
        "/deleted?result=0123456789abcdef0123456789abcdef".to_owned(),
    ] {
        let page = cache.fetch(&format!("{}{made_up}", namespace_page(&ns))).await;
        assert!([303, 400].contains(&page.status), "{made_up}: {}", page.text());
        assert!(!page.text().contains("1,000,000") && !page.text().contains("id=\"deleted\""), "{made_up}");
    }
    let forms = Forms::of(&cache, &namespace_page(&ns)).await;
    let flush = format!("{}/flush", namespace_page(&ns));
    let answer = forms.post(&flush, &[("announced", "1"), ("all", "yes"), ("issued", &now())]).await.expect(303);
    let own = answer.header("location").expect("a redirect to the result").to_owned();
    cache.fetch(&own).await.expect(200);
    // The result is not shown for another namespace.
    let other = own.replace(&ns, &namespace("dashboard"));
    cache.fetch(&other).await.expect(303);
}

async fn entries_added_after_the_dry_run_are_reported(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}])).await;
    let forms = Forms::of(&cache, &namespace_page(&ns)).await;
    let flush = format!("{}/flush", namespace_page(&ns));
    let page = forms.post(&flush, &[]).await.expect(200);
    assert_eq!(number(page.text(), "id=\"dry-run\"", "data-count"), 2.0);
    cache.set(&ns, "c", "1").await.expect(201);
    let page = forms.post_and_follow(&flush, &[("announced", "2"), ("all", "yes"), ("issued", &now())]).await;
    assert_eq!(number(page.text(), "id=\"flushed\"", "data-count"), 3.0);
    assert!(page.text().contains("had announced 2 entries: 1 more"), "{}", page.text());
}

async fn an_old_or_incomplete_form_deletes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}])).await;
    let forms = Forms::of(&cache, &namespace_page(&ns)).await;
    let (flush, delete) = (format!("{}/flush", namespace_page(&ns)), format!("{}/delete", key_page(&ns, "a")));
    let (now, old) = (now(), "1700000000000");
    for (path, fields, status, code) in [
        (&flush, vec![("announced", "2"), ("issued", now.as_str())], 400, "invalid_body"),
        (&flush, vec![("announced", "2"), ("pattern", "*"), ("all", "yes"), ("issued", &now)], 400, "invalid_body"),
        (&flush, vec![("announced", "2"), ("all", "yes")], 400, "invalid_body"),
        (&flush, vec![("announced", "2"), ("all", "yes"), ("issued", old)], 409, "form_expired"),
        (&delete, vec![("confirmed", "yes")], 400, "invalid_body"),
        (&delete, vec![("confirmed", "yes"), ("issued", old)], 409, "form_expired"),
    ] {
        let refused = forms.post(path, &fields).await.expect(status);
        assert_eq!(attribute(refused.text(), "id=\"problem\"", "data-code").as_deref(), Some(code), "{fields:?}");
    }
    assert_eq!(cache.all_keys(&ns).await.len(), 2);
}

async fn a_search_by_pattern_drops_the_tag(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.fill(&ns, &json!([{"key": "a", "value": 1, "tags": ["t"]}, {"key": "b", "value": 1}])).await;
    let page = cache.fetch(&format!("{}?tag=t", namespace_page(&ns))).await.expect(200);
    let search = page.text().split_once("name=\"pattern\"").expect("a search").1;
    let search = search.split_once("</form>").expect("its end").0;
    assert!(!search.contains("name=\"tag\""), "a pattern and a tag are refused together: {search}");
}

async fn a_key_is_deleted_only_after_confirmation(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    let key = "a/b ü";
    cache.set(&ns, key, "1").await.expect(201);
    let forms = Forms::of(&cache, &key_page(&ns, key)).await;
    let delete = format!("{}/delete", key_page(&ns, key));
    let asked = forms.post(&delete, &[]).await.expect(200);
    assert!(asked.text().contains("id=\"confirm\""), "{}", asked.text());
    cache.get(&ns, key).await.expect(200);
    let issued = attribute(asked.text(), "name=\"issued\"", "value").expect("the time of the form");
    let confirmed = [("confirmed", "yes"), ("issued", issued.as_str())];
    let done = forms.post_and_follow(&delete, &confirmed).await;
    assert_eq!(attribute(done.text(), "id=\"deleted\"", "data-deleted").as_deref(), Some("true"));
    cache.get(&ns, key).await.expect(404);
    let again = forms.post_and_follow(&delete, &confirmed).await;
    assert_eq!(attribute(again.text(), "id=\"deleted\"", "data-deleted").as_deref(), Some("false"));
}

async fn another_sites_requests_change_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.set(&ns, "a", "1").await.expect(201);
    let forms = Forms::of(&cache, &namespace_page(&ns)).await;
    let flush = format!("{}/flush", namespace_page(&ns));
    let delete = format!("{}/delete", key_page(&ns, "a"));
    let host = service.address().to_string();
    let own = format!("http://{host}");
    let issued = now();
    let confirmed_flush = vec![("announced", "1"), ("all", "yes"), ("issued", issued.as_str())];
    let confirmed_delete = vec![("confirmed", "yes"), ("issued", issued.as_str())];
    for headers in [
        [("sec-fetch-site", "cross-site"), ("origin", own.as_str())].as_slice(),
        &[("sec-fetch-site", "same-site")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
    ] {
        for (path, fields) in [(&flush, &confirmed_flush), (&delete, &confirmed_delete)] {
            let refused = forms.post_with(path, fields, headers).await.expect(403);
            assert_eq!(attribute(refused.text(), "id=\"problem\"", "data-code").as_deref(), Some("cross_site"));
        }
    }
    let strange = Forms { token: "0".repeat(32), ..Forms::of(&cache, &namespace_page(&ns)).await };
    strange.post(&flush, &confirmed_flush).await.expect(403);
    let without = Forms { cookie: "other=1".to_owned(), ..Forms::of(&cache, &namespace_page(&ns)).await };
    without.post(&delete, &confirmed_delete).await.expect(403);
    cache.get(&ns, "a").await.expect(200);
    cache
        .send(Method::GET, "/dashboard/events?page=overview", &[("sec-fetch-site", "cross-site")], None)
        .await
        .expect(403);
    forms.post_with(&flush, &confirmed_flush, &[("origin", &own)]).await.expect(303);
    cache.get(&ns, "a").await.expect(404);
}

async fn the_page_of_a_known_absence_says_so(service: &Service) {
    let (cache, ns) = (service.client(), namespace("pages"));
    cache.put(&ns, "gone", r#"{"absent":true,"ttl":60,"tags":["a"]}"#).await.expect(201);
    let page = cache.fetch(&key_page(&ns, "gone")).await.expect(200);
    assert!(page.text().contains("id=\"known-absent\"") && !page.text().contains("data-field=\"value\""));
    assert!((50.0..=60.0).contains(&number(page.text(), "data-field=\"ttl\"", "data-value")));
}

async fn a_source_version_is_shown_if_there_is_one(service: &Service) {
    let (cache, ns) = (service.client(), namespace("pages"));
    cache.put(&ns, "counted", r#"{"value":1,"source_version":9223372036854775807}"#).await.expect(201);
    let page = cache.fetch(&key_page(&ns, "counted")).await.expect(200);
    let shown = attribute(page.text(), "data-field=\"source_version\"", "data-value");
    assert_eq!(shown.as_deref(), Some("9223372036854775807"));
    cache.set(&ns, "counted", "1").await.expect(200);
    let page = cache.fetch(&key_page(&ns, "counted")).await.expect(200);
    assert!(!page.text().contains("data-field=\"source_version\""));
}

async fn errors_are_pages_with_the_codes_of_the_api(service: &Service) {
    let cache = service.client();
    for (path, status, code) in [
        ("/dashboard/namespaces/a%20b", 400, "invalid_namespace"),
        ("/dashboard/namespaces/a/keys/%01", 400, "invalid_key"),
        ("/dashboard/namespaces/a/keys/nobody-wrote-it", 404, "key_not_found"),
        ("/dashboard/namespaces/a/flush", 405, "method_not_allowed"),
        ("/dashboard/namespaces/a?cursor=x", 400, "invalid_cursor"),
        ("/dashboard/namespaces/a?pattern=a&tag=b", 400, "invalid_query"),
        ("/dashboard/no/such/page", 404, "no_such_route"),
        ("/dashboard/assets/none.css", 404, "no_such_route"),
        ("/dashboard?sort=mood", 400, "invalid_query"),
        ("/dashboard?unknown=1", 400, "invalid_query"),
        ("/dashboard/events?page=other", 400, "invalid_query"),
    ] {
        let answer = cache.fetch(path).await.expect(status);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert_eq!(attribute(answer.text(), "id=\"problem\"", "data-code").as_deref(), Some(code), "{path}");
    }
    let forms = Forms::of(&cache, "/dashboard/namespaces/a").await;
    let flush = "/dashboard/namespaces/a/flush";
    forms.post(flush, &[("pattern", "a"), ("tag", "b")]).await.expect(400);
    forms.post(flush, &[("announced", "many")]).await.expect(400);
    forms.post(flush, &[("patern", "a")]).await.expect(400);
}

async fn short_addresses_redirect_to_the_pages(service: &Service) {
    let cache = service.client();
    for (typed, page) in [("/", "/dashboard"), ("/dashboard/", "/dashboard"), ("/docs/", "/docs")] {
        let answer = cache.fetch(typed).await.expect(307);
        assert_eq!(answer.header("location"), Some(page), "{typed}");
        cache.fetch(page).await.expect(200);
    }
}

async fn keys_are_listed_page_by_page(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    let mut expected: Vec<String> = (0..150).map(|i| format!("key_{i}")).collect();
    expected.sort();
    let entries: Vec<_> = expected.iter().map(|key| json!({"key": key, "value": 1})).collect();
    cache.fill(&ns, &json!(entries)).await;
    cache.set(&ns, "other", "1").await.expect(201);
    let (mut found, mut path) = (Vec::new(), format!("{}?pattern=key_*", namespace_page(&ns)));
    loop {
        let page = cache.fetch(&path).await.expect(200);
        let list = page.text().split_once("id=\"keys\"").expect("a list of keys").1;
        let list = list.split_once("</ul>").expect("its end").0;
        found.extend(list.split("data-key=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or("").to_owned()));
        match attribute(page.text(), "rel=\"next\"", "href") {
            Some(next) => path = next.split('#').next().unwrap_or("").replace("&amp;", "&"),
            None => break,
        }
    }
    found.sort();
    assert_eq!(found, expected);
}

/// Reads a stream of events until the text so far satisfies `wanted`.
async fn events_until(service: &Service, query: &str, wanted: impl Fn(&str) -> bool) -> String {
    events_at(service.address(), query, wanted).await
}

pub async fn events_at(address: SocketAddr, query: &str, wanted: impl Fn(&str) -> bool) -> String {
    let url = format!("http://{address}/dashboard/events?{query}");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client without TLS builds");
    let reading = async {
        let mut answer = client.get(url).send().await.context("no answer")?;
        ensure!(answer.status() == 200, "status {}", answer.status());
        let mut text = String::new();
        while !wanted(&text) {
            let chunk = answer.chunk().await?.with_context(|| format!("the stream ended after {text}"))?;
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(text)
    };
    let read = tokio::time::timeout(LATER, reading).await;
    read.unwrap_or_else(|_| panic!("{query}: the expected event did not come within {LATER:?}"))
        .expect("a stream of events")
}

async fn events_report_a_change(service: &Service) {
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.set(&ns, "a", "1").await.expect(201);
    let query = format!("page=namespace&ns={ns}");
    let keys = |count: u32| format!("data-stat=\"total_keys\" data-value=\"{count}\"");
    let seen = events_until(service, &query, |text| text.contains(&keys(1))).await;
    assert!(seen.contains("event: region\ndata: status\n"), "{seen}");
    let changes = events_until(service, &query, |text| text.contains(&keys(2)));
    let write = async { cache.set(&ns, "b", "1").await.expect(201) };
    tokio::join!(changes, write);
    events_until(service, &format!("page=overview&q={ns}"), |text| {
        text.contains(&format!("data-namespace=\"{ns}\""))
    })
    .await;
}

#[tokio::test]
async fn a_long_flush_redirects_to_the_page_of_its_job_which_can_cancel_it() {
    let shard = SlowShard::very_slow();
    let service = Service::start(shard.impatient(Settings::shards()));
    let (cache, ns) = (service.client(), namespace("dashboard"));
    shard.fill(&cache, &ns).await;
    let forms = Forms::of(&cache, &namespace_page(&ns)).await;
    let flush = format!("{}/flush", namespace_page(&ns));
    let announced = ENTRIES.to_string();
    let fields = [("announced", announced.as_str()), ("all", "yes"), ("issued", &now())];
    let page = forms.post_and_follow(&flush, &fields).await;
    assert_eq!(attribute(page.text(), "id=\"job\"", "data-state").as_deref(), Some("running"), "{}", page.text());
    let done = number(page.text(), "id=\"job\"", "data-done");
    let cancel = attribute(page.text(), "id=\"cancel\"", "action").expect("a form that cancels");
    let id = cancel.split('/').nth(3).expect("the id of the job").to_owned();
    let events = format!("page=job&id={id}");
    events_until(&service, &events, |text| text.contains("data-state=\"running\"") && text.contains("Of about"))
        .await;
    // A form of another site changes nothing.
    forms.post_with(&cancel, &[], &[("sec-fetch-site", "cross-site")]).await.expect(403);
    let page = forms.post_and_follow(&cancel, &[]).await;
    assert!(number(page.text(), "id=\"job\"", "data-done") >= done);
    events_until(&service, &events, |text| text.contains("data-state=\"cancelled\"")).await;
    let unknown = cache.fetch("/dashboard/jobs/x-1").await.expect(404);
    assert_eq!(attribute(unknown.text(), "id=\"problem\"", "data-code").as_deref(), Some("job_not_found"));
}

#[tokio::test]
async fn streams_are_limited_and_end_with_the_process() {
    let service = Service::start(Settings::embedded());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client without TLS builds");
    let url = format!("http://{}/dashboard/events?page=condition", service.address());
    let mut streams = Vec::new();
    // A stream beyond the limit gets the event `full` and ends; the browser retries after a while.
    let open = async || {
        let mut answer = client.get(&url).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        let mut text = String::new();
        while !text.contains("event: ") {
            let chunk = answer.chunk().await?.context("the stream ended without an event")?;
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok((answer, text))
    };
    loop {
        let (mut answer, text) = open().await.expect("a stream");
        if text.contains("event: full") {
            assert!(text.contains("retry: 30000\n") && answer.chunk().await.expect("an end").is_none(), "{text}");
            break;
        }
        streams.push(answer);
        assert!(streams.len() < 1000, "streams have no bound");
    }
    streams.truncate(1);
    // A closed stream makes room for another.
    eventually(SOON, async || {
        let (_, text) = open().await?;
        ensure!(!text.contains("event: full"), "{text}");
        Ok(())
    })
    .await;
    assert!(service.stop().success());
    let mut last = String::new();
    while let Ok(Some(chunk)) = streams[0].chunk().await {
        last.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(last.contains("event: leaving"), "{last}");
}

#[tokio::test]
async fn a_killed_or_stopped_shard_is_shown_until_it_is_back() {
    let mut servers = Redis::three();
    let service = Service::start(Settings::on(&servers).unset("redis_timeout_ms"));
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.fill(&ns, &json!((0..20).map(|i| json!({"key": format!("k{i}"), "value": i})).collect::<Vec<_>>())).await;
    let shown = |page: &str, status: &str, state: &str| {
        attribute(page, "id=\"status\"", "data-status").as_deref() == Some(status)
            && attribute(page, "data-shard=\"b\"", "data-state").as_deref() == Some(state)
    };
    for is_killed in [false, true] {
        if is_killed {
            servers[1].kill();
        } else {
            servers[1].signal(Signal::Stop);
        }
        eventually(LATER, async || {
            let page = cache.fetch("/dashboard").await.expect(200);
            ensure!(shown(page.text(), "degraded", "disconnected"), "{}", page.text());
            ensure!(page.text().contains("Shard b does not answer"), "{}", page.text());
            Ok(())
        })
        .await;
        let page = cache.fetch(&namespace_page(&ns)).await.expect(200);
        assert!(page.text().contains("Shard b does not answer"), "{}", page.text());
        events_until(&service, "page=overview", |text| text.contains("data-status=\"degraded\"")).await;
        if is_killed {
            servers[1].run();
        } else {
            servers[1].signal(Signal::Cont);
        }
        events_until(&service, "page=overview", |text| text.contains("data-status=\"healthy\"")).await;
        eventually(LATER, async || {
            let page = cache.fetch("/dashboard").await.expect(200);
            ensure!(shown(page.text(), "healthy", "connected"), "{}", page.text());
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_the_database_the_pages_work_and_say_so() {
    let mut postgres = Postgres::start();
    let settings =
        Settings::shards().set("database_url", postgres.fresh_database()).set("database_timeout_ms", 1_000);
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("dashboard"));
    cache.set(&ns, "a", "1").await.expect(201);
    postgres.kill();
    eventually(LATER, async || {
        let page = cache.fetch(&namespace_page(&ns)).await.expect(200);
        ensure!(page.text().contains("The audit trail cannot be shown"), "{}", page.text());
        ensure!(
            attribute(page.text(), "id=\"status\"", "data-status").as_deref() == Some("degraded"),
            "{}",
            page.text()
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn five_hundred_namespaces_are_sorted_searched_and_paged() {
    let service = Service::start(Store::Embedded.settings());
    let cache = service.client();
    for i in 0..500 {
        cache.set(&format!("ns-{i:03}"), "k", "1").await.expect(201);
    }
    let rows = |page: &Answer| page.text().matches("data-namespace=").count();
    eventually(LATER, async || {
        let page = cache.fetch("/dashboard?q=NS-49").await.expect(200);
        ensure!(rows(&page) == 10, "{} rows", rows(&page));
        Ok(())
    })
    .await;
    let (mut found, mut path) = (0, Some("/dashboard?order=desc".to_owned()));
    while let Some(asked) = path {
        let page = cache.fetch(&asked).await.expect(200);
        let first = attribute(page.text(), "data-namespace=", "data-namespace");
        assert_eq!(first, Some(format!("ns-{:03}", 499 - found)));
        found += rows(&page);
        path = attribute(page.text(), "rel=\"next\"", "href").map(|path| path.replace("&amp;", "&"));
    }
    assert_eq!(found, 500);
}
