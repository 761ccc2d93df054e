//! Walks the search tree of a database in a bounded number of steps, before its reader walks it without a bound.

use maxminddb::Metadata;

/// A tree whose walk takes more steps than this for each node has more ways to its nodes than a tree can have.
const STEPS_PER_NODE_MAX: u64 = 8;

/// How many bits lead to the IPv4 part of an IPv6 database: it stands at `::/96`.
const BITS_BEFORE_IPV4: u8 = 96;

/// Refuses a tree that goes round in a circle, or that two ways lead into so often that nobody gets to its end: each
/// node with both its sides at the next one makes 2^128 ways of 128 nodes. Further ways to the IPv4 part are usual
/// (2002::/16 and the like stand for it); `Reader::verify` passes them over one by one, and would not end either.
///
/// `octets` begins with a tree as large as `metadata` says.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(octets: &[u8], metadata: &Metadata) -> Result<(), &'static str> {
    let tree = Tree { octets, nodes: metadata.node_count as usize, record_bits: metadata.record_size };
    let (bits, ipv4) = if metadata.ip_version == 4 { (32, None) } else { (128, tree.ipv4().ok_or(CUT)?) };
    let mut steps_left = STEPS_PER_NODE_MAX * u64::from(metadata.node_count);
    let mut ways = vec![Way { node: 0, bits: 0, is_zero: true }];
    while let Some(way) = ways.pop() {
        steps_left = steps_left.checked_sub(1).ok_or("its search tree leads into itself")?;
        let is_another_way_to_ipv4 = !way.is_zero && Some(way.node) == ipv4;
        if way.node >= tree.nodes || is_another_way_to_ipv4 {
            continue;
        }
        if way.bits >= bits {
            return Err("its search tree is deeper than an address is long");
        }
        for side in [1, 0] {
            let node = tree.child(way.node, side).ok_or(CUT)?;
            let is_zero = way.is_zero && (side == 0 || way.bits >= BITS_BEFORE_IPV4);
            ways.push(Way { node, bits: way.bits + 1, is_zero });
        }
    }
    Ok(())
}

const CUT: &str = "its search tree is cut off";

/// A node, and how it was come to.
struct Way {
    node: usize,
    /// How many bits of an address lead here.
    bits: u8,
    /// Those before the IPv4 part are all 0.
    is_zero: bool,
}

struct Tree<'o> {
    octets: &'o [u8],
    nodes: usize,
    record_bits: u16,
}

impl Tree<'_> {
    /// The node at which the IPv4 part begins, if there is one behind the root; None: the octets end before.
    fn ipv4(&self) -> Option<Option<usize>> {
        let mut node = 0;
        for _ in 0..BITS_BEFORE_IPV4 {
            if node >= self.nodes {
                break;
            }
            node = self.child(node, 0)?;
        }
        Some((node != 0 && node < self.nodes).then_some(node))
    }

    /// A record of a node (MaxMind DB format, "Node Layout"): the next node, or a number behind them all. The records of
    /// 28 bits share the octet in the middle.
    fn child(&self, node: usize, side: usize) -> Option<usize> {
        let octets = usize::from(self.record_bits) / 4;
        let node = self.octets.get(node * octets..(node + 1) * octets)?;
        let number = |octets: &[u8]| octets.iter().fold(0, |number, octet| number << 8 | usize::from(*octet));
        Some(match (octets, side) {
            (7, 0) => number(&node[..3]) | usize::from(node[3] >> 4) << 24,
            (7, _) => number(&node[4..]) | usize::from(node[3] & 0xf) << 24,
            (_, 0) => number(&node[..octets / 2]),
            (_, _) => number(&node[octets / 2..]),
        })
    }
}
