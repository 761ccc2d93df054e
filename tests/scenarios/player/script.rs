//! A scenario file as written becomes a [`Scenario`], or the line that cannot be read. README.md has the format.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bailiwick::dns::message::flag;
use bailiwick::dns::{Name, Qclass, Qtype, Rcode};
use bailiwick::pipeline::Country;
use bailiwick::query::Transport;
use jiff::Timestamp;

use super::records::{Rr, hex, name, words};

/// What is wrong, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// From 1.
    pub line: usize,
    /// What.
    pub what: String,
}

type Said<T> = Result<T, Trouble>;

/// A line and what is indented below it.
#[derive(Debug, Clone)]
pub struct Node {
    /// From 1.
    pub line: usize,
    /// Without the indentation.
    pub text: String,
    /// Indented deeper.
    pub children: Vec<Self>,
}

impl Node {
    fn trouble(&self, what: impl Into<String>) -> Trouble {
        Trouble { line: self.line, what: what.into() }
    }

    fn words(&self) -> Vec<String> {
        words(&self.text)
    }

    /// The children that are not comments.
    fn said(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter(|child| !child.text.starts_with('#'))
    }

    /// Everything below as text again: an order, a list.
    fn block(&self) -> String {
        self.children.iter().map(|child| format!("{}\n{}", child.text, child.block())).collect()
    }
}

/// One behaviour.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The time of day when it begins.
    pub start: Timestamp,
    /// `set` lines.
    pub settings: Vec<(usize, String, String)>,
    /// `origin` lines; None: the usual two.
    pub origins: Option<Vec<(String, String)>>,
    /// Orders, lists and exemptions at the start.
    pub changes: Vec<Change>,
    /// `upstream` blocks.
    pub servers: Vec<Server>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A change of the files that policy is made from.
#[derive(Debug, Clone)]
pub enum Change {
    /// An order, new or in place of the one of this id.
    Order { line: usize, id: String, toml: String },
    /// A list, new or in place of the one of this name.
    List { line: usize, name: String, format: String, covers: String, effect: String, text: String },
    /// A file that orders name, new or in place of what it was.
    File { path: PathBuf, text: String },
    /// An exemption.
    Exempt { line: usize, name: String, overrides: Option<String>, until: Option<Timestamp> },
    /// The database of countries, new or in place of the one before; `lines` as `mmdb::countries` has them.
    Database { line: usize, built: Timestamp, ip_version: u16, lines: String },
    /// There is no database any more.
    WithoutDatabase,
    /// The order of this id is gone.
    WithoutOrder(String),
    /// The list of this name is gone.
    WithoutList(String),
    /// The exemptions of this name are gone.
    WithoutExemption(String),
}

/// UDP or TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    Udp,
    Tcp,
}

/// A scripted upstream.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// TCP connections are refused.
    pub refuses_tcp: bool,
    /// In order; the first that fits a query answers it.
    pub rules: Vec<Rule>,
}

/// What it does with some queries.
#[derive(Debug, Clone)]
pub struct Rule {
    /// None: any.
    pub qname: Option<Name>,
    /// None: any.
    pub qtype: Option<Qtype>,
    /// None: both.
    pub over: Option<Proto>,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// For so many queries; then the next rule is looked for.
    pub times: u32,
    /// What comes back.
    pub reply: Scripted,
}

/// What comes back.
#[derive(Debug, Clone)]
pub struct Scripted {
    /// How long it takes.
    pub after: Duration,
    /// What comes first.
    pub first: Vec<Bogus>,
    /// What comes then.
    pub outcome: Outcome,
    /// Its RCODE.
    pub rcode: Rcode,
    /// `flag::TC` and the like.
    pub flags: u16,
    /// An option in its OPT: code and octets.
    pub options: Vec<(u16, Vec<u8>)>,
    /// Without OPT, though the query has one.
    pub without_opt: bool,
    /// Octets behind it.
    pub trailing: Vec<u8>,
    /// The connection is closed behind it.
    pub then_close: bool,
    /// Records: 0 answer, 1 authority, 2 additional.
    pub records: Vec<(usize, Rr)>,
}

/// A datagram that is no answer to the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bogus {
    Garbage,
    WrongId,
    WrongName,
    WrongType,
    NoQuestion,
    NotAResponse,
    Badvers,
}

