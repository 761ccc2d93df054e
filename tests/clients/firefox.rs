//! Headless Firefox, driven over Marionette.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, find, run, skip, wait_for};

/// The longest that Firefox may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest that Firefox may take for one command; mode 3 gives up on a name after 30 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest that Firefox may take to quit before it is killed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// `network.trr.mode`.
#[derive(Debug, Clone, Copy)]
pub enum Trr {
    /// DoH first, then the system's resolver.
    First = 2,
    /// DoH only.
    Only = 3,
}

/// A browser with one tab.
#[derive(Debug)]
pub struct Firefox {
    stream: TcpStream,
    last_id: u64,
    _process: Process,
    _profile: TempDir,
}

impl Firefox {
    /// Starts it with this DoH server, whose CA it trusts. `system_names` are what its system resolver knows, at
    /// 127.0.0.1: lines of a hosts file that only this process sees. None where something is missing.
    pub fn start(mode: Trr, url: &str, ca: &Path, system_names: &[&str]) -> Option<Self> {
        let (program, certutil, unshare) = (find("firefox-esr")?, find("certutil")?, find("unshare")?);
        let profile = TempDir::new().expect("a folder for temporary files");
        let folder = profile.path();
        if !run(folder, Command::new(&unshare).args(["-m", "mount", "--bind", "/etc/hosts", "/etc/hosts"])).success {
            skip("a mount namespace for a private /etc/hosts is not permitted here");
            return None;
        }
        trust(&certutil, folder, ca);
        std::fs::write(folder.join("user.js"), preferences(mode, url)).expect("the preferences");
        let hosts: String = system_names.iter().map(|name| format!("127.0.0.1 {name}\n")).collect();
        std::fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{hosts}")).expect("the hosts file");
        let mut command = Command::new(unshare);
        command.args(["-m", "sh", "-c", "mount --bind hosts /etc/hosts && exec \"$@\"", "sh"]).arg(program);
        command.args(["--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile"]);
        command
            .arg(folder)
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .current_dir(folder);
        let process = Process::start(&mut command, &folder.join("firefox.log"));
        let stream = connect(folder);
        let mut browser = Self { stream, last_id: 0, _process: process, _profile: profile };
        browser.read();
        browser.command("WebDriver:NewSession", &json!({ "capabilities": { "alwaysMatch": {} } })).expect("a session");
        browser.confirm(mode);
        Some(browser)
    }

    /// In mode 2 Firefox asks its DoH server only once that is confirmed.
    fn confirm(&mut self, mode: Trr) {
        if matches!(mode, Trr::Only) {
            return;
        }
        self.command("Marionette:SetContext", &json!({ "value": "chrome" })).expect("access to the browser itself");
        let script = json!({ "script": "return Services.dns.currentTrrConfirmationState;", "args": [] });
        let mut state = Value::Null;
        let confirmed = wait_for(START_TIMEOUT, || {
            state = self.command("WebDriver:ExecuteScript", &script).unwrap_or_default();
            state["value"] == json!(2)
        });
        assert!(confirmed, "Firefox does not confirm the DoH server: state {state}");
        self.command("Marionette:SetContext", &json!({ "value": "content" })).expect("the page again");
    }

    /// Loads a page: its source, or the browser's error.
    pub fn load(&mut self, url: &str) -> Result<String, String> {
        self.command("WebDriver:Navigate", &json!({ "url": url }))?;
        let source = self.command("WebDriver:GetPageSource", &json!({}))?;
        Ok(source["value"].as_str().unwrap_or_default().to_owned())
    }

    /// One command: its result, or the error's message.
    fn command(&mut self, name: &str, parameters: &Value) -> Result<Value, String> {
        self.last_id += 1;
        let message = json!([0, self.last_id, name, parameters]).to_string();
        write!(self.stream, "{}:{message}", message.len()).expect("Firefox reads its connection");
        let answer = self.read();
        assert_eq!(answer[1], json!(self.last_id), "{name}: an answer to something else: {answer}");
        match &answer[2] {
            Value::Null => Ok(answer[3].clone()),
            error => Err(error["message"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// One message: its length in decimal, a colon, JSON.
    fn read(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut octet = [0];
            self.stream.read_exact(&mut octet).expect("Firefox answers within its time");
            match octet[0] {
                b':' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).expect("Firefox answers within its time");
        serde_json::from_slice(&message).expect("JSON")
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        // Quitting ends its content processes too; what is left then is ended by the handle. Nothing here may panic.
        let message = json!([0, self.last_id + 1, "Marionette:Quit", { "flags": ["eForceQuit"] }]).to_string();
        let _ = self.stream.set_read_timeout(Some(QUIT_TIMEOUT));
        let _ = write!(self.stream, "{}:{message}", message.len());
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}

/// Firefox writes down the port that it chose.
fn connect(profile: &Path) -> TcpStream {
    let mut stream = None;
    wait_for(START_TIMEOUT, || {
        let port = std::fs::read_to_string(profile.join("MarionetteActivePort")).ok();
        let port = port.and_then(|text| text.trim().parse::<u16>().ok());
        stream = port.and_then(|port| TcpStream::connect(("127.0.0.1", port)).ok());
        stream.is_some()
    });
    let said = std::fs::read_to_string(profile.join("firefox.log")).unwrap_or_default();
    let stream = stream.unwrap_or_else(|| panic!("Firefox does not start:\n{said}"));
    stream.set_read_timeout(Some(COMMAND_TIMEOUT)).expect("a timeout that is not zero");
    stream
}

/// DoH as wanted, and nothing else over the network.
fn preferences(mode: Trr, url: &str) -> String {
    let texts = [("network.trr.uri", url), ("network.trr.custom_uri", url)];
    let numbers = [("network.trr.mode", mode as i64), ("marionette.port", 0)];
    let flags = [
        ("network.trr.allow-rfc1918", true),
        // The system's resolver must be able to answer, or its silence would pass for a block that holds.
        ("network.trr.exclude-etc-hosts", false),
        ("network.dns.disablePrefetch", true),
        ("network.manage-offline-status", false),
        ("network.connectivity-service.enabled", false),
        ("network.captive-portal-service.enabled", false),
        ("dom.security.https_first", false),
        ("dom.security.https_only_mode", false),
        ("datareporting.policy.dataSubmissionEnabled", false),
        ("app.update.enabled", false),
        ("extensions.update.enabled", false),
        ("browser.safebrowsing.malware.enabled", false),
        ("browser.safebrowsing.phishing.enabled", false),
        ("browser.shell.checkDefaultBrowser", false),
        ("toolkit.telemetry.enabled", false),
    ];
    let mut text = String::from("user_pref(\"services.settings.server\", \"data:,\");\n");
    for (key, value) in texts {
        let _ = writeln!(text, "user_pref(\"{key}\", \"{value}\");");
    }
    for (key, value) in numbers {
        let _ = writeln!(text, "user_pref(\"{key}\", {value});");
    }
    for (key, value) in flags {
        let _ = writeln!(text, "user_pref(\"{key}\", {value});");
    }
    text
}

/// Puts a CA into the profile's certificate database.
fn trust(certutil: &Path, profile: &Path, ca: &Path) {
    let database = format!("sql:{}", profile.display());
    run(profile, Command::new(certutil).args(["-N", "--empty-password", "-d", &database]));
    let mut add = Command::new(certutil);
    add.args(["-A", "-t", "C,,", "-n", "test", "-d", &database, "-i"]).arg(ca);
    let said = run(profile, &mut add);
    assert!(said.success, "certutil: {}", said.text);
}
