//! The bed that is measured in: a temporary folder with all that the servers read, and the servers.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::sleep;

use super::Failure;
use super::account::Used;
use super::children::{self, Places, Server};
use super::client::{self, Client};
use super::names;
use super::run::{Asked, Protocol, Run};

/// The product: the release binary that was built with this bench.
pub(crate) const PRODUCT: &str = env!("CARGO_BIN_EXE_bailiwick");

/// How long the product may take to read its lists and serve, and then to be done with its probes.
const START: Duration = Duration::from_secs(60);

/// A second in which a server uses less than so much CPU is one in which it does nothing.
const QUIET_US: f64 = 20_000.0;

/// What is there for as long as the bench runs.
#[derive(Debug)]
pub(crate) struct Bed {
    folder: TempDir,
    /// Who may run where.
    pub(crate) places: Places,
    /// A client that trusts the servers.
    pub(crate) client: Client,
    /// How many names of the list are those of real lists.
    pub(crate) real: usize,
    upstream: Server,
}

impl Bed {
    /// Writes lists, orders and certificates, and starts the upstream.
    pub(crate) async fn make() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("bailiwick-exchange-").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("orders"))?;
        for number in 0..names::ORDERS {
            fs::write(path(&format!("orders/{number}.toml")), names::order(number))?;
        }
        let (list, real) = names::list();
        fs::write(path("list.txt"), list)?;
        let mut certs = children::command(PRODUCT, None);
        certs.args(["certs", "127.0.0.1", "--out"]).arg(path("certs"));
        children::run(certs, START).await?;
        let places = Places::find().await;
        let upstream = Server::start(places.load.as_ref(), &["upstream".as_ref()]).await?;
        let client = Client::new(&path("certs/ca.pem"))?;
        Ok(Self { folder, places, client, real, upstream })
    }

    /// A file or folder of the bed.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A canned server beside the product, on its core.
    pub(crate) async fn canned(&self, protocol: Protocol, padded: bool) -> Result<Server, Failure> {
        let (certificate, key) = (self.path("certs/server.pem"), self.path("certs/server.key"));
        let octets = if padded { "padded" } else { "plain" };
        let part: [&OsStr; 5] =
            ["canned".as_ref(), protocol.word().as_ref(), octets.as_ref(), certificate.as_ref(), key.as_ref()];
        Server::start(self.places.server.as_ref(), &part).await
    }

    /// Starts the product, and waits until it serves.
    pub(crate) async fn product(&self, kind: &Kind, cores: Option<&String>) -> Result<Product, Failure> {
        let [doh, dot, admin] = client::free_ports()?.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let name = kind.name;
        let (config, log) = (self.path(&format!("{name}.toml")), self.path(&format!("{name}.log")));
        let upstream = self.upstream.address;
        fs::write(&config, kind.config(doh, dot, admin, upstream))?;
        let mut command = children::command(PRODUCT, cores);
        command.arg("--config").arg(&config);
        children::logged(&mut command, self.folder.path(), &log)?;
        let mut product = Product { child: command.spawn()?, doh, dot, admin };
        product.serves(&log).await?;
        Ok(product)
    }
}

/// One of the products that are measured.
#[derive(Debug)]
pub(crate) struct Kind {
    name: &'static str,
    threads: usize,
    with_policy: bool,
    idle_timeout: &'static str,
}

/// As it is where nothing else is configured.
const IDLE_TIMEOUT: &str = "65s";

impl Kind {
    /// The one that nearly everything is measured of.
    pub(crate) const ONE: Self = Self { name: "one", threads: 1, with_policy: true, idle_timeout: IDLE_TIMEOUT };
    /// Its like with two workers.
    pub(crate) const TWO: Self = Self { name: "two", threads: 2, with_policy: true, idle_timeout: IDLE_TIMEOUT };
    /// One that has loaded nothing: memory that loading a list has left free would hide what connections take. An idle
    /// connection outlives the minute that it is held for.
    pub(crate) const BARE: Self = Self { name: "bare", threads: 1, with_policy: false, idle_timeout: "10m" };