/// How a query ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answer,
    Silent,
    Refused,
    Unreachable,
    Close,
}

/// Something that happens.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its line.
    pub line: usize,
    /// When; None: as soon as all before it is done.
    pub at: Option<Duration>,
    /// What.
    pub deed: Deed,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Deed {
    /// A client asks.
    Ask { client: IpAddr, ask: Ask, expect: Vec<(usize, Expect)> },
    /// The policy's files change.
    Reload(Vec<Change>),
    /// An upstream must have seen so many queries since the start.
    Saw { server: SocketAddr, queries: usize, filter: Filter },
    /// An upstream must have had so many TCP connections.
    Connections { server: SocketAddr, count: usize },
}

/// Which queries are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub over: Option<Proto>,
    pub qname: Option<Name>,
    pub qtype: Option<Qtype>,
    pub dnssec_ok: bool,
    pub cd: bool,
}

/// A query as a client writes it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub transport: Transport,
    /// The country of the listener it comes to.
    pub listener: Option<Country>,
    /// Written as it stands; empty where raw octets are sent.
    pub octets: Vec<u8>,
    /// The QNAME of the question.
    pub qname: Name,
    /// It has an OPT.
    pub edns: bool,
}

/// What must be true of the answer.
#[allow(clippy::large_enum_variant, reason = "a scenario has a handful of them")]
#[derive(Debug, Clone)]
pub enum Expect {
    /// One of these.
    Rcode(Vec<Rcode>),
    Dropped,
    Flags(u16),
    Record(usize, Rr),
    /// A section without records.
    Empty(usize),
    Ede(u16, Option<String>),
    Padded(bool),
    Keepalive(Option<u16>),
    DnssecOk(bool),
    MaxAge(Option<u32>),
    After(Duration),
    Within(Duration),
    AsksUpstream(usize),
    AsksUpstreamAtMost(usize),
}

impl Scenario {
    /// Reads a scenario file.
    pub fn read(text: &str) -> Said<Self> {
        let mut scenario = Self {
            start: "2026-11-22T10:00:00Z".parse().map_err(|_| Trouble { line: 0, what: "start".into() })?,
            settings: Vec::new(),
            origins: None,
            changes: Vec::new(),
            servers: Vec::new(),
            steps: Vec::new(),
        };
        for node in tree(text)? {
            scenario.take(&node)?;
        }
        if scenario.steps.is_empty() {
            return Err(Trouble { line: 0, what: "nothing happens".into() });
        }
        Ok(scenario)
    }

    fn take(&mut self, node: &Node) -> Said<()> {
        let words = node.words();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["start", time] => self.start = time.parse().map_err(|_| node.trouble("not a time with an offset"))?,
            ["set", key, value @ ..] => self.settings.push((node.line, (*key).into(), value.join(" "))),
            ["origin", "none"] => self.origins = Some(Vec::new()),
            ["origin", prefix, country] => {
                self.origins.get_or_insert_default().push(((*prefix).into(), (*country).into()));
            }
            ["upstream", address] => self.servers.push(server(node, address)?),
            ["order" | "list" | "file" | "exempt" | "database", ..] => self.changes.push(change(node)?),
            _ => self.steps.push(step(node)?),
        }
        Ok(())
    }
}

/// Lines to a tree, by indentation.
fn tree(text: &str) -> Said<Vec<Node>> {
    let mut stack: Vec<(usize, Node)> = vec![(0, Node { line: 0, text: String::new(), children: Vec::new() })];
    let mut depths = vec![0_usize];
    for (at, line) in text.lines().enumerate() {
        let text = line.trim();
        if text.is_empty() || (text.starts_with('#') && line.starts_with('#')) {
            continue;
        }
        if line.contains('\t') {
            return Err(Trouble { line: at + 1, what: "indent with spaces".into() });
        }
        let indent = line.len() - line.trim_start().len() + 1;
        while depths.last().is_some_and(|depth| *depth >= indent) {
            depths.pop();
            fold(&mut stack);
        }
        depths.push(indent);
        stack.push((indent, Node { line: at + 1, text: text.into(), children: Vec::new() }));
    }
    while stack.len() > 1 {
        fold(&mut stack);
    }
    Ok(stack.pop().map(|(_, root)| root.children).unwrap_or_default())
}

