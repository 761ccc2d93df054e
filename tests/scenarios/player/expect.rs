//! Holds an answer against what a scenario expects, and against what must be true of every answer.

use std::fmt::Write as _;
use std::time::Duration;

use bailiwick::answer::Written;
use bailiwick::dns::message::{Header, Question, Records, Section, flag};
use bailiwick::dns::{HEADER_OCTETS, Qtype, Rcode};
use hickory_proto::op::Message;

use super::records::Rr;
use super::script::{Ask, Expect, Trouble};

/// An answer, and what was seen around it.
pub struct Answered {
    /// The message.
    pub octets: Vec<u8>,
    /// What was said of it.
    pub written: Written,
    /// Since the question.
    pub took: Duration,
    /// Upstream queries between question and answer.
    pub upstream_queries: usize,
}

/// An answer taken apart.
struct Parts {
    header: Header,
    rcode: Rcode,
    sections: [Vec<Rr>; 3],
    opt: Option<Opt>,
}

/// Its OPT.
struct Opt {
    dnssec_ok: bool,
    keepalive: Option<u16>,
    errors: Vec<(u16, String)>,
    padding: bool,
    others: Vec<u16>,
}

/// Everything that is wrong with it.
pub fn check(line: usize, ask: &Ask, expect: &[(usize, Expect)], answered: Option<&Answered>) -> Vec<Trouble> {
    let dropped = expect.iter().any(|(_, expect)| matches!(expect, Expect::Dropped));
    let trouble = |what: String| vec![Trouble { line, what }];
    let answered = match (answered, dropped) {
        (None, true) => return Vec::new(),
        (None, false) => return trouble("was dropped".into()),
        (Some(answered), false) => answered,
        (Some(answered), true) => return trouble(format!("was answered: {:02x?}", answered.octets)),
    };
    let parts = match take_apart(&answered.octets) {
        Ok(parts) => parts,
        Err(what) => return trouble(format!("{what}: {:02x?}", answered.octets)),
    };
    let mut wrong: Vec<_> = generic(ask, answered, &parts).into_iter().map(|what| (line, what)).collect();
    wrong.extend(sections(line, ask, expect, &parts));
    wrong.extend(errors(line, expect, &parts));
    for (line, expect) in expect {
        wrong.extend(single(expect, answered, &parts).map(|what| (*line, what)));
    }
    if let Some((_, what)) = wrong.last_mut() {
        let _ = write!(what, "\n      the answer was:{}", shown(answered, &parts));
    }
    wrong.into_iter().map(|(line, what)| Trouble { line, what }).collect()
}

/// Reads every octet; hickory must be able to read it too.
fn take_apart(octets: &[u8]) -> Result<Parts, String> {
    let header = Header::read(octets).ok_or("less than a header")?;
    let mut end = HEADER_OCTETS;
    if header.counts[0] > 0 {
        end = Question::read(octets).map_err(|error| format!("bad question ({error:?})"))?.end;
    }
    let mut parts = Parts { rcode: header.rcode(), header, sections: Default::default(), opt: None };
    let mut records = Records::new(octets, &parts.header, end);
    for record in records.by_ref() {
        let record = record.map_err(|error| format!("bad record ({error:?})"))?;
        if record.rtype == Qtype::OPT {
            if parts.opt.is_some() || record.section != Section::Additional {
                return Err("an OPT where none can be".into());
            }
            parts.rcode = Rcode(parts.rcode.0 | u16::from(record.ttl_octets()[0]) << 4);
            parts.opt = Some(opt(record.ttl_octets(), record.rdata())?);
        } else {
            parts.sections[record.section as usize].push(Rr::of_record(&record)?);
        }
    }
    if records.position() != octets.len() {
        return Err("octets behind the last record".into());
    }
    Message::from_vec(octets).map_err(|error| format!("hickory cannot read it ({error})"))?;
    Ok(parts)
}

