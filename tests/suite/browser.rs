//! The dashboard in Chromium: its contents, live updates, forms, and accessibility.
//!
//! Each test ends with a check of the browser's console, see [`Browser::run`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::support::browser::{Browser, ENTER, Scheme, TAB};
use crate::support::client::{Client, encoded, key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};

/// The numbers that are both on the namespace's page and in the answer of the stats call.
const STATS: [&str; 7] =
    ["hits", "misses", "hit_rate", "total_keys", "memory_used_bytes", "evictions", "expirations"];

/// Keys with characters that have a meaning in HTML, paths and queries.
const ODD_KEYS: [&str; 6] = [
    "<script>window.hacked = 1</script>",
    "\"'><img src=x onerror=window.hacked=1>",
    "100%25 a/b?c=d&e;f+g#h\\i",
    "grün 😀 \u{202e}detrevni",
    "..",
    ".",
];

const ODD_VALUE: &str =
    r#"{"html":"</pre><script>window.hacked = 1</script>","quote":"\"'","percent":"%3C","emoji":"😀"}"#;

crate::support::both_stores::on_both_stores!(
    a_namespace_shows_the_numbers_of_the_stats_call,
    a_write_is_seen_without_a_reload,
    a_flush_deletes_what_the_dry_run_announced,
    a_key_has_a_page_with_its_value_and_metadata,
    odd_keys_and_values_are_shown_as_text_everywhere,
);

fn overview(service: &Service) -> String {
    format!("http://{}/dashboard", service.address())
}

fn page_of(service: &Service, namespace: &str) -> String {
    format!("{}/namespaces/{}", overview(service), encoded(namespace))
}

fn page_of_key(service: &Service, namespace: &str, key: &str) -> String {
    format!("{}/keys/{}", page_of(service, namespace), encoded(key))
}

/// The time at which the document was loaded, which identifies the document.
async fn document(browser: &Browser) -> f64 {
    browser.execute("return performance.timeOrigin", vec![]).await
}

/// The number in `data-value` of a stat on the page.
async fn number(browser: &Browser, stat: &str) -> anyhow::Result<f64> {
    Ok(browser.attribute(&format!("#stats [data-stat={stat}]"), "data-value").await?.parse()?)
}

async fn a_namespace_shows_the_numbers_of_the_stats_call(service: &Service) {
    let (cache, namespace) = (service.client(), namespace("browser"));
    for key in 0..7 {
        cache.set(&namespace, &format!("key_{key}"), "\"value\"").await.expect(201);
    }
    for key in 5..8 {
        cache.get(&namespace, &format!("key_{key}")).await;
    }
    cache.delete(&namespace, "key_0").await.expect(200);
    Browser::run(async |browser| {
        browser.goto(&page_of(service, &namespace)).await;
        eventually(LATER, async || {
            let stats = cache.stats(&namespace).await.expect(200).json();
            ensure!((stats["hits"].as_u64(), stats["misses"].as_u64()) == (Some(2), Some(1)), "not counted yet");
            ensure!(stats["total_keys"] == 6, "not counted yet");
            for stat in STATS {
                let (told, shown) = (stats[stat].as_f64().context(stat)?, number(browser, stat).await?);
                ensure!((told - shown).abs() < 1e-6, "{stat} is {told}, and {shown} on the page");
            }
            Ok(())
        })
        .await;
    })
    .await;
}

async fn a_write_is_seen_without_a_reload(service: &Service) {
    let (cache, namespace) = (service.client(), namespace("browser"));
    Browser::run(async |browser| {
        browser.goto(&overview(service)).await;
        let loaded = document(browser).await;
        cache.set(&namespace, "first", "1").await.expect(201);
        // There may be more namespaces than one page shows, so the page is filtered. It is also live while one types.
        browser.enter("input[name=q]", &namespace).await;
        let row = format!("#namespaces tr[data-namespace={namespace:?}]");
        eventually(LATER, async || {
            ensure!(browser.count(&row).await == 1, "no row yet");
            Ok(())
        })
        .await;
        assert_eq!(document(browser).await, loaded, "the page was loaded again");

        browser.goto(&page_of(service, &namespace)).await;
        let loaded = document(browser).await;
        browser.shows("#stats [data-stat=total_keys]", "data-value", "1").await;
        cache.set(&namespace, "second", "2").await.expect(201);
        browser.shows("#stats [data-stat=total_keys]", "data-value", "2").await;
        cache.get(&namespace, "second").await.expect(200);
        browser.shows("#stats [data-stat=hits]", "data-value", "1").await;
        assert_eq!(document(browser).await, loaded, "the page was loaded again");
    })
    .await;
}

