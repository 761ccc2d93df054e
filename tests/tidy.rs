//! Keeps the style alive: fails with file, line and the rule that was broken.
//!
//! The rules are those of ARCHITECTURE.md and CONTRIBUTING.md that a text scan can hold.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use of the others, rows above it only. `clock`, `digest` and `mistake` are everyone's but `dns`.
const IMPORTS: [(&str, &[&str]); 26] = [
    ("dns", &[]),
    ("mistake", &[]),
    ("digest", &[]),
    ("query", &["dns"]),
    ("clock", &["query"]),
    ("crowd", &[]),
    ("sign", &[]),
    ("policy", &["dns", "query", "sign"]),
    ("ledger", &["dns", "policy"]),
    ("cache", &["dns", "query", "policy"]),
    ("tls", &[]),
    ("upstream", &["dns", "query", "policy"]),
    ("local", &["dns", "query"]),
    ("answer", &["dns", "query", "local", "policy", "upstream"]),
    ("telemetry", &["dns"]),
    ("pipeline", &["dns", "query", "policy", "ledger", "cache", "upstream", "local", "answer", "telemetry", "crowd"]),
    ("listener", &["dns", "query", "answer", "crowd", "pipeline", "tls", "telemetry"]),
    ("admin", &["dns", "query", "policy", "ledger", "upstream", "answer", "telemetry", "pipeline", "tls"]),
    ("pages", &["dns", "policy", "ledger", "telemetry", "pipeline"]),
    ("probe", &["dns", "policy", "ledger", "telemetry", "pipeline"]),
    ("load", &["dns"]),
    (
        "config",
        &[
            "dns",
            "query",
            "sign",
            "policy",
            "ledger",
            "cache",
            "tls",
            "upstream",
            "local",
            "answer",
            "telemetry",
            "pipeline",
            "listener",
            "admin",
            "pages",
        ],
    ),
    ("show", EVERYTHING),
    ("serve", EVERYTHING),
    ("main", EVERYTHING),
    ("lib", EVERYTHING),
];

/// Stands for every module.
const EVERYTHING: &[&str] = &["*"];

/// Crates that a module keeps away from: the middle has no sockets, no tasks and no TLS.
const FOREIGN: [(&str, &[&str]); 9] = [
    ("dns", &["tokio", "hyper", "rustls", "jiff"]),
    ("query", &["tokio", "hyper", "rustls", "hickory_proto"]),
    ("policy", &["tokio", "hyper", "rustls"]),
    ("cache", &["tokio", "hyper", "rustls"]),
    ("local", &["tokio", "hyper", "rustls"]),
    ("answer", &["tokio", "hyper", "rustls"]),
    ("telemetry", &["hyper", "rustls"]),
    ("upstream", &["hyper", "rustls"]),
    ("pipeline", &["hyper", "rustls"]),
];

/// The edges, which read clocks; everywhere else the time is passed in.
const CLOCK_READERS: [&str; 9] =
    ["clock", "listener", "upstream", "serve", "main", "tls", "telemetry", "admin", "load"];

/// The longest function, in lines: a screen.
const FUNCTION_LINES_MAX: usize = 60;

/// The longest that ARCHITECTURE.md may get.
const ARCHITECTURE_LINES_MAX: usize = 150;

#[test]
fn the_house_is_tidy() {
    let mut broken = Vec::new();
    let files = files("src", "rs");
    let tests: Vec<_> = files.iter().flat_map(|file| test_modules(file)).collect();
    for file in files.iter().filter(|file| !tests.contains(file)) {
        let source = Source::read(file);
        broken.extend(header(&source));
        broken.extend(imports(&source));
        broken.extend(foreign(&source));
        broken.extend(panics(&source));
        broken.extend(clocks(&source));
        broken.extend(prints(&source));
        broken.extend(bounds(&source));
        broken.extend(functions(&source));
    }
    broken.extend(machine_paths());
    broken.extend(dependencies());
    broken.extend(documents());
    assert!(broken.is_empty(), "{} rules broken:\n{}", broken.len(), broken.join("\n"));
}

/// A source file without its tests, beside its text without comments and strings.
struct Source {
    file: PathBuf,
    module: String,
    lines: Vec<String>,
    code: Vec<String>,
}

