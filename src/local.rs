//! What we answer ourselves.

use std::net::IpAddr;

use bytes::BufMut;
use hickory_proto::rr::rdata::svcb::{Alpn, IpHint, SvcParamKey, SvcParamValue, Unknown};
use hickory_proto::rr::rdata::{A, AAAA, SVCB};
use hickory_proto::serialize::binary::BinEncodable;

use crate::dns::special::{self, Kind};
use crate::dns::{Ede, Name, Qclass, Qtype, Rcode};
use crate::query::{Fault, Query};

/// `[resolver]`, and where we can be reached: what discovery (RFC 9462) tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Our own name; None: discovery says NODATA.
    pub name: Option<Name>,
    /// Our own addresses.
    pub addresses: Vec<IpAddr>,
    /// The port DoT is offered on, where it is.
    pub dot_port: Option<u16>,
    /// The port DoH is offered on, where it is.
    pub doh_port: Option<u16>,
    /// The path of DoH, without `{?dns}`.
    pub doh_path: String,
}

/// TTL of what we say of ourselves and of special names, in seconds.
const LOCAL_TTL: u32 = 3600;

/// `dohpath` (RFC 9461 §5).
const DOHPATH: SvcParamKey = SvcParamKey::Unknown(7);

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// RCODE.
    pub rcode: Rcode,
    /// Why, for clients that read it.
    pub error: Option<(Ede, &'static str)>,
    /// Records in wire form, uncompressed: those of the answer section, then the additional ones.
    pub records: Vec<u8>,
    /// How many of them are answers.
    pub answers: u16,
    /// How many of them are additional.
    pub additional: u16,
    /// The zone whose SOA stands in the authority section of a negative answer.
    pub denial: Option<Denial>,
    /// Seconds it may be kept.
    pub max_age: Option<u32>,
}

/// A zone that is ours to deny names in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Its name.
    pub name: Name,
    /// The class of its records.
    pub class: Qclass,
    /// TTL and MINIMUM of its SOA, in seconds.
    pub ttl: u32,
}

impl Local {
    fn error(rcode: Rcode, error: Option<(Ede, &'static str)>) -> Self {
        Self { rcode, error, records: Vec::new(), answers: 0, additional: 0, denial: None, max_age: None }
    }

    fn denied(rcode: Rcode, query: &Query<'_>, zone: &Name) -> Self {
        let denial = Some(Denial { name: zone.clone(), class: query.qclass.of_records(), ttl: LOCAL_TTL });
        Self { denial, max_age: Some(LOCAL_TTL), ..Self::error(rcode, None) }
    }

    fn answered(records: Vec<u8>, answers: u16, additional: u16) -> Self {
        Self { records, answers, additional, max_age: Some(LOCAL_TTL), ..Self::error(Rcode::NOERROR, None) }
    }

    /// FORMERR or NOTIMP, to what is not a query.
    #[must_use]
    pub fn fault(fault: &Fault<'_>) -> Self {
        Self::error(fault.rcode, None)
    }

    /// REFUSED with EDE 20, to a query without RD that the cache cannot answer (RFC 8914 §4.21).
    #[must_use]
    pub fn not_cached() -> Self {
        Self::error(Rcode::REFUSED, Some((Ede::NOT_AUTHORITATIVE, "")))
    }

    /// What a question is answered because of its type or class, after policy has admitted it: transfers
    /// and the CHAOS class are refused, ANY gets the least that is an answer (RFC 8482 §4.2).
    #[must_use]
    pub fn for_type(query: &Query<'_>) -> Option<Self> {
        match (query.qclass, query.qtype) {
            (_, Qtype::AXFR | Qtype::IXFR) => {
                Some(Self::error(Rcode::REFUSED, Some((Ede::NOT_SUPPORTED, "no zone is transferred from here"))))
            }
            (Qclass::CH, _) => {
                Some(Self::error(Rcode::REFUSED, Some((Ede::NOT_SUPPORTED, "class CH is not served here"))))
            }
            (_, Qtype::ANY) => {
                let mut records = Vec::new();
                put_record(&mut records, &query.qname, Qtype::HINFO, query.qclass.of_records(), b"\x07RFC8482\x00");
                Some(Self::answered(records, 1, 0))
            }
            _ => None,
        }
    }
}

/// The names that are ours to answer, before any policy.
#[derive(Debug)]
pub struct Locals {
    designations: Local,
}

impl Locals {
    /// Built once, at start.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { designations: designations(settings) }
    }