async fn a_flush_deletes_what_the_dry_run_announced(service: &Service) {
    let (cache, namespace) = (service.client(), namespace("browser"));
    let entries: Vec<Value> = (0..40)
        .map(|i| match i {
            0..25 => json!({"key": format!("user_{i}"), "value": i}),
            _ => json!({"key": format!("order_{i}"), "value": i, "tags": [if i % 2 == 0 { "even" } else { "odd" }]}),
        })
        .collect();
    cache.fill(&namespace, &Value::Array(entries)).await;
    Browser::run(async |browser| {
        browser.goto(&page_of(service, &namespace)).await;
        browser.enter("#flush input[name=pattern]", "user_*").await;
        browser.click("#flush button").await;
        browser.shows("#dry-run", "data-count", "25").await;
        assert!(browser.text("#dry-run").await.contains("25"), "the number is also in the text");
        assert_eq!(cache.all_keys(&namespace).await.len(), 40, "a dry run deletes nothing");
        browser.click("#confirm button").await;
        browser.shows("#flushed", "data-count", "25").await;
        let left = cache.all_keys(&namespace).await;
        assert!(left.len() == 15 && left.iter().all(|key| key.starts_with("order_")), "{left:?}");

        browser.goto(&page_of(service, &namespace)).await;
        browser.enter("#flush input[name=tag]", "odd").await;
        browser.click("#flush button").await;
        browser.shows("#dry-run", "data-count", "8").await;
        browser.click("#confirm button").await;
        browser.shows("#flushed", "data-count", "8").await;
        assert_eq!(cache.all_keys(&namespace).await.len(), 7);

        // An empty form flushes everything, and announces the number too.
        browser.goto(&page_of(service, &namespace)).await;
        browser.click("#flush button").await;
        browser.shows("#dry-run", "data-count", "7").await;
        assert_eq!(cache.all_keys(&namespace).await.len(), 7);
    })
    .await;
}

async fn a_key_has_a_page_with_its_value_and_metadata(service: &Service) {
    let (cache, namespace) = (service.client(), namespace("browser"));
    let value = r#"{"name": "Ada", "visits": 12345678901234567890.50}"#;
    let body = format!("{{\"value\":{value},\"ttl\":3600,\"tags\":[\"people\",\"first\"]}}");
    cache.put(&namespace, "user/1", body).await.expect(201);
    Browser::run(async |browser| {
        browser.goto(&page_of_key(service, &namespace, "user/1")).await;
        assert_eq!(browser.text("[data-field=value]").await, value, "the bytes that were written");
        let field = async |name: &str| {
            let value = browser.attribute(&format!("[data-field={name}]"), "data-value").await;
            value.expect("the page is there").parse::<f64>().expect("a number")
        };
        let ttl = field("ttl").await;
        assert!(ttl > 3_000.0 && ttl <= 3_600.0, "{ttl}");
        let version = browser.text("[data-field=version]").await;
        let answer = cache.get(&namespace, "user/1").await.expect(200);
        assert_eq!(answer.header("etag"), Some(format!("\"{version}\"").as_str()));
        assert_eq!(field("size").await, value.len() as f64);
        let tags = browser.text("[data-field=tags]").await;
        assert!(tags.contains("people") && tags.contains("first"), "{tags}");
        if service.store() == Store::Shards {
            let shard = browser.text("[data-field=shard]").await;
            assert!(["a", "b", "c"].contains(&shard.as_str()), "{shard}");
        }

        browser.click("#delete button").await;
        browser.find("#delete-confirm").await;
        cache.get(&namespace, "user/1").await.expect(200);
        browser.click("#confirm button").await;
        browser.find("#deleted").await;
        cache.get(&namespace, "user/1").await.expect_error(404, "key_not_found");

        // An absent key has a page as well, with status 404.
        browser.expect_errors("404");
        browser.goto(&page_of_key(service, &namespace, "user/1")).await;
        browser.find("[data-code=key_not_found]").await;
    })
    .await;
}

