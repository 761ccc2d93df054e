//! A DNS answer, or a refusal → an HTTP response (RFC 8484 §4.2, §5.1).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Frame, SizeHint};

use super::activity::Exchange;
use super::request::{MEDIA_TYPE, Refusal};
use crate::answer::Written;

/// Fields that a response has, hyper's `date` among them.
const FIELDS: usize = 5;

/// Digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

/// A body of one part, or none.
#[derive(Debug)]
pub(super) struct Body(Option<Taken>);

/// Octets of a body, until the transport has taken them all. HTTP/2 may hold them for as long as the client leaves
/// its window shut, when request and response are long forgotten.
#[derive(Debug)]
pub(super) struct Taken {
    octets: Bytes,
    _exchange: Exchange,
}

impl Buf for Taken {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, octets: usize) {
        self.octets.advance(octets);
    }
}

impl http_body::Body for Body {
    type Data = Taken;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Taken>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.remaining() as u64))
    }
}

/// What a response needs to know of its request.
#[derive(Debug)]
pub(super) struct Addressee {
    /// HEAD: everything but the body (RFC 9110 §9.3.2).
    pub(super) head_only: bool,
    /// HTTP/1.1: the connection ends with this response.
    pub(super) close: bool,
    /// The request itself, until the response has been taken.
    pub(super) exchange: Exchange,
}

impl Addressee {
    /// 200 with a DNS answer, whatever its RCODE (RFC 8484 §4.2.1). `text` lends room for what headers say.
    pub(super) fn answer(self, message: Bytes, written: Written, text: &mut BytesMut) -> Response<Body> {
        let mut fields = HeaderMap::with_capacity(FIELDS);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        fields.insert(header::CACHE_CONTROL, cache_control(written.max_age, text));
        self.respond(fields, message, text)
    }

    /// A page, as it was made: its status, its fields and its body.
    pub(super) fn page(self, page: Response<Bytes>, text: &mut BytesMut) -> Response<Body> {
        let (head, octets) = page.into_parts();
        let mut response = self.respond(head.headers, octets, text);
        *response.status_mut() = head.status;
        response
    }

    /// An error of HTTP, with a sentence for whoever looks at it.
    pub(super) fn refuse(mut self, refusal: Refusal, text: &mut BytesMut) -> Response<Body> {
        // The rest of the body may come yet, and must not be read as a request.
        self.close |= refusal == Refusal::BodyTimeout;
        let mut fields = HeaderMap::with_capacity(FIELDS);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(NOT_AT_ALL));
        let (status, sentence) = refusal.response();
        let mut response = self.respond(fields, Bytes::from_static(sentence.as_bytes()), text);
        *response.status_mut() = status;
        if refusal == Refusal::Method {
            // RFC 9110 §15.5.6: 405 must name what is allowed.
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        response
    }

    fn respond(mut self, mut headers: HeaderMap, octets: Bytes, text: &mut BytesMut) -> Response<Body> {
        // Said here, so that HEAD has it too.
        headers.insert(header::CONTENT_LENGTH, content_length(octets.len(), text));
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.exchange.answer();
        let body = Body((!self.head_only).then_some(Taken { octets, _exchange: self.exchange }));
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        response
    }
}

/// What must not be kept is private all the same: so a shared cache is told the same of every answer.
const NOT_AT_ALL: &str = "private, no-store";

/// Every answer depends on who asks, so none may be kept for others.
fn cache_control(max_age: Option<u32>, text: &mut BytesMut) -> HeaderValue {
    match max_age {
        Some(seconds) => value(text, "private, max-age=", seconds.into()),
        None => HeaderValue::from_static(NOT_AT_ALL),
    }
}

/// The digits of all numbers below 1,000, three for each: nearly every answer is as long as one of them says.
static LENGTHS: [u8; 3_000] = {
    let mut digits = [0; 3_000];
    let mut at = 0;
    while at < digits.len() {
        let number = at / 3;
        digits[at] = b'0' + (number / 100) as u8;
        digits[at + 1] = b'0' + (number / 10 % 10) as u8;
        digits[at + 2] = b'0' + (number % 10) as u8;
        at += 3;
    }
    digits
};

