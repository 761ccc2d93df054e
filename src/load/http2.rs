//! An HTTP/2 connection's side of the conversation (RFC 9113): a request a query, answers in any order.

pub mod frames;
pub mod hpack;
pub mod request;

use std::fmt;
use std::mem;

use super::exchange::{Asked, HttpFault, Outcome, Query, UnderWay, judge};
use super::histogram::Nanos;
use super::names::Queries;
use super::pieces::Pieces;
use crate::dns::MESSAGE_OCTETS_MAX;
use frames::{Frame, flag, kind, put_head};
use hpack::{TABLE_OCTETS_MAX, Table};
use request::{Form, Shape};

/// What begins every connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams at a time before the server has said how many: what it should allow at least (RFC 9113 §6.5.2).
const STREAMS_MAX_DEFAULT: usize = 100;

/// A window that nobody has said anything about (RFC 9113 §6.9.2).
const WINDOW_DEFAULT: i64 = 65_535;

/// The largest window (RFC 9113 §6.9.1).
const WINDOW_MAX: i64 = 0x7fff_ffff;

/// What the server may send on the connection before we say more: no answer waits for that.
const RECEIVE_WINDOW: u32 = 16 * 1_024 * 1_024;

/// The longest query that is asked: a name, a type, an OPT with its padding.
const BODY_OCTETS_MAX: usize = 512;

/// The longest field block in more frames than one, in octets.
const BLOCK_OCTETS_MAX: usize = 64 * 1_024;

/// The last stream that a client can open (RFC 9113 §5.1.1).
const STREAM_LAST: u32 = 0x7fff_ffff;

/// Settings (RFC 9113 §6.5.2).
mod setting {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// Error codes (RFC 9113 §7).
mod error {
    pub(super) const CANCEL: u32 = 8;
}

const STATUS_OK: u16 = 200;

/// Why a connection is of no more use: what the server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What has come of a request.
#[derive(Debug, Default)]
pub struct Response {
    /// None while its fields have not come.
    status: Option<u16>,
    body: Vec<u8>,
}

/// What a connection is about to hear and say.
#[derive(Debug)]
pub struct Http2 {
    pieces: Pieces,
    streams: UnderWay<Response>,
    fields: Fields,
    stream_next: u32,
    /// What the server has said: streams at a time.
    streams_max: usize,
    /// Octets of bodies that the server takes now.
    window: i64,
    /// Octets of the server's that it has not heard back of.
    received: u32,
    form: Form,
    /// A new size of the server's table that it has yet to be told of.
    resized: Option<usize>,
    /// No more streams here.
    is_leaving: bool,
}

/// The fields that the server sends.
#[derive(Debug, Default)]
struct Fields {
    table: Table,
    /// A field block that goes on in the next frame.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    stream: u32,
    ends_stream: bool,
    block: Vec<u8>,
}

impl Http2 {
    /// A connection, and what is to be said on it first.
    #[must_use]
    pub fn new(shape: &Shape, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        put_head(out, 6, kind::SETTINGS, 0, 0);
        out.extend(setting::ENABLE_PUSH.to_be_bytes());
        out.extend([0; 4]);
        put_window_update(out, RECEIVE_WINDOW);
        Self {
            pieces: Pieces::default(),
            streams: UnderWay::default(),
            fields: Fields::default(),
            stream_next: 1,
            streams_max: STREAMS_MAX_DEFAULT,
            window: WINDOW_DEFAULT,
            received: 0,
            form: shape.first_form(),
            resized: None,
            is_leaving: false,
        }
    }

    /// How many queries are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.streams.len()
    }

    /// How many more queries may be asked where `in_flight` may be under way.
    #[must_use]
    pub fn room(&self, in_flight: usize) -> usize {
        if self.is_leaving || self.stream_next > STREAM_LAST {
            return 0;
        }
        let bodies = usize::try_from(self.window).unwrap_or(0) / BODY_OCTETS_MAX;
        in_flight.min(self.streams_max).saturating_sub(self.streams.len()).min(bodies)
    }