async fn odd_keys_and_values_are_shown_as_text_everywhere(service: &Service) {
    let (cache, namespace) = (service.client(), namespace("browser"));
    for key in ODD_KEYS {
        // In a batch, because `.` and `..` cannot be in a path.
        let entry = json!({"key": key, "value": 0, "tags": ["<i>tag</i>"]});
        let entries =
            json!({"entries": [entry]}).to_string().replace("\"value\":0", &format!("\"value\":{ODD_VALUE}"));
        cache.mset_raw(&namespace, entries).await.expect(200);
    }
    Browser::run(async |browser| {
        for key in ODD_KEYS {
            browser.goto(&page_of(service, &namespace)).await;
            let link = "const li = [...document.querySelectorAll('#keys li')].find(li => li.dataset.key === arguments[0]); \
                        const a = li.querySelector('a'); return [a.textContent, a.href]";
            let (text, link): (String, String) = browser.execute(link, vec![json!(key)]).await;
            assert_eq!(text, key);
            browser.goto(&link).await;
            let heading: String = browser.execute("return document.querySelector('h1').textContent", vec![]).await;
            assert_eq!(heading, key);
            let value: String =
                browser.execute("return document.querySelector('[data-field=value]').textContent", vec![]).await;
            assert_eq!(value, ODD_VALUE);
            browser.click("#delete button").await;
            browser.click("#confirm button").await;
            browser.find("#deleted").await;
            let there = cache.mget(&namespace, &[key]).await.expect(200).number("hits");
            assert_eq!(there, 0, "{key} is still there");
        }
        // Now the places that show text which a person typed.
        browser.goto(&page_of(service, &namespace)).await;
        browser.enter("#flush input[name=pattern]", "<b>\"'%*").await;
        browser.click("#flush button").await;
        browser.shows("#dry-run", "data-count", "0").await;
        browser.goto(&format!("{}?q={}", overview(service), encoded("<script>window.hacked = 1</script>\"'%"))).await;
        browser.find("#namespaces").await;
        let is_hacked: bool = browser.execute("return 'hacked' in window", vec![]).await;
        assert!(!is_hacked);
    })
    .await;
}

#[tokio::test]
async fn a_form_on_another_site_changes_nothing() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    cache.set("shop", "mug", "1").await.expect(201);
    let address = service.address();
    let flush = format!("http://{address}/dashboard/namespaces/shop/flush");
    let delete = format!("http://{address}/dashboard/namespaces/shop/keys/mug/delete");
    Browser::run(async |browser| {
        browser.expect_errors("403");
        // The browser has the cookie of the dashboard's forms, and the other site knows the token: only the origin of
        // the form still tells the two apart.
        browser.goto(&page_of(&service, "shop")).await;
        let token = browser.attribute("#flush input[name=token]", "value").await.expect("a form has a token");
        let form = |action: &str, fields: &str| {
            let token = format!("<input name=token value={token}>");
            format!("<form method=post action={action}>{token}{fields}<button>Win</button></form>")
        };
        let port = serve(BTreeMap::from([
            ("/flush", form(&flush, "<input name=pattern value='*'><input name=announced value=1>")),
            ("/delete", form(&delete, "<input name=confirmed value=yes>")),
        ]));
        // Another host name is another site; another port of the same host name is the same site, but another origin.
        for host in ["localhost", "127.0.0.1"] {
            for path in ["/flush", "/delete"] {
                browser.goto(&format!("http://{host}:{port}{path}")).await;
                browser.click("button").await;
                eventually(LATER, async || {
                    let status =
                        "return [location.host, performance.getEntriesByType('navigation')[0].responseStatus]";
                    let (host, status): (String, u16) = browser.try_execute(status, vec![]).await?;
                    ensure!(host == address.to_string(), "still at {host}");
                    ensure!(status == 403, "status {status}");
                    Ok(())
                })
                .await;
                assert!(browser.count("[data-code=cross_site]").await == 1, "the page says why");
                // A form with a wrong token has the same code.
                assert_eq!(browser.text("#problem h1").await, "Refused: sent by another site");
                cache.get("shop", "mug").await.expect(200);
            }
        }
    })
    .await;
}