fn fold(stack: &mut Vec<(usize, Node)>) {
    if let Some((_, node)) = stack.pop()
        && let Some((_, parent)) = stack.last_mut()
    {
        parent.children.push(node);
    }
}

fn duration(node: &Node, text: &str) -> Said<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    humantime::parse_duration(text).map_err(|_| node.trouble(format!("not a duration: {text}")))
}

fn address(node: &Node, text: &str) -> Said<SocketAddr> {
    let with_port = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(|_| with_port()).map_err(|_| node.trouble(format!("not an address: {text}")))
}

fn change(node: &Node) -> Said<Change> {
    let line = node.line;
    let words = node.words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["order", id] => Change::Order { line, id: (*id).into(), toml: node.block() },
        ["list", name, format, covers, effect] => Change::List {
            line,
            name: (*name).into(),
            format: (*format).into(),
            covers: (*covers).into(),
            effect: (*effect).into(),
            text: node.block(),
        },
        ["file", path] => Change::File { path: path.into(), text: node.block() },
        ["exempt", name, rest @ ..] => {
            let value = |key: &str| rest.iter().skip_while(|word| **word != key).nth(1).map(|word| (*word).to_owned());
            let until = value("until").map(|time| time.parse().map_err(|_| node.trouble("not a time"))).transpose()?;
            Change::Exempt { line, name: (*name).into(), overrides: value("overrides"), until }
        }
        ["database", day, rest @ ..] => Change::Database {
            line,
            built: format!("{day}T00:00:00Z").parse().map_err(|_| node.trouble("not a day"))?,
            ip_version: if rest == ["ipv4"] { 4 } else { 6 },
            lines: node.said().map(|child| format!("{}\n", child.text)).collect(),
        },
        ["without", "database"] => Change::WithoutDatabase,
        ["without", "order", id] => Change::WithoutOrder((*id).into()),
        ["without", "list", name] => Change::WithoutList((*name).into()),
        ["without", "exemption", name] => Change::WithoutExemption((*name).into()),
        _ => return Err(node.trouble("not an order, a list, a file, an exemption or a database")),
    })
}

fn server(node: &Node, text: &str) -> Said<Server> {
    let mut server = Server { address: address(node, text)?, refuses_tcp: false, rules: Vec::new() };
    for child in node.said() {
        if child.text == "refuses tcp" {
            server.refuses_tcp = true;
        } else {
            server.rules.push(rule(child)?);
        }
    }
    Ok(server)
}

/// `NAME TYPE [over udp|tcp] [from +T] [until +T] [times N]`, and what comes back below it.
fn rule(node: &Node) -> Said<Rule> {
    let words = node.words();
    let [qname, qtype, rest @ ..] = words.as_slice() else {
        return Err(node.trouble("a rule begins with a name and a type, or * for any"));
    };
    let mut rule = Rule {
        qname: (qname != "*").then(|| name(qname)).transpose().map_err(|what| node.trouble(what))?,
        qtype: match qtype.as_str() {
            "*" => None,
            other => Some(Qtype::from_text(other).ok_or_else(|| node.trouble("not a type"))?),
        },
        over: None,
        from: Duration::ZERO,
        until: Duration::MAX,
        times: u32::MAX,
        reply: scripted(node)?,
    };
    for pair in rest.chunks(2) {
        match pair.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["over", "udp"] => rule.over = Some(Proto::Udp),
            ["over", "tcp"] => rule.over = Some(Proto::Tcp),
            ["from", time] => rule.from = duration(node, time)?,
            ["until", time] => rule.until = duration(node, time)?,
            ["times", count] => rule.times = count.parse().map_err(|_| node.trouble("not a count"))?,
            _ => return Err(node.trouble(format!("not known: {}", pair.join(" ")))),
        }
    }
    Ok(rule)
}

fn scripted(node: &Node) -> Said<Scripted> {
    let mut reply = Scripted {
        after: Duration::ZERO,
        first: Vec::new(),
        outcome: Outcome::Answer,
        rcode: Rcode::NOERROR,
        flags: flag::RA,
        options: Vec::new(),
        without_opt: false,
        trailing: Vec::new(),
        then_close: false,
        records: Vec::new(),
    };
    for child in node.said() {
        reply_line(&mut reply, child)?;
    }
    Ok(reply)
}