    /// What a query is answered whatever the policy: BADVERS, special names, `resolver.arpa`.
    #[must_use]
    pub fn special(&self, query: &Query<'_>) -> Option<Local> {
        if query.echo.edns.is_some_and(|asked| asked.version > 0) {
            return Some(Local::error(Rcode::BADVERS, None));
        }
        let (zone, kind) = special::zone_of(&query.qname)?;
        // RFC 8375 §4: whoever validates needs the proof that home.arpa is insecure, and that is above it.
        if query.qtype == Qtype::DS && query.qname == *zone && query.echo.dnssec_ok() && *kind == Kind::Empty {
            return None;
        }
        let apex = query.qname == *zone;
        Some(match kind {
            Kind::Nothing => Local::denied(Rcode::NXDOMAIN, query, &Name::root()),
            Kind::Empty if apex => Local::denied(Rcode::NOERROR, query, zone),
            Kind::Empty => Local::denied(Rcode::NXDOMAIN, query, zone),
            Kind::Localhost => localhost(query, zone),
            Kind::ResolverArpa => self.resolver_arpa(query, zone),
        })
    }

    /// Whether a name is ours to answer: policy is never asked about it.
    #[must_use]
    pub fn owns(&self, qname: &Name) -> bool {
        special::zone_of(qname).is_some()
    }

    /// NODATA for every other name and type: a locally served zone (RFC 9462 §6.4), and never NXDOMAIN.
    fn resolver_arpa(&self, query: &Query<'_>, zone: &Name) -> Local {
        let asks =
            query.qtype == Qtype::SVCB && query.qclass == Qclass::IN && query.qname.labels() == zone.labels() + 1;
        if asks && query.qname.label_from_root(3) == b"_dns" && self.designations.answers > 0 {
            self.designations.clone()
        } else {
            Local::denied(Rcode::NOERROR, query, zone)
        }
    }
}

fn localhost(query: &Query<'_>, zone: &Name) -> Local {
    let mut records = Vec::new();
    match (query.qclass, query.qtype) {
        (Qclass::IN, Qtype::A) => put_record(&mut records, &query.qname, Qtype::A, Qclass::IN, &[127, 0, 0, 1]),
        (Qclass::IN, Qtype::AAAA) => {
            let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
            put_record(&mut records, &query.qname, Qtype::AAAA, Qclass::IN, &loopback);
        }
        _ => return Local::denied(Rcode::NOERROR, query, zone),
    }
    Local::answered(records, 1, 0)
}

/// What `_dns.resolver.arpa SVCB` is answered: our own DoH and DoT, and our addresses (RFC 9462 §4, RFC 9461).
/// Without answers where we have no name, address or port to offer.
fn designations(settings: &Settings) -> Local {
    let nothing = Local::answered(Vec::new(), 0, 0);
    let (Some(target), false) = (&settings.name, settings.addresses.is_empty()) else { return nothing };
    let Ok(owner) = Name::from_text("_dns.resolver.arpa") else { return nothing };
    let (mut records, mut answers) = (Vec::new(), 0);
    let doh = settings.doh_port.map(|port| ("h2", port, 443, Some(format!("{}{{?dns}}", settings.doh_path))));
    let dot = settings.dot_port.map(|port| ("dot", port, 853, None));
    for (alpn, port, usual, template) in doh.into_iter().chain(dot) {
        let port = (port != usual).then_some(port);
        if let Some(rdata) = svcb(answers + 1, settings, alpn, port, template) {
            answers += 1;
            put_record(&mut records, &owner, Qtype::SVCB, Qclass::IN, &rdata);
        }
    }
    for address in &settings.addresses {
        match address {
            IpAddr::V4(v4) => put_record(&mut records, target, Qtype::A, Qclass::IN, &v4.octets()),
            IpAddr::V6(v6) => put_record(&mut records, target, Qtype::AAAA, Qclass::IN, &v6.octets()),
        }
    }
    Local::answered(records, answers, settings.addresses.len() as u16)
}

