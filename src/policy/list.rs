//! List formats: a file's octets become rules and faults, each with its place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::Name;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One name a line.
    Domains,
    /// Lines of a hosts file: an address, then names.
    Hosts,
}

impl Format {
    /// The format named in a configuration.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "domains" => Some(Self::Domains),
            "hosts" => Some(Self::Hosts),
            _ => None,
        }
    }
}

/// A line, or a part of one, that cannot be read; the lines around it load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong and, behind a semicolon, what to do.
    pub what: String,
}

/// The most characters of a line that a fault repeats.
pub const EXCERPT_CHARACTERS_MAX: usize = 64;

/// The longest host that is looked at, in octets of UTF-8: 253 characters of four octets each, with room to spare.
const HOST_OCTETS_MAX: usize = 1024;

/// Reads a list: `rule` is called with each name and its line, `fault` with each fault.
///
/// A leading `.` or `*.` is dropped: whether what stands below a name is meant is said by the configuration, never by a
/// list. Of a URL its host is read. An entry that would block a whole top-level domain, or everything, is a fault.
pub fn read(format: Format, octets: &[u8], mut rule: impl FnMut(&Name, u32), mut fault: impl FnMut(Fault)) {
    if let Some(what) = why_no_list(octets) {
        fault(Fault { line: 1, column: 1, what: what.to_owned() });
        return;
    }
    let octets = octets.strip_prefix(BYTE_ORDER_MARK).unwrap_or(octets);
    let mut plain = Name::root();
    for (line, octets) in octets.split(|octet| *octet == b'\n').enumerate() {
        let line = u32::try_from(line + 1).unwrap_or(u32::MAX);
        if format == Format::Domains && is_plain(octets, &mut plain) {
            rule(&plain, line);
            continue;
        }
        read_line(format, octets, &mut |entry| match entry {
            Ok(name) => rule(&name, line),
            Err(Flaw { column, what }) => fault(Fault { line, column, what }),
        });
    }
}

/// Whether any line of a list can be read; none behind the first that can is looked at.
pub(super) fn has_rule(format: Format, octets: &[u8]) -> bool {
    let octets = octets.strip_prefix(BYTE_ORDER_MARK).unwrap_or(octets);
    let is_rule = |line: &[u8]| {
        let mut found = false;
        read_line(format, line, &mut |entry| found |= entry.is_ok());
        found
    };
    why_no_list(octets).is_none() && octets.split(|octet| *octet == b'\n').any(is_rule)
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A fault whose line is known to the caller.
struct Flaw {
    column: u32,
    what: String,
}

/// Why the whole file is something else than a list: the error page of a server, say, saved as if it were the list.
pub(super) fn why_no_list(octets: &[u8]) -> Option<&'static str> {
    if octets.starts_with(b"\xff\xfe") || octets.starts_with(b"\xfe\xff") {
        return Some("is UTF-16; save it as UTF-8");
    }
    let start = octets.strip_prefix(BYTE_ORDER_MARK).unwrap_or(octets).trim_ascii_start();
    let opens = |with: &[u8]| start.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let is_web_page = [&b"<!doctype html"[..], b"<html"].into_iter().any(opens);
    is_web_page.then_some("is a web page, not a list; see where it is downloaded from")
}

/// Reads one line; `entry` is called with each name and each flaw in it.
fn read_line(format: Format, octets: &[u8], entry: &mut impl FnMut(Result<Name, Flaw>)) {
    let line = match std::str::from_utf8(octets) {
        Ok(line) => line,
        Err(error) => {
            let before = std::str::from_utf8(&octets[..error.valid_up_to()]).unwrap_or_default();
            let what = "octets that are not UTF-8; save the list as UTF-8".to_owned();
            return entry(Err(Flaw { column: characters(before).saturating_add(1), what }));
        }
    };
    match format {
        Format::Domains => read_domains_line(line, entry),
        Format::Hosts => read_hosts_line(line, entry),
    }
}

/// Whether a line is nothing but a name, as nearly all of a list are, and `name` has become it: what a closer look would
/// say of the line, in a fraction of the time. What is not plain takes that look.
fn is_plain(line: &[u8], name: &mut Name) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // A dot before a name is dropped, and what ends in a digit may be an address.
    line.last().is_some_and(u8::is_ascii_alphabetic)
        && line.iter().all(|octet| PLAIN[usize::from(*octet)])
        && name.rewrite(line).is_ok()
        && name.labels() > 1
}

