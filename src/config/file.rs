//! The configuration file as it is written, with its places → [`Config`], or every mistake in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::table::{Bounds, Mistakes, Table, Value};
use super::{Config, policy};
use crate::dns::Name;
use crate::listener::Place;
use crate::listener::trust::Prefixes;
use crate::mistake::Mistake;
use crate::policy::load;
use crate::policy::origin::Country;
use crate::upstream::Resolvers;
use crate::{cache, listener, local, pages, pipeline, tls, upstream};

/// Where an upstream that is named without a port listens.
const DNS_PORT: u16 = 53;

const DOH_PATH_DEFAULT: &str = "/dns-query";
const DOH_PATH_OCTETS_MAX: usize = 255;

/// Left out, there is one per core.
const THREADS: Bounds<u32> = numbers(1, 1, 1024);
const DEADLINE: Bounds<Duration> = durations(5 * SECOND, 100 * MILLISECOND, 30 * SECOND);
const CACHE_OCTETS: Bounds<u64> = Bounds { default: 64 << 20, min: 1 << 20, max: 1 << 40 };
const TTL_MIN: Bounds<Duration> = durations(0, 0, DAY);
// RFC 8767 §4: a TTL is capped at seven days.
const TTL_MAX: Bounds<Duration> = durations(DAY, SECOND, 7 * DAY);
const STALE: Bounds<Duration> = durations(DAY, 0, 7 * DAY);
const STALE_AFTER: Bounds<Duration> = durations(500 * MILLISECOND, 0, 30 * SECOND);
const CONNECTIONS: Bounds<u32> = numbers(20_000, 0, 10_000_000);
const CONNECTIONS_PER_CLIENT: Bounds<u32> = numbers(1_000, 0, 10_000_000);
const QUERIES_PER_SECOND_PER_CLIENT: Bounds<u32> = numbers(0, 0, 10_000_000);
const IN_FLIGHT: Bounds<u32> = numbers(10_000, 0, 10_000_000);
const IN_FLIGHT_PER_CONNECTION: Bounds<u32> = numbers(256, 0, 65_535);
// No timeout can be turned off: each is all that ends a connection that says nothing.
const HANDSHAKE_TIMEOUT: Bounds<Duration> = durations(5 * SECOND, 100 * MILLISECOND, 60 * SECOND);
const MESSAGE_TIMEOUT: Bounds<Duration> = durations(10 * SECOND, 100 * MILLISECOND, 300 * SECOND);
const IDLE_TIMEOUT: Bounds<Duration> = durations(65 * SECOND, SECOND, 3_600 * SECOND);
const DRAIN_TIMEOUT: Bounds<Duration> = durations(10 * SECOND, 0, 600 * SECOND);

const MILLISECOND: u64 = 1;
const SECOND: u64 = 1_000 * MILLISECOND;
const DAY: u64 = 86_400 * SECOND;

