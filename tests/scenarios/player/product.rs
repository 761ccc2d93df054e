//! The product as scenarios have it: built of its parts, with a scripted network and a simulated clock.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bailiwick::cache::{self, Cache};
use bailiwick::clock::Clock;
use bailiwick::dns::edns::SdeOption;
use bailiwick::local::{self, Locals};
use bailiwick::mistake::Mistake;
use bailiwick::pages;
use bailiwick::pipeline::{self, Parts, Pipeline};
use bailiwick::policy::Policy;
use bailiwick::policy::index::Covers;
use bailiwick::policy::list::Format;
use bailiwick::policy::load::{self, Exemption, ListSettings, LoadedDatabase, LoadedOrder};
use bailiwick::policy::order::{Effect, Order};
use bailiwick::policy::origin::{self, Country, Database};
use bailiwick::telemetry::Telemetry;
use bailiwick::upstream::{self, Resolvers, Upstream};
use jiff::Timestamp;

use super::mmdb;
use super::network::{Script, Scripts};
use super::records::name;
use super::script::{Change, Scenario, Trouble};

/// A running product and the files its policy is made from.
pub struct Product {
    /// What is tested.
    pub pipeline: Arc<Pipeline>,
    files: Files,
    policy: Policy,
}

/// What a policy is made from.
struct Files {
    settings: load::Settings,
    orders: Vec<LoadedOrder>,
    /// What the files of lists and of list targets say.
    texts: load::Files,
    database: Option<LoadedDatabase>,
}

impl Product {
    /// Builds it. The one place that knows how the parts are put together, as `serve` does.
    pub fn build(scenario: &Scenario, script: &Arc<Script>) -> Result<Self, Trouble> {
        let settings = Settings::of(scenario)?;
        let mut files = settings.files();
        for change in &scenario.changes {
            apply(&mut files, change)?;
        }
        let servers = scenario.servers.iter().map(|server| server.address).collect();
        let upstream =
            Upstream::new(&upstream::Settings::of(Resolvers::Listed(servers)), Arc::new(Scripts(script.clone())));
        let policy = compile(&files, 1, scenario.start)?;
        let pipeline = Pipeline::new(Parts {
            policy: policy.clone(),
            cache: Cache::new(&settings.cache),
            upstream: upstream.clone(),
            locals: Locals::new(&settings.local),
            telemetry: Telemetry::new(1),
            clock: Clock::simulated(scenario.start),
            settings: settings.pipeline.clone(),
        });
        if settings.watch {
            tokio::spawn(upstream.keep_watch());
            tokio::spawn(Arc::clone(&pipeline).follow_returns());
        }
        Ok(Self { pipeline, files, policy })
    }

    /// Changes the files and swaps the policy.
    pub fn reload(&mut self, changes: &[Change]) -> Result<(), Trouble> {
        for change in changes {
            apply(&mut self.files, change)?;
        }
        let generation = self.policy.generation() + 1;
        self.policy = compile(&self.files, generation, self.pipeline.clock().now().wall)?;
        self.pipeline.install(self.policy.clone());
        Ok(())
    }

    /// Makes the new generation over the same rules, as `serve` does at each moment at which an order begins or ends.
    pub fn pass_moment(&mut self) {
        self.policy = self.policy.next(self.pipeline.clock().now().wall);
        self.pipeline.install(self.policy.clone());
    }

    /// The next moment after this one at which an order, or a target of one, begins or ends.
    pub fn next_moment(&self, now: Timestamp) -> Option<Timestamp> {
        self.files.orders.iter().filter_map(|loaded| loaded.order.next_change(now)).min()
    }
}

fn compile(files: &Files, generation: u64, now: Timestamp) -> Result<Policy, Trouble> {
    let mut loaded = load::load_in_hand(&files.settings, files.orders.clone(), &files.texts, now);
    loaded.database.clone_from(&files.database);
    if let Some(mistake) = loaded.refused.first() {
        return Err(Trouble { line: 0, what: mistake.to_string() });
    }
    Policy::compile(&loaded, generation, now).map_err(|what| Trouble { line: 0, what })
}

/// The settings of every part, from `set` lines named as in `config/bailiwick.toml`.
struct Settings {
    cache: cache::Settings,
    pipeline: pipeline::Settings,
    local: local::Settings,
    origin: origin::Settings,
    hold_fallback: bool,
    sde_option: SdeOption,
    /// Whether the upstreams are watched: probes of those that are down, the search for loops.
    watch: bool,
}