    /// Clients are bounded nowhere here.
    fn config(&self, doh: SocketAddr, dot: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
        let Self { name, threads, with_policy, idle_timeout } = self;
        let policy = "[policy]\norders = 'orders'\n[[policy.list]]\nname = 'listed'\nfile = 'list.txt'\n\
                      format = 'domains'\ncovers = 'subtree'\n";
        format!(
            "[listen]\ndoh = ['{doh}']\ndot = ['{dot}']\nadmin = '{admin}'\nthreads = {threads}\n\
             [upstream]\nresolvers = ['{upstream}']\n[origin]\ndefault = 'IT'\n[state]\nfolder = 'state-{name}'\n\
             [limits]\nconnections = 0\nconnections-per-client = 0\nidle-timeout = '{idle_timeout}'\n{}",
            if *with_policy { policy } else { "" }
        )
    }
}

/// The product, running.
#[derive(Debug)]
pub(crate) struct Product {
    child: Child,
    doh: SocketAddr,
    dot: SocketAddr,
    /// Where the operator asks.
    pub(crate) admin: SocketAddr,
}

impl Product {
    /// Its number in /proc.
    pub(crate) fn pid(&self) -> Result<u32, Failure> {
        children::pid(&self.child)
    }

    /// Where it is asked.
    pub(crate) const fn address(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Doh => self.doh,
            Protocol::Dot => self.dot,
        }
    }

    /// Ends it and waits until it has: its folder is then the next one's.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    async fn serves(&mut self, log: &Path) -> Result<(), Failure> {
        let begun = Instant::now();
        while client::page(self.admin, "/health").await.is_err() {
            if self.child.try_wait()?.is_some() || begun.elapsed() > START {
                return Err(format!("the product does not serve:\n{}", client::tail(log)).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until it has nothing to do: after a start it asks itself for names of every order.
    pub(crate) async fn settles(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let before = Used::of(self.pid()?)?;
            sleep(Duration::from_secs(1)).await;
            if Used::of(self.pid()?)?.since(&before).cpu_us < QUIET_US {
                return Ok(());
            }
            if begun.elapsed() > START {
                return Err("the product does not come to rest".into());
            }
        }
    }
}

/// The servers that the runs of a bench need, and no others.
#[derive(Debug)]
pub(crate) struct Servers {
    /// The product with one worker.
    pub(crate) ours: Option<Product>,
    two: Option<Product>,
    canned: Vec<(Protocol, bool, Server)>,
}

impl Servers {
    /// Starts those that are asked in `runs`, the product also where `swapped`; and waits until they are at rest.
    pub(crate) async fn start(bed: &Bed, runs: &[Run], swapped: bool) -> Result<Self, Failure> {
        let asked = |asked| runs.iter().any(|run| run.asked == asked);
        let mut servers = Self { ours: None, two: None, canned: Vec::new() };
        if asked(Asked::Ours) || swapped {
            servers.ours = Some(bed.product(&Kind::ONE, bed.places.server.as_ref()).await?);
        }
        if asked(Asked::OursOfTwo) {
            servers.two = Some(bed.product(&Kind::TWO, bed.places.two.as_ref()).await?);
        }
        for run in runs.iter().filter(|run| run.asked == Asked::Canned) {
            let Run { protocol, padded, .. } = *run;
            if !servers.canned.iter().any(|(other, octets, _)| (*other, *octets) == (protocol, padded)) {
                servers.canned.push((protocol, padded, bed.canned(protocol, padded).await?));
            }
        }
        for product in servers.products() {
            product.settles().await?;
        }
        Ok(servers)
    }

    fn products(&self) -> impl Iterator<Item = &Product> {
        self.ours.iter().chain(&self.two)
    }

    /// The product that a run is about.
    pub(crate) fn product(&self, run: &Run) -> Option<&Product> {
        match run.asked {
            Asked::Ours => self.ours.as_ref(),
            Asked::OursOfTwo => self.two.as_ref(),
            Asked::Canned => None,
        }
    }

    /// The number in /proc and the address of whom a run asks.
    pub(crate) fn whom(&self, run: &Run) -> Result<(u32, SocketAddr), Failure> {
        if let Some(product) = self.product(run) {
            return Ok((product.pid()?, product.address(run.protocol)));
        }
        let mut canned = self.canned.iter();
        let found = canned.find(|(protocol, padded, _)| (*protocol, *padded) == (run.protocol, run.padded));
        let (_, _, server) = found.ok_or("that server was not started")?;
        Ok((server.pid()?, server.address))
    }
}
