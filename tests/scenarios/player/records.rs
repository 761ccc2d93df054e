//! Resource records as text: what scripts say and what failures print.

use std::fmt;

use bailiwick::dns::message::Record;
use bailiwick::dns::{Name, Qclass, Qtype};

/// A record whose owner, TTL and RDATA may each be left open (`@`, `*`, `*`).
#[derive(Debug, Clone)]
pub struct Rr {
    /// None: `@`, the QNAME.
    pub owner: Option<Name>,
    /// None: any.
    pub ttl: Option<u32>,
    /// IN unless said.
    pub class: Qclass,
    /// TYPE.
    pub rtype: Qtype,
    /// Without compression; None: any.
    pub rdata: Option<Vec<u8>>,
}

impl Rr {
    /// Reads `owner ttl [CH] TYPE rdata`.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut words = words(text);
        let mut next = |what: &str| if words.is_empty() { Err(format!("no {what}")) } else { Ok(words.remove(0)) };
        let owner = next("owner")?;
        let owner = if owner == "@" { None } else { Some(name(&owner)?) };
        let ttl = next("TTL")?;
        let ttl = if ttl == "*" { None } else { Some(ttl.parse().map_err(|_| format!("not a TTL: {ttl}"))?) };
        let mut rtype = next("type")?;
        let mut class = Qclass::IN;
        if let Some(said) = Qclass::from_text(&rtype).filter(|_| rtype != "ANY") {
            class = said;
            rtype = next("type")?;
        }
        let rtype = Qtype::from_text(&rtype).ok_or_else(|| format!("not a type: {rtype}"))?;
        let rdata = if words == ["*"] { None } else { Some(rdata(rtype, &words)?) };
        Ok(Self { owner, ttl, class, rtype, rdata })
    }

    /// A record of an answer, names in its RDATA written out.
    pub fn of_record(record: &Record<'_>) -> Result<Self, String> {
        Ok(Self {
            owner: Some(record.owner().map_err(|error| format!("owner: {error}"))?),
            ttl: Some(record.ttl()),
            class: record.class,
            rtype: record.rtype,
            rdata: Some(expanded(record)?),
        })
    }

    /// Whether `actual`, complete, is what this one says, `@` being `qname`.
    pub fn fits(&self, actual: &Self, qname: &Name) -> bool {
        self.owner.as_ref().unwrap_or(qname) == actual.owner.as_ref().unwrap_or(qname)
            && self.ttl.is_none_or(|ttl| Some(ttl) == actual.ttl)
            && (self.class, self.rtype) == (actual.class, actual.rtype)
            && self.rdata.as_deref().is_none_or(|rdata| Some(rdata) == actual.rdata.as_deref())
    }

    /// Appends its octets to a message for `qname`, whose own name is written as a pointer to the question.
    pub fn write(&self, qname: &Name, out: &mut Vec<u8>) {
        match &self.owner {
            Some(owner) if owner != qname => out.extend(owner.as_wire()),
            _ => out.extend([0xc0, 12]),
        }
        out.extend(self.rtype.0.to_be_bytes());
        out.extend(self.class.0.to_be_bytes());
        out.extend(self.ttl.unwrap_or(0).to_be_bytes());
        let rdata = self.rdata.as_deref().unwrap_or_default();
        out.extend((rdata.len() as u16).to_be_bytes());
        out.extend(rdata);
    }
}

impl fmt::Display for Rr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{owner} ")?,
            None => f.write_str("@ ")?,
        }
        match self.ttl {
            Some(ttl) => write!(f, "{ttl} ")?,
            None => f.write_str("* ")?,
        }
        if self.class != Qclass::IN {
            write!(f, "{} ", self.class)?;
        }
        write!(f, "{} ", self.rtype)?;
        match &self.rdata {
            Some(rdata) => f.write_str(&rdata_text(self.rtype, rdata)),
            None => f.write_str("*"),
        }
    }
}

/// A name as scripts write it.
pub fn name(text: &str) -> Result<Name, String> {
    if text == "." {
        return Ok(Name::root());
    }
    Name::from_text(text).map_err(|error| format!("{text}: {error}"))
}