impl Settings {
    fn of(scenario: &Scenario) -> Result<Self, Trouble> {
        let mut settings = Self::defaults();
        for (prefix, country) in scenario.origins.clone().unwrap_or_else(usual_origins) {
            let trouble = || Trouble { line: 0, what: format!("not an origin: {prefix} {country}") };
            let prefix = prefix.parse().map_err(|_| trouble())?;
            settings.origin.networks.push((prefix, Country::from_code(&country).ok_or_else(trouble)?));
        }
        for (line, key, value) in &scenario.settings {
            settings.set(key, value).map_err(|what| Trouble { line: *line, what: format!("{key}: {what}") })?;
        }
        Ok(settings)
    }

    /// The defaults of the configuration.
    fn defaults() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            cache: cache::Settings { memory: 64 << 20, ttl_min: Duration::ZERO, ttl_max: DAY, stale: DAY },
            pipeline: pipeline::Settings {
                deadline: Duration::from_secs(5),
                stale_after: Duration::from_millis(500),
                trust_ad: false,
                in_flight: 10_000,
                idle_timeout: Duration::from_secs(65),
            },
            local: local::Settings {
                dot_port: Some(853),
                doh_port: Some(443),
                doh_path: "/dns-query".into(),
                ..local::Settings::default()
            },
            origin: origin::Settings::default(),
            hold_fallback: true,
            sde_option: None,
            watch: false,
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let duration = || humantime::parse_duration(value).map_err(|error| error.to_string());
        let flag = || value.parse::<bool>().map_err(|error| error.to_string());
        let port = || value.parse::<u16>().map_err(|error| error.to_string());
        match key {
            "cache.memory" => self.cache.memory = value.parse::<bytesize::ByteSize>()?.as_u64(),
            "cache.ttl-min" => self.cache.ttl_min = duration()?,
            "cache.ttl-max" => self.cache.ttl_max = duration()?,
            "cache.stale" => self.cache.stale = duration()?,
            "cache.stale-after" => self.pipeline.stale_after = duration()?,
            "upstream.deadline" => self.pipeline.deadline = duration()?,
            "upstream.trust-ad" => self.pipeline.trust_ad = flag()?,
            "upstream.watch" => self.watch = flag()?,
            "limits.in-flight" => self.pipeline.in_flight = usize::from(port()?),
            "limits.idle-timeout" => self.pipeline.idle_timeout = duration()?,
            "policy.hold-fallback" => self.hold_fallback = flag()?,
            "policy.sde-option" => self.sde_option = NonZeroU16::new(port()?),
            "origin.default" => self.origin.default = Some(Country::from_code(value).ok_or("not a country")?),
            "resolver.name" => self.local.name = Some(name(value)?),
            "resolver.addresses" => self.local.addresses = addresses(value)?,
            "listen.dot-port" => self.local.dot_port = Some(port()?),
            "listen.doh-port" => self.local.doh_port = Some(port()?),
            "listen.doh-path" => self.local.doh_path = value.into(),
            _ => return Err("no such key".into()),
        }
        Ok(())
    }

    fn files(&self) -> Files {
        let settings = load::Settings {
            hold_fallback: self.hold_fallback,
            sde_option: self.sde_option,
            pages: self.local.name.as_ref().zip(self.local.doh_port).map(|(name, port)| pages::url(name, port)),
            origin: self.origin.clone(),
            ..load::Settings::default()
        };
        Files { settings, orders: Vec::new(), texts: load::Files::new(), database: None }
    }
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    text.split(' ').map(|one| one.parse().map_err(|_| format!("not an address: {one}"))).collect()
}

/// What `italian` and `german` stand for.
fn usual_origins() -> Vec<(String, String)> {
    vec![("127.0.0.2/32".into(), "IT".into()), ("127.0.0.3/32".into(), "DE".into())]
}

