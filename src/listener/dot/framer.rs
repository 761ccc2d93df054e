//! Cuts a stream of octets into messages: two octets of length before each (RFC 7766 §8).

use bytes::{Buf, BytesMut};

/// Octets before each message.
pub(super) const PREFIX_OCTETS: usize = 2;

/// Finds whole messages in what is read; keeps what is left: a message begun, or whole ones that had to wait.
#[derive(Debug, Default)]
pub struct Framer {
    kept: BytesMut,
}

impl Framer {
    /// Hands each whole message of what was kept and of `octets`, which came behind it, to `take`, until that returns
    /// false; the rest is kept. Returns how many messages were taken.
    ///
    /// What is kept is bounded where the caller reads on only while [`Self::has_whole`] is false: by one message and
    /// one read.
    pub fn feed(&mut self, octets: &[u8], take: impl FnMut(&[u8]) -> bool) -> usize {
        if self.kept.is_empty() {
            let (taken, rest) = walk(octets, take);
            self.kept.extend_from_slice(rest);
            return taken;
        }
        self.kept.extend_from_slice(octets);
        let (taken, rest) = walk(&self.kept, take);
        let used = self.kept.len() - rest.len();
        self.kept.advance(used);
        if self.kept.is_empty() {
            // An idle connection keeps no buffer.
            self.kept = BytesMut::new();
        }
        taken
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether a whole message is kept.
    #[must_use]
    pub fn has_whole(&self) -> bool {
        split(&self.kept).is_some()
    }
}

/// Hands over whole messages until told not to go on; how many, and what is left.
fn walk(mut octets: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> (usize, &[u8]) {
    let mut taken = 0;
    while let Some((message, rest)) = split(octets) {
        octets = rest;
        taken += 1;
        if !take(message) {
            break;
        }
    }
    (taken, octets)
}

/// The first message and what follows it, if it is whole.
fn split(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<PREFIX_OCTETS>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] = b"\0\x03one\0\0\0\x05three";
    const MESSAGES: [&[u8]; 3] = [b"one", b"", b"three"];

    fn feed_all(framer: &mut Framer, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for piece in pieces {
            framer.feed(piece, |message| {
                messages.push(message.to_vec());
                true
            });
        }
        messages
    }

    #[test]
    fn every_cut_gives_the_same_messages() {
        for cut in 0..=STREAM.len() {
            let mut framer = Framer::default();
            assert_eq!(feed_all(&mut framer, &[&STREAM[..cut], &STREAM[cut..]]), MESSAGES, "cut at {cut}");
            assert!(!framer.has_begun() && framer.kept.capacity() == 0);
        }
    }

    #[test]
    fn a_cut_stream_gives_the_messages_before_the_cut() {
        for cut in 0..STREAM.len() {
            let mut framer = Framer::default();
            let messages = feed_all(&mut framer, &[&STREAM[..cut]]);
            let whole = [5, 7, 14].iter().filter(|end| **end <= cut).count();
            assert_eq!(messages, MESSAGES[..whole], "cut at {cut}");
            assert_eq!(framer.has_begun(), ![0, 5, 7].contains(&cut), "cut at {cut}");
            assert!(!framer.has_whole());
        }
    }

    #[test]
    fn drip_gives_the_messages() {
        let octets: Vec<_> = STREAM.chunks(1).collect();
        assert_eq!(feed_all(&mut Framer::default(), &octets), MESSAGES);
    }

    #[test]
    fn what_is_not_taken_is_kept() {
        let mut framer = Framer::default();
        assert_eq!(framer.feed(STREAM, |_| false), 1);
        assert!(framer.has_whole());
        let mut second = Vec::new();
        assert_eq!(
            framer.feed(b"", |message| {
                second.push(message.to_vec());
                false
            }),
            1
        );
        assert_eq!((second, framer.has_whole()), (vec![Vec::new()], true));
        assert_eq!(feed_all(&mut framer, &[b"\0\x01x"]), [&b"three"[..], b"x"]);
    }

    #[test]
    fn the_longest_message_fits() {
        let mut stream = vec![0xff, 0xff];
        stream.resize(PREFIX_OCTETS + usize::from(u16::MAX), 7);
        let pieces: Vec<_> = stream.chunks(4_096).collect();
        let messages = feed_all(&mut Framer::default(), &pieces);
        assert_eq!(messages, [&stream[2..]]);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            piece in 1_usize..50,
            at_once in 1_usize..4,
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                stream.extend_from_slice(&(message.len() as u16).to_be_bytes());
                stream.extend_from_slice(message);
            }
            let (mut framer, mut out) = (Framer::default(), Vec::new());
            for octets in stream.chunks(piece).chain(std::iter::repeat_n(&[][..], messages.len())) {
                let mut left = at_once;
                framer.feed(octets, |message| {
                    out.push(message.to_vec());
                    left -= 1;
                    left > 0
                });
            }
            prop_assert_eq!(out, messages);
        }
    }
}