/// Default, least and most, in milliseconds.
const fn durations(default: u64, min: u64, max: u64) -> Bounds<Duration> {
    Bounds { default: Duration::from_millis(default), min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

/// Default, least and most.
const fn numbers(default: u32, min: u32, max: u32) -> Bounds<u32> {
    Bounds { default, min, max }
}

/// See [`Config::parse`].
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, Vec<Mistake>> {
    let mistakes = Mistakes::new(path, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        mistakes.add(error.span().unwrap_or(0..0), format!("not TOML: {}", error.message()));
    }
    // What a table means is not asked while it may lack a key that could not be read.
    let config = errors.is_empty().then(|| Table::root(&table, &mistakes, config));
    mistakes.none()?;
    config.ok_or_else(Vec::new)
}

fn config(file: &mut Table<'_>) -> Config {
    let listen = file.table("listen", "[listen]", listen);
    let resolver = file.table("resolver", "[resolver]", resolver);
    let tls = file.table("tls", "[tls]", tls);
    let upstream = file.table("upstream", "[upstream]", upstream);
    let cache = file.table("cache", "[cache]", cache);
    let origin = file.table("origin", "[origin]", policy::origin);
    let policy = file.table("policy", "[policy]", policy::policy);
    let state = file.table("state", "[state]", state);
    let limits = file.table("limits", "[limits]", limits);
    let pages = resolver.name.as_ref().zip(port(&listen.doh)).map(|(name, port)| pages::url(name, port));
    Config {
        local: local::Settings {
            name: resolver.name,
            addresses: resolver.addresses,
            dot_port: port(&listen.dot),
            doh_port: port(&listen.doh),
            doh_path: listen.doh_path.clone(),
        },
        tls,
        upstream: upstream::Settings::of(upstream.resolvers),
        pipeline: pipeline::Settings {
            deadline: upstream.deadline,
            stale_after: cache.stale_after,
            trust_ad: upstream.trust_ad,
            in_flight: limits.in_flight,
            idle_timeout: limits.listener.idle_timeout,
        },
        cache: cache.settings,
        policy: load::Settings { origin, listeners: listen.countries(), state: Some(state.folder), pages, ..policy },
        ledger: state.ledger,
        admin: listen.admin,
        threads: listen.threads,
        listen: listener::Settings {
            doh: listen.doh,
            dot: listen.dot,
            doh_path: listen.doh_path,
            proxy_from: listen.proxy_from,
            forwarded_from: listen.forwarded_from,
            ..limits.listener
        },
    }
}

/// The port that discovery tells; one that the kernel is to choose (0) is not known yet.
fn port(places: &[Place]) -> Option<u16> {
    places.first().map(|place| place.address.port()).filter(|port| *port != 0)
}

struct Listen {
    doh: Vec<Place>,
    dot: Vec<Place>,
    proxy_from: Prefixes,
    forwarded_from: Prefixes,
    admin: Option<SocketAddr>,
    doh_path: String,
    threads: Option<NonZeroUsize>,
}

impl Listen {
    /// The countries that listeners say.
    fn countries(&self) -> Vec<Country> {
        self.doh.iter().chain(&self.dot).filter_map(|place| place.country).collect()
    }
}

fn listen(table: &mut Table<'_>) -> Listen {
    let doh = table.optional("doh", places).unwrap_or_else(|| loopback(8443));
    let dot = table.optional("dot", places).unwrap_or_else(|| loopback(8853));
    let admin = table.optional("admin", admin).unwrap_or(Some(SocketAddr::from(([127, 0, 0, 1], 8053))));
    let doh_path = table.optional("doh-path", |value| value.meaning(doh_path));
    let threads = table.optional("threads", |value| value.number(THREADS));
    let proxy_from = table.optional("proxy-from", prefixes).unwrap_or_default();
    let forwarded_from = table.optional("forwarded-from", prefixes).unwrap_or_default();
    if doh.is_empty() && dot.is_empty() {
        table.refuse("doh and dot are both empty; name an address for one of them");
    }
    let own = doh.iter().chain(&dot).map(|place| &place.address);
    let mut all: Vec<_> = own.chain(&admin).filter(|address| address.port() != 0).collect();
    all.sort_unstable();
    if let Some(twice) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        table.refuse(format_args!("{} is named twice; give each listener a port of its own", twice[0]));
    }
    Listen {
        doh,
        dot,
        proxy_from,
        forwarded_from,
        admin,
        doh_path: doh_path.unwrap_or_else(|| DOH_PATH_DEFAULT.to_owned()),
        threads: threads.and_then(|threads| NonZeroUsize::new(threads as usize)),
    }
}

fn loopback(port: u16) -> Vec<Place> {
    let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    addresses.map(|address| SocketAddr::new(address, port).into()).into()
}

fn places(value: Value<'_>) -> Option<Vec<Place>> {
    value.each(|value, _| place(value))
}

/// An address, or a table of one and the country of all who come there.
fn place(value: Value<'_>) -> Option<Place> {
    if value.is_text() {
        return value.meaning(own_address).map(Place::from);
    }
    if !value.is_table() {
        return value
            .refuse("not an address; write it in quotes, or as { address = \"127.0.0.1:8443\", country = \"IT\" }");
    }
    value.table("a listener", |table| {
        let address = table.required("address", |value| value.meaning(own_address));
        let country = table.required("country", |value| value.meaning(policy::country));
        Some(Place { address: address?, country: Some(country?) })
    })?
}

fn prefixes(value: Value<'_>) -> Option<Prefixes> {
    let prefixes = value.each(|value, earlier| unlike(value.meaning(policy::prefix)?, value, earlier));
    prefixes.map(|prefixes| prefixes.into_iter().collect())
}

fn own_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let hint = if text.parse::<IpAddr>().is_ok() { "it has no port" } else { "not an address with a port" };
        format!("{text:?}: {hint}; write it as \"127.0.0.1:8443\" or \"[::1]:8443\"")
    })
}

