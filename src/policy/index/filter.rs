//! What is known of a name by its hash alone: a few bits for each node of a part, small enough to stay in a cache.

/// For each node, whether rules stand at it and whether names stand below it: no is certain, yes is likely.
pub(super) struct Filter {
    words: Box<[u64]>,
}

/// How many nodes share a word of 64 bits, two or four of them each: a node that is not there looks as if it were
/// about once in 25 times.
const WORD_NODES: usize = 6;

/// How many of a hash's lower bits choose a bit of a word.
const BIT: u32 = 6;

impl Filter {
    /// One that says no of everything, with room for this many nodes.
    pub(super) fn for_nodes(nodes: usize) -> Self {
        Self { words: vec![0; nodes.div_ceil(WORD_NODES).max(1)].into_boxed_slice() }
    }

    /// Notes that rules stand at a name.
    pub(super) fn add_ruled(&mut self, hash: u64) {
        self.words[scaled(hash, self.words.len())] |= ruled(hash);
    }

    /// Notes that names stand below a name.
    pub(super) fn add_inner(&mut self, hash: u64) {
        self.words[scaled(hash, self.words.len())] |= inner(hash);
    }

    /// Whether rules may stand at a name, and whether names may stand below it.
    pub(super) fn look(&self, hash: u64) -> (bool, bool) {
        let word = self.words[scaled(hash, self.words.len())];
        (word & ruled(hash) == ruled(hash), word & inner(hash) == inner(hash))
    }

    /// Octets it takes.
    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.words)
    }
}

/// The place of a hash among this many, by its upper bits: what is sorted by hash is sorted by place.
pub(super) fn scaled(hash: u64, places: usize) -> usize {
    ((u128::from(hash) * places as u128) >> 64) as usize
}

fn ruled(hash: u64) -> u64 {
    bit(hash) | bit(hash >> BIT)
}

fn inner(hash: u64) -> u64 {
    bit(hash >> (2 * BIT)) | bit(hash >> (3 * BIT))
}

fn bit(hash: u64) -> u64 {
    1 << (hash % (1 << BIT))
}

#[cfg(test)]
mod tests {
    use ahash::RandomState;

    use super::*;

    #[test]
    fn what_was_added_is_seen_and_little_else() {
        const NODES: u64 = 100_000;
        let random = RandomState::with_seeds(1, 2, 3, 4);
        let mut filter = Filter::for_nodes(NODES as usize);
        (0..NODES).for_each(|node| {
            if node % 3 == 0 {
                filter.add_inner(random.hash_one(node))
            } else {
                filter.add_ruled(random.hash_one(node))
            }
        });
        for node in 0..NODES {
            let (ruled, inner) = filter.look(random.hash_one(node));
            assert!(if node % 3 == 0 { inner } else { ruled }, "{node}");
        }
        let seen = (NODES..2 * NODES).map(|node| filter.look(random.hash_one(node)));
        let (ruled, inner) =
            seen.fold((0, 0), |(ruled, inner), seen| (ruled + u64::from(seen.0), inner + u64::from(seen.1)));
        for wrong in [ruled, inner] {
            assert!(wrong < NODES / 20, "{wrong} of {NODES}");
        }
    }

    #[test]
    fn what_is_sorted_by_hash_is_sorted_by_place() {
        assert_eq!([0, 1 << 62, 1 << 63, u64::MAX].map(|hash| scaled(hash, 10)), [0, 2, 5, 9]);
        assert_eq!(scaled(u64::MAX, 1), 0);
    }
}