impl Source {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a source file that can be read");
        let lines = without_tests(&text);
        let code = lines.iter().map(|line| code_of(line)).collect();
        let inside = file.strip_prefix("src").expect("a file of src/");
        let first = inside.iter().next().expect("a file name").to_string_lossy();
        Self { file: file.to_owned(), module: first.trim_end_matches(".rs").to_owned(), lines, code }
    }

    /// Every line of code for which `broken` has something to say.
    fn each(&self, mut broken: impl FnMut(usize, &str) -> Option<String>) -> Vec<String> {
        let numbered = self.code.iter().enumerate();
        numbered.filter_map(|(at, line)| broken(at, line).map(|rule| place(&self.file, at + 1, &rule))).collect()
    }
}

/// What comes before the tests, which stand last.
fn without_tests(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let begins = |at: usize| lines[at] == "#[cfg(test)]" && declared(&lines[at + 1..]).is_none();
    let end = (0..lines.len()).find(|at| begins(*at)).unwrap_or(lines.len());
    lines[..end].iter().map(|line| (*line).to_owned()).collect()
}

/// The files of the modules that a file declares for its tests.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).expect("a source file that can be read");
    let lines: Vec<_> = text.lines().collect();
    let marked = (0..lines.len()).filter(|at| lines[*at] == "#[cfg(test)]");
    let names = marked.filter_map(|at| declared(&lines[at + 1..]));
    let folder = if file.ends_with("lib.rs") { PathBuf::from("src") } else { file.with_extension("") };
    names.map(|name| folder.join(name).with_extension("rs")).collect()
}

/// The module that a `mod name;` declares behind its attributes.
fn declared(lines: &[&str]) -> Option<String> {
    let line = lines.iter().find(|line| !line.starts_with("#["))?;
    let (_, name) = line.split_once("mod ")?;
    name.strip_suffix(';').map(str::to_owned)
}

fn place(file: &Path, line: usize, rule: &str) -> String {
    format!("{}:{line}: {rule}", file.display())
}

/// A line without its comment, its strings emptied.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut octets = line.char_indices().peekable();
    while let Some((at, character)) = octets.next() {
        match character {
            '"' if !code.ends_with('\'') => {
                quoted = !quoted;
                code.push('"');
            }
            '\\' if quoted => drop(octets.next()),
            _ if quoted => {}
            '/' if line[at..].starts_with("//") => break,
            other => code.push(other),
        }
    }
    code
}

/// Every file begins with its one job.
fn header(source: &Source) -> Option<String> {
    let first = source.lines.first().map(String::as_str).unwrap_or_default();
    let rule = "a file begins with a `//!` sentence that says its one job";
    let paragraph = source.lines.iter().take_while(|line| line.starts_with("//! ")).last();
    let ends = paragraph.is_some_and(|line| line.ends_with(['.', ':']));
    (!first.starts_with("//! ") || !ends).then(|| place(&source.file, 1, rule))
}

fn imports(source: &Source) -> Vec<String> {
    let module = source.module.as_str();
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return vec![place(&source.file, 1, "say in tests/tidy.rs what this module may use")];
    };
    if *allowed == EVERYTHING {
        return Vec::new();
    }
    let everyones = |used: &str| module != "dns" && matches!(used, "clock" | "digest" | "mistake");
    source.each(|at, _| {
        let used = used_modules(&source.code, at);
        let wrong =
            used.into_iter().find(|used| used != module && !everyones(used) && !allowed.contains(&used.as_str()))?;
        Some(format!("`{module}` may not use `{wrong}` (ARCHITECTURE.md, who may use whom)"))
    })
}

/// The modules that `crate::` on this line leads to; a group may go on over the next lines.
fn used_modules(code: &[String], at: usize) -> Vec<String> {
    let mut used = Vec::new();
    for (start, _) in code[at].match_indices("crate::").filter(|(start, _)| !is_word(&code[at], *start)) {
        let rest = &code[at][start + "crate::".len()..];
        if rest.starts_with('{') {
            let group = format!("{rest}{}", code[at + 1..].join(" "));
            used.extend(group_heads(&group));
        } else {
            used.push(word(rest));
        }
    }
    used
}

