//! An HTTP request → the DNS message in it, or what HTTP says to it (RFC 8484 §4.1).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::dns::MESSAGE_OCTETS_MAX;
use crate::telemetry::Bound;

/// Path and query of a URL, in octets: room for a message of 3,000 by GET. The bound stands in front of the decoder.
pub const URL_OCTETS_MAX: usize = 4096;

/// Fields of a request's head. h2 bounds their octets, but crumbs of a cookie cost more than their octets.
pub const FIELDS_MAX: usize = 64;

/// The longest message that fits in a URL, in octets.
pub const URL_MESSAGE_OCTETS_MAX: usize = URL_OCTETS_MAX / 4 * 3;

/// Octets of a body that is not wanted that are heard all the same, so that its sender hears why. None is kept.
const UNWANTED_OCTETS_MAX: usize = 1024 * 1024;

/// The media type of a DNS message, in requests and responses (RFC 8484 §6).
pub(super) const MEDIA_TYPE: &str = "application/dns-message";

/// What is wrong with a request as HTTP sees it. What is wrong with the message in it is said by DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// HTTP/1.1 without a Host, or with several (RFC 9112 §3.2).
    Host,
    /// A path that is not DoH's.
    Path,
    /// A method that is not GET, HEAD or POST.
    Method,
    /// GET without `dns=`.
    NoParameter,
    /// `dns=` that is not base64url.
    Base64,
    /// Fewer octets than a DNS header.
    Short,
    /// A message with QR set.
    Response,
    /// More of them than [`FIELDS_MAX`].
    Fields,
    /// Longer than [`URL_OCTETS_MAX`].
    Url,
    /// A body that says it is something else.
    MediaType,
    /// A body that says it is compressed.
    Coding,
    /// A body longer than a DNS message can be.
    Body,
    /// A body that is not complete in time.
    BodyTimeout,
    /// A body that ends before its end.
    BodyCut,
}

impl Refusal {
    /// Its status, with a sentence for whoever looks at it.
    pub(super) const fn response(self) -> (StatusCode, &'static str) {
        match self {
            Self::Fields => (TOO_MANY_FIELDS, "Too many header fields; 64 are allowed.\n"),
            Self::Url => (URL_TOO_LONG, "The URL is too long; 4096 octets are allowed. POST the message instead.\n"),
            Self::Host => (BAD, "A request names one host, in its field Host (RFC 9112, section 3.2).\n"),
            Self::Path => (NOT_FOUND, "Nothing is here but DNS over HTTPS (RFC 8484); its usual path is /dns-query.\n"),
            Self::Method => (NOT_ALLOWED, "DNS over HTTPS takes GET and POST (RFC 8484), and HEAD.\n"),
            Self::NoParameter => (BAD, "DNS over HTTPS (RFC 8484): ?dns= and a message in base64url, or POST it.\n"),
            Self::Base64 => (BAD, "The parameter dns is not base64url (RFC 4648, section 5).\n"),
            Self::Short => (BAD, "This is no DNS message: a DNS header has 12 octets.\n"),
            Self::Response => (BAD, "This is a DNS response; send a query.\n"),
            Self::MediaType => (UNSUPPORTED, "The body must be of the type application/dns-message.\n"),
            Self::Coding => (UNSUPPORTED, "The body must not be compressed.\n"),
            Self::Body => (TOO_LARGE, "The body is longer than the 65535 octets of a DNS message.\n"),
            Self::BodyTimeout => (TIMEOUT, "The body did not come in time.\n"),
            Self::BodyCut => (BAD, "The body ended before its end.\n"),
        }
    }

    /// The bound that it met, if it is one.
    pub(super) const fn bound(self) -> Option<Bound> {
        match self {
            Self::Fields => Some(Bound::Http),
            Self::Url | Self::Body => Some(Bound::RequestOctets),
            Self::BodyTimeout => Some(Bound::MessageTimeout),
            _ => None,
        }
    }
}

