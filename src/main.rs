//! The command line: subcommands, flags, exit codes.

mod show;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bailiwick::admin::ExplainQuery;
use bailiwick::admin::explain::QTYPE_DEFAULT;
use bailiwick::digest::Digest;
use bailiwick::ledger::{PublicKey, page};
use bailiwick::load::{self, Glance, Rate};
use bailiwick::policy::load as policy_load;
use bailiwick::policy::order::Order;
use bailiwick::serve::proof::{self, Proof};
use bailiwick::serve::{self, Refusal, Report, Server};
use bailiwick::sign::files;
use bailiwick::{telemetry, tls};
use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const EXAMPLES: &str = "\
Examples:
  bailiwick                                                  serve with config/bailiwick.toml
  bailiwick check --config /etc/bailiwick.toml               read it and all it names
  bailiwick explain kickasstorrents.to --client 127.0.0.2    why that client is answered so
  bailiwick ledger verify                                    nothing in the ledger was changed
  RUST_LOG=bailiwick=debug bailiwick --log-format json       serve and say more, for machines

Exit status: 0 done, 1 a mistake or a failure, 2 the command line itself is mistaken.
A running server reloads on SIGHUP and on a change of its files, and drains on SIGTERM.";

/// Encrypted DNS (DoH and DoT) that carries out block orders exactly where they apply.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 120)]
struct CommandLine {
    /// The configuration file; what it leaves out has its default
    #[arg(long, global = true, value_name = "FILE", default_value = "config/bailiwick.toml")]
    config: PathBuf,

    #[command(flatten)]
    serve: Serve,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Default, Args)]
struct Serve {
    /// How `serve` writes its log lines, to standard error; RUST_LOG says which (default: info)
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people (the default)
    Human,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a command, too)
    #[command(after_help = "SIGHUP, or a change of the files on disk, reloads; SIGTERM drains and ends.")]
    Serve(Serve),
    /// Read the configuration and everything it names, and print every mistake with its place
    Check,
    /// What the answer to a query would be, by which order or list, and on which ground
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Every order: state, jurisdiction, targets, due and the time left, approvals, effective since
    #[command(after_help = "A running server is asked through its admin listener; without one the files are read.")]
    Orders {
        /// Print a JSON array of objects
        #[arg(long)]
        json: bool,
    },
    /// Sign an order's file, or make a key to sign with
    #[command(after_help = SIGN_EXAMPLES, override_usage = SIGN_USAGE)]
    Sign(Sign),
    /// What took effect when, from the ledger in the state folder: checked, or printed
    #[command(subcommand, after_help = LEDGER_EXAMPLES)]
    Ledger(LedgerCommand),
    /// Make a development CA and a certificate by it
    #[command(after_help = CERTS_EXAMPLES)]
    Certs(Certs),
    /// Load-test an encrypted resolver: how many queries a second, how long each takes
    #[command(after_help = LOAD_EXAMPLES)]
    Load(Load),
}

const EXPLAIN_EXAMPLES: &str = "\
A running server is asked through its admin listener; without one the files are read.

Examples:
  bailiwick explain kickasstorrents.to --client 127.0.0.2
  bailiwick explain www.example.org --type HTTPS --client 2001:db8::1 --json
  bailiwick explain example.org --at 2027-01-31T00:00:00Z";