/// SVCB RDATA of one of our endpoints (RFC 9460 §2.2, RFC 9461 §4).
fn svcb(
    priority: u16,
    settings: &Settings,
    alpn: &str,
    port: Option<u16>,
    template: Option<String>,
) -> Option<Vec<u8>> {
    let v4 =
        settings.addresses.iter().filter_map(|address| if let IpAddr::V4(v4) = address { Some(A(*v4)) } else { None });
    let v6 = settings
        .addresses
        .iter()
        .filter_map(|address| if let IpAddr::V6(v6) = address { Some(AAAA(*v6)) } else { None });
    let (v4, v6): (Vec<_>, Vec<_>) = (v4.collect(), v6.collect());
    let alpn = SvcParamValue::Alpn(Alpn(vec![alpn.to_owned()]));
    let port = port.map(|port| (SvcParamKey::Port, SvcParamValue::Port(port)));
    let v4 = (!v4.is_empty()).then_some((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
    let v6 = (!v6.is_empty()).then_some((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
    let template = template.map(|path| (DOHPATH, SvcParamValue::Unknown(Unknown(path.into_bytes()))));
    let params = [Some((SvcParamKey::Alpn, alpn)), port, v4, v6, template].into_iter().flatten().collect();
    let target = hickory_proto::rr::Name::from_ascii(settings.name.as_ref()?.to_string()).ok()?;
    SVCB::new(priority, target, params).to_bytes().ok()
}

fn put_record(out: &mut Vec<u8>, owner: &Name, rtype: Qtype, class: Qclass, rdata: &[u8]) {
    out.put_slice(owner.as_wire());
    out.put_u16(rtype.0);
    out.put_u16(class.0);
    out.put_u32(LOCAL_TTL);
    out.put_u16(rdata.len() as u16);
    out.put_slice(rdata);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::RData;

    use super::*;
    use crate::dns::edns::Asked;

    fn query(name: &str, qtype: Qtype) -> Query<'static> {
        Query::plain(Name::from_text(name).unwrap(), qtype)
    }

    fn locals() -> Locals {
        Locals::new(&Settings::default())
    }

    /// RCODE and, where it is a denial, its zone.
    fn seen(name: &str, qtype: Qtype) -> Option<(Rcode, Option<String>)> {
        let local = locals().special(&query(name, qtype))?;
        Some((local.rcode, local.denial.map(|denial| denial.name.to_string())))
    }

    #[test]
    fn special_names_are_answered_as_their_rfcs_say() {
        let denied = |rcode, zone: &str| Some((rcode, Some(zone.to_owned())));
        for (name, qtype, wanted) in [
            ("onion", Qtype::A, denied(Rcode::NXDOMAIN, ".")),
            ("WWW.Facebook.ONION", Qtype::A, denied(Rcode::NXDOMAIN, ".")),
            ("a.test", Qtype::SOA, denied(Rcode::NXDOMAIN, ".")),
            ("a.invalid", Qtype::TXT, denied(Rcode::NXDOMAIN, ".")),
            ("localhost", Qtype::A, Some((Rcode::NOERROR, None))),
            ("a.b.LocalHost", Qtype::AAAA, Some((Rcode::NOERROR, None))),
            ("localhost", Qtype::MX, denied(Rcode::NOERROR, "localhost")),
            ("home.arpa", Qtype::SOA, denied(Rcode::NOERROR, "home.arpa")),
            ("nas.home.arpa", Qtype::A, denied(Rcode::NXDOMAIN, "home.arpa")),
            ("10.in-addr.arpa", Qtype::NS, denied(Rcode::NOERROR, "10.in-addr.arpa")),
            ("1.0.0.10.in-addr.arpa", Qtype::PTR, denied(Rcode::NXDOMAIN, "10.in-addr.arpa")),
            ("1.0.31.172.in-addr.arpa", Qtype::PTR, denied(Rcode::NXDOMAIN, "31.172.in-addr.arpa")),
            ("1.0.127.100.in-addr.arpa", Qtype::PTR, denied(Rcode::NXDOMAIN, "127.100.in-addr.arpa")),
            ("1.8.b.d.0.1.0.0.2.ip6.arpa", Qtype::PTR, denied(Rcode::NXDOMAIN, "8.b.d.0.1.0.0.2.ip6.arpa")),
            ("resolver.arpa", Qtype::NS, denied(Rcode::NOERROR, "resolver.arpa")),
            ("_dns.resolver.arpa", Qtype::SVCB, denied(Rcode::NOERROR, "resolver.arpa")),
            ("a.b.resolver.arpa", Qtype::A, denied(Rcode::NOERROR, "resolver.arpa")),
        ] {
            assert_eq!(seen(name, qtype), wanted, "{name} {qtype}");
            assert!(locals().owns(&Name::from_text(name).unwrap()));
        }
        for name in [
            ".",
            "arpa",
            "in-addr.arpa",
            "32.172.in-addr.arpa",
            "63.100.in-addr.arpa",
            "110.in-addr.arpa",
            "xhome.arpa",
            "ipv4only.arpa",
            "onion.example",
            "localhost.example",
            "example",
            "c.f.ip6.arpa",
        ] {
            assert_eq!(seen(name, Qtype::A), None, "{name}");
        }
    }

    #[test]
    fn a_ds_is_the_parents_and_only_for_those_who_validate() {
        let mut ds = query("home.arpa", Qtype::DS);
        assert!(locals().special(&ds).is_some());
        ds.echo.edns = Some(Asked { version: 0, dnssec_ok: true, ..Asked::default() });
        assert!(locals().special(&ds).is_none());
        ds.qname = Name::from_text("nas.home.arpa").unwrap();
        assert!(locals().special(&ds).is_some());
        ds.echo.edns = Some(Asked { version: 1, dnssec_ok: true, ..Asked::default() });
        assert_eq!(locals().special(&ds).unwrap().rcode, Rcode::BADVERS);
    }

    #[test]
    fn the_class_of_an_answer_is_the_one_asked_for() {
        for (asked, class) in [(Qclass::IN, Qclass::IN), (Qclass::CH, Qclass::CH), (Qclass::ANY, Qclass::IN)] {
            let query = Query { qclass: asked, ..query("localhost", Qtype::MX) };
            assert_eq!(locals().special(&query).unwrap().denial.unwrap().class, class);
        }
        let any = Query { qclass: Qclass::ANY, ..query("a.example", Qtype::ANY) };
        let local = Local::for_type(&any).unwrap();
        let owner = any.qname.as_wire().len();
        assert_eq!(local.records[owner..owner + 4], [0, 13, 0, 1]);
    }

    #[test]
    fn types_and_classes_that_are_not_forwarded() {
        for (qtype, qclass, rcode) in [
            (Qtype::AXFR, Qclass::IN, Some(Rcode::REFUSED)),
            (Qtype::IXFR, Qclass::IN, Some(Rcode::REFUSED)),
            (Qtype::TXT, Qclass::CH, Some(Rcode::REFUSED)),
            (Qtype::ANY, Qclass::CH, Some(Rcode::REFUSED)),
            (Qtype::ANY, Qclass::IN, Some(Rcode::NOERROR)),
            (Qtype(65_280), Qclass::IN, None),
            (Qtype::A, Qclass::HS, None),
        ] {
            let query = Query { qclass, ..query("a.example", qtype) };
            assert_eq!(Local::for_type(&query).map(|local| local.rcode), rcode, "{qtype} {qclass}");
        }
    }

    fn designated(dot_port: u16, doh_port: u16) -> Vec<(u16, String, Vec<String>)> {
        let settings = Settings {
            name: Some(Name::from_text("dns.example.net").unwrap()),
            addresses: vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()],
            dot_port: Some(dot_port),
            doh_port: Some(doh_port),
            doh_path: "/dns-query".to_owned(),
        };
        let local = Locals::new(&settings).special(&query("_DNS.resolver.arpa", Qtype::SVCB)).unwrap();
        assert_eq!((local.rcode, local.answers, local.additional, local.denial), (Rcode::NOERROR, 2, 2, None));
        let mut octets = vec![0, 0, 0x80, 0, 0, 0, 0, local.answers as u8, 0, 0, 0, local.additional as u8];
        octets.extend(&local.records);
        let message = Message::from_vec(&octets).unwrap();
        let owners: Vec<_> = message.additionals.iter().map(|record| record.name.to_string()).collect();
        assert_eq!(owners, ["dns.example.net", "dns.example.net"].map(|name| format!("{name}.")));
        let svcb = message.answers.iter().map(|record| {
            let RData::SVCB(svcb) = &record.data else { panic!("{record}") };
            let params = svcb.svc_params.iter().map(|(key, value)| format!("{key}={value}"));
            (svcb.svc_priority, svcb.target_name.to_string(), params.collect())
        });
        svcb.collect()
    }

    #[test]
    fn designations_can_be_read_by_others() {
        let hints = ["ipv4hint=192.0.2.53,", "ipv6hint=2001:db8::53,"];
        for (ports, dot, doh) in [((853, 443), None, None), ((8853, 8443), Some("port=8853"), Some("port=8443"))] {
            let found = designated(ports.0, ports.1);
            let wanted = |alpn: &str, port: Option<&str>, rest: Option<&str>| {
                let all = [alpn].into_iter().chain(port).chain(hints).chain(rest);
                all.map(ToOwned::to_owned).collect::<Vec<_>>()
            };
            let target = "dns.example.net.".to_owned();
            assert_eq!(found[0], (1, target.clone(), wanted("alpn=h2,", doh, Some(r#"unknown7="/dns-query{?dns}","#))));
            assert_eq!(found[1], (2, target, wanted("alpn=dot,", dot, None)));
        }
    }
}
