//! Asks a running server's admin listener, for `explain` and `orders` on the command line.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the whole exchange may take: an explanation may wait for an upstream, by default 5 s at most.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(8);

/// The most octets of a reply, header included.
pub const REPLY_OCTETS_MAX: u64 = 64 << 20;

/// The most characters of an error that we repeat.
const ERROR_CHARACTERS_MAX: usize = 1 << 10;

/// The page at `path`; None where nothing listens.
///
/// # Errors
/// What the server says is wrong, or why no whole page came, in a line.
#[must_use]
pub fn fetch(server: SocketAddr, path: &str) -> Option<Result<String, String>> {
    let stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT).ok()?;
    let until = Instant::now() + EXCHANGE_TIMEOUT;
    Some(exchange(Timed { stream, until }, server, path))
}

fn exchange(mut stream: Timed, server: SocketAddr, path: &str) -> Result<String, String> {
    let failed = |error: io::Error| format!("{server}: no answer from what listens there: {error}");
    // HTTP/1.0 answers are not sent in chunks, and end with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut octets = Vec::new();
    stream.take(REPLY_OCTETS_MAX + 1).read_to_end(&mut octets).map_err(failed)?;
    if octets.len() as u64 > REPLY_OCTETS_MAX {
        return Err(format!("{server}: an answer of more than {REPLY_OCTETS_MAX} octets"));
    }
    let (status, body) =
        read(&octets).ok_or_else(|| format!("{server}: what listens there is not Bailiwick, or was cut off"))?;
    if status == 200 { Ok(body) } else { Err(error_of(status, &body)) }
}

/// The status and body of an HTTP/1 response that is whole.
fn read(octets: &[u8]) -> Option<(u16, String)> {
    let text = str::from_utf8(octets).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    })?;
    (length == Ok(body.len())).then(|| (status, body.to_owned()))
}

/// What our own pages say is wrong, or the beginning of what others do.
fn error_of(status: u16, body: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(body).ok();
    let ours = json.as_ref().and_then(|json| json["error"].as_str());
    let cut: String = body.chars().take(ERROR_CHARACTERS_MAX).collect();
    ours.map_or_else(|| format!("HTTP status {status}: {}", cut.trim()), str::to_owned)
}

/// A stream whose reads and writes all end at one moment.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    /// What is left of the time; zero would mean no limit to the socket.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const REPLY: &str = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\nA: b\r\n\r\norders";

    #[test]
    fn only_a_whole_reply_is_one() {
        assert_eq!(read(REPLY.as_bytes()), Some((200, "orders".to_owned())));
        for cut in 0..REPLY.len() {
            assert_eq!(read(&REPLY.as_bytes()[..cut]), None, "cut at {cut}");
        }
        assert_eq!(read(b"220 mail.example ESMTP\r\n\r\n"), None);
    }

    #[test]
    fn nobody_there_is_no_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(fetch(address, "/orders"), None);
    }

    #[test]
    fn somebody_else_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 18];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        });
        let error = fetch(address, "/orders").unwrap().unwrap_err();
        assert!(error.starts_with(&address.to_string()), "{error}");
        other.join().unwrap();
    }

    #[test]
    fn errors_are_short_lines() {
        assert_eq!(error_of(400, "{\"error\":\"not a name\"}\n"), "not a name");
        assert_eq!(error_of(404, "no such page\n"), "HTTP status 404: no such page");
        assert!(error_of(500, &"ü".repeat(1 << 20)).chars().count() < 2 * ERROR_CHARACTERS_MAX);
    }
}