/// The octets of plain lines, in a table: each octet of each line is asked for.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut octet = 0;
    while octet < plain.len() {
        plain[octet] = is_host_octet(octet as u8) || octet as u8 == b'.';
        octet += 1;
    }
    plain
};

fn read_domains_line(line: &str, entry: &mut impl FnMut(Result<Name, Flaw>)) {
    let mut tokens = Tokens::of(line).take_while(|token| !token.text.starts_with('#'));
    let Some(first) = tokens.next() else { return };
    match tokens.next() {
        None => entry(name_of(first)),
        Some(second) if first.text.parse::<IpAddr>().is_ok() => {
            entry(
                Err(second.flaw("a name behind an address, as in a hosts file; this list says format = \"domains\"")),
            );
        }
        Some(second) => entry(Err(second.flaw("more than one word on the line; write one name a line"))),
    }
}

fn read_hosts_line(line: &str, entry: &mut impl FnMut(Result<Name, Flaw>)) {
    let line = line.split_once('#').map_or(line, |(before, _)| before);
    let mut tokens = Tokens::of(line);
    let Some(first) = tokens.next() else { return };
    let Some(address) = address_of(first.text) else {
        return entry(Err(first.flaw("not an address; a line of a hosts file is an address, then names")));
    };
    let mut names = tokens.peekable();
    if names.peek().is_none() {
        return entry(Err(first.flaw("no name behind the address; add one, or take the line out")));
    }
    let mut names = names.filter(|token| !is_own_name(token.text)).peekable();
    if names.peek().is_some() && !BLOCK_ADDRESSES.contains(&address) {
        return entry(Err(first.flaw("this address would rewrite the name, not block it; write 0.0.0.0 to block")));
    }
    names.for_each(|token| entry(name_of(token)));
}

/// The addresses by which a hosts file blocks a name.
const BLOCK_ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The address of a hosts line; the zone of `fe80::1%lo0` is dropped.
fn address_of(text: &str) -> Option<IpAddr> {
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}

/// What hosts files say about the machine they lie on. No name to block; `0.0.0.0` is there for looks.
const OWN_NAMES: [&str; 9] = [
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "local",
    "broadcasthost",
    "0.0.0.0",
];

fn is_own_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    OWN_NAMES.iter().any(|own| own.eq_ignore_ascii_case(text))
        || text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("ip6-"))
}

/// A word of a line, and where it begins, in characters from 1.
#[derive(Clone, Copy)]
struct Token<'l> {
    text: &'l str,
    column: u32,
}

impl<'l> Token<'l> {
    /// This, from an octet on, which begins a character.
    fn from(self, start: usize) -> Self {
        let (before, text) = self.text.split_at(start);
        Self { text, column: self.column.saturating_add(characters(before)) }
    }

    /// This, up to an octet, which begins a character.
    fn to(self, end: usize) -> Self {
        Self { text: &self.text[..end], ..self }
    }

    /// This without `prefix`, where it begins with it.
    fn without(self, prefix: &str) -> Option<Self> {
        self.text.starts_with(prefix).then(|| self.from(prefix.len()))
    }

    fn flaw(self, what: impl std::fmt::Display) -> Flaw {
        Flaw { column: self.column, what: format!("{}: {what}", excerpt(self.text)) }
    }
}

/// The words of a line. White space parts them; the no-break space does so at their ends only.
struct Tokens<'l> {
    rest: Token<'l>,
}

impl<'l> Tokens<'l> {
    fn of(line: &'l str) -> Self {
        Self { rest: Token { text: line, column: 1 } }
    }
}

impl<'l> Iterator for Tokens<'l> {
    type Item = Token<'l>;

    fn next(&mut self) -> Option<Token<'l>> {
        let text = self.rest.text;
        let start = text.len() - text.trim_start_matches(is_blank).len();
        let rest = self.rest.from(start);
        let end = rest.text.find(|character: char| character.is_ascii_whitespace()).unwrap_or(rest.text.len());
        self.rest = rest.from(end);
        let token = rest.to(rest.text[..end].trim_end_matches(is_blank).len());
        (!token.text.is_empty()).then_some(token)
    }
}