/// Whether what starts here goes on a word (`$crate` is no macro of ours, `my_crate::` no module).
fn is_word(line: &str, start: usize) -> bool {
    line[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_')
}

fn word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The first words of a `{a, b::{c, d}, e}` group.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut fresh) = (0, false);
    for (at, character) in group.char_indices() {
        match character {
            '{' => {
                depth += 1;
                fresh = depth == 1;
            }
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => fresh = depth == 1,
            ' ' => {}
            _ if fresh => {
                heads.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn foreign(source: &Source) -> Vec<String> {
    let Some((_, banned)) = FOREIGN.iter().find(|(module, _)| *module == source.module) else { return Vec::new() };
    source.each(|_, line| {
        let used = |name: &&&str| {
            line.match_indices(&format!("{name}::")).any(|(start, _)| !is_word(line, start))
                && !line.contains(&format!("crate::{name}"))
        };
        banned.iter().find(used).map(|name| format!("`{}` keeps away from {name}", source.module))
    })
}

/// `unwrap()` and `expect(` stand with their reason: a comment or an attribute's `reason`, beside or just above.
fn panics(source: &Source) -> Vec<String> {
    source.each(|at, line| {
        let panics = line.contains(".unwrap()") || line.contains(".expect(");
        let near = &source.lines[at.saturating_sub(4)..=at];
        let reason = near.iter().any(|line| line.contains("// ") || line.contains("reason ="));
        (panics && !reason).then(|| "`unwrap` or `expect` without its reason beside it".into())
    })
}

fn clocks(source: &Source) -> Vec<String> {
    const READS: [&str; 4] = ["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"];
    if CLOCK_READERS.contains(&source.module.as_str()) {
        return Vec::new();
    }
    let reads = |line: &str| READS.into_iter().find(|read| line.contains(read));
    source.each(|_, line| reads(line).map(|read| format!("`{read}` outside the edges; the time is passed in")))
}

fn prints(source: &Source) -> Vec<String> {
    const PRINTS: [&str; 5] = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
    if source.module == "main" {
        return Vec::new();
    }
    let prints = |line: &str| PRINTS.into_iter().find(|print| line.contains(print));
    source.each(|_, line| prints(line).map(|print| format!("`{print}` outside main.rs; log with `tracing`")))
}

/// A duration or capacity in figures is a bound, and a bound has a name: it stands in a `const`, a default or a setting.
fn bounds(source: &Source) -> Vec<String> {
    const FIGURES: [&str; 5] = ["from_secs(", "from_millis(", "from_mins(", "from_hours(", "with_capacity("];
    let figure = |line: &str| {
        FIGURES.iter().any(|call| {
            let argument = line.split_once(call).map(|(_, argument)| argument);
            // One second or one millisecond is a unit.
            argument.is_some_and(|rest| {
                rest.starts_with(|first: char| ('1'..='9').contains(&first)) && !rest.starts_with("1)")
            })
        })
    };
    let named = |at: usize| {
        let near = &source.code[at.saturating_sub(2)..=at];
        near.iter().any(|line| line.contains("const ") || line.contains("_or(")) || in_default(&source.code, at)
    };
    if source.module == "config" {
        return Vec::new();
    }
    source.each(|at, line| (figure(line) && !named(at)).then(|| "a bound without a name; make it a `const`".into()))
}

/// Whether the function around this line is a `default`.
fn in_default(code: &[String], at: usize) -> bool {
    code[..at].iter().rev().find(|line| line.contains("fn ")).is_some_and(|line| line.contains("default"))
}

/// A function fits on a screen. The code is formatted, so a function ends where its indentation comes back.
fn functions(source: &Source) -> Vec<String> {
    source.each(|at, line| {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let begins = trimmed.split_once("fn ").is_some_and(|(before, _)| {
            before.split(' ').all(|word| matches!(word, "" | "pub" | "async" | "const" | "pub(crate)" | "pub(super)"))
        });
        let end = format!("{}}}", " ".repeat(indent));
        let length = source.code[at..].iter().position(|line| *line == end)?;
        let one_line = line.ends_with('}') || line.ends_with(';');
        (begins && !one_line && length > FUNCTION_LINES_MAX)
            .then(|| format!("a function of {length} lines; a screen is {FUNCTION_LINES_MAX}"))
    })
}

/// Nothing of the machine it was written on.
fn machine_paths() -> Vec<String> {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut broken = Vec::new();
    let folders = ["src", "tests", "benches", "config", "fuzz", ".ci"];
    let texts = folders.iter().flat_map(|folder| files(folder, ""));
    for file in texts.chain(files_of(Path::new("."), "md")).chain([PathBuf::from("Cargo.toml")]) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (at, line) in text.lines().enumerate() {
            if let Some(path) = paths.iter().find(|path| line.contains(**path)) {
                broken.push(place(&file, at + 1, &format!("a path of one machine: {path}")));
            }
        }
    }
    broken
}

/// A sentence above each dependency says what it is for.
fn dependencies() -> Vec<String> {
    let text = fs::read_to_string("Cargo.toml").expect("Cargo.toml");
    let mut broken = Vec::new();
    let (mut inside, mut said) = (false, false);
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]");
        } else if inside && !line.trim().is_empty() && !line.starts_with('#') && !said {
            broken.push(place(Path::new("Cargo.toml"), at + 1, "a dependency without the sentence that says why"));
        }
        said = line.starts_with("# ");
    }
    broken
}

