//! That the answers are right, to the last octet of an address: asked before anything is measured.

use std::net::SocketAddr;

use bailiwick::dns::edns::{PADDING_BLOCK_OCTETS, option};
use bailiwick::dns::message::{Header, Question, Records};
use bailiwick::dns::{Name, Qclass, Qtype, Rcode, made};
use bailiwick::query::Reply;

use super::bed::{Bed, Servers};
use super::names::{Names, address_of};
use super::run::{Protocol, Run};
use super::{Failure, Wrong};

/// How many names of a kind are asked for on each transport.
const ASKED: usize = 20;

/// The ID of every query here, which HTTP caches want to be so (RFC 8484 §4.1) and the canned answer has.
const ID: u16 = 0;

/// Asks whom these runs ask, for names of the kinds that they ask for.
pub(crate) async fn all(bed: &Bed, servers: &Servers, runs: &[Run]) -> Result<(), Failure> {
    for run in runs {
        let (_, server) = servers.whom(run)?;
        let count = if run.names == Names::One { 1 } else { ASKED };
        for number in 0..count {
            let name = run.names.sample(number)?;
            let (answer, _) = bed.client.ask(run.protocol, server, &query(&name, run.padded)).await?;
            let right = (answer.len() % PADDING_BLOCK_OCTETS == 0) == run.padded
                && match run.names {
                    Names::One | Names::Hits | Names::Misses => resolves(&answer, &name),
                    Names::Blocked => is_blocked(&answer, &name),
                };
            if !right {
                return Err(Wrong(format!("{}: {name} is answered with {answer:02x?}", run.title())).into());
            }
        }
    }
    Ok(())
}

/// A query for a name, which asks for padding or does not.
fn query(name: &Name, padded: bool) -> Vec<u8> {
    let mut query = made::query(ID, name, Qtype::A);
    if padded {
        // Its OPT stands last and is empty: a Padding option of no octets (RFC 7830 §3) goes into it.
        query.truncate(query.len() - 2);
        query.extend([4, option::PADDING, 0].map(u16::to_be_bytes).concat());
    }
    query
}

/// That a name is blocked for a client of this server.
pub(crate) async fn blocks(bed: &Bed, protocol: Protocol, server: SocketAddr, name: &str) -> Result<(), Failure> {
    let name = Name::from_text(name).map_err(|error| format!("{error}"))?;
    let (answer, _) = bed.client.ask(protocol, server, &query(&name, false)).await?;
    if is_blocked(&answer, &name) {
        return Ok(());
    }
    Err(Wrong(format!("{name} is not blocked but answered with {answer:02x?}")).into())
}

/// The name's own address and nothing else, under the query's ID.
fn resolves(answer: &[u8], name: &Name) -> bool {
    let Ok(reply) = Reply::read(answer, name, Qtype::A, Qclass::IN) else { return false };
    let rdata: Vec<_> = reply.records().map(|record| record.rdata().to_vec()).collect();
    reply.header().id == ID && reply.rcode() == Rcode::NOERROR && rdata == [address_of(name).octets()]
}

/// NXDOMAIN to this question and no records in the answer section, under the query's ID.
fn is_blocked(answer: &[u8], name: &Name) -> bool {
    let Some((header, question)) = Header::read(answer).zip(Question::read(answer).ok()) else { return false };
    let whole = Records::new(answer, &header, question.end).all(|record| record.is_ok());
    whole && header.id == ID && header.rcode() == Rcode::NXDOMAIN && header.counts[1] == 0 && question.qname == *name
}