/// White space of any kind, and the byte order mark that lists glued together have in their midst.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// The name that a token stands for.
fn name_of(token: Token<'_>) -> Result<Name, Flaw> {
    let host = host_of(token);
    let host = host.without("*.").or_else(|| host.without(".")).unwrap_or(host);
    if host.text.is_empty() {
        return Err(token.flaw("no name in this; write one, or take the line out"));
    }
    if host.text.len() > HOST_OCTETS_MAX {
        return Err(host.flaw("longer than a name can be; was a line break lost?"));
    }
    if is_address(host.text) {
        return Err(host.flaw("an address, where a name is expected; take it out"));
    }
    if let Some((at, _)) = host.text.char_indices().find(|(_, character)| !may_stand_in_name(*character)) {
        let Flaw { what, .. } = host.flaw("a character that cannot stand in a host name; write the name alone");
        return Err(Flaw { column: host.from(at).column, what });
    }
    let name = Name::from_text(host.text).map_err(|error| host.flaw(format_args!("{error}; correct the name")))?;
    why_not_blockable(&name).map_or(Ok(name), |what| Err(host.flaw(what)))
}

/// The host of `scheme://user@host:port/path`, of which all but the host may be missing.
fn host_of(token: Token<'_>) -> Token<'_> {
    let scheme = token.text.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
    let Some(scheme) = scheme else {
        return without_port(up_to(token, &['/', '?']));
    };
    let authority = up_to(token.from(scheme.len() + "://".len()), &['/', '?', '#']);
    let host = authority.text.rfind('@').map_or(authority, |at| authority.from(at + 1));
    without_port(host)
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
}

fn up_to<'l>(token: Token<'l>, ends: &[char]) -> Token<'l> {
    token.to(token.text.find(ends).unwrap_or(token.text.len()))
}

/// RFC 3986 §3.2.3: a port may be empty. What has more colons is an IPv6 address.
fn without_port(token: Token<'_>) -> Token<'_> {
    match token.text.rsplit_once(':') {
        Some((host, port)) if (!host.contains(':') || host.ends_with(']')) && is_port(port) => token.to(host.len()),
        _ => token,
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_digit()) && (text.is_empty() || text.parse::<u16>().is_ok())
}

/// Whether this is an address, or would be read as one: no top-level domain is a number (RFC 3696 §2), and what ends in
/// one is a short or mistyped IPv4 address.
fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let undotted = host.strip_suffix('.').unwrap_or(host);
    let last = undotted.rsplit('.').next().unwrap_or(undotted);
    bare.parse::<IpAddr>().is_ok() || (!last.is_empty() && last.bytes().all(|octet| octet.is_ascii_digit()))
}

/// Letters, digits, hyphen, underscore and dot; beyond ASCII UTS 46 judges, but it would drop what cannot be seen.
fn may_stand_in_name(character: char) -> bool {
    match character {
        '.' => true,
        _ if character.is_ascii() => is_host_octet(character as u8),
        _ => is_visible(character),
    }
}

const fn is_host_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_'
}

/// Whether a character shows: no white space, no control, none of Unicode's invisible and direction-changing ones.
fn is_visible(character: char) -> bool {
    let hidden = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    !(hidden || character.is_whitespace() || character.is_control())
}

/// Why no list may block this name.
fn why_not_blockable(name: &Name) -> Option<&'static str> {
    // UTS 46 makes ASCII of some characters, a full-width solidus for one.
    let is_host = |depth| name.label_from_root(depth).iter().all(|octet| is_host_octet(*octet));
    match name.labels() {
        0 => Some("the root, which would block everything; take it out"),
        1 => Some("one label, which would block a whole top-level domain; write the full name"),
        labels if !(1..=labels).all(is_host) => {
            Some("a character that cannot stand in a host name; write the name alone")
        }
        _ => None,
    }
}

