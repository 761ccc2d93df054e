//! Log lines: human or JSON, filtered, and kept from saying what must not be said.

use std::io::{IsTerminal, stderr};
use std::panic::{self, PanicHookInfo};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged where no filter is given.
const FILTER_DEFAULT: &str = "info";

/// Libraries that see client addresses, queried names or what else a client sends, and print it from a warning on. What
/// an operator needs of it we count and say ourselves.
const LIBRARIES: [&str; 9] =
    ["h2", "hickory_proto", "hyper", "hyper_util", "mio", "notify", "rustls", "tokio_rustls", "tower"];

/// Sends log lines, and panics among them, to standard error from now on. `filter` has the form of `RUST_LOG`; default `info`.
///
/// # Errors
/// When the filter cannot be read, or log lines already go somewhere: one line to show.
pub fn init(format: Format, filter: Option<String>) -> Result<(), String> {
    let subscriber = subscriber(format, filter.as_deref(), stderr().is_terminal(), stderr)?;
    subscriber.try_init().map_err(|error| error.to_string())?;
    panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Says where the code panicked, and not why: what `str` and `unwrap` say then quotes the octets they were given.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panicked: a bug, please report it");
}

fn subscriber<W>(
    format: Format,
    filter: Option<&str>,
    colours: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, String>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // An empty RUST_LOG means none, as everywhere.
    let filter = filter.filter(|filter| !filter.is_empty()).unwrap_or(FILTER_DEFAULT);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("log filter `{filter}`: {error}; write it as RUST_LOG has it, such as info or bailiwick=debug")
    })?;
    Ok(registry().with(cap()).with(filter).with(lines(format, colours, writer)))
}

fn lines<S, W>(format: Format, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        Format::Human => fmt::layer().with_ansi(colours).with_target(false).with_writer(writer).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    }
}

/// Whatever the filter says, only this crate is heard below `info`. Both have to let a line pass.
fn cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets(LIBRARIES.map(|library| (library, LevelFilter::ERROR)))
        .with_target(env!("CARGO_PKG_NAME"), LevelFilter::TRACE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{Level, enabled};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: Option<&str>, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        with_default(subscriber(format, filter, false, move || writer.clone()).unwrap(), log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    /// The hook is the process's: the test runs itself again in one of its own, where this variable is set.
    const IN_ITS_OWN_PROCESS: &str = "BAILIWICK_TEST_PANIC";

    #[test]
    fn a_panic_says_where_and_not_what() {
        if std::env::var_os(IN_ITS_OWN_PROCESS).is_some() {
            init(Format::Json, None).unwrap();
            let name = String::from("secret\u{e9}name.example");
            panic::catch_unwind(|| name[..7].len()).unwrap_err();
            return;
        }
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "--nocapture", "telemetry::log::tests::a_panic_says_where_and_not_what"]);
        let said = again.env(IN_ITS_OWN_PROCESS, "1").output().unwrap();
        let said = [said.stdout, said.stderr].map(|octets| String::from_utf8(octets).unwrap()).concat();
        assert!(said.contains("1 passed") && said.contains("panicked") && said.contains("log.rs:"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }

    #[test]
    fn no_filter_makes_a_library_talk() {
        for filter in
            ["trace", "h2=trace", "h2=trace,hyper=trace,rustls=trace,trace", "h2::codec=debug,hyper::proto=trace"]
        {
            logged(Format::Human, Some(filter), || {
                assert!(!enabled!(target: "h2", Level::TRACE));
                assert!(!enabled!(target: "h2::codec::framed_read", Level::DEBUG));
                assert!(!enabled!(target: "hyper::proto::h1::conn", Level::TRACE));
                assert!(!enabled!(target: "rustls::server::hs", Level::DEBUG));
                assert!(!enabled!(target: "tokio_rustls", Level::DEBUG));
                assert!(!enabled!(target: "hickory_proto::op", Level::INFO));
                assert!(!enabled!(target: "some_crate_to_come", Level::DEBUG));
            });
        }
    }

    #[test]
    fn a_library_s_lines_do_not_appear() {
        let lines = logged(Format::Human, Some("trace"), || {
            tracing::trace!(target: "h2", "frame of 198.51.100.7");
            tracing::debug!(target: "hyper::proto", "GET /dns-query?dns=AAAB");
            tracing::warn!(target: "rustls::server", "a name that a client made up");
            tracing::error!(target: "hyper::proto", "something is odd");
            tracing::trace!(target: "bailiwick::listener", "a connection");
        });
        assert!(lines.contains("something is odd") && lines.contains("a connection"));
        assert!(!lines.contains("198.51.100.7") && !lines.contains("dns=") && !lines.contains("made up"));
    }

    #[test]
    fn the_filter_holds_for_our_own_lines() {
        let log = || {
            tracing::info!("one");
            tracing::debug!("two");
        };
        assert!(!logged(Format::Human, None, log).contains("two"));
        assert!(!logged(Format::Human, Some(""), log).contains("two"));
        assert!(logged(Format::Human, Some("bailiwick=debug"), log).contains("two"));
        assert_eq!(logged(Format::Human, Some("warn"), log), "");
        let error = subscriber(Format::Human, Some("bailiwick=loud"), false, stderr).err().unwrap();
        assert!(error.contains("bailiwick=loud") && error.contains("RUST_LOG"), "{error}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines =
            logged(Format::Json, None, || tracing::warn!(bound = "in-flight", bites = 3, "a bound was reached"));
        let line: serde_json::Value = serde_json::from_str(lines.trim_end()).unwrap();
        assert_eq!((&line["bound"], &line["bites"]), (&"in-flight".into(), &3.into()));
        assert_eq!(line["message"], "a bound was reached");
    }
}