const BAD: StatusCode = StatusCode::BAD_REQUEST;
const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;
const NOT_ALLOWED: StatusCode = StatusCode::METHOD_NOT_ALLOWED;
const TIMEOUT: StatusCode = StatusCode::REQUEST_TIMEOUT;
const TOO_LARGE: StatusCode = StatusCode::PAYLOAD_TOO_LARGE;
const URL_TOO_LONG: StatusCode = StatusCode::URI_TOO_LONG;
const UNSUPPORTED: StatusCode = StatusCode::UNSUPPORTED_MEDIA_TYPE;
const TOO_MANY_FIELDS: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;

/// Where a request has its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// In the URL, still in base64url.
    Parameter(&'a str),
    /// In the body.
    Body,
}

/// Where the message of a request to the DoH path is, cheapest checks first.
///
/// # Errors
/// What HTTP says to a request that has none.
pub fn source<'a>(head: &'a Parts, path: &str) -> Result<Source<'a>, Refusal> {
    if head.headers.len() > FIELDS_MAX {
        return Err(Refusal::Fields);
    }
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > URL_OCTETS_MAX) {
        return Err(Refusal::Url);
    }
    if head.version == Version::HTTP_11 && head.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Refusal::Host);
    }
    // CONNECT has no path at all, and that of `OPTIONS *` is not a resource's (RFC 9110 §9.3.7).
    let aimed_at_server = head.method == Method::CONNECT || head.uri.path() == "*";
    if head.uri.path() != path && !aimed_at_server {
        return Err(Refusal::Path);
    }
    match head.method {
        Method::GET | Method::HEAD => parameter(head.uri.query().unwrap_or("")).map(Source::Parameter),
        Method::POST => body_type(&head.headers).map(|()| Source::Body),
        _ => Err(Refusal::Method),
    }
}

/// The first parameter `dns`, wherever it stands.
fn parameter(query: &str) -> Result<&str, Refusal> {
    query.split('&').find_map(|parameter| parameter.strip_prefix("dns=")).ok_or(Refusal::NoParameter)
}

fn body_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = |name| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    // As nearly everyone writes it, it need not be taken apart.
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value.as_bytes() != MEDIA_TYPE.as_bytes()) {
        let media_type = value(header::CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or("");
        if !media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(Refusal::MediaType);
        }
    }
    match value(header::CONTENT_ENCODING) {
        Some(coding) if !coding.trim().eq_ignore_ascii_case("identity") => Err(Refusal::Coding),
        _ => Ok(()),
    }
}

/// RFC 8484 §6 has no padding; it is taken all the same.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a parameter; the octets stand at the beginning of `into`.
///
/// # Errors
/// When it is not base64url, or longer than a URL can hold.
pub fn decode<'b>(parameter: &str, into: &'b mut [u8; URL_MESSAGE_OCTETS_MAX]) -> Result<&'b [u8], Refusal> {
    let unpadded = parameter.trim_end_matches("%3D").trim_end_matches("%3d");
    let octets = BASE64URL.decode_slice(unpadded, into).map_err(|_| Refusal::Base64)?;
    Ok(&into[..octets])
}

/// The whole body, however many parts it comes in. One that comes in one part is not copied.
pub(super) async fn body<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<Bytes, Refusal> {
    // Content-Length, where there is one.
    if body.size_hint().lower() > MESSAGE_OCTETS_MAX as u64 {
        return Err(Refusal::Body);
    }
    let mut whole = Bytes::new();
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        // Trailers mean nothing here.
        if let Ok(data) = frame.map_err(|_| Refusal::BodyCut)?.into_data() {
            whole = join(whole, data)?;
        }
    }
    Ok(whole)
}

/// Reads what is left of a body that nobody wants, up to [`UNWANTED_OCTETS_MAX`].
pub(super) async fn skip<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<(), Refusal> {
    let mut left = UNWANTED_OCTETS_MAX;
    while left > 0
        && body.size_hint().lower() <= UNWANTED_OCTETS_MAX as u64
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
    Ok(())
}

