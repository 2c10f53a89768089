//! A headless Chromium with one page, driven over its DevTools protocol.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use super::not_tried;
use super::wait::{LONG, within};

/// The browser's own names.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    /// Profile and caches.
    folder: Option<TempDir>,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    next: u64,
    /// What has happened, in order: `method` and `params`.
    events: Vec<Value>,
}

impl Browser {
    /// Opens a page; None, and said loudly: there is no browser on this machine. Where one has to be
    /// (CI=true) that fails the test.
    #[track_caller]
    pub(crate) fn open(url: &str) -> Option<Self> {
        let Some(program) = find() else {
            let words = format!("no browser is on this machine (looked for {})", NAMES.join(", "));
            assert!(std::env::var_os("CI").is_none_or(|it| it != "true"), "{words}");
            not_tried(&words);
            return None;
        };
        let folder = tempfile::Builder::new().prefix("browser").tempdir().expect("a folder");
        let child = start(&program, folder.path());
        let mut browser = Self {
            socket: connect(folder.path()),
            child,
            folder: Some(folder),
            session: None,
            next: 0,
            events: Vec::new(),
        };
        browser.attach(url);
        Some(browser)
    }

    fn attach(&mut self, url: &str) {
        let page = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = &page["targetId"];
        let attached =
            self.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// Calls a method, and gives its result; what happens meanwhile is kept.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(request.to_string())).expect("speak to the browser");
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let said: Value = serde_json::from_str(&text).expect("JSON from the browser");
            if said["id"] != id {
                self.events.push(said);
                continue;
            }
            assert!(said["error"].is_null(), "{method}: {said}");
            return said["result"].clone();
        }
    }

    /// The value of an expression of the page's script.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        within(LONG, expression, || (self.evaluate(expression) == true).then_some(()));
    }

    /// Presses what the selector finds, as a mouse would.
    #[track_caller]
    pub(crate) fn press(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.scrollIntoView();
             const {{ x, y, width, height }} = it.getBoundingClientRect();
             return {{ x: x + width / 2, y: y + height / 2 }}; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", &params);
        }
    }

    /// The events of a method so far.
    pub(crate) fn events(&self, method: &str) -> Vec<&Value> {
        self.events.iter().filter(|it| it["method"] == method).map(|it| &it["params"]).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let close = json!({ "id": 0, "method": "Browser.close" }).to_string();
        let asked = self.socket.send(Message::text(close));
        // It closes the connection when it is about to leave; its helpers leave with it.
        if asked.is_ok() {
            while self.socket.read().is_ok() {}
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        if let Some(folder) = self.folder.take() {
            let path = folder.keep();
            // A helper may write its last file a moment after that.
            let _ = std::panic::catch_unwind(|| {
                within(LONG, "the browser's folder goes", || {
                    (std::fs::remove_dir_all(&path).is_ok() || !path.exists()).then_some(())
                });
            });
        }
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |it| it.join(name)))
        .find(|it| it.is_file())
}

fn start(program: &Path, folder: &Path) -> Child {
    Command::new(program)
        .args(["--headless", "--disable-gpu", "--disable-quic", "--no-first-run"])
        // The sandbox does not work as root, and nothing foreign is opened.
        .arg("--no-sandbox")
        // In containers /dev/shm is small.
        .arg("--disable-dev-shm-usage")
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-breakpad", "--window-size=1200,1400", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the browser")
}

/// The browser writes the port that it has chosen, and the path, into its folder.
fn connect(folder: &Path) -> WebSocket<TcpStream> {
    let address = within(LONG, "the browser listens", || {
        let text = std::fs::read_to_string(folder.join("DevToolsActivePort")).ok()?;
        let (port, path) = text.trim_end().split_once('\n')?;
        Some((port.parse::<u16>().ok()?, path.to_owned()))
    });
    let stream = TcpStream::connect(("127.0.0.1", address.0)).expect("connect to the browser");
    stream.set_read_timeout(Some(LONG.max(Duration::from_secs(10)))).expect("a timeout");
    let url = format!("ws://127.0.0.1:{}{}", address.0, address.1);
    tungstenite::client(url, stream).expect("a WebSocket to the browser").0
}