/// What an operator reads: it is there, and names every limit.
fn documents() -> Vec<String> {
    let Ok(readme) = fs::read_to_string("README.md") else {
        eprintln!("skipped: there is no README.md yet, so the documents are not looked at");
        return Vec::new();
    };
    let mut broken = Vec::new();
    for file in ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "certs/README.md"] {
        if !Path::new(file).exists() {
            broken.push(place(Path::new(file), 0, "is missing"));
        }
    }
    let template = fs::read_to_string("config/bailiwick.toml").unwrap_or_default();
    let unnamed = limit_keys(&template).into_iter().filter(|(_, key)| !readme.contains(key.as_str()));
    broken.extend(unnamed.map(|(line, key)| {
        place(Path::new("config/bailiwick.toml"), line, &format!("README.md does not name the limit `{key}`"))
    }));
    let architecture = fs::read_to_string("ARCHITECTURE.md").unwrap_or_default().lines().count();
    if architecture > ARCHITECTURE_LINES_MAX {
        let rule = format!("is longer than {ARCHITECTURE_LINES_MAX} lines");
        broken.push(place(Path::new("ARCHITECTURE.md"), architecture, &rule));
    }
    broken
}

/// The keys of `[limits]`, those that are commented out to show their default too.
fn limit_keys(template: &str) -> Vec<(usize, String)> {
    let mut keys = Vec::new();
    let mut inside = false;
    for (at, line) in template.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.starts_with("[limits]");
        }
        let key = line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key.trim());
        if let Some(key) = key.filter(|key| inside && !key.is_empty() && !key.contains(' ')) {
            keys.push((at + 1, key.to_owned()));
        }
    }
    keys
}

/// The files of a folder and all below it, by name; an empty extension takes every one.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        found.extend(files_of(&folder, extension));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.extend(entries.filter(|path| path.is_dir() && !path.ends_with("target")));
    }
    found.sort();
    found
}

fn files_of(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| extension.is_empty() || path.extension().is_some_and(|found| found == extension);
    entries.filter(|path| path.is_file() && fits(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_groups_too() {
        let code = ["use crate::{dns::{Name, Qtype}, cache,".to_owned(), "    policy::Permitted};".to_owned()];
        assert_eq!(used_modules(&code, 0), ["dns", "cache", "policy"]);
        assert_eq!(used_modules(&["let a = crate::tls::x(crate::dns::y);".to_owned()], 0), ["tls", "dns"]);
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        assert_eq!(code_of(r#"a("x // \" crate::dns", b) // crate::tls"#), r#"a("", b) "#);
    }

    #[test]
    fn limits_are_found_commented_out_too() {
        let template =
            "[listen]\nport = 1\n[limits]\nconnections = 2\n# idle-timeout = \"65s\"\n# words of a comment\n";
        let keys: Vec<_> = limit_keys(template).into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys, ["connections", "idle-timeout"]);
    }
}
