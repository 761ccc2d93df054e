//! Headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, find, run, skip, wait_for};

/// The longest that Chromium may take for one command; it gives up on a name after 12 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(40);

/// The longest that Chromium may take to close before it is killed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Switches that keep a browser quiet and in a container.
const SWITCHES: [&str; 15] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--disable-features=HttpsUpgrades,OptimizationHints,MediaRouter",
    "--remote-debugging-pipe",
];

/// A browser with one tab, whose only way to resolve names is DoH.
#[derive(Debug)]
pub struct Chromium {
    commands: File,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    process: Process,
    _reader: JoinHandle<()>,
    _home: TempDir,
}

impl Chromium {
    /// Starts it in secure mode with this DoH server, whose CA it trusts; None where it is not installed.
    pub fn start(url: &str, ca: &Path) -> Option<Self> {
        let (program, certutil) = (find("chromium")?, find("certutil")?);
        let home = TempDir::new().expect("a folder for temporary files");
        trust(&certutil, home.path(), ca);
        let state = json!({ "dns_over_https": { "mode": "secure", "templates": format!("{url}{{?dns}}") } });
        std::fs::create_dir(home.path().join("profile")).expect("the profile");
        std::fs::write(home.path().join("profile/Local State"), state.to_string()).expect("its settings");
        if !run(home.path(), Command::new("mkfifo").arg("in").arg("out").current_dir(home.path())).success {
            skip("mkfifo makes no pipe");
            return None;
        }
        // Chromium reads commands at descriptor 3 and writes to 4; a shell puts the pipes there.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<in 4>out", "sh"]).arg(program).args(SWITCHES);
        command.arg(format!("--user-data-dir={}", home.path().join("profile").display())).arg("about:blank");
        command.env("HOME", home.path()).env("TMPDIR", home.path()).current_dir(home.path());
        let process = Process::start(&mut command, &home.path().join("chromium.log"));
        let commands = OpenOptions::new().write(true).open(home.path().join("in")).expect("the pipe to it");
        let answers = File::open(home.path().join("out")).expect("the pipe from it");
        let (sender, messages) = channel();
        let reader = spawn(move || read_messages(answers, |message| sender.send(message).is_ok()));
        let mut browser =
            Self { commands, messages, session: String::new(), last_id: 0, process, _reader: reader, _home: home };
        browser.open_tab();
        Some(browser)
    }

    fn open_tab(&mut self) {
        let target = self.command("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.command("Target.attachToTarget", &target);
        attached["sessionId"].as_str().expect("a session").clone_into(&mut self.session);
        self.command("Page.enable", &json!({}));
    }

    /// Loads a page: its text, or the browser's error.
    pub fn load(&mut self, url: &str) -> Result<String, String> {
        let navigated = self.command("Page.navigate", &json!({ "url": url }));
        if let Some(error) = navigated["errorText"].as_str() {
            return Err(error.to_owned());
        }
        let script = "new Promise(done => { const look = () => document.readyState === 'complete' \
            ? done(document.body.innerText) : setTimeout(look, 20); look(); })";
        let text = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let text = self.command("Runtime.evaluate", &text);
        Ok(text["result"]["value"].as_str().unwrap_or_default().to_owned())
    }

    /// One command, and its result.
    fn command(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        write!(self.commands, "{message}\0").expect("Chromium reads its pipe");
        let end = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|_| panic!("Chromium did not answer {method}"));
            if message["id"] == json!(self.last_id) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Closing ends its helper processes too, which would write into the folder while it is removed.
        self.last_id += 1;
        let _ = write!(self.commands, "{}\0", json!({ "id": self.last_id, "method": "Browser.close" }));
        wait_for(CLOSE_TIMEOUT, || self.process.has_ended());
    }
}

/// Messages end in NUL.
fn read_messages(mut pipe: File, mut take: impl FnMut(Value) -> bool) {
    let mut text = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(read) = pipe.read(&mut buffer) {
        if read == 0 {
            return;
        }
        text.extend(&buffer[..read]);
        while let Some(end) = text.iter().position(|octet| *octet == 0) {
            let message: Vec<u8> = text.drain(..=end).collect();
            if !serde_json::from_slice(&message[..end]).is_ok_and(&mut take) {
                return;
            }
        }
    }
}

/// Puts a CA into the certificate database that Chromium reads.
fn trust(certutil: &Path, home: &Path, ca: &Path) {
    let folder = home.join(".pki/nssdb");
    std::fs::create_dir_all(&folder).expect("a folder inside our own");
    let database = format!("sql:{}", folder.display());
    run(home, Command::new(certutil).args(["-N", "--empty-password", "-d", &database]));
    let mut add = Command::new(certutil);
    add.args(["-A", "-t", "C,,", "-n", "test", "-d", &database, "-i"]).arg(ca);
    let said = run(home, &mut add);
    assert!(said.success, "certutil: {}", said.text);
}