#[derive(Debug, Args)]
struct Explain {
    /// The name that would be asked for
    name: String,
    /// The type that would be asked for: a mnemonic, or TYPE and a number
    #[arg(long = "type", value_name = "TYPE", default_value = QTYPE_DEFAULT)]
    qtype: String,
    /// The address of the client that would ask; without it, one whose country cannot be told
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// When it would ask, with an offset, such as 2027-01-31T00:00:00Z; without it, now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const SIGN_EXAMPLES: &str = "\
Signatures and keys are in minisign's format; that tool makes and verifies them too. A new secret
key is encrypted only with a --password-file; its file is its owner's alone. With [policy]
approvals = N an order's file counts when N keys of [[policy.key]] have signed it. A file with a
mistake in it is not signed.

Examples:
  bailiwick sign --new anna --out keys             make keys/anna.key and keys/anna.pub
  bailiwick sign orders/it.toml --key anna.key     write orders/it.toml.anna.minisig";

const SIGN_USAGE: &str = "\
bailiwick sign FILE --key KEY [--name NAME] [--password-file FILE]
       bailiwick sign --new NAME [--out DIR] [--password-file FILE]";

#[derive(Debug, Args)]
struct Sign {
    /// The order's file to sign
    #[arg(value_name = "FILE", required_unless_present = "new", conflicts_with = "new", requires = "key")]
    file: Option<PathBuf>,
    /// The secret key's file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Whose key it is, as [[policy.key]] has it; without it, the name of its file
    #[arg(long, value_name = "NAME", requires = "key")]
    name: Option<String>,
    /// A file whose first line is the password of the secret key; a new key is encrypted by it
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Make a key pair of this name
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    new: Option<String>,
    /// The folder to make it in
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

const LEDGER_EXAMPLES: &str = "\
The file alone is read; no server is asked. Each line has the SHA-256 of the line before and an
Ed25519 signature. Against the node's own operator a ledger proves nothing without a head that was
written down elsewhere: /metrics has it.

Examples:
  bailiwick ledger key                                       the public key, to be given away
  bailiwick ledger verify --head 9f86d0…                     nothing changed, or cut off since
  bailiwick ledger verify copy.jsonl --key 11qYAY…           elsewhere, by the file and the key
  bailiwick ledger report it-milan-2022-torrents > it.html   what was ordered, and when it began";

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Check every line, and name the first that is broken
    Verify {
        #[command(flatten)]
        ledger: Ledger,
        /// The hash of a line that was written down elsewhere; without that line the check fails
        #[arg(long, value_name = "HASH")]
        head: Option<Digest>,
    },
    /// Print every line, unchecked, a sentence each
    Show {
        /// The ledger; without it, ledger.jsonl in [state] folder
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print the lines as they are
        #[arg(long)]
        json: bool,
    },
    /// Print what the ledger says about an order: one page of HTML, for a court
    Report {
        /// The order's id
        order: String,
        /// The ledger; without it, ledger.jsonl in [state] folder
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The node's public key; without it, that of the state folder, or the one that the ledger names
        #[arg(long, value_name = "PUBLIC")]
        key: Option<PublicKey>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the public key that the ledger is signed with, in base64
    Key,
}

#[derive(Debug, Args)]
struct Ledger {
    /// The ledger; without it, ledger.jsonl in [state] folder
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The node's public key; without it, that of the state folder, or the one that the ledger names
    #[arg(long, value_name = "PUBLIC")]
    key: Option<PublicKey>,
}

const CERTS_EXAMPLES: &str = "\
Writes server.pem (the chain) and server.key; and ca.pem and ca.key, unless they are there. No
client trusts such a CA by itself: give it ca.pem.

Examples:
  bailiwick certs localhost 127.0.0.1 ::1
  bailiwick certs --out /etc/bailiwick/certs dns.example.net";

#[derive(Debug, Args)]
struct Certs {
    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// DNS names and IP addresses that the certificate is for
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

const LOAD_EXAMPLES: &str = "\
A line of the names file is NAME [TYPE], A without a type; # begins a comment. Queries go out
without EDNS, as dnsperf's do, and with it where they are padded. The measured time begins when
every connection was made (after 60 s at most), each with a first query of its own; a query has
5 s for its answer, and so long a run may last beyond its time. Ctrl-C ends it early.

At a --rate, queries are due by the clock, whatever the server does, and latency counts from when
one was due; it leaves at most 0.1 ms later, or when a connection has room for it. With --rate max
the next one leaves when one is answered, and latency counts from then.

Examples:
  bailiwick load dot 127.0.0.1:8853 --names names.txt
  bailiwick load doh https://127.0.0.1:8443/dns-query --names names.txt --rate 20000 --pad
  bailiwick load dot 127.0.0.1:8853 --names names.txt --queries-per-connection 1 --resume";

#[derive(Debug, Args)]
struct Load {
    /// What is spoken to the server
    #[arg(value_enum)]
    protocol: LoadProtocol,
    /// The server: https://HOST[:PORT][/PATH] for doh (443, /dns-query), HOST[:PORT] for dot (853)
    target: String,
    /// The file of what is asked
    #[arg(long, value_name = "FILE")]
    names: PathBuf,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = within(1..=100_000))]
    connections: u32,
    /// Queries under way on each connection
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = within(1..=10_000))]
    in_flight: u32,
    /// Queries a second over all connections, or max: as fast as they are answered
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = rate)]
    rate: Rate,
    /// How long queries are asked, such as 10s or 5m; an hour at most
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = load_time)]
    duration: Duration,
    /// The CA (PEM) that the server's certificate is by; a public one: /etc/ssl/certs/ca-certificates.crt
    #[arg(long, value_name = "FILE", default_value = "certs/ca.pem")]
    ca: PathBuf,
    /// Resume the TLS session of a connection before
    #[arg(long)]
    resume: bool,
    /// Pad queries to blocks of 128 octets, which asks for padded answers
    #[arg(long)]
    pad: bool,
    /// Ask by GET; without it by POST
    #[arg(long)]
    get: bool,
    /// Local addresses that connections come from, in turn: one has ports for some 28,000
    #[arg(long, value_name = "ADDRESS", num_args = 1.., value_delimiter = ',')]
    source: Vec<IpAddr>,
    /// End a connection that has asked so many, and make a new one; 0: never
    #[arg(long, value_name = "N", default_value_t = 0)]
    queries_per_connection: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Load a server that is not this machine: it is mine, or its operator has agreed
    #[arg(long)]
    i_may_load_this_server: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoadProtocol {
    /// DNS over HTTPS (HTTP/2)
    Doh,
    /// DNS over TLS
    Dot,
}