fn join(whole: Bytes, data: Bytes) -> Result<Bytes, Refusal> {
    if whole.len() + data.len() > MESSAGE_OCTETS_MAX {
        return Err(Refusal::Body);
    }
    if whole.is_empty() || !data.has_remaining() {
        return Ok(if whole.is_empty() { data } else { whole });
    }
    let mut joined = BytesMut::from(whole);
    joined.extend_from_slice(&data);
    Ok(joined.freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::Request;
    use http_body::{Frame, SizeHint};

    use super::*;

    const PATH: &str = "/dns-query";

    fn asked(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<String, Refusal> {
        let mut request = Request::builder().version(Version::HTTP_2).method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        source(&head, PATH).map(|source| match source {
            Source::Parameter(text) => text.to_owned(),
            Source::Body => "body".to_owned(),
        })
    }

    #[test]
    fn the_parameter_may_stand_anywhere() {
        for (query, expected) in [
            ("dns=AAAA", Ok("AAAA")),
            ("a=b&dns=AAAA&c", Ok("AAAA")),
            ("a=b&dns=AA==", Ok("AA==")),
            ("dns=AA&dns=BB", Ok("AA")),
            ("dns=", Ok("")),
            ("xdns=AAAA", Err(Refusal::NoParameter)),
            ("dns", Err(Refusal::NoParameter)),
            ("", Err(Refusal::NoParameter)),
        ] {
            assert_eq!(asked("GET", &format!("{PATH}?{query}"), &[]), expected.map(str::to_owned), "{query}");
        }
        assert_eq!(asked("HEAD", "https://dns.example.net/dns-query?dns=AA", &[]), Ok("AA".to_owned()));
        assert_eq!(asked("GET", PATH, &[]), Err(Refusal::NoParameter));
    }

    #[test]
    fn a_parameter_cut_anywhere_never_passes_for_whole() {
        let target = format!("{PATH}?a=b&dns=AAABAAABAAAAAAAA");
        for cut in 1..target.len() {
            let found = asked("GET", &target[..cut], &[]);
            assert_ne!(found, Ok("AAABAAABAAAAAAAA".to_owned()), "cut at {cut}");
            assert_eq!(found.is_ok(), cut >= target.find("dns=A").unwrap() + 4, "cut at {cut}: {found:?}");
        }
    }

    #[test]
    fn methods_and_paths_have_their_refusals() {
        let post = [("content-type", MEDIA_TYPE)];
        for (method, target, expected) in [
            ("POST", PATH, Ok("body")),
            ("POST", "/dns-query?dns=AAAA", Ok("body")),
            ("PUT", PATH, Err(Refusal::Method)),
            ("DELETE", PATH, Err(Refusal::Method)),
            ("OPTIONS", PATH, Err(Refusal::Method)),
            ("OPTIONS", "*", Err(Refusal::Method)),
            ("CONNECT", "dns.example.net:443", Err(Refusal::Method)),
            ("PUT", "/", Err(Refusal::Path)),
            ("GET", "/", Err(Refusal::Path)),
            ("GET", "/dns-query/", Err(Refusal::Path)),
            ("GET", "/DNS-QUERY", Err(Refusal::Path)),
        ] {
            assert_eq!(asked(method, target, &post), expected.map(str::to_owned), "{method} {target}");
        }
    }

    #[test]
    fn only_a_plain_dns_message_is_a_body() {
        for (content_type, expected) in [
            ("application/dns-message", true),
            ("Application/DNS-Message; charset=utf-8", true),
            (" application/dns-message ", true),
            ("application/oblivious-dns-message", false),
            ("application/dns-message-x", false),
            ("application/json", false),
            ("", false),
        ] {
            let found = asked("POST", PATH, &[("content-type", content_type)]);
            assert_eq!(found.err(), (!expected).then_some(Refusal::MediaType), "{content_type}");
        }
        assert_eq!(asked("POST", PATH, &[]), Err(Refusal::MediaType));
        for (coding, expected) in [("gzip", Err(Refusal::Coding)), ("Identity", Ok("body".to_owned()))] {
            let fields = [("content-type", MEDIA_TYPE), ("content-encoding", coding)];
            assert_eq!(asked("POST", PATH, &fields), expected);
        }
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let longest = "a".repeat(URL_OCTETS_MAX - "/dns-query?dns=".len());
        assert!(asked("GET", &format!("{PATH}?dns={longest}"), &[]).is_ok());
        assert_eq!(asked("GET", &format!("{PATH}?dns={longest}a"), &[]), Err(Refusal::Url));
        decode(&longest[..URL_OCTETS_MAX / 4 * 4 - 16], &mut [0; URL_MESSAGE_OCTETS_MAX]).unwrap();

        let fields = vec![("cookie", "a=b"); FIELDS_MAX];
        assert!(asked("GET", "/dns-query?dns=AA", &fields).is_ok());
        let fields = vec![("cookie", "a=b"); FIELDS_MAX + 1];
        assert_eq!(asked("GET", "/dns-query?dns=AA", &fields), Err(Refusal::Fields));
    }

    #[test]
    fn base64url_is_read_with_and_without_padding() {
        for (text, expected) in [
            ("", Ok(&b""[..])),
            ("_-8", Ok(b"\xff\xef")),
            ("_-8=", Ok(b"\xff\xef")),
            ("_-8%3D", Ok(b"\xff\xef")),
            ("_w%3d%3d", Ok(b"\xff")),
            ("_w==", Ok(b"\xff")),
            ("/+8=", Err(Refusal::Base64)),
            ("A", Err(Refusal::Base64)),
            ("AA AA", Err(Refusal::Base64)),
            ("AA%41A", Err(Refusal::Base64)),
        ] {
            assert_eq!(decode(text, &mut [0; URL_MESSAGE_OCTETS_MAX]), expected, "{text}");
        }
    }

    #[test]
    fn every_refusal_is_an_error_with_a_sentence() {
        for refusal in [
            Refusal::Host,
            Refusal::Path,
            Refusal::Method,
            Refusal::NoParameter,
            Refusal::Base64,
            Refusal::Short,
            Refusal::Response,
            Refusal::Fields,
            Refusal::Url,
            Refusal::MediaType,
            Refusal::Coding,
            Refusal::Body,
            Refusal::BodyTimeout,
            Refusal::BodyCut,
        ] {
            let (status, sentence) = refusal.response();
            assert!(status.is_client_error() && sentence.ends_with(".\n"), "{refusal:?}");
        }
        assert!(Refusal::Url.response().1.contains(&URL_OCTETS_MAX.to_string()));
        assert!(Refusal::Fields.response().1.contains(&FIELDS_MAX.to_string()));
    }

    /// A body in parts, with or without a length that it says it has.
    struct Parted(VecDeque<Result<Bytes, ()>>, Option<u64>);

    impl Body for Parted {
        type Data = Bytes;
        type Error = ();

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
            Poll::Ready(self.0.pop_front().map(|part| part.map(Frame::data)))
        }

        fn size_hint(&self) -> SizeHint {
            self.1.map_or_else(SizeHint::new, SizeHint::with_exact)
        }
    }

    async fn read(parts: &[usize], length: Option<u64>) -> Result<usize, Refusal> {
        let parts = parts.iter().map(|octets| Ok(Bytes::from(vec![7; *octets])));
        body(Parted(parts.collect(), length)).await.map(|whole| whole.len())
    }

    #[tokio::test]
    async fn a_body_is_joined_and_bounded() {
        assert_eq!(read(&[], None).await, Ok(0));
        assert_eq!(read(&[3, 0, 4, 5, 0], None).await, Ok(12));
        assert_eq!(read(&[65_535], Some(65_535)).await, Ok(65_535));
        assert_eq!(read(&[65_000, 535, 0], None).await, Ok(65_535));
        assert_eq!(read(&[65_000, 536], None).await, Err(Refusal::Body));
        assert_eq!(read(&[], Some(65_536)).await, Err(Refusal::Body), "before any of it is read");
        for (octets, left) in [(vec![700_000, 300_000], 0), (vec![700_000, 400_000, 5], 1), (vec![1, 2], 0)] {
            let mut unwanted = Parted(octets.iter().map(|octets| Ok(Bytes::from(vec![7; *octets]))).collect(), None);
            assert_eq!((skip(&mut unwanted).await, unwanted.0.len()), (Ok(()), left), "{octets:?}");
        }
        let cut = Parted(VecDeque::from([Ok(Bytes::from_static(b"a")), Err(())]), Some(2));
        assert_eq!(body(cut).await, Err(Refusal::BodyCut));
    }
}
