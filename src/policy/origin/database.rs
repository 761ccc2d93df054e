//! A database of countries in the MaxMind DB format: verified whole when it is read, asked without a fault after that.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use maxminddb::{LookupResult, MaxMindDbError, PathElement, Reader, WithinOptions};

use super::{Country, tree};

/// Where GeoLite2, GeoIP2 and DB-IP have the code of a country.
const NESTED: [PathElement<'_>; 2] = [PathElement::Key("country"), PathElement::Key("iso_code")];

/// Where flat databases have it.
const FLAT: [PathElement<'_>; 1] = [PathElement::Key("country_code")];

/// The most of the reader's own words that a mistake repeats, in characters: they may quote the file.
const WORDS_MAX: usize = 200;

/// The country of each address that it knows.
pub struct Database {
    reader: Reader<Arc<[u8]>>,
    octets: Arc<[u8]>,
    built: Timestamp,
    /// The records that have a country, by their place in the data section: no record is decoded for a client.
    countries: Box<[(u32, Country)]>,
}

impl Database {
    /// Reads and verifies a database of which one record at least has a country. Takes seconds for hundreds of MiB.
    ///
    /// # Errors
    /// What is wrong with it and, behind a semicolon, what to do.
    pub fn read(octets: Arc<[u8]>) -> Result<Self, String> {
        let reader = Reader::from_source(Arc::clone(&octets)).map_err(broken)?;
        tree::check(&octets, reader.metadata()).map_err(broken)?;
        reader.verify().map_err(broken)?;
        let built = built(&reader).ok_or_else(|| broken("the date it was built is out of the calendar"))?;
        let countries = countries(&reader).map_err(broken)?;
        if countries.is_empty() {
            return Err(NO_COUNTRY.to_owned());
        }
        Ok(Self { reader, octets, built, countries })
    }

    /// What it was read from.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// When it was built, as it says itself.
    #[must_use]
    pub fn built(&self) -> Timestamp {
        self.built
    }

    /// The country of an address as it is written; None for what it does not know, for records of a continent alone and
    /// codes that are not assigned, and for IPv6 in a database of IPv4. Does not allocate.
    #[must_use]
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        // The reader makes an error of it, and text of the error.
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return None;
        }
        let place = self.reader.lookup(address).ok()?.offset()?;
        let at = self.countries.binary_search_by_key(&u32::try_from(place).ok()?, |(place, _)| *place).ok()?;
        Some(self.countries[at].1)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({} octets, built {})", self.octets.len(), self.built)
    }
}

/// Of a database of networks' owners, say, or of continents.
const NO_COUNTRY: &str = "has no country in any record, neither as country.iso_code nor as country_code; \
                          name a database of countries";

fn broken(why: impl ToString) -> String {
    let why = why.to_string();
    let plain = |character: char| if character == ' ' || character.is_ascii_graphic() { character } else { '?' };
    let why: String = why.chars().map(plain).take(WORDS_MAX).collect();
    format!("is not a sound MaxMind DB file ({why}); get it again")
}

fn built(reader: &Reader<Arc<[u8]>>) -> Option<Timestamp> {
    Timestamp::from_second(reader.metadata().build_epoch.try_into().ok()?).ok()
}

/// Every record that has a country, by its place; each is looked at once, however many networks share it.
fn countries(reader: &Reader<Arc<[u8]>>) -> Result<Box<[(u32, Country)]>, MaxMindDbError> {
    let (mut seen, mut countries) = (HashSet::new(), Vec::new());
    for network in reader.networks(WithinOptions::default())? {
        let network = network?;
        // A file's places fit: it is smaller than 4 GiB.
        let Some(place) = network.offset().and_then(|place| u32::try_from(place).ok()) else { continue };
        if seen.insert(place)
            && let Some(country) = country(&network)
        {
            countries.push((place, country));
        }
    }
    countries.sort_unstable_by_key(|(place, _)| *place);
    Ok(countries.into())
}