fn opt(ttl: [u8; 4], mut options: &[u8]) -> Result<Opt, String> {
    if ttl[1] != 0 || ttl[2] & 0x7f != 0 || ttl[3] != 0 {
        return Err("an OPT of another version, or with unknown flags".into());
    }
    let mut opt =
        Opt { dnssec_ok: ttl[2] & 0x80 != 0, keepalive: None, errors: Vec::new(), padding: false, others: Vec::new() };
    while let [c1, c0, l1, l0, rest @ ..] = options {
        if opt.padding {
            return Err("an option behind the padding".into());
        }
        let (value, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([*l1, *l0]))).ok_or("option cut short")?;
        match (u16::from_be_bytes([*c1, *c0]), value) {
            (11, [t1, t0]) => opt.keepalive = Some(u16::from_be_bytes([*t1, *t0])),
            (12, zeroes) if zeroes.iter().all(|octet| *octet == 0) => opt.padding = true,
            (15, [e1, e0, text @ ..]) => {
                let text = String::from_utf8(text.to_vec()).map_err(|_| "EXTRA-TEXT that is not UTF-8")?;
                opt.errors.push((u16::from_be_bytes([*e1, *e0]), text));
            }
            (other, _) => opt.others.push(other),
        }
        options = rest;
    }
    if options.is_empty() { Ok(opt) } else { Err("an option cut short".into()) }
}

/// What must be true of every answer.
fn generic(ask: &Ask, answered: &Answered, parts: &Parts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    let asked = Header::read(&ask.octets).unwrap_or(Header { id: 0, flags: 0, counts: [0; 4] });
    let octets = &answered.octets;
    must(parts.header.id == asked.id, "the ID is another");
    must(parts.header.has(flag::QR), "QR is clear");
    must(parts.header.opcode() == asked.opcode(), "the OPCODE is another");
    must(!parts.header.has(flag::TC), "TC is set");
    must(parts.header.has(flag::RD) == asked.has(flag::RD), "RD is not the query's");
    must(parts.header.has(flag::CD) == asked.has(flag::CD), "CD is not the query's (RFC 4035 §3.2.2)");
    let echoed = parts.header.counts[0] == 0
        || Question::read(octets).is_ok_and(|question| {
            ask.octets.get(HEADER_OCTETS..question.end) == octets.get(HEADER_OCTETS..question.end)
        });
    must(echoed, "the question is not echoed octet for octet");
    let well_formed = asked.counts[0] == 1 && Question::read(&ask.octets).is_ok();
    must(parts.header.counts[0] == u16::from(well_formed), "the question is missing, or there are too many");
    must(parts.opt.is_some() == ask.edns, "OPT does not stand exactly where the query had one (RFC 6891 §7)");
    must(answered.written.rcode == parts.rcode, "the RCODE told to the listener is another");
    must(parts.opt.as_ref().is_none_or(|opt| opt.others.is_empty()), "an EDNS option that nobody asked for");
    wrong
}

/// The answer section always, the others where something is said of them.
fn sections(line: usize, ask: &Ask, expect: &[(usize, Expect)], parts: &Parts) -> Vec<(usize, String)> {
    let mut wrong = Vec::new();
    for (section, actual) in parts.sections.iter().enumerate() {
        let said: Vec<_> = expect
            .iter()
            .filter_map(|(line, expect)| match expect {
                Expect::Record(of, rr) if *of == section => Some((*line, rr)),
                _ => None,
            })
            .collect();
        let empty = expect.iter().any(|(_, expect)| matches!(expect, Expect::Empty(of) if *of == section));
        if said.is_empty() && section > 0 && !empty {
            continue;
        }
        for (at, (line, rr)) in said.iter().enumerate() {
            if actual.get(at).is_none_or(|actual| !rr.fits(actual, &ask.qname)) {
                let found = actual.get(at).map_or("nothing".to_owned(), ToString::to_string);
                wrong.push((*line, format!("expected {rr}, found {found}")));
            }
        }
        wrong.extend(actual.iter().skip(said.len()).map(|extra| (line, format!("unexpected: {extra}"))));
    }
    wrong
}

