//! The octets of a part, written once: where they are many, on the kernel's large pages.

use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapMut};

/// A large page, and the fewest octets that may get one.
const PAGE_OCTETS: usize = 2 << 20;

/// Octets that no longer change. A look-up among very many waits for memory and for little else, and on small pages half
/// of that is for the tables in which the processor looks up where a page is.
pub(super) enum Arena {
    Few(Box<[u8]>),
    Many(Mmap),
}

impl Arena {
    pub(super) fn new(octets: Vec<u8>) -> Self {
        let mapped = if octets.len() < PAGE_OCTETS { None } else { map(&octets).ok() };
        mapped.map_or_else(|| Self::Few(octets.into_boxed_slice()), Self::Many)
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Few(octets) => octets,
            Self::Many(octets) => octets,
        }
    }
}

fn map(octets: &[u8]) -> io::Result<Mmap> {
    let mut map = MmapMut::map_anon(octets.len())?;
    // A wish: a kernel that has no large pages to give takes small ones.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.copy_from_slice(octets);
    map.make_read_only()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_octets_are_the_same_however_many() {
        for (count, mapped) in [(0, false), (PAGE_OCTETS - 1, false), (PAGE_OCTETS, true), (PAGE_OCTETS + 1, true)] {
            let octets: Vec<_> = (0..count).map(|at| (at % 251) as u8).collect();
            let arena = Arena::new(octets.clone());
            assert_eq!(matches!(arena, Arena::Many(_)), mapped);
            assert_eq!(*arena, octets[..]);
        }
    }
}
