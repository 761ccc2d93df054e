//! [`Config`]: every value valid and typed; gathers the modules' own settings.

mod file;
mod policy;
mod table;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::digest::Digest;
use crate::mistake::Mistake;
use crate::policy::load;
use crate::{cache, listener, local, pipeline, tls, upstream};

/// The most octets a configuration file may have: a thousand times what one needs.
pub const FILE_OCTETS_MAX: usize = 4 << 20;

/// The whole configuration. Relative paths start at the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[listen]`, what of it is for clients, and `[limits]`, what of it is for connections.
    pub listen: listener::Settings,
    /// `[listen] admin`; None: no listener for the operator.
    pub admin: Option<SocketAddr>,
    /// `[listen] threads`; None: one per core.
    pub threads: Option<NonZeroUsize>,
    /// `[resolver]`.
    pub local: local::Settings,
    /// `[tls]`.
    pub tls: tls::Settings,
    /// `[upstream]`, what of it is for the sending of queries.
    pub upstream: upstream::Settings,
    /// What the pipeline decides of `[upstream]`, `[cache]` and `[limits]`.
    pub pipeline: pipeline::Settings,
    /// `[cache]`.
    pub cache: cache::Settings,
    /// `[policy]`, `[origin]` and `[state] folder`.
    pub policy: load::Settings,
    /// `[state] ledger`.
    pub ledger: bool,
}

impl Config {
    /// Reads a configuration file. Nothing it names is looked at.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(path: &Path) -> Result<Self, Vec<Mistake>> {
        Self::read_with_digest(path).map(|(config, _)| config)
    }

    /// The same, and which octets it was read from.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read_with_digest(path: &Path) -> Result<(Self, Digest), Vec<Mistake>> {
        let text = text_of(path).map_err(|mistake| vec![mistake])?;
        Ok((Self::parse(path, &text)?, Digest::of(text.as_bytes())))
    }

    /// Reads the text of a configuration file; `path` is only for the mistakes.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Mistake>> {
        file::parse(path, text)
    }
}

fn text_of(path: &Path) -> Result<String, Mistake> {
    let read = || {
        let mut octets = Vec::new();
        File::open(path)?.take(FILE_OCTETS_MAX as u64 + 1).read_to_end(&mut octets)?;
        Ok(octets)
    };
    let octets = read().map_err(|error: io::Error| {
        Mistake::of_file(path, format!("cannot be read: {error}; name the configuration with --config"))
    })?;
    if octets.len() > FILE_OCTETS_MAX {
        return Err(Mistake::of_file(path, format!("longer than {FILE_OCTETS_MAX} octets; is it a configuration?")));
    }
    String::from_utf8(octets).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        let octets = error.into_bytes();
        let valid = String::from_utf8_lossy(&octets[..valid_up_to]);
        Mistake::at(path, &valid, valid_up_to..valid_up_to, "not UTF-8; save the file in that encoding")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::mistake::MISTAKES_MAX;

    #[test]
    fn what_is_not_text_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        assert_eq!(Config::read(&path).unwrap_err()[0].line, 0);
        std::fs::write(&path, b"[listen]\ndoh = \xff").unwrap();
        let mistakes = Config::read(&path).unwrap_err();
        assert_eq!((mistakes[0].line, mistakes[0].column), (2, 7));
        std::fs::write(&path, vec![b'#'; FILE_OCTETS_MAX + 1]).unwrap();
        assert!(Config::read(&path).unwrap_err()[0].what.contains("longer than"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(Config::read(&path), Config::parse(Path::new("other.toml"), ""));
    }

    #[test]
    fn mistakes_without_end_are_counted() {
        let text: String = (0..MISTAKES_MAX + 5).map(|number| format!("k{number} = 1\n")).collect();
        let found = Config::parse(Path::new("a.toml"), &text).unwrap_err();
        assert_eq!(found.len(), MISTAKES_MAX + 1);
        assert_eq!(found[MISTAKES_MAX].to_string(), "a.toml: and 5 more mistakes");
    }
}
