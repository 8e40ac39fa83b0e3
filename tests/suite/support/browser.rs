//! A real headless Chromium, driven by Debian's chromedriver.
//!
//! One driver serves the test process. Each test gets a new, empty browser. A browser uses a whole core while it
//! starts and paints, so only one runs at a time. The browser ends when its pipe to the driver closes, and the driver
//! dies with the test process, so the browser never outlives the tests.
//!
//! An error in the page's console fails the test, unless the test announced it with [`Browser::expect_errors`].

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually::{LATER, eventually};
use super::process::{self, Process, Signal};
use super::{ports, scratch};

/// The limit for a whole test with a browser, so that a test that hangs does not block the tests that wait.
const WHOLE: Duration = Duration::from_secs(240);

/// The limit for the driver to start, for a page to load, and for a script to end.
const PATIENCE: Duration = Duration::from_secs(60);

const ARGUMENTS: [&str; 15] = [
    "--headless=new",
    // As root Chromium starts only with this. It loads only our own pages.
    "--no-sandbox",
    "--disable-gpu",
    // /dev/shm is small in containers.
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--no-proxy-server",
    // The browser ends when this pipe to the driver closes.
    "--remote-debugging-pipe",
];

/// Keys without a character, by their `WebDriver` code points (<https://www.w3.org/TR/webdriver2/#keyboard-actions>).
pub const ENTER: &str = "\u{e007}";
pub const TAB: &str = "\u{e004}";

/// The color scheme that the user prefers, as the page sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Dark,
    Light,
}

/// A browser with one page.
pub struct Browser {
    page: Client,
    session: String,
    /// Parts of console errors that the test expects.
    expected: Mutex<Vec<String>>,
    _profile: TempDir,
}

impl Browser {
    /// Runs `body` with a browser, and then checks that the console has no errors.
    pub async fn run(body: impl AsyncFnOnce(&Browser)) {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _turn = TURN.lock().await;
        let browser = Browser::open().await;
        let whole = tokio::time::timeout(WHOLE, async {
            body(&browser).await;
            let errors = browser.console_errors().await;
            assert!(errors.is_empty(), "errors in the console: {errors:#?}");
        });
        assert!(whole.await.is_ok(), "a test with a browser takes longer than {WHOLE:?}");
    }

    async fn open() -> Browser {
        let profile = scratch::folder("browser");
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let patience = PATIENCE.as_millis();
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {
                "binary": process::program_named("chromium", "chromium"),
                "args": arguments,
            },
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"pageLoad": patience, "script": patience, "implicit": 0},
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("written as an object") };
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{}", driver()))
            .await
            .unwrap_or_else(|error| panic!("Chromium does not start: {error}"));
        let session = page.session_id().await.expect("the driver answers").expect("a session has an id");
        let browser = Browser { page, session, expected: Mutex::default(), _profile: profile };
        browser.size(1280, 900).await;
        browser.scheme(Scheme::Light).await;
        browser
    }

    /// Loads a page.
    pub async fn goto(&self, url: &str) {
        self.page.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Sets the size of the viewport in CSS pixels. A real window cannot be as narrow as a phone.
    pub async fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Sets the preferred color scheme.
    pub async fn scheme(&self, scheme: Scheme) {
        let value = format!("{scheme:?}").to_lowercase();
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// A screenshot of the viewport, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let answer = self.devtools("Page.captureScreenshot", json!({"format": "png"})).await;
        let data = answer["data"].as_str().expect("a screenshot has data");
        STANDARD.decode(data).expect("a screenshot is base64")
    }

    /// Runs a script as the body of a function and returns its result.
    #[track_caller]
    pub fn execute<T: DeserializeOwned>(&self, script: &str, arguments: Vec<Value>) -> impl Future<Output = T> {
        let running = self.try_execute(script, arguments);
        async move { running.await.unwrap_or_else(|error| panic!("{error:#}")) }
    }

    /// Like [`Browser::execute`], but returns an error, for example while the page navigates.
    pub async fn try_execute<T: DeserializeOwned>(&self, script: &str, arguments: Vec<Value>) -> anyhow::Result<T> {
        let value = self.page.execute(script, arguments).await.with_context(|| script.to_owned())?;
        serde_json::from_value(value).with_context(|| script.to_owned())
    }

    /// Waits for an element and returns it.
    pub async fn find(&self, css: &str) -> Element {
        eventually(LATER, async || self.page.find(Locator::Css(css)).await.with_context(|| css.to_owned())).await
    }

    /// The number of matching elements now.
    pub async fn count(&self, css: &str) -> usize {
        self.page.find_all(Locator::Css(css)).await.expect("elements can be counted").len()
    }

    /// Clicks an element. Fails while another element covers it, as for a person. Retries, because a live update may
    /// replace the element after it was found.
    pub async fn click(&self, css: &str) {
        eventually(LATER, async || {
            let element = self.page.find(Locator::Css(css)).await.with_context(|| css.to_owned())?;
            element.click().await.with_context(|| css.to_owned())
        })
        .await;
    }

    /// Replaces the text of a field, key by key.
    pub async fn enter(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap_or_else(|error| panic!("{css}: {error}"));
        field.send_keys(text).await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Presses keys one after the other. The focused element gets them.
    pub async fn press(&self, keys: &str) {
        let actions = keys.chars().fold(KeyActions::new("keyboard".to_owned()), |actions, key| {
            actions.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key })
        });
        self.page.perform_actions(actions).await.unwrap_or_else(|error| panic!("{keys:?}: {error}"));
    }

    /// The focused element, as `name.class` or `name#id`.
    pub async fn focused(&self) -> String {
        let script = "const e = document.activeElement; const name = e.localName; \
                      return e.id ? `${name}#${e.id}` : [name, ...e.classList].join('.')";
        self.execute(script, vec![]).await
    }

    /// The visible text of an element.
    pub async fn text(&self, css: &str) -> String {
        eventually(LATER, async || {
            let element = self.page.find(Locator::Css(css)).await.with_context(|| css.to_owned())?;
            element.text().await.with_context(|| css.to_owned())
        })
        .await
    }

    /// An attribute of an element. Fails if the element does not exist now.
    pub async fn attribute(&self, css: &str, name: &str) -> anyhow::Result<String> {
        let script = "const e = document.querySelector(arguments[0]); return e && e.getAttribute(arguments[1])";
        let found: Option<String> = self.try_execute(script, vec![json!(css), json!(name)]).await?;
        found.with_context(|| format!("{css} has no {name}"))
    }

    /// Waits until an attribute of an element has this value.
    pub async fn shows(&self, css: &str, name: &str, value: &str) {
        eventually(LATER, async || {
            let found = self.attribute(css, name).await?;
            ensure!(found == value, "{css} has {name}={found:?}, not {value:?}");
            Ok(())
        })
        .await;
    }

    /// From now on, console errors that contain `part` do not fail the test.
    pub fn expect_errors(&self, part: &str) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).push(part.to_owned());
    }

    /// The unexpected console errors since the last call.
    pub async fn console_errors(&self) -> Vec<String> {
        let log = self.command("se/log", json!({"type": "browser"})).await;
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let entries = log.as_array().expect("a list of lines").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .filter(|message| !expected.iter().any(|part| message.contains(part)))
            .collect()
    }

    /// A command of the `DevTools` protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    pub async fn devtools(&self, name: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({"cmd": name, "params": parameters})).await
    }

    async fn command(&self, path: &'static str, body: Value) -> Value {
        let shown = format!("{path} {body}");
        self.page.issue_cmd(Command { path, body }).await.unwrap_or_else(|error| panic!("{shown}: {error}"))
    }
}