/// Splits at spaces, but not inside quotes, which are dropped: double ones, or single ones that begin a word.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut open, mut quote) = (String::new(), false, None);
    for character in text.chars() {
        match character {
            _ if quote == Some(character) => quote = None,
            other if quote.is_some() => word.push(other),
            '"' => (quote, open) = (Some('"'), true),
            '\'' if !open => (quote, open) = (Some('\''), true),
            ' ' | '\t' if open => {
                words.push(std::mem::take(&mut word));
                open = false;
            }
            ' ' | '\t' => {}
            other => {
                word.push(other);
                open = true;
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

/// Octets of hexadecimal digits.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<_> = text.chars().filter(|digit| !digit.is_whitespace()).map(|digit| digit.to_digit(16)).collect();
    let digits: Vec<_> = digits.into_iter().collect::<Option<_>>().ok_or_else(|| format!("not hexadecimal: {text}"))?;
    if digits.len() % 2 == 1 {
        return Err(format!("half an octet: {text}"));
    }
    Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

fn to_hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// How a type's RDATA begins: fixed octets, then names, then the rest.
const fn shape(rtype: Qtype) -> (usize, usize) {
    match rtype {
        Qtype::CNAME | Qtype::DNAME | Qtype::NS | Qtype::PTR => (0, 1),
        Qtype::SOA => (0, 2),
        Qtype::MX => (2, 1),
        Qtype::SVCB | Qtype::HTTPS => (2, 1),
        _ => (usize::MAX, 0),
    }
}

fn expanded(record: &Record<'_>) -> Result<Vec<u8>, String> {
    let (fixed, names) = shape(record.rtype);
    if names == 0 {
        return Ok(record.rdata().to_vec());
    }
    let octets = record.rdata();
    let mut out = octets.get(..fixed).ok_or("RDATA cut short")?.to_vec();
    let mut at = fixed;
    for _ in 0..names {
        let name = record.rdata_name(at).map_err(|error| format!("RDATA: {error}"))?;
        out.extend(name.as_wire());
        at = Name::skip(octets, at).map_err(|error| format!("RDATA: {error}"))?;
    }
    out.extend(octets.get(at..).ok_or("RDATA cut short")?);
    Ok(out)
}

fn rdata(rtype: Qtype, words: &[String]) -> Result<Vec<u8>, String> {
    let wrong = || format!("cannot read RDATA of {rtype}: {}", words.join(" "));
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok()).ok_or_else(wrong);
    let wire =
        |at: usize| words.get(at).ok_or_else(wrong).and_then(|word| name(word)).map(|name| name.as_wire().to_vec());
    if words.first().is_some_and(|word| word == "\\#") {
        return hex(&words.get(2..).unwrap_or_default().concat());
    }
    Ok(match rtype {
        Qtype::A => {
            words.first().ok_or_else(wrong)?.parse::<std::net::Ipv4Addr>().map_err(|_| wrong())?.octets().to_vec()
        }
        Qtype::AAAA => {
            words.first().ok_or_else(wrong)?.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.octets().to_vec()
        }
        Qtype::CNAME | Qtype::DNAME | Qtype::NS | Qtype::PTR => wire(0)?,
        Qtype::MX => [(number(0)? as u16).to_be_bytes().to_vec(), wire(1)?].concat(),
        Qtype::TXT | Qtype::HINFO => {
            words.iter().flat_map(|word| [&[word.len() as u8], word.as_bytes()].concat()).collect()
        }
        Qtype::SOA => {
            let mut out = [wire(0)?, wire(1)?].concat();
            for at in 2..7 {
                out.extend(number(at)?.to_be_bytes());
            }
            out
        }
        Qtype::SVCB | Qtype::HTTPS => {
            let mut out = [(number(0)? as u16).to_be_bytes().to_vec(), wire(1)?].concat();
            let mut parameters = words.iter().skip(2).map(|word| svc_parameter(word)).collect::<Result<Vec<_>, _>>()?;
            parameters.sort();
            for (key, value) in parameters {
                out.extend(key.to_be_bytes());
                out.extend((value.len() as u16).to_be_bytes());
                out.extend(value);
            }
            out
        }
        _ => return Err(format!("write RDATA of {rtype} as \\# LENGTH HEX")),
    })
}

/// One SvcParam (RFC 9460 §2.1, RFC 9461 §5).
fn svc_parameter(word: &str) -> Result<(u16, Vec<u8>), String> {
    let wrong = || format!("not a parameter: {word}");
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let list = || value.split(',');
    Ok(match key {
        "alpn" => (1, list().flat_map(|id| [&[id.len() as u8], id.as_bytes()].concat()).collect()),
        "mandatory" => {
            let mut keys = list().map(svc_key).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
            keys.sort_unstable();
            (0, keys.iter().flat_map(|key| key.to_be_bytes()).collect())
        }
        "port" => (3, value.parse::<u16>().map_err(|_| wrong())?.to_be_bytes().to_vec()),
        "ipv4hint" => (4, addresses4(value).ok_or_else(wrong)?.concat()),
        "ech" => (5, hex(value)?),
        "ipv6hint" => (6, addresses6(value).ok_or_else(wrong)?.concat()),
        "dohpath" => (7, value.as_bytes().to_vec()),
        _ => (svc_key(key).ok_or_else(wrong)?, hex(value)?),
    })
}

fn svc_key(word: &str) -> Option<u16> {
    const KEYS: [&str; 8] = ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath"];
    let known = KEYS.iter().position(|key| *key == word).map(|at| at as u16);
    known.or_else(|| word.strip_prefix("key")?.parse().ok())
}

fn addresses4(text: &str) -> Option<Vec<[u8; 4]>> {
    text.split(',').map(|one| one.parse::<std::net::Ipv4Addr>().ok().map(|address| address.octets())).collect()
}

fn addresses6(text: &str) -> Option<Vec<[u8; 16]>> {
    text.split(',').map(|one| one.parse::<std::net::Ipv6Addr>().ok().map(|address| address.octets())).collect()
}

fn rdata_text(rtype: Qtype, rdata: &[u8]) -> String {
    let generic = || format!("\\# {} {}", rdata.len(), to_hex(rdata));
    readable(rtype, rdata).unwrap_or_else(generic)
}

fn readable(rtype: Qtype, rdata: &[u8]) -> Option<String> {
    let wire = |at: usize| Name::parse(rdata, at).ok();
    Some(match rtype {
        Qtype::A => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?).to_string(),
        Qtype::AAAA => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?).to_string(),
        Qtype::CNAME | Qtype::DNAME | Qtype::NS | Qtype::PTR => wire(0)?.0.to_string(),
        Qtype::SOA => {
            let (mname, at) = wire(0)?;
            let (rname, at) = wire(at)?;
            let numbers = rdata[at..].as_chunks::<4>().0;
            let numbers: Vec<_> = numbers.iter().map(|octets| u32::from_be_bytes(*octets).to_string()).collect();
            format!("{mname} {rname} {}", numbers.join(" "))
        }
        Qtype::TXT | Qtype::HINFO => strings(rdata)?.join(" "),
        Qtype::SVCB | Qtype::HTTPS => {
            let (target, at) = wire(2)?;
            let priority = u16::from_be_bytes([rdata[0], rdata[1]]);
            [vec![priority.to_string(), target.to_string()], svc_text(&rdata[at..])?].concat().join(" ")
        }
        _ => return None,
    })
}