    /// Whether this connection takes no query ever again.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.is_leaving || self.stream_next > STREAM_LAST
    }

    /// Puts a query into `out`.
    pub fn ask(&mut self, shape: &Shape, queries: &Queries, asked: Asked, out: &mut Vec<u8>) {
        let message = queries.message(asked.query);
        shape.put(out, self.stream_next, self.form, self.resized.take(), message);
        if self.form == Form::First {
            self.form = Form::Kept;
        }
        self.window -= shape.body_octets(message) as i64;
        self.streams.push(self.stream_next, asked);
        self.stream_next += 2;
    }

    /// Reads what came, tells what became of which query, and puts into `out` what the server is to hear.
    ///
    /// # Errors
    /// When it is not HTTP/2.
    pub fn read(
        &mut self,
        octets: &[u8],
        shape: &Shape,
        queries: &Queries,
        out: &mut Vec<u8>,
        mut done: impl FnMut(Option<Asked>, Outcome),
    ) -> Result<(), Fault> {
        let mut pieces = mem::take(&mut self.pieces);
        let fed = pieces.feed(octets, Frame::octets_of, |octets| {
            let frame = Frame::read(octets).ok_or(Fault("half a frame"))?;
            self.hear(&frame, shape, queries, out, &mut done)
        });
        self.pieces = pieces;
        if self.received > RECEIVE_WINDOW / 2 {
            put_window_update(out, mem::take(&mut self.received));
        }
        fed
    }

    fn hear(
        &mut self,
        frame: &Frame<'_>,
        shape: &Shape,
        queries: &Queries,
        out: &mut Vec<u8>,
        done: &mut impl FnMut(Option<Asked>, Outcome),
    ) -> Result<(), Fault> {
        if self.fields.begun.is_some() && frame.kind != kind::CONTINUATION {
            return Err(Fault("a field block that another frame interrupts"));
        }
        match frame.kind {
            kind::DATA => self.hear_data(frame, queries, out, done),
            kind::HEADERS => self.hear_headers(frame, queries, done),
            kind::CONTINUATION => self.hear_continuation(frame, queries, done),
            kind::RST_STREAM => {
                let code = u32::from_be_bytes(frame.exactly()?);
                if let Some(query) = self.position(frame.stream)?.and_then(|at| self.streams.take(at)) {
                    done(Some(query.asked), Outcome::Http(HttpFault::Reset(code)));
                }
                Ok(())
            }
            kind::SETTINGS => self.hear_settings(frame, shape, out),
            kind::PUSH_PROMISE => Err(Fault("a push, which we have declined")),
            kind::PING => {
                let octets: [u8; 8] = frame.exactly()?;
                if !frame.has(flag::ACK) {
                    put_head(out, octets.len(), kind::PING, flag::ACK, 0);
                    out.extend(octets);
                }
                Ok(())
            }
            kind::GOAWAY => self.hear_goaway(frame, done),
            kind::WINDOW_UPDATE => {
                let octets = i64::from(u32::from_be_bytes(frame.exactly()?)) & WINDOW_MAX;
                // Streams' windows are of no use: a body is sent at once.
                self.window += if frame.stream == 0 { octets } else { 0 };
                if self.window > WINDOW_MAX { Err(Fault("a window that is too large")) } else { Ok(()) }
            }
            // RFC 9113 §4.1: what is not known is passed over.
            _ => Ok(()),
        }
    }

    /// Where a stream stands; None where it has ended, for us at least.
    fn position(&self, stream: u32) -> Result<Option<usize>, Fault> {
        if stream % 2 == 0 || stream >= self.stream_next {
            return Err(Fault("a frame of a stream that we have not opened"));
        }
        Ok(self.streams.position(|key| key == stream))
    }

    fn hear_data(
        &mut self,
        frame: &Frame<'_>,
        queries: &Queries,
        out: &mut Vec<u8>,
        done: &mut impl FnMut(Option<Asked>, Outcome),
    ) -> Result<(), Fault> {
        self.received += frame.payload.len() as u32;
        let content = frame.content()?;
        let Some(position) = self.position(frame.stream)? else { return Ok(()) };
        let Some(query) = self.streams.at(position) else { return Ok(()) };
        let Some(status) = query.so_far.status else { return Err(Fault("a body before its fields")) };
        let whole = frame.has(flag::END_STREAM);
        if whole && query.so_far.body.is_empty() && status == STATUS_OK {
            let outcome = judge(queries, query.asked.query, 0, content);
            done(Some(query.asked), outcome);
            self.streams.take(position);
            return Ok(());
        }
        query.so_far.body.extend_from_slice(content);
        if whole {
            self.finish(position, queries, done);
        } else if query.so_far.body.len() > MESSAGE_OCTETS_MAX {
            done(Some(query.asked), Outcome::Mismatch);
            self.streams.take(position);
            put_reset(out, frame.stream);
        }
        Ok(())
    }

    fn hear_headers(
        &mut self,
        frame: &Frame<'_>,
        queries: &Queries,
        done: &mut impl FnMut(Option<Asked>, Outcome),
    ) -> Result<(), Fault> {
        let (content, ends_stream) = (frame.content()?, frame.has(flag::END_STREAM));
        if !frame.has(flag::END_HEADERS) {
            self.fields.begun = Some(Begun { stream: frame.stream, ends_stream, block: content.to_vec() });
            return Ok(());
        }
        self.hear_fields(frame.stream, ends_stream, content, queries, done)
    }

    fn hear_continuation(
        &mut self,
        frame: &Frame<'_>,
        queries: &Queries,
        done: &mut impl FnMut(Option<Asked>, Outcome),
    ) -> Result<(), Fault> {
        let Some(mut begun) = self.fields.begun.take() else { return Err(Fault("a field block without a beginning")) };
        if begun.stream != frame.stream {
            return Err(Fault("a field block that another stream's interrupts"));
        }
        begun.block.extend_from_slice(frame.payload);
        if begun.block.len() > BLOCK_OCTETS_MAX {
            return Err(Fault("a field block longer than 64 KiB"));
        }
        if frame.has(flag::END_HEADERS) {
            return self.hear_fields(begun.stream, begun.ends_stream, &begun.block, queries, done);
        }
        self.fields.begun = Some(begun);
        Ok(())
    }

    fn hear_fields(
        &mut self,
        stream: u32,
        ends_stream: bool,
        block: &[u8],
        queries: &Queries,
        done: &mut impl FnMut(Option<Asked>, Outcome),
    ) -> Result<(), Fault> {
        // The table changes whether or not anybody waits for this response.
        let status = self.fields.table.read(block)?;
        let Some(position) = self.position(stream)? else { return Ok(()) };
        let Some(query) = self.streams.at(position) else { return Ok(()) };
        match (query.so_far.status, status) {
            // RFC 9110 §15.2: more fields follow an interim response.
            (None, Some(100..=199)) if !ends_stream => return Ok(()),
            (None, None) => return Err(Fault("a response without a status")),
            (None, Some(_)) => query.so_far.status = status,
            // Trailers.
            (Some(_), _) => {}
        }
        if ends_stream {
            self.finish(position, queries, done);
        }
        Ok(())
    }

    fn finish(&mut self, position: usize, queries: &Queries, done: &mut impl FnMut(Option<Asked>, Outcome)) {
        let Some(Query { asked, so_far, .. }) = self.streams.take(position) else { return };
        let outcome = match so_far.status {
            Some(STATUS_OK) => judge(queries, asked.query, 0, &so_far.body),
            status => Outcome::Http(HttpFault::Status(status.unwrap_or(0))),
        };
        done(Some(asked), outcome);
    }

    fn hear_settings(&mut self, frame: &Frame<'_>, shape: &Shape, out: &mut Vec<u8>) -> Result<(), Fault> {
        if frame.has(flag::ACK) {
            return Ok(());
        }
        let (settings, rest) = frame.payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault("settings that are cut"));
        }
        for [i1, i0, v3, v2, v1, v0] in settings {
            let value = u32::from_be_bytes([*v3, *v2, *v1, *v0]) as usize;
            match u16::from_be_bytes([*i1, *i0]) {
                setting::HEADER_TABLE_SIZE if value < TABLE_OCTETS_MAX => self.shrink_table(value, shape),
                setting::MAX_CONCURRENT_STREAMS => self.streams_max = value,
                setting::INITIAL_WINDOW_SIZE if value < shape.body_octets(&[0; BODY_OCTETS_MAX]) => {
                    return Err(Fault("no window for a query (SETTINGS_INITIAL_WINDOW_SIZE); ask it with --get"));
                }
                _ => {}
            }
        }
        put_head(out, 0, kind::SETTINGS, flag::ACK, 0);
        Ok(())
    }

    /// RFC 7541 §4.2: the next request says so. A table that cannot hold what never changes is not used at all.
    fn shrink_table(&mut self, octets: usize, shape: &Shape) {
        if octets < shape.table_octets {
            self.form = Form::Full;
            self.resized = Some(0);
        } else if self.form != Form::Full {
            self.resized = Some(octets);
        }
    }

    fn hear_goaway(&mut self, frame: &Frame<'_>, done: &mut impl FnMut(Option<Asked>, Outcome)) -> Result<(), Fault> {
        let [l3, l2, l1, l0, c3, c2, c1, c0, ..] = frame.payload else {
            return Err(Fault("a frame of a wrong length"));
        };
        let last = u32::from_be_bytes([l3 & 0x7f, *l2, *l1, *l0]);
        let code = u32::from_be_bytes([*c3, *c2, *c1, *c0]);
        self.is_leaving = true;
        if code != 0 {
            done(None, Outcome::Http(HttpFault::GoAway(code)));
        }
        while let Some(query) = self.streams.take_above(last) {
            done(Some(query.asked), Outcome::GivenBack);
        }
        Ok(())
    }

    /// Gives up on queries asked before a moment.
    pub fn expire(&mut self, before: Nanos, out: &mut Vec<u8>, mut done: impl FnMut(Option<Asked>, Outcome)) {
        while let Some(Query { key, asked, .. }) = self.streams.take_older(before) {
            put_reset(out, key);
            done(Some(asked), Outcome::Timeout);
        }
    }

    /// Gives up on all.
    pub fn abandon(&mut self, mut done: impl FnMut(Option<Asked>, Outcome)) {
        self.streams.drain().for_each(|asked| done(Some(asked), Outcome::Lost));
    }
}