/// The start of a text as a fault may show it: short, and with nothing in it that a terminal obeys.
fn excerpt(text: &str) -> String {
    let shown = |character| if is_visible(character) { character } else { char::REPLACEMENT_CHARACTER };
    let mut characters = text.chars();
    let mut excerpt: String = characters.by_ref().take(EXCERPT_CHARACTERS_MAX).map(shown).collect();
    if characters.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

fn characters(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says when it is skipped")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names with their lines, and faults.
    fn read_all(format: Format, octets: &[u8]) -> (Vec<(String, u32)>, Vec<Fault>) {
        let (mut rules, mut faults) = (Vec::new(), Vec::new());
        read(format, octets, |name, line| rules.push((name.to_string(), line)), |fault| faults.push(fault));
        (rules, faults)
    }

    /// The names of a list without faults.
    fn names(format: Format, text: &str) -> Vec<String> {
        let (rules, faults) = read_all(format, text.as_bytes());
        assert_eq!(faults, [], "{text:?}");
        rules.into_iter().map(|(name, _)| name).collect()
    }

    /// Line, column and text of the faults of a list without rules.
    fn faults(format: Format, text: &str) -> Vec<(u32, u32, String)> {
        let (rules, faults) = read_all(format, text.as_bytes());
        assert_eq!(rules, [], "{text:?}");
        faults.into_iter().map(|fault| (fault.line, fault.column, fault.what)).collect()
    }

    use Format::{Domains, Hosts};

    #[test]
    fn a_domain_list_is_read() {
        let text = "\u{feff}# a list\r\n\r\na.example\r\n  B.Example.  \t# why\n\n.c.example\n*.d.example\n\
                    bücher.example\n_sip._tcp.example\n   # indented\ne.example";
        let (rules, faults) = read_all(Domains, text.as_bytes());
        let expected = [
            ("a.example", 3),
            ("b.example", 4),
            ("c.example", 6),
            ("d.example", 7),
            ("xn--bcher-kva.example", 8),
            ("_sip._tcp.example", 9),
            ("e.example", 11),
        ];
        assert_eq!(rules, expected.map(|(name, line)| (name.to_owned(), line)));
        assert_eq!(faults, []);
    }

    #[test]
    fn of_a_url_the_host_is_read() {
        for text in [
            "https://a.example:8443/path?x=y#z",
            "http://A.Example",
            "https://a.example./",
            "https://user:word@a.example/",
            "https://google.com@a.example",
            "https://*.a.example/",
            "https://a.example#z",
            "https://a.example?to=https://b.example",
            "a.example/path",
            "a.example:443",
            "a.example:",
            "a.example?x",
            "a.example/?to=https://b.example",
        ] {
            assert_eq!(names(Domains, text), ["a.example"], "{text}");
        }
    }

    #[test]
    fn white_space_around_is_nothing_and_inside_is_a_fault() {
        assert_eq!(names(Domains, "\u{a0}a.example\u{a0} \n\u{a0}\n\u{feff}b.example\n"), ["a.example", "b.example"]);
        for junk in ['\u{a0}', '\u{200b}', '\u{ad}', '\u{202e}', '\u{7}', '\u{b}', '\u{feff}', '\u{2003}'] {
            let found = faults(Domains, &format!("ok\n a.ex{junk}ample\n").replace("ok", "#"));
            assert_eq!(found.len(), 1, "{junk:?}");
            assert_eq!((found[0].0, found[0].1), (2, 6), "{junk:?}");
            assert!(!found[0].2.contains(junk), "{junk:?}");
        }
    }

    #[test]
    fn what_would_block_a_top_level_domain_is_a_fault() {
        for text in ["info", ".com", "*.com", "com.", "https://com/", "local"] {
            let found = faults(Domains, text);
            assert!(found.len() == 1 && found[0].2.contains("whole top-level domain"), "{text}: {found:?}");
        }
        assert!(faults(Domains, "..")[0].2.contains("block everything"));
        assert!(faults(Hosts, "0.0.0.0 com")[0].2.contains("whole top-level domain"));
    }

    #[test]
    fn what_is_no_name_is_a_fault() {
        for (text, column, what) in [
            (".", 1, "no name"),
            ("*.", 1, "no name"),
            ("https:///path", 1, "no name"),
            ("*", 1, "cannot stand"),
            ("a..example", 1, "empty label"),
            ("..com", 2, "empty label"),
            ("a.*.example", 3, "cannot stand"),
            ("||a.example^", 1, "cannot stand"),
            ("  a.example#b", 12, "cannot stand"),
            ("a@b.example", 2, "cannot stand"),
            ("a\\.b.example", 2, "cannot stand"),
            ("a.example:99999", 10, "cannot stand"),
            ("a,b.example", 2, "cannot stand"),
            ("a\u{ff0f}b.example", 1, "cannot stand"),
            ("192.0.2.1", 1, "an address"),
            ("192.0.2.1:80", 1, "an address"),
            ("https://192.0.2.1/x", 9, "an address"),
            ("192.0.2", 1, "an address"),
            ("1.2.3.4.", 1, "an address"),
            ("2001:db8::1", 1, "an address"),
            ("https://[2001:db8::1]:443/", 9, "an address"),
            ("a.example b.example", 11, "more than one word"),
            ("0.0.0.0 a.example", 9, "hosts"),
            ("é é", 3, "more than one word"),
        ] {
            let found = faults(Domains, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!((found[0].0, found[0].1), (1, column), "{text}: {found:?}");
            assert!(found[0].2.contains(what), "{text}: {found:?}");
        }
        let label = "a".repeat(64);
        assert!(faults(Domains, &format!("{label}.example"))[0].2.contains("63 octets"));
        assert!(faults(Domains, &"aaaaaaa.".repeat(33))[0].2.contains("255 octets"));
        assert!(faults(Domains, &"ü".repeat(100_000))[0].2.contains("longer than a name"));
    }

    #[test]
    fn a_bad_line_leaves_its_neighbours() {
        let (rules, faults) = read_all(Domains, b"a.example\n\xc3\xbc\xff\xfe.example\nb.example\n..\nc.example\n");
        let expected = [("a.example", 1), ("b.example", 3), ("c.example", 5)];
        assert_eq!(rules, expected.map(|(name, line)| (name.to_owned(), line)));
        assert_eq!(faults.iter().map(|fault| (fault.line, fault.column)).collect::<Vec<_>>(), [(2, 2), (4, 2)]);
        assert!(faults[0].what.contains("UTF-8"));
    }

    #[test]
    fn a_hosts_file_is_read() {
        let text = "\u{feff}# hosts\r\n127.0.0.1\tlocalhost localhost.localdomain\r\n255.255.255.255 broadcasthost\n\
                    ::1 ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nfe80::1%lo0 LocalHost\n0.0.0.0 0.0.0.0\n\
                    0.0.0.0 a.example\tB.example#why\r\n127.0.0.1 c.example\n:: d.example\n::1 e.example\n\
                    0:0:0:0:0:0:0:0 f.example # g.example\n";
        let expected = ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"];
        assert_eq!(names(Hosts, text), expected);
    }

    #[test]
    fn a_hosts_line_that_cannot_be_read_is_a_fault() {
        for (text, column, what) in [
            ("192.0.2.1 a.example b.example", 1, "rewrite"),
            (" 2001:db8::1 localhost a.example", 2, "rewrite"),
            ("a.example", 1, "not an address"),
            ("0.0.0.0", 1, "no name"),
            ("0.0.0.0 # a.example", 1, "no name"),
            ("0.0.0.0 192.0.2.1", 9, "an address"),
            ("0.0.0.0 a\u{a0}b.example", 10, "cannot stand"),
        ] {
            let found = faults(Hosts, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!((found[0].0, found[0].1), (1, column), "{text}: {found:?}");
            assert!(found[0].2.contains(what), "{text}: {found:?}");
        }
        let (rules, faults) = read_all(Hosts, b"0.0.0.0 a.example com b.example");
        assert_eq!((rules.len(), faults.len()), (2, 1));
        assert_eq!(faults[0].column, 19);
    }

    #[test]
    fn what_is_no_list_is_one_fault() {
        for text in ["<!DOCTYPE html>\n<p>a.example\n</p>", "\u{feff}\r\n <HTML lang=it>\nb.example\n"] {
            for format in [Domains, Hosts] {
                let found = faults(format, text);
                assert_eq!(found.len(), 1);
                assert!(found[0].2.contains("web page"), "{found:?}");
            }
        }
        let (rules, faults) = read_all(Domains, b"\xff\xfea\0.\0b\0\n\0");
        assert_eq!((rules.len(), faults.len()), (0, 1));
        assert!(faults[0].what.contains("UTF-16"));
        assert_eq!(names(Domains, ""), [""; 0]);
    }

    #[test]
    fn a_fault_shows_little_of_its_line_and_no_control() {
        let junk = format!("{}\u{1b}[31m", "\u{7}".repeat(1_000_000));
        for (format, text) in [(Domains, junk.clone()), (Hosts, junk.clone()), (Hosts, format!("0.0.0.0 {junk}"))] {
            let found = faults(format, &text);
            assert!(!found.is_empty());
            for (_, _, what) in found {
                assert!(what.chars().count() < EXCERPT_CHARACTERS_MAX + 100, "{what}");
                assert!(!what.chars().any(char::is_control), "{what}");
            }
        }
    }

    proptest! {
        /// Lines of what plain names are made of, and of what makes them others.
        #[test]
        fn a_plain_line_is_what_a_closer_look_makes_of_it(
            line in r"([a-cA-C0-9_-]{0,4}[.]){0,4}([a-c1]{1,3}|[a-c]{60,66})[\r]?|[ab1.*:/#@\[\] \t\rü-]{0,9}",
        ) {
            let mut name = Name::root();
            if is_plain(line.as_bytes(), &mut name) {
                let mut found = Vec::new();
                read_line(Domains, line.as_bytes(), &mut |entry| found.push(entry.map_err(|flaw| flaw.what)));
                prop_assert_eq!(found, [Ok(name)]);
            }
        }
    }

    #[test]
    fn plain_lines_are_plain() {
        let mut name = Name::root();
        for (line, text) in [("example.org", "example.org"), ("A_b-1.EXAMPLE.x1y\r", "a_b-1.example.x1y")] {
            assert!(is_plain(line.as_bytes(), &mut name) && name == Name::from_text(text).unwrap(), "{line}");
        }
        let long = format!("{}.org", "a".repeat(64));
        for line in ["", "\r", "org", ".org", "a..org", "a.org.", "a.1", " a.org", "a.org#", "*.org", "ü.org", &long] {
            assert!(!is_plain(line.as_bytes(), &mut name), "{line}");
        }
    }

    #[test]
    fn every_cut_is_survived() {
        let domains =
            "\u{feff}# x\r\nA.example\n*.bücher.example # y\nhttps://u@[::1]:8/é?\n\u{a0}c\u{a0}d.example\r\n";
        let hosts = "0.0.0.0 a.example\té.example\r\n::1 localhost # x\nfe80::1%lo0 y\n192.0.2.1 z.example\n";
        for sample in [domains, hosts, "\n<!doctype html>"] {
            for format in [Domains, Hosts] {
                for cut in 0..=sample.len() {
                    read_all(format, &sample.as_bytes()[..cut]);
                }
            }
        }
    }

    /// How many rules and faults a real file has; None where the folder is missing.
    fn count(format: Format, path: &str) -> Option<(usize, Vec<Fault>)> {
        let path = format!("../shared/data/{path}");
        let Ok(octets) = std::fs::read(&path) else {
            eprintln!("skipped: {path} is not there");
            return None;
        };
        let (rules, faults) = read_all(format, &octets);
        Some((rules.len(), faults))
    }

    #[test]
    fn real_lists_are_read_whole() {
        for (format, path, rules) in [
            (Domains, "domains/blocklistproject-union-730k.txt", 730_225),
            (Hosts, "hosts/anudeep-adservers.hosts", 42_531),
            (Domains, "national/cz-mfcr-blacklist.txt", 721),
            (Domains, "national/ee-emta-blocklist.txt", 1893),
            (Domains, "national/ch-comlot_blacklist.txt", 101),
        ] {
            let Some((count, faults)) = count(format, path) else { continue };
            assert_eq!((count, &faults[..]), (rules, &[][..]), "{path}");
        }
    }

    #[test]
    fn a_list_read_in_the_wrong_format_is_all_faults() {
        if let Some((rules, faults)) = count(Domains, "hosts/anudeep-adservers.hosts") {
            assert_eq!((rules, faults.len()), (0, 42_531));
        }
        if let Some((rules, faults)) = count(Hosts, "national/ee-emta-blocklist.txt") {
            assert_eq!((rules, faults.len()), (0, 1893));
        }
    }
}