/// Serves pages on a port of their own, while the test process lives.
fn serve(pages: BTreeMap<&'static str, String>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let port = listener.local_addr().expect("a listener has an address").port();
    let pages = Arc::new(pages);
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let pages = pages.clone();
            // A browser opens connections before it uses them: an idle one must not block another.
            thread::spawn(move || answer(connection, &pages));
        }
    });
    port
}

/// Answers one request with its page.
fn answer(mut connection: TcpStream, pages: &BTreeMap<&'static str, String>) {
    let mut head = BufReader::new(&connection).lines().map_while(Result::ok);
    let line = head.next().unwrap_or_default();
    head.take_while(|line| !line.is_empty()).for_each(drop);
    let path = line.split(' ').nth(1).unwrap_or_default();
    let (status, page) = pages.get(path).map_or(("204 No Content", ""), |page| ("200 OK", page));
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
        page.len()
    );
    // The browser may have closed the connection already.
    let _ = connection.write_all(answer.as_bytes());
}

#[tokio::test]
async fn one_or_five_hundred_namespaces_can_be_sorted_and_searched() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    cache.set("shop-123", "key_0", "1").await.expect(201);
    Browser::run(async |browser| {
        browser.goto(&overview(&service)).await;
        eventually(LATER, async || {
            ensure!(browser.count("#namespaces tbody tr[data-namespace]").await == 1, "one row");
            Ok(())
        })
        .await;

        for number in (0..500).filter(|number| *number != 123) {
            cache.set(&format!("shop-{number:03}"), "key_0", "1").await.expect(201);
        }
        for key in 1..=5 {
            cache.set("shop-123", &format!("key_{key}"), "1").await.expect(201);
        }
        // Columns of numbers start with the highest.
        browser.goto(&format!("{}?sort=keys", overview(&service))).await;
        eventually(LATER, async || {
            let rows = rows(browser).await?;
            ensure!(rows.len() >= 100, "{} rows", rows.len());
            ensure!(rows[0] == "shop-123", "{} is the first", rows[0]);
            Ok(())
        })
        .await;
        // The link of each column sorts by it, in both directions.
        for column in ["name", "keys", "memory", "reads", "hit_rate", "evictions", "expirations"] {
            browser.click(&format!("a[data-sort={column}]")).await;
            let heading = "const a = document.querySelector(`a[data-sort=${arguments[0]}]`); \
                           return a.closest('th').getAttribute('aria-sort')";
            let sorted = async || -> String {
                eventually(LATER, async || {
                    let order: Option<String> = browser.try_execute(heading, vec![json!(column)]).await?;
                    order.context("not sorted by it")
                })
                .await
            };
            let first = sorted().await;
            browser.click(&format!("a[data-sort={column}]")).await;
            eventually(LATER, async || {
                ensure!(sorted().await != first, "still {first}");
                Ok(())
            })
            .await;
        }
        browser.click("a[data-sort=name]").await;
        eventually(LATER, async || {
            let rows = rows(browser).await?;
            ensure!(!rows.is_empty() && rows.is_sorted(), "{rows:?}");
            Ok(())
        })
        .await;

        browser.enter("input[name=q]", "SHOP-12").await;
        browser.press(ENTER).await;
        eventually(LATER, async || {
            let rows = rows(browser).await?;
            ensure!(rows.len() == 10 && rows.iter().all(|row| row.starts_with("shop-12")), "{rows:?}");
            Ok(())
        })
        .await;

        // Every namespace is on one of the pages.
        browser.goto(&overview(&service)).await;
        let mut seen = Vec::new();
        loop {
            seen.extend(rows(browser).await.expect("a page with rows"));
            if browser.count("a[rel=next]").await == 0 {
                break;
            }
            let next: String = browser.execute("return document.querySelector('a[rel=next]').href", vec![]).await;
            browser.goto(&next).await;
        }
        assert_eq!(seen.len(), 500);
        assert!(seen.is_sorted());
    })
    .await;
}