/// The longest that a load test goes on.
const LOAD_TIME_MAX: Duration = Duration::from_secs(60 * 60);

fn within(bounds: RangeInclusive<u32>) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*bounds.start())..=i64::from(*bounds.end()))
}

fn rate(text: &str) -> Result<Rate, &'static str> {
    match text {
        "max" => Ok(Rate::Max),
        _ => text.parse().map(Rate::PerSecond).map_err(|_| "a number of queries a second, or max"),
    }
}

fn load_time(text: &str) -> Result<Duration, String> {
    // A bare number is seconds, as other generators have it.
    let seconds = text.parse().map(Duration::from_secs);
    let time = seconds.or_else(|_| humantime::parse_duration(text)).map_err(|error| error.to_string())?;
    if time.is_zero() || time > LOAD_TIME_MAX { Err("more than 0s and at most 1h".to_owned()) } else { Ok(time) }
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    text.parse().map_err(|_| "a date, a time and an offset, such as 2027-01-31T00:00:00Z")
}

/// What a command has to say, and whether all is well.
#[derive(Debug, Default)]
struct Outcome {
    /// For standard output: what was asked for.
    out: String,
    /// For standard error: mistakes and warnings.
    err: String,
    bad: bool,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let config = &line.config;
    let outcome = match line.command.unwrap_or_else(|| Command::Serve(Serve::default())) {
        Command::Serve(inner) => serve(config, inner.log_format.or(line.serve.log_format)),
        Command::Check => check(serve::check(config)),
        Command::Explain(asked) => told(serve::explain(config, &asked.query()), asked.json, show::explanation),
        Command::Orders { json } => told(serve::orders(config), json, show::orders),
        Command::Sign(wanted) => sign(&wanted),
        Command::Ledger(command) => ledger(config, command),
        Command::Certs(wanted) => certs(&wanted),
        Command::Load(wanted) => load_server(&wanted),
    };
    // What was found comes before what is wrong with it.
    let printed = print(io::stdout(), &outcome.out).and_then(|()| print(io::stderr(), &outcome.err));
    if outcome.bad || printed.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn serve(config: &Path, format: Option<LogFormat>) -> Outcome {
    let format = match format {
        None | Some(LogFormat::Human) => telemetry::Format::Human,
        Some(LogFormat::Json) => telemetry::Format::Json,
    };
    if let Err(what) = telemetry::subscriber(format, std::env::var("RUST_LOG").ok()) {
        return failure(&[what]);
    }
    let served = Server::build(config).and_then(|server| {
        // Nobody may be reading, and the service is what matters.
        let _ = print(io::stdout(), &server.banner());
        server.run()
    });
    served.map_or_else(|refusal| failure(&refusal.lines), |()| Outcome::default())
}

fn check(found: Report) -> Outcome {
    let mistakes = found.mistakes.iter().map(|mistake| format!("{mistake}\n"));
    let warnings = found.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    Outcome { out: found.summary, err: mistakes.chain(warnings).collect(), bad: !found.mistakes.is_empty() }
}

/// JSON as it is, or as `show` puts it.
fn told(told: Result<Value, Refusal>, json: bool, show: fn(&Value) -> String) -> Outcome {
    match told {
        Ok(told) if json => Outcome { out: format!("{told:#}\n"), ..Outcome::default() },
        Ok(told) => Outcome { out: show(&told), ..Outcome::default() },
        Err(refusal) => failure(&refusal.lines),
    }
}

/// The page, or the object. Of a broken ledger what holds is printed, and that is told.
fn report(proof: &Proof, order: &str, json: bool) -> Outcome {
    let case = match proof::report(proof, order) {
        Ok(case) => case,
        Err(refusal) => return failure(&refusal.lines),
    };
    let out = match json {
        false => page::page(&case),
        // Strings, numbers and dates only: this cannot fail.
        true => serde_json::to_string_pretty(&case).unwrap_or_default() + "\n",
    };
    let broken = case.ledger.broken.map(|broken| format!("{}: {broken}\n", case.ledger.file));
    Outcome { out, bad: broken.is_some(), err: broken.unwrap_or_default() }
}

fn ledger(config: &Path, command: LedgerCommand) -> Outcome {
    let proof = |Ledger { file, key }| Proof { config: config.to_owned(), file, key };
    let told = match command {
        LedgerCommand::Verify { ledger, head } => proof::verify(&proof(ledger), head.as_ref()),
        LedgerCommand::Show { file, json } => {
            let shown = proof::show(&proof(Ledger { file, key: None }), json, &mut io::stdout().lock());
            shown.map(|()| (String::new(), None))
        }
        LedgerCommand::Report { order, file, key, json } => {
            return report(&Proof { config: config.to_owned(), file, key }, &order, json);
        }
        LedgerCommand::Key => proof::public_key(config).map(|key| (format!("{key}\n"), None)),
    };
    match told {
        Ok((out, warning)) => {
            let err = warning.map_or_else(String::new, |warning| format!("warning: {warning}\n"));
            Outcome { out, err, bad: false }
        }
        Err(refusal) => failure(&refusal.lines),
    }
}

impl Explain {
    fn query(&self) -> ExplainQuery {
        ExplainQuery { name: self.name.clone(), qtype: self.qtype.clone(), client: self.client, at: self.at }
    }
}

fn sign(wanted: &Sign) -> Outcome {
    let done = match (&wanted.new, &wanted.file, &wanted.key) {
        (Some(name), _, _) => {
            let password = wanted.password_file.as_deref();
            files::make_pair(name, &wanted.out, password).map_err(|what| vec![what])
        }
        (None, Some(file), Some(key)) => {
            let (password, name) = (wanted.password_file.as_deref(), wanted.name.as_deref());
            let wanted = files::Wanted { file, key, password, name };
            files::sign(&wanted, Timestamp::now(), |octets| mistakes(file, octets))
        }
        // The command line has all three or the first.
        (None, _, _) => Err(vec!["nothing to sign; name a file and a --key".to_owned()]),
    };
    done.map_or_else(|lines| failure(&lines), |out| Outcome { out, ..Outcome::default() })
}

/// What keeps an order's file from being signed.
fn mistakes(file: &Path, octets: &[u8]) -> Vec<String> {
    let Ok(text) = str::from_utf8(octets) else { return vec![format!("{}: not UTF-8", file.display())] };
    let found =
        Order::read(file, text).map_or_else(|found| found, |order| policy_load::lists_without_digest(&order, octets));
    found.iter().map(ToString::to_string).collect()
}

fn certs(wanted: &Certs) -> Outcome {
    let settings = tls::Settings { certificate: wanted.out.join("server.pem"), key: wanted.out.join("server.key") };
    // A key once made may be in use.
    if let Some(there) = [&settings.certificate, &settings.key].into_iter().find(|file| file.exists()) {
        let there = there.display();
        return failure(&[format!("{there} is there already; move it away, or name another folder with --out")]);
    }
    match tls::make_development(&settings, &wanted.names, Timestamp::now()) {
        Ok(ca) => Outcome { out: made(&settings, &ca), ..Outcome::default() },
        Err(tls::Error(what)) => failure(&[what]),
    }
}

fn made(settings: &tls::Settings, ca: &Path) -> String {
    let [certificate, key, ca] = [&settings.certificate, &settings.key, ca].map(Path::display);
    format!("certificate  {certificate}\nkey          {key}\nCA           {ca}, for clients to trust\n")
}

fn load_server(wanted: &Load) -> Outcome {
    let stop = stop_on_interrupt();
    let redraws = io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    // One line, cut where the terminal ends (DECAWM off) since a wrapped one could not be redrawn, in one write.
    let draw = |line: &str| {
        if redraws {
            let _ = io::stderr().write_all(format!("\r\u{1b}[?7l{line}\u{1b}[K\u{1b}[?7h").as_bytes());
        }
    };
    let loaded = load::run(&wanted.wanted(), &stop, &mut |glance: &Glance| draw(&load::show::live(glance)));
    draw("");
    match loaded {
        Ok(report) => {
            let out = if wanted.json { format!("{}\n", report.json()) } else { load::show::summary(&report) };
            Outcome { out, err: String::new(), bad: !report.is_answered() }
        }
        Err(lines) => failure(&lines),
    }
}

/// Is set by Ctrl-C; the second one ends the process.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    std::thread::spawn(move || {
        // Without a handler Ctrl-C ends the process as ever.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if theirs.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
            }
        });
    });
    stop
}