/// A record of another shape than these two is one without a country.
fn country(record: &LookupResult<'_, Arc<[u8]>>) -> Option<Country> {
    let code = |path: &[PathElement<'_>]| record.decode_path::<&str>(path).ok().flatten();
    let assigned = |path: &[PathElement<'_>]| code(path).and_then(Country::from_code);
    assigned(&NESTED).or_else(|| assigned(&FLAT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::super::mmdb::{self, Form, Next};
    use super::*;

    const LINES: &str = "2001:db8::/32 IT\n2001:db8:de::/48 DE\n192.0.2.0/24 FR\n192.0.2.128/25 flat AT\n\
                         198.51.100.0/24 continent EU\n203.0.113.0/24 XK\n2002::/16 alias ::/96\n";

    fn read(octets: &[u8]) -> Result<Database, String> {
        Database::read(octets.into())
    }

    fn told(database: &Database, address: &str) -> String {
        database.country(address.parse().unwrap()).map_or("-".to_owned(), |country| country.to_string())
    }

    /// Addresses all over both families.
    fn ask_everywhere(database: &Database) {
        for bit in 0..128 {
            for address in [1_u128 << bit, u128::MAX << bit, 0x2001_0db8 << 96 | 1 << bit] {
                let _ = (
                    database.country(IpAddr::V6(address.into())),
                    database.country(IpAddr::V4((address as u32).into())),
                );
            }
        }
    }

    #[test]
    fn countries_are_told_in_both_forms_and_from_records_of_each_size() {
        for record_bits in [24, 28, 32] {
            let database = read(&mmdb::countries(Form { record_bits, ..Form::default() }, LINES)).unwrap();
            for (address, country) in [
                ("2001:db8::1", "IT"),
                ("2001:db8:de::1", "DE"),
                ("192.0.2.1", "FR"),
                ("192.0.2.128", "AT"),
                ("198.51.100.1", "-"),
                ("203.0.113.1", "-"),
                ("192.0.3.1", "-"),
                ("2001:db9::1", "-"),
                ("2002:c000:201::", "FR"),
                ("::192.0.2.1", "FR"),
            ] {
                assert_eq!(told(&database, address), country, "{address} in records of {record_bits} bits");
            }
            assert_eq!(database.built().to_string(), "2026-08-05T12:00:00Z");
        }
    }

    #[test]
    fn a_database_of_ipv4_knows_no_ipv6() {
        let database = read(&mmdb::countries(Form { ip_version: 4, ..Form::default() }, "192.0.2.0/24 IT")).unwrap();
        assert_eq!((told(&database, "192.0.2.1"), told(&database, "2001:db8::1")), ("IT".into(), "-".into()));
    }

    #[test]
    fn a_database_without_any_country_is_refused() {
        for lines in ["192.0.2.0/24 continent EU", "192.0.2.0/24 XK", "192.0.2.0/24 flat it"] {
            assert_eq!(read(&mmdb::countries(Form::default(), lines)).unwrap_err(), NO_COUNTRY);
        }
    }

    #[test]
    fn a_build_date_beyond_the_calendar_is_refused() {
        for built in [u64::MAX, i64::MAX as u64, 300_000_000_000] {
            let error = read(&mmdb::countries(Form { built, ..Form::default() }, LINES)).unwrap_err();
            assert!(error.starts_with("is not a sound MaxMind DB file ("), "{error}");
        }
    }

    #[test]
    fn a_database_cut_anywhere_is_refused_or_read() {
        for record_bits in [24, 28, 32] {
            let octets = mmdb::countries(Form { record_bits, ..Form::default() }, LINES);
            for cut in 0..octets.len() {
                match read(&octets[..cut]) {
                    Ok(database) => ask_everywhere(&database),
                    Err(what) => assert!(what.ends_with("; get it again"), "cut at {cut}: {what}"),
                }
                if let Ok(database) = read(&octets[cut..]) {
                    ask_everywhere(&database);
                }
            }
        }
    }

    #[test]
    fn a_database_with_any_octet_changed_is_refused_or_read() {
        let octets = mmdb::countries(Form::default(), LINES);
        for at in 0..octets.len() {
            for value in [0, 1, 0x7f, 0xff, octets[at] ^ 0x20, octets[at].wrapping_add(1)] {
                let mut changed = octets.clone();
                changed[at] = value;
                if let Ok(database) = read(&changed) {
                    ask_everywhere(&database);
                }
            }
        }
    }

    /// `WRITE_SEEDS=1` writes them.
    #[test]
    fn the_seeds_of_the_fuzz_target_are_written_here() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/database");
        let ipv4 = "192.0.2.0/24 IT\n198.51.100.0/24 continent EU";
        for (name, ip_version, record_bits, lines) in
            [("all-24", 6, 24, LINES), ("flat-28", 6, 28, "2001:db8::/40 flat DE"), ("ipv4-32", 4, 32, ipv4)]
        {
            let octets = mmdb::countries(Form { ip_version, record_bits, ..Form::default() }, lines);
            if std::env::var_os("WRITE_SEEDS").is_some() {
                fs::write(folder.join(name), &octets).unwrap();
            }
            assert!(read(&octets).is_ok() && fs::read(folder.join(name)).unwrap() == octets, "{name}");
        }
    }

    /// Of each such tree the reader's own check would take longer than anybody lives, or none is sure that it does not.
    #[test]
    fn a_tree_with_more_ways_than_nodes_is_refused_and_not_walked() {
        let record = mmdb::record("IT");
        let ladder = |last: [Next; 2]| {
            let next = |node: usize| [Next::Node(node + 1); 2];
            (0..96).map(next).chain([last]).collect::<Vec<_>>()
        };
        for (name, ip_version, tree) in [
            ("every way leads to the IPv4 part", 6, ladder([Next::Data(0), Next::Data(0)])),
            ("every way leads to nothing", 6, ladder([Next::Nothing; 2])),
            ("the root leads to itself", 6, vec![[Next::Node(0); 2]]),
            ("the root of IPv4 leads to itself", 4, vec![[Next::Node(0), Next::Data(0)]]),
            ("two nodes lead to each other", 6, vec![[Next::Node(1), Next::Data(0)], [Next::Data(0), Next::Node(0)]]),
            ("a way leads back to the IPv4 part", 6, ladder([Next::Data(0), Next::Node(96)])),
        ] {
            let error = read(&mmdb::assemble(Form { ip_version, ..Form::default() }, &tree, &record)).unwrap_err();
            assert!(error.contains("search tree"), "{name}: {error}");
        }
    }

    #[test]
    fn what_a_mistake_quotes_is_bounded_and_in_one_line() {
        let error = broken(format!("a\nb\x1b[31m{}", "c".repeat(1_000)));
        assert!(error.starts_with("is not a sound MaxMind DB file (a?b?[31mccc") && error.len() < 300, "{error}");
    }

    /// The files of MaxMind's own test suite, where they are at hand.
    fn samples(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mmdb").join(folder);
        let Ok(entries) = fs::read_dir(&folder) else {
            eprintln!("skipped: {} is not there", folder.display());
            return Vec::new();
        };
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn broken_databases_are_refused() {
        let samples = samples("bad");
        assert!(samples.is_empty() || samples.len() == 25, "{} files", samples.len());
        for (path, octets) in samples {
            let what = read(&octets).unwrap_err();
            eprintln!("{}: {what}", path.file_name().unwrap().display());
            assert!(what == NO_COUNTRY || what.starts_with("is not a sound MaxMind DB file ("), "{what}");
        }
    }

    #[test]
    fn sound_databases_are_read_and_those_without_countries_refused() {
        for (path, octets) in samples("") {
            let name = path.file_name().unwrap().to_str().unwrap();
            let read = read(&octets);
            if !name.contains("-Country-") {
                assert_eq!(read.unwrap_err(), NO_COUNTRY, "{name}");
                continue;
            }
            let database = read.unwrap();
            for (address, country) in [
                ("81.2.69.160", "GB"),
                ("89.160.20.112", "SE"),
                ("202.196.224.1", "PH"),
                ("2001:218::1", "JP"),
                ("2001:220::1", "KR"),
                ("10.0.0.1", "-"),
                ("::1", "-"),
            ] {
                assert_eq!(told(&database, address), country, "{address} in {name}");
            }
            for cut in (0..octets.len()).step_by(97) {
                if let Ok(database) = Database::read(octets[..cut].into()) {
                    ask_everywhere(&database);
                }
            }
        }
    }
}