/// The namespaces in the table, in the order of the rows.
async fn rows(browser: &Browser) -> anyhow::Result<Vec<String>> {
    let script =
        "return [...document.querySelectorAll('#namespaces tr[data-namespace]')].map(tr => tr.dataset.namespace)";
    browser.try_execute(script, vec![]).await
}

/// Presses Tab until an element has the focus. Checks on the way that the focus is always visible.
async fn tab_to(browser: &Browser, css: &str) {
    let script = "const e = document.activeElement, style = getComputedStyle(e); \
                  return [e.matches(arguments[0]), e === document.body || style.outlineStyle !== 'none' \
                          || style.boxShadow !== 'none', e.outerHTML.slice(0, 200)]";
    let mut passed = String::new();
    for _ in 0..60 {
        browser.press(TAB).await;
        let (is_there, is_seen, shown): (bool, bool, String) = browser.execute(script, vec![json!(css)]).await;
        assert!(is_seen, "the focus cannot be seen on {shown}");
        if is_there {
            return;
        }
        writeln!(passed, "{shown}").expect("text can be written to");
    }
    panic!("Tab does not come to {css}, but to:\n{passed}");
}

#[tokio::test]
async fn everything_can_be_done_by_keyboard() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    for key in ["user_1", "user_2", "order_1"] {
        cache.set("shop", key, "1").await.expect(201);
    }
    Browser::run(async |browser| {
        browser.goto(&overview(&service)).await;
        // The first stop is the link that skips the navigation.
        browser.press(TAB).await;
        assert_eq!(browser.focused().await, "a.skip");
        browser.press(ENTER).await;
        eventually(LATER, async || {
            let focused = browser.focused().await;
            ensure!(focused == "main#main", "{focused} has the focus");
            Ok(())
        })
        .await;
        tab_to(browser, "input[name=q]").await;
        browser.press("shop").await;
        browser.press(ENTER).await;
        tab_to(browser, "tr[data-namespace=shop] a").await;
        browser.press(ENTER).await;
        browser.find("#stats").await;
        tab_to(browser, "#flush input[name=pattern]").await;
        browser.press("user_*").await;
        browser.press(ENTER).await;
        browser.shows("#dry-run", "data-count", "2").await;
        tab_to(browser, "#confirm button").await;
        browser.press(ENTER).await;
        browser.shows("#flushed", "data-count", "2").await;
        assert_eq!(cache.all_keys("shop").await, ["order_1"]);
    })
    .await;
}

#[tokio::test]
async fn the_focus_stays_where_it_is_while_updates_arrive() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    cache.set("shop", "mug", "1").await.expect(201);
    Browser::run(async |browser| {
        browser.goto(&page_of(&service, "shop")).await;
        browser.enter("#flush input[name=pattern]", "half a patt").await;
        cache.set("shop", "cup", "1").await.expect(201);
        browser.shows("#stats [data-stat=total_keys]", "data-value", "2").await;
        browser.press("ern").await;
        let value: String = browser.execute("return document.activeElement.value", vec![]).await;
        assert_eq!(value, "half a pattern");

        browser.goto(&overview(&service)).await;
        eventually(LATER, async || {
            ensure!(browser.count("tr[data-namespace=shop] a").await == 1, "no row");
            Ok(())
        })
        .await;
        browser.execute::<()>("document.querySelector('tr[data-namespace=shop] a').focus()", vec![]).await;
        cache.set("books", "first", "1").await.expect(201);
        browser.find("tr[data-namespace=books]").await;
        let text: String = browser.execute("return document.activeElement.textContent", vec![]).await;
        assert_eq!(text, "shop");
    })
    .await;
}

/// The addresses of one page of each kind, with the longest names that are possible.
async fn pages(service: &Service, cache: &Client) -> Vec<String> {
    let (namespace, key) = ("n".repeat(100), "k".repeat(512));
    let value = format!("{{\"value\":{{\"long\":\"{}\"}},\"ttl\":100}}", "v".repeat(1_000));
    cache.put(&namespace, &key, value).await.expect(201);
    cache.get(&namespace, &key).await.expect(200);
    vec![overview(service), page_of(service, &namespace), page_of_key(service, &namespace, &key)]
}

