//! What a reply leads its asker to: the names and addresses that the policy is asked about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::message::{Record, Section};
use crate::dns::{Name, Qclass, Qtype, svcb};
use crate::query::Reply;

/// The most SVCB and HTTPS records of an answer section whose targets are told apart. With more of them every address
/// in the additional section counts: nobody gets around a rule by their number, and no reply takes long.
const SERVICES_MAX: usize = 16;

/// A name or an address that a reply leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lead<'a> {
    /// A name other than QNAME.
    Name(&'a Name),
    /// An address, and the name that it is an address of.
    Address(&'a Name, IpAddr),
}

/// Calls `each` with everything that a reply leads to. The names: the owners in the answer section, and the names that
/// CNAME, SVCB and HTTPS records send the client on to, whether or not a record of theirs follows. Of a DNAME the owner
/// is not among them, nor its target where the CNAME made from it is there: that CNAME names what the client is led from
/// and to, the DNAME only the trees they lie in (RFC 6672 §3.1), which an exact target or an exemption further down does
/// not mean.
///
/// With `addresses` also the addresses of A and AAAA records and the hints of SVCB and HTTPS records in the answer
/// section; of the additional section those of names that an SVCB or HTTPS record of the answer section leads to, all of
/// them where a CNAME stands among them (RFC 9460 §4.2: the TargetName may be an alias). What else stands there is glue:
/// the addresses of name servers that many share.
pub(super) fn leads(qname: &Name, reply: &Reply<'_>, addresses: bool, mut each: impl FnMut(Lead<'_>)) {
    let mut last = None;
    let answers = usize::from(reply.header().counts[1]);
    let has_cname = reply.records().take(answers).any(|record| record.rtype == Qtype::CNAME);
    for record in reply.records().take(answers) {
        let is_dname = record.rtype == Qtype::DNAME;
        let mut once = |name: &Name| {
            if last.as_ref() != Some(name) && name != qname && !name.is_root() {
                each(Lead::Name(name));
                last = Some(name.clone());
            }
        };
        // Reply::read has read every one of these names before.
        let read = if record.points_to_qname() { None } else { Some(record.owner()) };
        let owner = match &read {
            None => qname,
            Some(Ok(owner)) => owner,
            Some(Err(_)) => continue,
        };
        if !is_dname {
            once(owner);
        }
        let target = record.rtype.target_at().filter(|_| !(is_dname && has_cname));
        let target = target.and_then(|skip| record.rdata_name(skip).ok());
        if let Some(target) = &target {
            once(target);
        }
        if addresses {
            addresses_of(&record, owner, target.as_ref(), &mut each);
        }
    }
    if addresses {
        additional_addresses(reply, &mut each);
    }
}

/// The address of an A or AAAA record; the hints of an SVCB or HTTPS record, which are addresses of its target.
fn addresses_of(record: &Record<'_>, owner: &Name, target: Option<&Name>, each: &mut impl FnMut(Lead<'_>)) {
    if record.class != Qclass::IN {
        return;
    }
    if matches!(record.rtype, Qtype::SVCB | Qtype::HTTPS) {
        let target = target.filter(|target| !target.is_root()).unwrap_or(owner);
        svcb::hints(record.rdata(), |address| each(Lead::Address(target, address)));
    } else if let Some(address) = address_of(record) {
        each(Lead::Address(owner, address));
    }
}

fn address_of(record: &Record<'_>) -> Option<IpAddr> {
    match record.rtype {
        Qtype::A => <[u8; 4]>::try_from(record.rdata()).ok().map(|v4| Ipv4Addr::from(v4).into()),
        Qtype::AAAA => <[u8; 16]>::try_from(record.rdata()).ok().map(|v6| Ipv6Addr::from(v6).into()),
        _ => None,
    }
}

/// The addresses in the additional section of names that SVCB and HTTPS records of the answer section lead to.
fn additional_addresses(reply: &Reply<'_>, each: &mut impl FnMut(Lead<'_>)) {
    let counts = reply.header().counts;
    if counts[3] == 0 {
        return;
    }
    let is_service = |record: &Record<'_>| matches!(record.rtype, Qtype::SVCB | Qtype::HTTPS);
    let mut services = [None; SERVICES_MAX];
    let mut count = 0;
    for service in reply.records().take(usize::from(counts[1])).filter(is_service) {
        if let Some(place) = services.get_mut(count) {
            *place = Some(service);
        }
        count += 1;
    }
    if count == 0 {
        return;
    }
    let is_alias = |record: &Record<'_>| record.section == Section::Additional && record.rtype == Qtype::CNAME;
    let all_count = count > SERVICES_MAX || reply.records().any(|record| is_alias(&record));
    let leads_to = |owner: &Name| services.iter().flatten().any(|service| target_of(service).as_ref() == Some(owner));
    for record in reply.records().filter(|record| record.section == Section::Additional && record.class == Qclass::IN) {
        let Some((address, owner)) = address_of(&record).zip(record.owner().ok()) else { continue };
        if all_count || leads_to(&owner) {
            each(Lead::Address(&owner, address));
        }
    }
}

/// TargetName, or the owner where that is `.` (RFC 9460 §2.5.2).
fn target_of(service: &Record<'_>) -> Option<Name> {
    let target = service.rdata_name(2).ok()?;
    if target.is_root() { service.owner().ok() } else { Some(target) }
}
