//! A real browser without a window, driven over WebDriver (W3C), which is HTTP and JSON.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Client;
use super::process::{Process, until};
use super::{binary, free_port};

/// For the driver and its browser to start.
const START: Duration = Duration::from_secs(60);
/// The key that moves on to the next element.
const TAB: &str = "\u{e004}";

/// A browser with one page open.
pub(crate) struct Browser {
    client: Client,
    session: String,
    driver: Process,
}

impl Browser {
    /// Starts one; `None` on a developer's machine that has none.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let found = Command::new("chromedriver").arg("--version").output().is_ok();
        if !found {
            let debian = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
            assert!(!debian.contains("ID=debian\n"), "install chromium-driver: ci/deps.sh");
            println!("no chromedriver here: the page is not looked at");
            return None;
        }
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).arg("--allowed-ips=127.0.0.1");
        let driver = Process::start(&mut command, &folder.join("driver.log"));
        let mut client = Client::new(&format!("http://127.0.0.1:{port}"));
        until("the driver answers", START, || client.get("/status").ok());
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1400,1500",
            &profile,
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let mut browser = Self { client, session: String::new(), driver };
        let begun = browser.ask("POST", "/session", &capabilities);
        browser.session = format!("/session/{}", begun["sessionId"].as_str().unwrap());
        Some(browser)
    }

    fn ask(&mut self, method: &str, target: &str, body: &Value) -> Value {
        let headers = [("content-type", "application/json")];
        let text = if method == "POST" { body.to_string() } else { String::new() };
        let reply = self.client.send((method, target), &headers, &text).unwrap();
        let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.head.status, 200, "{target}: {answer}");
        answer["value"].take()
    }

    fn call(&mut self, what: &str, body: &Value) -> Value {
        let target = format!("{}/{what}", self.session);
        self.ask("POST", &target, body)
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("url", &json!({ "url": url }));
    }

    /// What a function's body in JavaScript returns.
    pub(crate) fn run(&mut self, script: &str, arguments: Value) -> Value {
        self.call("execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// The text that people see in the element.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.run(script, json!([selector])).as_str().unwrap().to_owned()
    }

    /// How many elements there are.
    pub(crate) fn count(&mut self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.run(script, json!([selector])).as_u64().unwrap()
    }

    /// Waits for the element to say something of that kind.
    pub(crate) fn until_says(&mut self, selector: &str, words: &str, deadline: Duration) {
        let what = format!("{selector} says {words:?}");
        until(&what, deadline, || self.text(selector).contains(words).then_some(()));
    }

    /// Types into the element.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        let script = "const field = document.querySelector(arguments[0]);
            field.focus(); field.value = arguments[1];";
        self.run(script, json!([selector, text]));
    }

    /// Presses the tabulator, and says which element has the focus then.
    pub(crate) fn tab(&mut self) -> String {
        let keys = [("keyDown", TAB), ("keyUp", TAB)];
        let keys = keys.map(|(kind, key)| json!({ "type": kind, "value": key }));
        self.call(
            "actions",
            &json!({ "actions": [{ "type": "key", "id": "k", "actions": keys }] }),
        );
        let script = "const at = document.activeElement;
            return at.id || at.className || at.tagName";
        self.run(script, json!([])).as_str().unwrap().to_owned()
    }

    pub(crate) fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        let params = json!({ "features": features });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": params });
        self.call("goog/cdp/execute", &command);
    }

    /// What the page complained of since the last question.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let lines = self.call("se/log", &json!({ "type": "browser" }));
        let lines = lines.as_array().unwrap().iter();
        lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Keeps what the window shows beside the binaries, under `screenshots/`.
    pub(crate) fn keep(&mut self, name: &str) -> PathBuf {
        let target = format!("{}/screenshot", self.session);
        let encoded = self.ask("GET", &target, &Value::Null);
        let folder = binary("shoal").with_file_name("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, base64(encoded.as_str().unwrap())).unwrap();
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is the driver's child, and goes with its session.
        let target = self.session.clone();
        let _ = self.client.send(("DELETE", &target), &[], "");
        self.driver.terminate();
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let digits: Vec<usize> = digits.collect();
    let group = |four: &[usize]| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        let bytes = [bits >> 16, bits >> 8, bits].map(|byte| byte as u8);
        bytes[..four.len() - 1].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