fn reply_line(reply: &mut Scripted, node: &Node) -> Said<()> {
    let words = node.words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let record = |text: &str| Rr::from_text(text).map_err(|what| node.trouble(what));
    match words.as_slice() {
        ["after", time] => reply.after = duration(node, time)?,
        ["first", what] => reply.first.push(bogus(what).ok_or_else(|| node.trouble("not known"))?),
        ["silent"] => reply.outcome = Outcome::Silent,
        ["refused"] => reply.outcome = Outcome::Refused,
        ["unreachable"] => reply.outcome = Outcome::Unreachable,
        ["close"] => reply.outcome = Outcome::Close,
        ["then", "close"] => reply.then_close = true,
        ["aa"] => reply.flags |= flag::AA,
        ["tc"] => reply.flags |= flag::TC,
        ["ad"] => reply.flags |= flag::AD,
        ["no-ra"] => reply.flags &= !flag::RA,
        ["without", "opt"] => reply.without_opt = true,
        ["trailing", octets] => reply.trailing = hex(octets).map_err(|what| node.trouble(what))?,
        ["option", code, octets @ ..] => {
            let code = code.parse().map_err(|_| node.trouble("not an option code"))?;
            reply.options.push((code, hex(&octets.concat()).map_err(|what| node.trouble(what))?));
        }
        ["authority", ..] => reply.records.push((1, record(node.text.trim_start_matches("authority "))?)),
        ["additional", ..] => reply.records.push((2, record(node.text.trim_start_matches("additional "))?)),
        [word] => reply.rcode = rcode(node, word)?,
        _ => reply.records.push((0, record(&node.text)?)),
    }
    Ok(())
}

fn bogus(text: &str) -> Option<Bogus> {
    Some(match text {
        "garbage" => Bogus::Garbage,
        "wrong-id" => Bogus::WrongId,
        "wrong-name" => Bogus::WrongName,
        "wrong-type" => Bogus::WrongType,
        "no-question" => Bogus::NoQuestion,
        "not-a-response" => Bogus::NotAResponse,
        "badvers" => Bogus::Badvers,
        _ => return None,
    })
}

fn step(node: &Node) -> Said<Step> {
    let words = node.words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (at, words) = match words.as_slice() {
        ["at", time, rest @ ..] => (Some(duration(node, time)?), rest),
        rest => (None, rest),
    };
    let deed = match words {
        ["reload"] => Deed::Reload(node.said().map(change).collect::<Said<_>>()?),
        ["upstream", server, "had", count, "connection" | "connections"] => Deed::Connections {
            server: address(node, server)?,
            count: count.parse().map_err(|_| node.trouble("not a count"))?,
        },
        ["upstream", server, "saw", count, rest @ ..] => Deed::Saw {
            server: address(node, server)?,
            queries: count.parse().map_err(|_| node.trouble("not a count"))?,
            filter: filter(node, rest)?,
        },
        ["client", client, "asks" | "sends", ..] => ask(node, client, &words[2..])?,
        [who, "asks" | "sends", ..] => ask(node, who, &words[1..])?,
        _ => return Err(node.trouble("not known")),
    };
    Ok(Step { line: node.line, at, deed })
}

/// `[udp|tcp] [NAME TYPE] [do] [cd]`
fn filter(node: &Node, words: &[&str]) -> Said<Filter> {
    let mut filter = Filter::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "udp" => filter.over = Some(Proto::Udp),
            "tcp" => filter.over = Some(Proto::Tcp),
            "do" => filter.dnssec_ok = true,
            "cd" => filter.cd = true,
            other => {
                filter.qname = Some(name(other).map_err(|what| node.trouble(what))?);
                let qtype = words.next().and_then(|word| Qtype::from_text(word));
                filter.qtype = Some(qtype.ok_or_else(|| node.trouble("a type follows the name"))?);
            }
        }
    }
    Ok(filter)
}