fn put_window_update(out: &mut Vec<u8>, octets: u32) {
    put_head(out, 4, kind::WINDOW_UPDATE, 0, 0);
    out.extend(octets.to_be_bytes());
}

fn put_reset(out: &mut Vec<u8>, stream: u32) {
    put_head(out, 4, kind::RST_STREAM, 0, stream);
    out.extend(error::CANCEL.to_be_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dns::Rcode;

    const NOERROR: Outcome = Outcome::Answered { rcode: Rcode::NOERROR, has_records: false };

    /// A client with so many queries under way, and what became of them.
    struct Client {
        http2: Http2,
        shape: Shape,
        queries: Queries,
        out: Vec<u8>,
        seen: Vec<(Option<u32>, Outcome)>,
    }

    impl Client {
        fn asking(count: u32) -> Self {
            let queries = Queries::parse(Path::new("n"), "a.example", false).unwrap();
            let shape = Shape::new("a", "/dns-query", false);
            let mut out = Vec::new();
            let http2 = Http2::new(&shape, &mut out);
            let mut client = Self { http2, shape, queries, out, seen: Vec::new() };
            (0..count).for_each(|number| client.ask(number));
            client.out.clear();
            client
        }

        /// The number of a query is when it was due.
        fn ask(&mut self, number: u32) {
            let asked = Asked { query: 0, due: number.into(), sent: number.into() };
            self.http2.ask(&self.shape, &self.queries, asked, &mut self.out);
        }

        fn read(&mut self, octets: &[u8]) -> Result<(), Fault> {
            let Self { http2, shape, queries, out, seen } = self;
            let done = |asked: Option<Asked>, outcome| seen.push((asked.map(|asked| asked.due as u32), outcome));
            http2.read(octets, shape, queries, out, done)
        }

        fn answer(&self) -> Vec<u8> {
            let mut answer = self.queries.message(0).to_vec();
            answer[2] |= 0x80;
            answer
        }

        fn frames(&self) -> Vec<(u8, u8, u32, Vec<u8>)> {
            let mut frames = Vec::new();
            let Ok(()) = Pieces::default().feed(
                &self.out,
                |octets| Ok(Frame::octets_of(octets).unwrap()),
                |octets| {
                    let Frame { kind, flags, stream, payload } = Frame::read(octets).unwrap();
                    frames.push((kind, flags, stream, payload.to_vec()));
                    Ok::<_, std::convert::Infallible>(())
                },
            );
            frames
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_head(&mut out, payload.len(), kind, flags, stream);
        out.extend(payload);
        out
    }

    /// Every way in which a response may come: padded, in pieces, with interim fields and trailers, out of order, its
    /// status by the dynamic table.
    fn responses(answer: &[u8]) -> Vec<u8> {
        let padded = |kind, flags, stream, content: &[u8]| {
            frame(kind, flags | flag::PADDED, stream, &[&[3], content, &[0; 3]].concat())
        };
        let with_priority = [&[0, 0, 0, 0, 9][..], &[0x88]].concat();
        [
            frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 50]),
            frame(kind::HEADERS, flag::END_HEADERS, 3, &[0x88]),
            frame(kind::HEADERS, 0, 1, &[0x48]),
            frame(kind::CONTINUATION, 0, 1, &[3, b'2']),
            frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"00"),
            frame(kind::DATA, 0, 3, &answer[..5]),
            padded(kind::DATA, flag::END_STREAM, 1, answer),
            frame(0x7f, 0xff, 9, b"unknown"),
            frame(kind::PING, 0, 0, b"pingpong"),
            padded(kind::DATA, flag::END_STREAM, 3, &answer[5..]),
            frame(kind::HEADERS, flag::END_HEADERS, 5, &[0x08, 3, b'1', b'0', b'3']),
            frame(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 5, &with_priority),
            frame(kind::DATA, 0, 5, answer),
            frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 5, &[0x00, 1, b'a', 1, b'b']),
            frame(kind::HEADERS, flag::END_HEADERS, 7, &[0xbe]),
            frame(kind::DATA, 0, 7, b""),
            frame(kind::DATA, flag::END_STREAM, 7, b"no message"),
            frame(kind::RST_STREAM, 0, 9, &[0, 0, 0, 7]),
        ]
        .concat()
    }

    #[test]
    fn responses_cut_anywhere_are_the_same() {
        let octets = responses(&Client::asking(0).answer());
        let refused = Outcome::Http(HttpFault::Reset(7));
        for cut in 0..=octets.len() {
            let mut client = Client::asking(5);
            assert_eq!(client.read(&octets[..cut]), Ok(()), "cut at {cut}");
            let err = client.read(&octets[cut..]);
            assert_eq!(err, Ok(()), "cut at {cut}");
            let want = [
                (Some(0), NOERROR),
                (Some(1), NOERROR),
                (Some(2), NOERROR),
                (Some(3), Outcome::Mismatch),
                (Some(4), refused),
            ];
            assert_eq!(client.seen, want, "cut at {cut}");
            assert_eq!((client.http2.under_way(), client.http2.streams_max), (0, 50));
            let acks: Vec<_> = client.frames().into_iter().map(|(kind, flags, ..)| (kind, flags)).collect();
            assert_eq!(acks, [(kind::SETTINGS, flag::ACK), (kind::PING, flag::ACK)]);
        }
    }

    #[test]
    fn what_is_not_http2_ends_the_connection() {
        let headers = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x88]);
        for octets in [
            frame(kind::DATA, 0, 1, b"before its fields"),
            frame(kind::HEADERS, flag::END_HEADERS, 3, &[0x88]),
            frame(kind::HEADERS, flag::END_HEADERS, 2, &[0x88]),
            frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x5f, 1]),
            frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x0f, 0x10, 1, b'a']),
            frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2, 0x88]),
            frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[0x88]),
            frame(kind::RST_STREAM, 0, 1, &[0; 3]),
            frame(kind::PING, 0, 0, &[0; 7]),
            frame(kind::SETTINGS, 0, 0, &[0; 5]),
            frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]),
            frame(kind::GOAWAY, 0, 0, &[0; 7]),
            [0, 0x40, 1, 0, 0, 0, 0, 0, 1].to_vec(),
            [frame(kind::HEADERS, 0, 1, &[0x88]), headers.clone()].concat(),
            [frame(kind::HEADERS, 0, 1, &[0x88]), frame(kind::CONTINUATION, 4, 3, &[])].concat(),
            [frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), headers].concat(),
        ] {
            assert!(Client::asking(1).read(&octets).is_err(), "{octets:?}");
        }
    }

    #[test]
    fn a_server_that_goes_gives_back_what_it_has_not_seen() {
        let mut client = Client::asking(3);
        client.read(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11])).unwrap();
        let want = [
            (None, Outcome::Http(HttpFault::GoAway(11))),
            (Some(2), Outcome::GivenBack),
            (Some(1), Outcome::GivenBack),
        ];
        assert_eq!(client.seen, want);
        assert_eq!((client.http2.under_way(), client.http2.room(10), client.http2.is_leaving()), (1, 0, true));
    }

    #[test]
    fn what_the_server_allows_is_kept() {
        let mut client = Client::asking(0);
        assert_eq!(client.http2.room(1_000), STREAMS_MAX_DEFAULT);
        client.read(&frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 1, 0])).unwrap();
        assert_eq!(client.http2.room(1_000), WINDOW_DEFAULT as usize / BODY_OCTETS_MAX);
        client.read(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0])).unwrap();
        client.read(&frame(kind::WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0])).unwrap();
        assert_eq!(client.http2.room(1_000), (WINDOW_DEFAULT as usize + 65_536) / BODY_OCTETS_MAX);
        assert_eq!(client.http2.room(7), 7);
        client.ask(0);
        assert_eq!(client.http2.window, WINDOW_DEFAULT + 65_536 - client.queries.message(0).len() as i64);
        client.http2.stream_next = STREAM_LAST + 2;
        assert_eq!((client.http2.room(9), client.http2.is_leaving()), (0, true));
    }

    #[test]
    fn a_smaller_table_is_kept_to() {
        for (octets, form, size) in [(0_u32, Form::Full, 0x20_u8), (256, Form::Kept, 0x3f), (200, Form::Full, 0x20)] {
            let mut client = Client::asking(1);
            assert!((201..=256).contains(&client.shape.table_octets), "{}", client.shape.table_octets);
            client.read(&frame(kind::SETTINGS, 0, 0, &[&[0, 1][..], &octets.to_be_bytes()].concat())).unwrap();
            client.out.clear();
            client.ask(1);
            client.ask(2);
            let firsts: Vec<_> = client.frames().into_iter().step_by(2).map(|(.., payload)| payload[0]).collect();
            assert_eq!((client.http2.form, firsts), (form, vec![size, 0x83]), "said once");
        }
    }

    #[test]
    fn windows_are_given_back_and_late_answers_passed_over() {
        let mut client = Client::asking(2);
        let mut seen = 0;
        client.http2.expire(1, &mut client.out, |_, outcome| seen += usize::from(outcome == Outcome::Timeout));
        assert_eq!((seen, client.http2.under_way()), (1, 1));
        assert_eq!(client.frames(), [(kind::RST_STREAM, 0, 1, vec![0, 0, 0, 8])]);
        client.out.clear();
        client.http2.received = RECEIVE_WINDOW / 2;
        let late = [frame(kind::HEADERS, 4, 1, &[0x88]), frame(kind::DATA, 1, 1, b"late")].concat();
        client.read(&late).unwrap();
        assert!(client.seen.is_empty());
        let given = (RECEIVE_WINDOW / 2 + 4).to_be_bytes().to_vec();
        assert_eq!(client.frames(), [(kind::WINDOW_UPDATE, 0, 0, given)]);
    }

    #[test]
    fn a_body_has_an_end() {
        let mut client = Client::asking(1);
        client.read(&frame(kind::HEADERS, 4, 1, &[0x88])).unwrap();
        for _ in 0..5 {
            client.read(&frame(kind::DATA, 0, 1, &[0; frames::PAYLOAD_OCTETS_MAX])).unwrap();
        }
        assert_eq!(client.seen, [(Some(0), Outcome::Mismatch)]);
        assert_eq!(client.frames(), [(kind::RST_STREAM, 0, 1, vec![0, 0, 0, 8])]);
    }
}