fn apply(files: &mut Files, change: &Change) -> Result<(), Trouble> {
    match change {
        Change::Order { line, id, toml } => {
            let order = order(id, toml).map_err(|what| Trouble { line: *line, what })?;
            files.orders.retain(|kept| kept.order.id != *id);
            files.orders.push(LoadedOrder::of(order, toml.as_bytes()));
            files.orders.sort_by(|one, other| one.order.file.cmp(&other.order.file));
        }
        Change::List { line, text, .. } => {
            let list =
                list(change).ok_or(Trouble { line: *line, what: "not a list: NAME FORMAT COVERS EFFECT".into() })?;
            files.texts.insert(list.file.clone(), text.as_bytes().to_vec());
            let lists = &mut files.settings.lists;
            let place = lists.iter().position(|kept| kept.name == list.name).unwrap_or(lists.len());
            lists.splice(place..lists.len().min(place + 1), [list]);
        }
        Change::File { path, text } => drop(files.texts.insert(path.clone(), text.as_bytes().to_vec())),
        Change::Exempt { line, name: text, overrides, until } => {
            let name = name(text).map_err(|what| Trouble { line: *line, what })?;
            files.settings.exemptions.push(Exemption {
                name,
                reason: "ticket 4711".into(),
                expires: *until,
                overrides_order: overrides.clone(),
                place: (PathBuf::from("bailiwick.toml"), *line as u32),
            });
        }
        Change::Database { line, .. } => {
            let database = database(change).map_err(|what| Trouble { line: *line, what })?;
            files.settings.origin.database = Some(database.file.clone());
            files.database = Some(database);
        }
        Change::WithoutDatabase => {
            files.settings.origin.database = None;
            files.database = None;
        }
        Change::WithoutOrder(id) => files.orders.retain(|kept| kept.order.id != *id),
        Change::WithoutList(name) => files.settings.lists.retain(|kept| kept.name != *name),
        Change::WithoutExemption(text) => {
            let gone = name(text).map_err(|what| Trouble { line: 0, what })?;
            files.settings.exemptions.retain(|kept| kept.name != gone);
        }
    }
    Ok(())
}

/// The order's file, the usual values put before it for the required keys that the scenario leaves out.
fn order(id: &str, toml: &str) -> Result<Order, String> {
    let usual = [
        ("id", format!("\"{id}\"")),
        ("issuer", "\"Test Court\"".to_owned()),
        ("jurisdiction", "[\"IT\"]".to_owned()),
        ("received", "2026-01-01T00:00:00Z".to_owned()),
        ("state", "\"in-force\"".to_owned()),
    ];
    let says = |key: &str| toml.lines().any(|line| line.split(['=', ' ']).next() == Some(key));
    let mut text: String =
        usual.iter().filter(|(key, _)| !says(key)).map(|(key, value)| format!("{key} = {value}\n")).collect();
    text.push_str(toml);
    let told = |mistakes: Vec<Mistake>| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Order::read(&PathBuf::from(format!("{id}.toml")), &text).map_err(told)
}

fn database(change: &Change) -> Result<LoadedDatabase, String> {
    let Change::Database { built, ip_version, lines, .. } = change else { return Err("not a database".into()) };
    let form = mmdb::Form { built: built.as_second() as u64, ip_version: *ip_version, ..mmdb::Form::default() };
    let database = Database::read(mmdb::countries(form, lines).into())?;
    Ok(LoadedDatabase::of(&PathBuf::from("countries.mmdb"), database))
}

fn list(change: &Change) -> Option<ListSettings> {
    let Change::List { name, format, covers, effect, .. } = change else { return None };
    let covers = match covers.as_str() {
        "subtree" => Covers::Subtree,
        "exact" => Covers::Exact,
        _ => return None,
    };
    let file = PathBuf::from(format!("{name}.txt"));
    Some(ListSettings {
        name: name.clone(),
        file,
        format: Format::from_text(format)?,
        covers,
        effect: list_effect(effect)?,
    })
}

/// `nxdomain`, `nodata`, `refused`, or `a=192.0.2.1,aaaa=2001:db8::1`.
fn list_effect(text: &str) -> Option<Effect> {
    let value = |key: &str| text.split(',').find_map(|part| part.strip_prefix(key));
    Some(match text {
        "nxdomain" => Effect::NxDomain,
        "nodata" => Effect::NoData,
        "refused" => Effect::Refused,
        _ => Effect::Address {
            a: value("a=").map(str::parse).transpose().ok()?,
            aaaa: value("aaaa=").map(str::parse).transpose().ok()?,
        },
    })
}