/// The clients that scenarios speak of by what they are.
fn client(node: &Node, text: &str) -> Said<IpAddr> {
    Ok(match text {
        "stranger" => Ipv4Addr::new(127, 0, 0, 1).into(),
        "italian" => Ipv4Addr::new(127, 0, 0, 2).into(),
        "german" => Ipv4Addr::new(127, 0, 0, 3).into(),
        other => other.parse().map_err(|_| node.trouble(format!("not a client: {other}")))?,
    })
}

fn ask(node: &Node, who: &str, words: &[&str]) -> Said<Deed> {
    let ask = match words {
        ["asks", qname, qtype, options @ ..] => written(node, qname, qtype, options)?,
        ["sends", octets @ ..] => Ask {
            transport: Transport::Dot,
            listener: None,
            octets: hex(&octets.concat()).map_err(|what| node.trouble(what))?,
            qname: Name::root(),
            edns: false,
        },
        _ => return Err(node.trouble("asks NAME TYPE")),
    };
    let expect = node.said().map(|child| expect(child).map(|expect| (child.line, expect))).collect::<Said<Vec<_>>>()?;
    if expect.is_empty() {
        return Err(node.trouble("nothing is expected; say at least the RCODE"));
    }
    Ok(Deed::Ask { client: client(node, who)?, ask, expect })
}

/// A query, with everything that can be said about one.
fn written(node: &Node, qname: &str, qtype: &str, options: &[&str]) -> Said<Ask> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| node.trouble(format!("not a number: {text}")));
    let octets = |text: &str| hex(text).map_err(|what| node.trouble(what));
    let (mut transport, mut listener) = (Transport::Dot, None);
    let (mut id, mut flags, mut class, mut questions) = (0x1234_u16, flag::RD, Qclass::IN, 1_u16);
    let (mut opts, mut version, mut udp, mut opt_flags, mut rdata) = (1, 0_u8, 1232_u16, 0_u16, Vec::new());
    let (mut trailing, mut cut) = (Vec::new(), usize::MAX);
    for option in options {
        match option.split_once('=').unwrap_or((*option, "")) {
            ("over", _) => {}
            ("dot", _) => transport = Transport::Dot,
            ("doh", _) => transport = Transport::Doh,
            ("do", _) => opt_flags |= 0x8000,
            ("z", _) => opt_flags |= 0x1234,
            ("cd", _) => flags |= flag::CD,
            ("ad", _) => flags |= flag::AD,
            ("no-rd", _) => flags &= !flag::RD,
            ("listener", code) => {
                let country = Country::from_code(code).ok_or_else(|| node.trouble(format!("no country: {code}")))?;
                listener = Some(country);
            }
            ("no-edns", _) => opts = 0,
            ("two-opts", _) => opts = 2,
            ("pad", _) => rdata.extend([0, 12, 0, 0]),
            ("keepalive", _) => rdata.extend([0, 11, 0, 0]),
            ("structured", _) => rdata.extend([0, 15, 0, 2, 0, 0]),
            ("option", value) => {
                let (code, value) = value.split_once(':').unwrap_or((value, ""));
                let value = octets(value)?;
                rdata.extend(number(code)?.to_be_bytes());
                rdata.extend((value.len() as u16).to_be_bytes());
                rdata.extend(value);
            }
            ("bad-option", _) => rdata.extend([0, 8, 0, 9, 0]),
            ("id", value) => id = number(value)?,
            ("udp", value) => udp = number(value)?,
            ("version", value) => version = number(value)? as u8,
            ("opcode", value) => flags |= (number(value)? & 15) << 11,
            ("qr", _) => flags |= flag::QR,
            ("qdcount", value) => questions = number(value)?,
            ("class", value) => class = Qclass::from_text(value).ok_or_else(|| node.trouble("not a class"))?,
            ("trailing", value) => trailing = octets(value)?,
            ("cut", value) => cut = usize::from(number(value)?),
            (other, _) => return Err(node.trouble(format!("not known: {other}"))),
        }
    }
    let qtype = Qtype::from_text(qtype).ok_or_else(|| node.trouble(format!("not a type: {qtype}")))?;
    let mut message = Vec::new();
    for word in [id, flags, questions, 0, 0, opts] {
        message.extend(word.to_be_bytes());
    }
    for _ in 0..questions {
        message.extend(as_typed(qname).map_err(|what| node.trouble(what))?);
        message.extend([qtype.0.to_be_bytes(), class.0.to_be_bytes()].concat());
    }
    for _ in 0..opts {
        message.extend([0, 0, 41]);
        message.extend(udp.to_be_bytes());
        message.extend([0, version]);
        message.extend(opt_flags.to_be_bytes());
        message.extend((rdata.len() as u16).to_be_bytes());
        message.extend(&rdata);
    }
    message.extend(trailing);
    message.truncate(cut);
    let qname = name(qname).map_err(|what| node.trouble(what))?;
    Ok(Ask { transport, listener, octets: message, qname, edns: opts > 0 })
}