/// An empty text turns the listener off.
fn admin(value: Value<'_>) -> Option<Option<SocketAddr>> {
    value.meaning(|text| if text.is_empty() { Ok(None) } else { own_address(text).map(Some) })
}

/// RFC 8484 §3 has a URI template; ours is a path and `{?dns}`, which is not written.
fn doh_path(text: &str) -> Result<String, String> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&octet);
    if !text.starts_with('/') || !text.bytes().all(plain) || text.len() > DOH_PATH_OCTETS_MAX {
        return Err(format!(
            "{text:?} is not a path of at most {DOH_PATH_OCTETS_MAX} octets; write {DOH_PATH_DEFAULT:?}, without {{?dns}}"
        ));
    }
    if pages::Pages::has(text) {
        return Err(format!("{text:?} is where orders have their public pages; write {DOH_PATH_DEFAULT:?}"));
    }
    Ok(text.to_owned())
}

struct Resolver {
    name: Option<Name>,
    addresses: Vec<IpAddr>,
}

fn resolver(table: &mut Table<'_>) -> Resolver {
    let addresses =
        |value: Value<'_>| value.each(|value, earlier| unlike(value.meaning(public_address)?, value, earlier));
    Resolver {
        name: table.optional("name", Value::name),
        addresses: table.optional("addresses", addresses).unwrap_or_default(),
    }
}

fn public_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(format!("{text} is no host's address; write the public one")),
        Ok(address) => Ok(address),
        Err(_) => Err(format!("{text:?} is not an IP address; write it without a port")),
    }
}

/// The value, unless it stood there before.
fn unlike<T: PartialEq + std::fmt::Display>(value: T, place: Value<'_>, earlier: &[T]) -> Option<T> {
    if earlier.contains(&value) {
        place.refuse(format_args!("{value} is named twice; remove one"))
    } else {
        Some(value)
    }
}

fn tls(table: &mut Table<'_>) -> tls::Settings {
    tls::Settings {
        certificate: table.optional("certificate", Value::path).unwrap_or_else(|| "certs/server.pem".into()),
        key: table.optional("key", Value::path).unwrap_or_else(|| "certs/server.key".into()),
    }
}

struct Upstream {
    resolvers: Resolvers,
    deadline: Duration,
    trust_ad: bool,
}

fn upstream(table: &mut Table<'_>) -> Upstream {
    Upstream {
        resolvers: table.optional("resolvers", resolvers).unwrap_or(Resolvers::System),
        deadline: table.duration("deadline", DEADLINE),
        trust_ad: table.boolean("trust-ad", false),
    }
}

fn resolvers(value: Value<'_>) -> Option<Resolvers> {
    if value.is_text() {
        return value.meaning(|text| match text {
            "system" => Ok(Resolvers::System),
            _ => Err(format!("{text:?} is not known; write \"system\", or addresses in square brackets")),
        });
    }
    let listed = value.each(|value, earlier| unlike(value.meaning(resolver_address)?, value, earlier))?;
    if listed.is_empty() {
        value.refuse("no resolver in it; name one, or write \"system\"")
    } else {
        Some(Resolvers::Listed(listed))
    }
}

