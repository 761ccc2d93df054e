//! A run of the generator: against whom, how, and with which answers.

use super::names::Names;

/// Queries a second that one core can answer, and another one ask, with time to spare.
const PACE: u32 = 100_000;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// DNS over HTTPS, on HTTP/2.
    Doh,
    /// DNS over TLS.
    Dot,
}

impl Protocol {
    /// As the command line and the generator write it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Doh => "doh",
            Self::Dot => "dot",
        }
    }

    /// As TLS writes it.
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Doh => b"h2",
            Self::Dot => b"dot",
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The product with one worker.
    Ours,
    /// The product with two.
    OursOfTwo,
    /// The bare stack.
    Canned,
}

/// What a generator does for a second or so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) asked: Asked,
    pub(crate) protocol: Protocol,
    pub(crate) names: Names,
    pub(crate) connections: u32,
    /// Queries on their way, of each connection.
    pub(crate) in_flight: u32,
    /// Queries a second of all connections; None: as fast as they are answered.
    pub(crate) rate: Option<u32>,
    /// Queries that ask for padding.
    pub(crate) padded: bool,
    /// A connection for each query.
    pub(crate) connecting: Option<Handshake>,
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Keys and certificate are shown and checked.
    Full,
    /// What was agreed before holds.
    Resumed,
}

impl Run {
    pub(crate) const DOH: Self = Self {
        asked: Asked::Ours,
        protocol: Protocol::Doh,
        names: Names::Hits,
        connections: 10,
        in_flight: 10,
        rate: None,
        padded: false,
        connecting: None,
    };
    pub(crate) const DOH_PADDED: Self = Self { padded: true, ..Self::DOH };
    pub(crate) const DOH_BLOCKED: Self = Self { names: Names::Blocked, ..Self::DOH };
    pub(crate) const DOH_MISSES: Self = Self { names: Names::Misses, ..Self::DOH };
    pub(crate) const DOH_OF_TWO: Self = Self { asked: Asked::OursOfTwo, ..Self::DOH };
    pub(crate) const DOH_WIDE: Self = Self { connections: 100, in_flight: 1, ..Self::DOH };
    pub(crate) const DOH_NEW: Self =
        Self { connections: 1, in_flight: 1, connecting: Some(Handshake::Full), ..Self::DOH };
    pub(crate) const DOT: Self = Self { protocol: Protocol::Dot, ..Self::DOH };
    /// As fast as they are answered, ten answers in one record bring ten queries in one record: nothing is left of what
    /// the kernel takes. At a rate each query comes by itself, as those of stub resolvers do.
    pub(crate) const DOT_PACED: Self = Self { in_flight: 100, rate: Some(PACE), ..Self::DOT };
    pub(crate) const DOT_MISSES: Self = Self { names: Names::Misses, ..Self::DOT };
    pub(crate) const DOT_NEW: Self = Self { protocol: Protocol::Dot, ..Self::DOH_NEW };
    pub(crate) const FULL: Self = Self { connections: 10, ..Self::DOT_NEW };
    pub(crate) const RESUMED: Self = Self { connecting: Some(Handshake::Resumed), ..Self::FULL };

    /// The same, asked of the bare stack.
    pub(crate) const fn canned(self) -> Self {
        Self { asked: Asked::Canned, names: Names::One, ..self }
    }

    /// In a word or three, for those who wait.
    pub(crate) fn title(&self) -> String {
        let Self { protocol, connections, in_flight, .. } = self;
        let mut words = vec![format!("{} {connections} × {in_flight}", protocol.word().to_uppercase())];
        match self.asked {
            Asked::Ours => {}
            Asked::OursOfTwo => words.push("two workers".to_owned()),
            Asked::Canned => words.push("canned".to_owned()),
        }
        match self.names {
            Names::Hits | Names::One => {}
            Names::Misses => words.push("misses".to_owned()),
            Names::Blocked => words.push("blocked".to_owned()),
        }
        if let Some(rate) = self.rate {
            words.push(format!("{rate} a second"));
        }
        if self.padded {
            words.push("padded".to_owned());
        }
        match self.connecting {
            Some(Handshake::Full) => words.push("a connection each".to_owned()),
            Some(Handshake::Resumed) => words.push("a resumed connection each".to_owned()),
            None => {}
        }
        words.join(", ")
    }
}