/// What shells say of a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

impl Load {
    fn wanted(&self) -> load::Wanted {
        load::Wanted {
            protocol: match self.protocol {
                LoadProtocol::Doh => load::Protocol::Doh,
                LoadProtocol::Dot => load::Protocol::Dot,
            },
            target: self.target.clone(),
            names: self.names.clone(),
            connections: self.connections as usize,
            in_flight: self.in_flight as usize,
            rate: self.rate,
            duration: self.duration,
            ca: self.ca.clone(),
            resume: self.resume,
            pad: self.pad,
            get: self.get,
            sources: self.source.clone(),
            queries_per_connection: self.queries_per_connection,
            may_load: self.i_may_load_this_server,
        }
    }
}

fn failure(lines: &[String]) -> Outcome {
    Outcome { out: String::new(), err: lines.iter().map(|line| format!("{line}\n")).collect(), bad: true }
}

/// Prints, and is content where nobody reads any more (`bailiwick orders | head -1`).
fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind as Usage;

    use super::*;

    fn line(words: &[&str]) -> Result<CommandLine, Usage> {
        CommandLine::try_parse_from(["bailiwick"].iter().chain(words)).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_text_is_wrapped_a_second_time() {
        fn texts(command: &clap::Command) -> Vec<String> {
            let own = command.get_after_help().map(ToString::to_string);
            own.into_iter().chain(command.get_subcommands().flat_map(texts)).collect()
        }
        let texts = texts(&CommandLine::command());
        assert!(texts.len() > 5, "{texts:?}");
        // Where no terminal is known, clap wraps at 100 columns.
        for line in texts.iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 98, "{line}");
        }
    }

    #[test]
    fn without_a_command_it_serves() {
        let plain = line(&[]).unwrap();
        assert!(plain.command.is_none());
        assert_eq!(plain.config, Path::new("config/bailiwick.toml"));
        assert!(plain.serve.log_format.is_none());
        let json = line(&["--log-format", "json", "--config", "a"]).unwrap();
        assert!(json.command.is_none() && json.serve.log_format == Some(LogFormat::Json));
        let Some(Command::Serve(serve)) = line(&["serve", "--log-format", "json"]).unwrap().command else { panic!() };
        assert_eq!(serve.log_format, Some(LogFormat::Json));
    }

    #[test]
    fn flags_for_all_stand_before_or_behind_the_command() {
        for words in [["--config", "a", "check"], ["check", "--config", "a"]] {
            let line = line(&words).unwrap();
            assert!(line.config == Path::new("a") && matches!(line.command, Some(Command::Check)));
        }
    }

    #[test]
    fn explain_takes_what_a_query_has() {
        let words = ["explain", "a.example", "--type", "AAAA", "--client", "::1", "--at", "2027-01-31T01:00:00+01:00"];
        let Some(Command::Explain(explain)) = line(&words).unwrap().command else { panic!("not explain") };
        let query = explain.query();
        assert_eq!((query.name.as_str(), query.qtype.as_str(), explain.json), ("a.example", "AAAA", false));
        assert_eq!((query.client, query.at), ("::1".parse().ok(), "2027-01-31T00:00:00Z".parse().ok()));
        let Some(Command::Explain(explain)) = line(&["explain", "a", "--json"]).unwrap().command else { panic!() };
        assert_eq!((explain.query().qtype.as_str(), explain.json), ("A", true));
        assert_eq!(line(&["explain"]).unwrap_err(), Usage::MissingRequiredArgument);
        assert_eq!(line(&["explain", "a", "--client", "b"]).unwrap_err(), Usage::ValueValidation);
        assert_eq!(line(&["explain", "a", "--at", "noon"]).unwrap_err(), Usage::ValueValidation);
    }

    #[test]
    fn a_load_test_is_bounded() {
        let words = |more: &[&'static str]| [&["load", "dot", "127.0.0.1", "--names", "n"], more].concat();
        let Some(Command::Load(load)) = line(&words(&[])).unwrap().command else { panic!("not load") };
        assert_eq!((load.rate, load.duration, load.connections), (Rate::Max, Duration::from_secs(10), 10));
        let more =
            ["--rate", "5", "--duration", "2m", "--source", "127.0.0.2,127.0.0.3", "127.0.0.4", "--in-flight", "1"];
        let Some(Command::Load(load)) = line(&words(&more)).unwrap().command else { panic!("not load") };
        assert_eq!((load.duration, load.source.len(), load.in_flight), (Duration::from_secs(120), 3, 1));
        for wrong in
            [["--rate", "0"], ["--duration", "0"], ["--duration", "2h"], ["--connections", "0"], ["--in-flight", "x"]]
        {
            assert_eq!(line(&words(&wrong)).unwrap_err(), Usage::ValueValidation, "{wrong:?}");
        }
        assert_eq!(line(&["load", "doq", "a", "--names", "n"]).unwrap_err(), Usage::InvalidValue);
        assert_eq!(line(&["load", "doh", "a"]).unwrap_err(), Usage::MissingRequiredArgument);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(line(&["preview"]).unwrap_err(), Usage::InvalidSubcommand);
        assert_eq!(line(&["--verbose"]).unwrap_err(), Usage::UnknownArgument);
        assert_eq!(line(&["certs"]).unwrap_err(), Usage::MissingRequiredArgument);
        assert_eq!(line(&["ledger", "show", "--key", "a"]).unwrap_err(), Usage::UnknownArgument);
        assert_eq!(line(&["--log-format", "xml"]).unwrap_err(), Usage::InvalidValue);
    }

    #[test]
    fn a_key_in_use_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("server.key"), "in use").unwrap();
        let report = certs(&Certs { out: folder.path().to_owned(), names: vec!["localhost".to_owned()] });
        assert!(report.bad && report.err.contains("server.key is there already"), "{}", report.err);
    }

    #[test]
    fn mistakes_fail_a_check_and_warnings_do_not() {
        let summary = "2 orders\n".to_owned();
        let warned = check(Report { warnings: vec!["odd".to_owned()], summary, ..Report::default() });
        assert_eq!((warned.out.as_str(), warned.err.as_str(), warned.bad), ("2 orders\n", "warning: odd\n", false));
        let mistaken = check(Report { mistakes: vec!["a.toml:1:1: b".to_owned()], ..Report::default() });
        assert_eq!((mistaken.err.as_str(), mistaken.bad), ("a.toml:1:1: b\n", true));
    }

    #[test]
    fn what_is_told_is_json_or_for_people() {
        let json = told(Ok(serde_json::json!([])), true, show::orders);
        assert_eq!((json.out.as_str(), json.bad), ("[]\n", false));
        assert_eq!(told(Ok(serde_json::json!([])), false, show::orders).out, "no orders\n");
        let refused = told(Err(Refusal { lines: vec!["a".to_owned()] }), true, show::orders);
        assert_eq!((refused.err.as_str(), refused.bad), ("a\n", true));
    }

    struct Pipe(ErrorKind);

    impl Write for Pipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        assert!(print(Pipe(ErrorKind::BrokenPipe), "text").is_ok());
        assert!(print(Pipe(ErrorKind::StorageFull), "text").is_err());
    }
}