/// EDE, all of them, in order.
fn errors(line: usize, expect: &[(usize, Expect)], parts: &Parts) -> Vec<(usize, String)> {
    let actual = parts.opt.as_ref().map(|opt| opt.errors.as_slice()).unwrap_or_default();
    let said: Vec<_> = expect
        .iter()
        .filter_map(|(line, expect)| match expect {
            Expect::Ede(code, text) => Some((*line, code, text)),
            _ => None,
        })
        .collect();
    let mut wrong = Vec::new();
    for (at, (line, code, text)) in said.iter().enumerate() {
        let fits =
            |(found, found_text): &(u16, String)| found == *code && text.as_ref().is_none_or(|text| text == found_text);
        if !actual.get(at).is_some_and(fits) {
            wrong.push((*line, format!("expected EDE {code} {text:?}, found {:?}", actual.get(at))));
        }
    }
    wrong.extend(actual.iter().skip(said.len()).map(|extra| (line, format!("unexpected EDE: {extra:?}"))));
    wrong
}

/// Everything else, one by one.
fn single(expect: &Expect, answered: &Answered, parts: &Parts) -> Option<String> {
    let opt = parts.opt.as_ref();
    let differs = |expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        (expected != found).then(|| format!("expected {expected}, found {found}"))
    };
    match expect {
        Expect::Rcode(any) => {
            let words = any.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            (!any.contains(&parts.rcode)).then(|| format!("expected {words}, found {}", parts.rcode))
        }
        Expect::Flags(flags) => {
            const SHOWN: u16 = flag::QR | flag::AA | flag::TC | flag::RD | flag::RA | flag::AD | flag::CD;
            differs(&flag_words(*flags), &flag_words(parts.header.flags & SHOWN))
        }
        Expect::Padded(padded) => {
            let size = answered.octets.len();
            let holds = opt.is_some_and(|opt| opt.padding) == *padded && (!padded || size.is_multiple_of(468));
            (!holds).then(|| format!("expected padded: {padded}; the message has {size} octets"))
        }
        Expect::Keepalive(value) => differs(value, &opt.and_then(|opt| opt.keepalive)),
        Expect::DnssecOk(set) => differs(set, &opt.is_some_and(|opt| opt.dnssec_ok)),
        Expect::MaxAge(age) => differs(age, &answered.written.max_age),
        Expect::After(time) => differs(time, &answered.took),
        Expect::Within(time) => (answered.took > *time).then(|| format!("took {:?}", answered.took)),
        Expect::AsksUpstream(count) => differs(count, &answered.upstream_queries),
        Expect::AsksUpstreamAtMost(count) => {
            (answered.upstream_queries > *count).then(|| format!("{} upstream queries", answered.upstream_queries))
        }
        Expect::Record(..) | Expect::Empty(_) | Expect::Ede(..) | Expect::Dropped => None,
    }
}

fn flag_words(flags: u16) -> String {
    const WORDS: [(u16, &str); 7] = [
        (flag::QR, "qr"),
        (flag::AA, "aa"),
        (flag::TC, "tc"),
        (flag::RD, "rd"),
        (flag::RA, "ra"),
        (flag::AD, "ad"),
        (flag::CD, "cd"),
    ];
    WORDS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

fn shown(answered: &Answered, parts: &Parts) -> String {
    let mut text = format!("\n        {} flags {}", parts.rcode, flag_words(parts.header.flags));
    for (section, records) in ["", "authority ", "additional "].iter().zip(&parts.sections) {
        for record in records {
            let _ = write!(text, "\n        {section}{record}");
        }
    }
    for (code, extra) in parts.opt.iter().flat_map(|opt| &opt.errors) {
        let _ = write!(text, "\n        ede {code} {extra:?}");
    }
    let _ = write!(
        text,
        "\n        {} octets after {:?}, max-age {:?}, {} upstream queries",
        answered.octets.len(),
        answered.took,
        answered.written.max_age,
        answered.upstream_queries
    );
    text
}