fn content_length(octets: usize, text: &mut BytesMut) -> HeaderValue {
    let zeros = usize::from(octets < 100) + usize::from(octets < 10);
    match LENGTHS.get(3 * octets + zeros..3 * octets + 3).map(str::from_utf8) {
        Some(Ok(digits)) => HeaderValue::from_static(digits),
        _ => value(text, "", octets as u64),
    }
}

/// A field's value, words and a number behind them, in room of `text`'s. The machinery of `write!` would cost more than
/// all else that a response takes.
fn value(text: &mut BytesMut, words: &str, number: u64) -> HeaderValue {
    let (mut digits, mut at, mut left) = ([0; DIGITS_MAX], DIGITS_MAX, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    text.put_slice(words.as_bytes());
    text.put_slice(&digits[at..]);
    // Digits and ASCII words: never refused.
    HeaderValue::from_maybe_shared(text.split().freeze()).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::super::activity::Activity;
    use super::*;
    use crate::dns::Rcode;

    fn addressee(head_only: bool, close: bool) -> Addressee {
        Addressee { head_only, close, exchange: Exchange::begin(&Activity::new(true)) }
    }

    fn answered(head_only: bool, max_age: Option<u32>) -> Response<Body> {
        let written = Written { rcode: Rcode::SERVFAIL, max_age };
        addressee(head_only, false).answer(Bytes::from_static(b"message"), written, &mut BytesMut::new())
    }

    fn field(response: &Response<Body>, name: &str) -> Option<String> {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn an_answer_is_200_whatever_its_rcode() {
        let response = answered(false, Some(299));
        assert_eq!(response.status(), 200);
        assert_eq!(field(&response, "content-type").as_deref(), Some("application/dns-message"));
        assert_eq!(field(&response, "cache-control").as_deref(), Some("private, max-age=299"));
        assert_eq!(field(&response, "content-length").as_deref(), Some("7"));
        assert_eq!(response.headers().len(), 3, "no cookie, no Age");
        let mut body = response.into_body().collect().await.unwrap().aggregate();
        assert_eq!(body.copy_to_bytes(body.remaining()), "message");
    }

    #[test]
    fn lengths_are_numbers_without_zeros_in_front() {
        for octets in (0..1_100).chain([9_999, 10_000, 65_535]) {
            assert_eq!(content_length(octets, &mut BytesMut::new()).to_str().unwrap(), octets.to_string());
        }
    }

    #[test]
    fn freshness_is_always_private() {
        for (max_age, expected) in [
            (Some(0), "private, max-age=0"),
            (Some(u32::MAX), "private, max-age=4294967295"),
            (None, "private, no-store"),
        ] {
            assert_eq!(field(&answered(false, max_age), "cache-control").as_deref(), Some(expected));
        }
    }

    #[test]
    fn head_has_the_headers_of_get_and_no_body() {
        let (get, head) = (answered(false, Some(1)), answered(true, Some(1)));
        assert_eq!(get.headers(), head.headers());
        assert!(!get.body().is_end_stream() && head.body().is_end_stream());
    }

    #[test]
    fn a_refusal_says_why_and_what_is_allowed() {
        let response = addressee(false, false).refuse(Refusal::Method, &mut BytesMut::new());
        assert_eq!(response.status(), 405);
        assert_eq!(field(&response, "allow").as_deref(), Some("GET, HEAD, POST"));
        assert_eq!(field(&response, "cache-control").as_deref(), Some("private, no-store"));
        assert_eq!(field(&response, "content-length"), Some(Refusal::Method.response().1.len().to_string()));
        assert_eq!(field(&response, "connection"), None);
        let response = addressee(true, true).refuse(Refusal::Path, &mut BytesMut::new());
        assert_eq!((response.status().as_u16(), field(&response, "allow")), (404, None));
        assert_eq!(field(&response, "connection").as_deref(), Some("close"));
        assert!(response.body().is_end_stream());
        let response = addressee(false, false).refuse(Refusal::BodyTimeout, &mut BytesMut::new());
        assert_eq!(field(&response, "connection").as_deref(), Some("close"));
    }
}