#[tokio::test]
async fn no_page_is_wider_than_a_phone() {
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers));
    let pages = pages(&service, &service.client()).await;
    Browser::run(async |browser| {
        for width in [390, 320, 1280] {
            browser.size(width, 844).await;
            for page in &pages {
                browser.goto(page).await;
                fits(browser, width).await;
            }
            browser.goto(&pages[1]).await;
            browser.enter("#flush input[name=pattern]", &"p".repeat(200)).await;
            browser.click("#flush button").await;
            browser.find("#dry-run").await;
            fits(browser, width).await;
        }
    })
    .await;
}

/// Checks that no part of the page is cut off or needs horizontal scrolling.
async fn fits(browser: &Browser, width: u32) {
    let script = "const root = document.documentElement; if (root.scrollWidth <= innerWidth) return []; \
                  return [...document.querySelectorAll('body *')] \
                      .filter(e => e.getBoundingClientRect().right > innerWidth) \
                      .map(e => e.outerHTML.slice(0, 150))";
    let wide: Vec<String> = browser.execute(script, vec![]).await;
    let at: String = browser.execute("return location.pathname.slice(0, 60)", vec![]).await;
    assert!(wide.is_empty(), "{at} is wider than {width}: {wide:#?}");
}

/// Returns the texts whose contrast with their background is below the minimum of WCAG 2 (1.4.3), and the luminance
/// of the page's background.
const CONTRAST: &str = r"
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return { rgb: [r, g, b], a: a / 255 };
    };
    const over = (top, below) => top.rgb.map((part, i) => part * top.a + below[i] * (1 - top.a));
    const behind = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((part) => part / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const low = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode.nodeValue.trim(), element = texts.currentNode.parentElement;
        const box = element.getBoundingClientRect(), style = getComputedStyle(element);
        if (!text || box.width < 2 || box.height < 2 || style.visibility === 'hidden') continue;
        const color = rgba(element.namespaceURI.endsWith('svg') ? style.fill : style.color);
        const below = behind(element);
        const [a, b] = [light(over(color, below)), light(below)].sort((a, b) => b - a);
        const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < (isLarge ? 3 : 4.5)) low.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)} in ${element.outerHTML.slice(0, 120)}`);
    }
    return [low, light(behind(document.body))];
";

#[tokio::test]
async fn dark_and_light_differ_and_both_can_be_read() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    let mut pages = pages(&service, &cache).await;
    pages.push(page_of(&service, "empty"));
    Browser::run(async |browser| {
        for page in &pages {
            let (mut backgrounds, mut pictures) = (Vec::new(), Vec::new());
            for scheme in [Scheme::Light, Scheme::Dark] {
                browser.scheme(scheme).await;
                browser.goto(page).await;
                let (low, background): (Vec<String>, f64) = browser.execute(CONTRAST, vec![]).await;
                assert!(low.is_empty(), "{scheme:?} {page}: {low:#?}");
                backgrounds.push(background);
                pictures.push(browser.screenshot().await);
            }
            assert_ne!(pictures[0], pictures[1], "{page} looks the same in light and dark");
            assert!(backgrounds[0] > 0.7 && backgrounds[1] < 0.1, "light and dark: {backgrounds:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_shard_that_fails_and_comes_back_is_shown_without_a_reload() {
    let mut servers = Redis::three();
    // A short timeout, because the page waits for the shard that does not answer.
    let service = Service::start(Settings::on(&servers).set("redis_timeout_ms", 500));
    let cache = service.client();
    cache.set("shop", "mug", "1").await.expect(201);
    Browser::run(async |browser| {
        browser.goto(&overview(&service)).await;
        let loaded = document(browser).await;
        browser.shows("#shards [data-shard=b]", "data-state", "connected").await;
        browser.shows("#status", "data-status", "healthy").await;
        servers[1].kill();
        browser.shows("#shards [data-shard=b]", "data-state", "disconnected").await;
        browser.shows("#status", "data-status", "degraded").await;
        browser.shows("#shards [data-shard=a]", "data-state", "connected").await;
        let notices = browser.text("#notices").await;
        assert!(notices.contains('b'), "{notices}");
        servers[1].run();
        browser.shows("#shards [data-shard=b]", "data-state", "connected").await;
        browser.shows("#status", "data-status", "healthy").await;
        assert_eq!(document(browser).await, loaded, "the page was loaded again");
    })
    .await;
}

#[tokio::test]
async fn a_service_that_stops_and_restarts_is_shown_without_a_reload() {
    let port = ports::free();
    let start = || Service::start(Settings::embedded().set("listen", format!("127.0.0.1:{port}")));
    let mut service = start();
    Browser::run(async |browser| {
        // The browser logs each failed attempt.
        browser.expect_errors("net::ERR_");
        browser.goto(&overview(&service)).await;
        let loaded = document(browser).await;
        browser.shows("#status", "data-status", "healthy").await;
        service.kill();
        browser.shows("#status", "data-status", "unreachable").await;
        let said = browser.text("#status").await.to_lowercase();
        assert!(said.contains("unreachable"), "{said}");
        let _service = start();
        browser.shows("#status", "data-status", "healthy").await;
        assert!(browser.text("#status").await.to_lowercase().contains("healthy"));
        assert_eq!(document(browser).await, loaded, "the page was loaded again");
    })
    .await;
}

#[tokio::test]
async fn a_stopped_service_is_shown_as_unreachable_until_it_continues() {
    use crate::support::process::Signal;
    let service = Service::start(Settings::embedded());
    Browser::run(async |browser| {
        browser.expect_errors("net::ERR_");
        browser.goto(&overview(&service)).await;
        browser.shows("#status", "data-status", "healthy").await;
        service.signal(Signal::Stop);
        browser.shows("#status", "data-status", "unreachable").await;
        service.signal(Signal::Cont);
        browser.shows("#status", "data-status", "healthy").await;
    })
    .await;
}

#[tokio::test]
async fn no_request_leaves_the_origin() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    let origin = format!("http://{}", service.address());
    let pages = pages(&service, &cache).await;
    Browser::run(async |browser| {
        for page in &pages {
            let path = page.strip_prefix(&origin).expect("a page of the service");
            let answer = cache.fetch(path).await.expect(200);
            let policy = answer.header("content-security-policy").expect("a policy").to_owned();
            assert!(policy.contains("default-src 'none'"), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
            browser.goto(page).await;
            let script = "return performance.getEntriesByType('resource').map(entry => entry.name)";
            let loaded: Vec<String> = browser.execute(script, vec![]).await;
            assert!(loaded.len() >= 2, "at least the style sheet and the script: {loaded:?}");
            assert!(loaded.iter().all(|url| url.starts_with(&format!("{origin}/"))), "{loaded:?}");
        }
    })
    .await;
    // A stored value is never answered as HTML.
    cache.set("shop", "page", "\"<script>window.hacked = 1</script>\"").await.expect(201);
    let answer = cache.fetch(&key_path("shop", "page")).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_interactive_documentation_loads_only_from_the_service() {
    let service = Service::start(Settings::embedded());
    let origin = format!("http://{}", service.address());
    Browser::run(async |browser| {
        browser.goto(&format!("{origin}/docs")).await;
        eventually(LATER, async || {
            let operations = browser.count(".opblock").await;
            ensure!(operations >= 15, "{operations} operations");
            Ok(())
        })
        .await;
        // An operation opens and shows its parameters and answers.
        browser.click(".opblock .opblock-summary-control").await;
        browser.find(".opblock.is-open .responses-table").await;
        let script = "return performance.getEntriesByType('resource').map(entry => entry.name)";
        let loaded: Vec<String> = browser.execute(script, vec![]).await;
        assert!(loaded.iter().any(|url| url.contains("swagger-ui-bundle")), "{loaded:?}");
        let strange = |url: &&String| !url.starts_with(&format!("{origin}/")) && !url.starts_with("data:");
        assert_eq!(loaded.iter().find(strange), None, "{loaded:?}");
    })
    .await;
}