impl Drop for Browser {
    /// Ends the browser. Does not use the async runtime, which may be unwinding.
    fn drop(&mut self) {
        if let Err(error) = exchange(driver(), &format!("DELETE /session/{}", self.session)) {
            eprintln!("a browser could not be closed now, it will end with the tests: {error}");
        }
    }
}

/// A command that only Chromium's driver has.
#[derive(Debug)]
struct Command {
    /// Relative to the session's path.
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Command {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as std::str::FromStr>::Err> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (reqwest::Method, Option<String>) {
        (reqwest::Method::POST, Some(self.body.to_string()))
    }
}

/// The address of this test process' driver.
fn driver() -> SocketAddr {
    struct Driver {
        address: SocketAddr,
        /// Ends with this process: statics are not dropped.
        _process: Process,
        _home: TempDir,
    }
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    let start = || {
        for _ in 0..10 {
            let (port, home) = (ports::free(), scratch::folder("chromedriver"));
            let program = process::program_named("chromedriver", "chromium-driver");
            let mut command = process::dying_with_us(&program, Signal::Kill);
            command
                .arg(format!("--port={port}"))
                // Chromium also writes to places outside its profile.
                .env("HOME", home.path())
                .env("XDG_CONFIG_HOME", home.path())
                .env("XDG_CACHE_HOME", home.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut process = Process::spawn(command, Signal::Kill);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let deadline = Instant::now() + PATIENCE;
            // The driver ends if another process has taken the port.
            while process.exited().is_none() {
                let status = exchange(address, "GET /status");
                if status.is_ok_and(|answer| answer.contains("ChromeDriver ready")) && process.exited().is_none() {
                    return Driver { address, _process: process, _home: home };
                }
                assert!(Instant::now() < deadline, "chromedriver does not answer on port {port}");
                std::thread::sleep(process::TICK);
            }
        }
        panic!("chromedriver found no free port in ten attempts");
    };
    DRIVER.get_or_init(start).address
}

/// Sends a request to the driver and returns the answer. Works without an async runtime.
fn exchange(driver: SocketAddr, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&driver, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The driver accepts only the host name localhost.
    stream.write_all(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    let (mut answer, mut part) = (String::new(), [0; 4096]);
    loop {
        // The driver may keep the connection open in spite of `connection: close`.
        let length = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:"))?;
            Some((length.trim().parse::<usize>().ok()?, body.len()))
        });
        if length.is_some_and(|(expected, got)| got >= expected) {
            return Ok(answer);
        }
        match stream.read(&mut part)? {
            0 => return Ok(answer),
            count => answer.push_str(&String::from_utf8_lossy(&part[..count])),
        }
    }
}
