//! Octets that come in pieces, cut into the whole units that they are made of.

/// What came of a unit that is not whole yet.
#[derive(Debug, Default)]
pub struct Pieces {
    held: Vec<u8>,
}

impl Pieces {
    /// Hands on every unit that is whole by now. `octets_of` says how long the unit is that begins the octets, head
    /// included; None while too few are there to say.
    ///
    /// # Errors
    /// What `octets_of` or `take` finds wrong; what was held is of no use then.
    pub fn feed<E>(
        &mut self,
        octets: &[u8],
        octets_of: impl Fn(&[u8]) -> Result<Option<usize>, E>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.held.is_empty() {
            let used = cut(octets, &octets_of, &mut take)?;
            self.held.extend_from_slice(&octets[used..]);
        } else {
            self.held.extend_from_slice(octets);
            let used = cut(&self.held, &octets_of, &mut take)?;
            self.held.drain(..used);
        }
        Ok(())
    }
}

/// How many octets the whole units have taken.
fn cut<E>(
    octets: &[u8],
    octets_of: &impl Fn(&[u8]) -> Result<Option<usize>, E>,
    take: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<usize, E> {
    let mut at = 0;
    while let Some(length) = octets_of(&octets[at..])? {
        let Some(unit) = octets.get(at..at + length) else { break };
        take(unit)?;
        at += length;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_piece_ends_changes_nothing() {
        let octets_of = |octets: &[u8]| match octets.first() {
            Some(0) => Err("no length"),
            first => Ok(first.map(|length| usize::from(*length))),
        };
        let octets = [1, 3, 7, 7, 2, 9, 1, 4, 0];
        for first in 0..=octets.len() {
            for second in first..=octets.len() {
                let (mut pieces, mut units) = (Pieces::default(), Vec::new());
                for piece in [&octets[..first], &octets[first..second], &octets[second..]] {
                    let fed = pieces.feed(piece, octets_of, |unit| {
                        units.push(unit.to_vec());
                        Ok(())
                    });
                    assert_eq!(fed, Ok(()));
                }
                assert_eq!(units, [&[1][..], &[3, 7, 7], &[2, 9], &[1]], "{first} {second}");
                assert_eq!(pieces.held, [4, 0]);
            }
        }
        assert_eq!(Pieces::default().feed(&[1, 0], octets_of, |_| Ok(())), Err("no length"));
    }
}