fn resolver_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    match bare.or_else(|_| text.parse::<SocketAddr>()) {
        Ok(address) if address.port() == 0 || address.ip().is_unspecified() => {
            Err(format!("nothing listens on {address}; write the resolver's own address and port"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!(
            "{text:?} is not an address; write \"192.0.2.1\", \"192.0.2.2:5353\" or \"[2001:db8::1]:5353\""
        )),
    }
}

struct Cache {
    settings: cache::Settings,
    stale_after: Duration,
}

fn cache(table: &mut Table<'_>) -> Cache {
    let settings = cache::Settings {
        memory: table.octets("memory", CACHE_OCTETS),
        ttl_min: table.seconds("ttl-min", TTL_MIN),
        ttl_max: table.seconds("ttl-max", TTL_MAX),
        stale: table.seconds("stale", STALE),
    };
    if settings.ttl_min > settings.ttl_max {
        table.refuse("ttl-min is above ttl-max; lower one or raise the other");
    }
    Cache { settings, stale_after: table.duration("stale-after", STALE_AFTER) }
}

struct State {
    folder: PathBuf,
    ledger: bool,
}

fn state(table: &mut Table<'_>) -> State {
    State {
        folder: table.optional("folder", Value::path).unwrap_or_else(|| "state".into()),
        ledger: table.boolean("ledger", true),
    }
}

struct Limits {
    /// Without its addresses and path.
    listener: listener::Settings,
    in_flight: usize,
}

fn limits(table: &mut Table<'_>) -> Limits {
    let listener = listener::Settings {
        doh: Vec::new(),
        dot: Vec::new(),
        doh_path: String::new(),
        proxy_from: Prefixes::default(),
        forwarded_from: Prefixes::default(),
        connections: table.count("connections", CONNECTIONS),
        connections_per_client: table.count("connections-per-client", CONNECTIONS_PER_CLIENT),
        queries_per_second_per_client: table.number("queries-per-second-per-client", QUERIES_PER_SECOND_PER_CLIENT),
        in_flight_per_connection: table.count("in-flight-per-connection", IN_FLIGHT_PER_CONNECTION),
        handshake_timeout: table.duration("handshake-timeout", HANDSHAKE_TIMEOUT),
        message_timeout: table.duration("message-timeout", MESSAGE_TIMEOUT),
        idle_timeout: table.duration("idle-timeout", IDLE_TIMEOUT),
        drain_timeout: table.duration("drain-timeout", DRAIN_TIMEOUT),
    };
    Limits { listener, in_flight: table.count("in-flight", IN_FLIGHT) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../config/bailiwick.toml");

    pub(in super::super) fn read(text: &str) -> Result<Config, Vec<Mistake>> {
        parse(Path::new("a.toml"), text)
    }

    pub(in super::super) fn mistakes(text: &str) -> Vec<String> {
        read(text).map_or_else(|mistakes| mistakes.iter().map(ToString::to_string).collect(), |_| Vec::new())
    }

    /// The one mistake of a file of one table and a line.
    pub(in super::super) fn mistake(table: &str, line: &str) -> String {
        let mut found = mistakes(&format!("[{table}]\n{line}"));
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        found.remove(0)
    }

    fn at(address: &str) -> Place {
        address.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = read("").unwrap();
        assert_eq!(config.listen.doh, ["127.0.0.1:8443", "[::1]:8443"].map(at));
        assert_eq!(config.listen.dot[0], at("127.0.0.1:8853"));
        assert!(config.listen.proxy_from == Prefixes::default() && config.listen.forwarded_from == Prefixes::default());
        assert_eq!(config.admin, "127.0.0.1:8053".parse().ok());
        assert_eq!((config.threads, config.upstream.resolvers), (None, Resolvers::System));
        assert_eq!(config.cache.memory, 64 << 20);
        assert_eq!((config.policy.orders, config.policy.hold_fallback), (None, true));
        assert_eq!((config.policy.state.as_deref(), config.ledger), (Some(Path::new("state")), true));
        assert_eq!((config.local.dot_port, config.local.doh_port), (Some(8853), Some(8443)));
        assert_eq!(config.pipeline, pipeline::Settings::default(), "stated there for tests and benches");
        assert_eq!(config.pipeline.idle_timeout, Duration::from_secs(65));
        assert_eq!((config.listen.connections, config.listen.connections_per_client), (20_000, 1_000));
        assert_eq!((config.listen.in_flight_per_connection, config.pipeline.in_flight), (256, 10_000));
    }

    /// The template's lines: with the commented ones in force, or without the examples.
    fn template(keep: impl Fn(bool) -> bool) -> String {
        let mut text = String::new();
        let mut in_example = false;
        for line in TEMPLATE.lines() {
            let commented = line.strip_prefix("# ").filter(|rest| {
                let key = rest.split('=').next().unwrap().trim_end();
                rest.starts_with("[[") || rest.contains('=') && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
            });
            in_example = !line.is_empty() && (in_example || commented.is_some_and(|rest| rest.starts_with("[[")));
            let example = in_example || line.contains("# example");
            if keep(example) {
                text.push_str(commented.unwrap_or(line));
            }
            text.push('\n');
        }
        text
    }

    #[test]
    fn every_default_of_the_template_is_one() {
        let default = read("");
        let shown = template(|example| !example);
        assert_eq!(read(&shown), default);
        // And none is missing: all that a file without examples may say stands there.
        for key in ["doh", "admin", "certificate", "deadline", "ttl-max", "hold-fallback", "folder", "drain-timeout"] {
            assert!(shown.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn the_template_reads_as_it_stands_and_with_all_its_examples() {
        let config = read(TEMPLATE).unwrap();
        assert_eq!(config.policy.orders.as_deref(), Some(Path::new("config/orders")));
        assert_eq!(config.policy.origin.networks.len(), 1);
        let config = read(&template(|_| true)).unwrap();
        assert_eq!((config.policy.lists.len(), config.policy.exemptions.len()), (1, 1));
        assert_eq!(config.policy.exemptions[0].expires, "2027-02-01T00:00:00Z".parse().ok());
        assert!(config.threads.is_some() && config.local.name.is_some() && config.policy.origin.default.is_some());
    }

    #[test]
    fn the_template_cut_anywhere_is_read_or_refused() {
        for cut in (0..TEMPLATE.len()).filter(|cut| TEMPLATE.is_char_boundary(*cut)) {
            assert!(read(&TEMPLATE[..cut]).map_or_else(|mistakes| !mistakes.is_empty(), |_| true), "cut at {cut}");
        }
        let all = template(|_| true);
        for cut in (0..all.len()).filter(|cut| all.is_char_boundary(*cut)) {
            assert!(read(&all[..cut]).map_or_else(|mistakes| !mistakes.is_empty(), |_| true), "cut at {cut}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place() {
        let text = "[listen]\ndohh = []\ndot = [\"127.0.0.1\", 7]\n\n[cache]\n  memory = \"64 parsecs\"\n\
                    [[policy.list]]\nname = \"a b\"\n[nonsense]\n";
        let places: Vec<_> = read(text).unwrap_err().iter().map(|mistake| (mistake.line, mistake.column)).collect();
        assert_eq!(
            places,
            [(2, 1), (3, 8), (3, 21), (6, 12), (7, 1), (7, 1), (7, 1), (8, 8), (9, 2)],
            "{:#?}",
            mistakes(text)
        );
    }

    #[test]
    fn what_is_not_toml_is_told_alone() {
        let found = mistakes("[listen\ndoh = [\n[cache]\nmemory = 1 2\nnonsense = true\n");
        assert!(!found.is_empty() && found.iter().all(|mistake| mistake.contains("not TOML")), "{found:#?}");
        assert!(
            mistake("cache", "memory = \"1MiB\"\nmemory = \"2MiB\"").starts_with("a.toml:3:1: not TOML: duplicate")
        );
    }

    #[test]
    fn addresses_are_checked() {
        assert!(mistake("listen", "doh = [\"127.0.0.1\"]").contains("has no port; write it as"));
        assert!(mistake("listen", "doh = \"127.0.0.1:1\"").contains("string found; write a list"));
        assert!(mistake("listen", "doh = []\ndot = []").contains("both empty"));
        assert!(mistake("listen", "doh = [\"127.0.0.1:8853\"]").contains("127.0.0.1:8853 is named twice"));
        assert!(mistake("upstream", "resolvers = []").contains("no resolver in it"));
        assert!(mistake("upstream", "resolvers = \"dns\"").contains("write \"system\""));
        assert!(mistake("upstream", "resolvers = [\"192.0.2.1\", \"192.0.2.1:53\"]").contains("named twice"));
        assert!(mistake("upstream", "resolvers = [\"0.0.0.0\"]").contains("nothing listens"));
        assert!(mistake("resolver", "addresses = [\"192.0.2.1:53\"]").contains("without a port"));
        assert!(mistake("resolver", "name = \".\"").contains("the root"));
        let config = read("[listen]\nadmin = \"\"\ndoh = []\ndot = [\"[::1]:0\", \"127.0.0.1:0\"]").unwrap();
        assert_eq!((config.admin, config.local.doh_port, config.local.dot_port), (None, None, None));
        let config = read("[upstream]\nresolvers = [\"192.0.2.1\", \"2001:db8::1\", \"[::1]:5353\"]").unwrap();
        let listed = ["192.0.2.1:53", "[2001:db8::1]:53", "[::1]:5353"].map(|address| address.parse().unwrap());
        assert_eq!(config.upstream.resolvers, Resolvers::Listed(listed.into()));
    }

    #[test]
    fn a_listener_may_have_a_country_of_its_own() {
        let table = "{ address = \"127.0.0.1:8443\", country = \"IT\" }";
        let config = read(&format!("[listen]\ndoh = [\"[::1]:8443\", {table}]\ndot = []")).unwrap();
        let italian = Place { country: Country::from_code("IT"), ..at("127.0.0.1:8443") };
        assert_eq!(config.listen.doh, [at("[::1]:8443"), italian]);
        assert_eq!(config.policy.listeners, Vec::from_iter(italian.country));
        let refused = |from: &str, to: &str| mistake("listen", &format!("doh = [{}]", table.replace(from, to)));
        assert!(refused("\"IT\"", "\"UK\"").starts_with("a.toml:2:48: country: \"UK\" is not a country"));
        assert!(refused("\"IT\"", "39").contains("integer found; write text in quotes"));
        assert!(refused(", country = \"IT\"", "").contains("a listener: no `country`"));
        assert!(refused("address = \"127.0.0.1:8443\", ", "").contains("a listener: no `address`"));
        assert!(refused("127.0.0.1:8443", "127.0.0.1").contains("has no port"));
        let unknown = format!("doh = [{}]", table.replace(" }", ", port = 1 }"));
        assert!(mistake("listen", &unknown).contains("unknown key `port` in a listener"));
        assert!(mistake("listen", "dot = [7]").starts_with("a.toml:2:8: dot: not an address; write it in quotes"));
        assert!(mistake("listen", &format!("doh = [{table}]\ndot = [\"127.0.0.1:8443\"]")).contains("named twice"));
    }

    #[test]
    fn proxies_are_prefixes() {
        let config = read("[listen]\nproxy-from = [\"192.0.2.0/24\"]\nforwarded-from = [\"2001:db8::/32\"]").unwrap();
        assert!(config.listen.proxy_from.contains([192, 0, 2, 7].into()));
        assert!(!config.listen.forwarded_from.contains([192, 0, 2, 7].into()));
        for key in ["proxy-from", "forwarded-from"] {
            let refused = |value: &str| mistake("listen", &format!("{key} = {value}"));
            assert!(refused("[\"192.0.2.1\"]").contains("write it as \"192.0.2.1/32\""));
            assert!(refused("[\"192.0.2.1/24\"]").contains("write 192.0.2.0/24"));
            assert!(refused("[\"::ffff:192.0.2.0/120\"]").contains("write the IPv4 prefix"));
            assert!(refused("[\"192.0.2.0/24\", \"192.0.2.0/24\"]").contains("named twice"));
            assert!(refused("\"192.0.2.0/24\"").contains("a list in square brackets"));
            assert!(refused("[7]").contains("integer found"));
        }
    }

    #[test]
    fn public_pages_have_their_place_and_their_url() {
        for path in ["/orders", "/orders/", "/orders/dns-query"] {
            let said = mistake("listen", &format!("doh-path = \"{path}\""));
            assert!(
                said.starts_with("a.toml:2:12: ") && said.contains("where orders have their public pages"),
                "{said}"
            );
        }
        assert_eq!(mistakes("[listen]\ndoh-path = \"/ordersx\""), [""; 0]);
        let url = |listen: &str, resolver: &str| {
            read(&format!("[listen]\n{listen}\n[resolver]\n{resolver}")).unwrap().policy.pages
        };
        let name = "name = \"dns.example.net\"";
        assert_eq!(url("", name).as_deref(), Some("https://dns.example.net:8443/orders/"));
        let ports = "doh = [\"127.0.0.1:443\", \"127.0.0.1:8443\"]";
        assert_eq!(url(ports, name).as_deref(), Some("https://dns.example.net/orders/"), "the first listener's");
        assert_eq!(url("doh = []", name), None, "there are no pages");
        assert_eq!(url("doh = [\"127.0.0.1:0\"]", name), None, "the port is not known yet");
        assert_eq!(url("", ""), None);
    }

    #[test]
    fn bounds_hold_from_both_sides() {
        for (table, key, inside, outside) in [
            ("upstream", "deadline", ["100ms", "30s"], ["99ms", "31s"]),
            ("cache", "memory", ["1MiB", "1TiB"], ["1023KiB", "1025GiB"]),
            ("cache", "ttl-max", ["1s", "7d"], ["0s", "8d"]),
            ("cache", "stale", ["0s", "7d"], ["7d 1s", "1500ms"]),
            ("cache", "stale-after", ["0s", "30s"], ["30001ms", "soon"]),
            ("limits", "handshake-timeout", ["100ms", "1m"], ["0s", "61s"]),
            ("limits", "message-timeout", ["100ms", "5m"], ["0s", "301s"]),
            ("limits", "idle-timeout", ["1s", "1h"], ["999ms", "61m"]),
            ("limits", "drain-timeout", ["0s", "10m"], ["11m", "-1s"]),
        ] {
            for value in inside {
                assert_eq!(mistakes(&format!("[{table}]\n{key} = \"{value}\"")), [""; 0]);
            }
            for value in outside {
                assert!(mistake(table, &format!("{key} = \"{value}\"")).starts_with("a.toml:2:"));
            }
        }
        assert!(mistake("limits", "connections = -1").contains("-1 is out of bounds; it takes 0 to 10000000"));
        assert!(mistake("limits", "connections = 1_000_000_000_000_000_000_000").contains("out of bounds"));
        assert!(mistake("listen", "threads = 0").contains("it takes 1 to 1024"));
        assert!(mistake("limits", "connections = \"many\"").contains("string found; write a whole number"));
        assert!(mistake("upstream", "deadline = 5").contains("integer found; write text in quotes"));
        assert!(mistake("upstream", "trust-ad = 1").contains("true or false"));
        assert!(mistake("state", "ledger = \"yes\"").contains("true or false"));
        assert!(!read("[state]\nledger = false").unwrap().ledger);
        assert!(mistake("cache", "ttl-min = \"2m\"\nttl-max = \"1m\"").contains("ttl-min is above ttl-max"));
    }

    #[test]
    fn what_is_planned_is_said_to_be() {
        let said = mistake("policy", "protected = \"x\"");
        assert!(said.contains("a.toml:2:1: `protected` is not supported yet; "), "{said}");
    }
}