/// A name's wire form with its letters as they were typed.
fn as_typed(text: &str) -> Result<Vec<u8>, String> {
    let mut wire = name(text)?.as_wire().to_vec();
    let typed: Vec<u8> = text.bytes().filter(|_| !text.contains('\\')).collect();
    // Without escapes, label n of the text stands at the same place in the wire form, one length octet further on.
    for (at, octet) in typed.iter().enumerate().filter(|(_, octet)| octet.is_ascii_uppercase()) {
        wire[at + 1] = *octet;
    }
    Ok(wire)
}

fn expect(node: &Node) -> Said<Expect> {
    let words = node.words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().map_err(|_| node.trouble(format!("not a number: {text}")));
    let record = |section, text: &str| Rr::from_text(text).map(|rr| Expect::Record(section, rr));
    let record = |section, text: &str| record(section, text).map_err(|what| node.trouble(what));
    Ok(match words.as_slice() {
        ["dropped"] => Expect::Dropped,
        ["flags", flags @ ..] => Expect::Flags(flags_of(node, flags)?),
        ["authority", "none"] => Expect::Empty(1),
        ["additional", "none"] => Expect::Empty(2),
        ["authority", ..] => record(1, node.text.trim_start_matches("authority "))?,
        ["additional", ..] => record(2, node.text.trim_start_matches("additional "))?,
        ["ede", code] => Expect::Ede(number(code)? as u16, Some(String::new())),
        ["ede", code, "*"] => Expect::Ede(number(code)? as u16, None),
        ["ede", code, text] => Expect::Ede(number(code)? as u16, Some((*text).into())),
        ["padded"] => Expect::Padded(true),
        ["not", "padded"] => Expect::Padded(false),
        ["keepalive", "none"] => Expect::Keepalive(None),
        ["keepalive", value] => Expect::Keepalive(Some(number(value)? as u16)),
        ["do"] => Expect::DnssecOk(true),
        ["not", "do"] => Expect::DnssecOk(false),
        ["max-age", value] => Expect::MaxAge(Some(number(value)?)),
        ["no-store"] => Expect::MaxAge(None),
        ["at", "once"] => Expect::After(Duration::ZERO),
        ["after", time] => Expect::After(duration(node, time)?),
        ["within", time] => Expect::Within(duration(node, time)?),
        ["asks", "upstream", count] => Expect::AsksUpstream(number(count)? as usize),
        ["asks", "upstream", "at", "most", count] => Expect::AsksUpstreamAtMost(number(count)? as usize),
        [one, "or", other] => Expect::Rcode(vec![rcode(node, one)?, rcode(node, other)?]),
        [one] => Expect::Rcode(vec![rcode(node, one)?]),
        _ => record(0, &node.text)?,
    })
}

fn rcode(node: &Node, text: &str) -> Said<Rcode> {
    Rcode::from_text(text).ok_or_else(|| node.trouble(format!("not known: {text}")))
}

fn flags_of(node: &Node, words: &[&str]) -> Said<u16> {
    words.iter().try_fold(flag::QR, |flags, word| {
        Ok(flags
            | match *word {
                "aa" => flag::AA,
                "tc" => flag::TC,
                "rd" => flag::RD,
                "ra" => flag::RA,
                "ad" => flag::AD,
                "cd" => flag::CD,
                other => return Err(node.trouble(format!("not a flag: {other}"))),
            })
    })
}

/// The name of a scenario: its file name, which is a sentence.
pub fn title(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().replace('-', " ")).unwrap_or_default()
}
