//! The names that are asked for, and what must be answered to each.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bailiwick::dns::Name;

use super::Failure;

/// How many names are in the cache, and asked for in turn.
pub(crate) const HITS: usize = 1_000;

/// How many names the operator's list has.
pub(crate) const LISTED: usize = 1_000_000;

/// How many orders are in force, of ten names each.
pub(crate) const ORDERS: usize = 100;

/// Names that were never asked before, of one measured second: more than any server asks its upstream in it.
const MISSES_A_SECOND: usize = 250_000;

/// 730,225 names of real block lists.
const REAL: &str = "../shared/data/domains/blocklistproject-union-730k.txt";

/// Which names a run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Those that the cache has.
    Hits,
    /// One of them, which is all that a canned server knows.
    One,
    /// Those that nobody has asked for yet.
    Misses,
    /// Those under orders.
    Blocked,
}

/// A name that no rule is about, in a top-level domain that most are.
pub(crate) fn hit(number: usize) -> String {
    format!("www.host-{number:05}.clean-site.com")
}

/// A name under the order with this number, or one of its neighbours.
pub(crate) fn blocked(number: usize) -> String {
    format!("www.target-{}.blocked-{}.com", number % 10, number / 10 % ORDERS)
}

/// A name that is asked for once: each `run` has its own.
fn missed(run: usize, number: usize) -> String {
    format!("www.host-{number:06}.run-{run}.fresh-site.com")
}

/// An order's file.
pub(crate) fn order(number: usize) -> String {
    let targets: Vec<_> = (0..10).map(|target| format!("'target-{target}.blocked-{number}.com'")).collect();
    format!(
        "id = 'order-{number}'\nissuer = 'Test Court'\njurisdiction = ['IT']\nreceived = 2026-01-01T00:00:00Z\n\
         state = 'in-force'\n[[target]]\nsubtree = [{}]\n",
        targets.join(", ")
    )
}

/// The operator's list, a name a line, and how many of them are real: made up ones fill it, or are all of it where the
/// real ones are not there.
pub(crate) fn list() -> (String, usize) {
    let mut names = fs::read_to_string(REAL).unwrap_or_default();
    let real = names.lines().count().min(LISTED);
    for number in real..LISTED {
        let _ = write!(names, "\nmade-up-{number}.com");
    }
    names.push('\n');
    (names, real)
}

impl Names {
    /// A file of them in `folder`, a name a line; enough for `seconds`.
    pub(crate) fn file(self, folder: &Path, seconds: f64) -> io::Result<PathBuf> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let (file, names): (_, Vec<_>) = match self {
            Self::Hits => ("hits.txt", (0..HITS).map(hit).collect()),
            Self::One => ("one.txt", vec![hit(0)]),
            Self::Blocked => ("blocked.txt", (0..10 * ORDERS).map(blocked).collect()),
            Self::Misses => {
                let run = RUNS.fetch_add(1, Ordering::Relaxed);
                let count = (MISSES_A_SECOND as f64 * seconds) as usize;
                ("misses.txt", (0..count).map(|number| missed(run, number)).collect())
            }
        };
        let path = folder.join(file);
        fs::write(&path, names.join("\n") + "\n")?;
        Ok(path)
    }

    /// One of them, as it is asked for; of those that nobody asked for yet, none that a run will ask for.
    pub(crate) fn sample(self, number: usize) -> Result<Name, Failure> {
        let text = match self {
            Self::Hits => hit(number),
            Self::One => hit(0),
            Self::Blocked => blocked(number),
            Self::Misses => missed(usize::MAX, number),
        };
        Name::from_text(&text).map_err(|error| format!("{text}: {error}").into())
    }
}

/// The address that the upstream gives a name, out of the prefix for benchmarks (RFC 2544 C.2.2): who has the address
/// knows which name was asked for.
pub(crate) fn address_of(qname: &Name) -> Ipv4Addr {
    Ipv4Addr::from(0xc612_0000 | (digest(qname) & 0x1_ffff))
}

/// The same, of the prefix for benchmarks of IPv6 (RFC 5180 §8).
pub(crate) fn address6_of(qname: &Name) -> Ipv6Addr {
    let [high, low] = [digest(qname) >> 16, digest(qname) & 0xffff].map(|half| half as u16);
    Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, high, low)
}

/// FNV-1a.
fn digest(qname: &Name) -> u32 {
    qname.as_wire().iter().fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}