fn svc_text(mut octets: &[u8]) -> Option<Vec<String>> {
    let mut words = Vec::new();
    while let [k1, k0, l1, l0, rest @ ..] = octets {
        let length = usize::from(u16::from_be_bytes([*l1, *l0]));
        let value = rest.get(..length)?;
        words.push(match u16::from_be_bytes([*k1, *k0]) {
            1 => format!("alpn={}", strings(value)?.join(",").replace('"', "")),
            3 => format!("port={}", u16::from_be_bytes(value.try_into().ok()?)),
            4 => {
                let hints = value.as_chunks::<4>().0.iter();
                format!(
                    "ipv4hint={}",
                    hints.map(|one| std::net::Ipv4Addr::from(*one).to_string()).collect::<Vec<_>>().join(",")
                )
            }
            6 => {
                let hints = value.as_chunks::<16>().0.iter();
                format!(
                    "ipv6hint={}",
                    hints.map(|one| std::net::Ipv6Addr::from(*one).to_string()).collect::<Vec<_>>().join(",")
                )
            }
            7 => format!("dohpath={}", String::from_utf8_lossy(value)),
            key => format!("key{key}={}", to_hex(value)),
        });
        octets = &rest[length..];
    }
    Some(words)
}

fn strings(mut octets: &[u8]) -> Option<Vec<String>> {
    let mut strings = Vec::new();
    while let [length, rest @ ..] = octets {
        let string = rest.get(..usize::from(*length))?;
        strings.push(format!("\"{}\"", String::from_utf8_lossy(string)));
        octets = &rest[usize::from(*length)..];
    }
    Some(strings)
}
