//! A histogram of times: log-linear buckets, each within 0.8 % of what it counts.

/// Nanoseconds, since the run began where they are a moment.
pub type Nanos = u64;

/// Steps of each doubling, as a power of two.
const STEPS_BITS: u32 = 7;

const STEPS: usize = 1 << STEPS_BITS;

/// What is longer is counted as this long: two minutes and more, and no query waits for so long.
const VALUE_MAX: Nanos = (1 << 37) - 1;

/// How many buckets that takes.
const BUCKETS: usize = index(VALUE_MAX) + 1;

/// How often each time was seen.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    min: Nanos,
    max: Nanos,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum: 0, min: Nanos::MAX, max: 0 }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn record(&mut self, value: Nanos) {
        self.counts[index(value.min(VALUE_MAX))] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Counts everything that another has counted.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.counts.iter_mut().zip(&other.counts) {
            *to += from;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum, self.min, self.max) = (0, 0, Nanos::MAX, 0);
    }

    /// How many times were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The shortest; 0 where none was counted.
    #[must_use]
    pub fn min(&self) -> Nanos {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The longest; 0 where none was counted.
    #[must_use]
    pub const fn max(&self) -> Nanos {
        self.max
    }

    /// The mean; 0 where none was counted.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The time that `share` (0 to 1) of all were not longer than; 0 where none was counted.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Nanos {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        bucket.map_or(0, |bucket| longest(bucket).clamp(self.min(), self.max))
    }

    /// Every bucket in which something was counted: the longest time that falls into it, and how many did.
    pub fn buckets(&self) -> impl Iterator<Item = (Nanos, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (longest(bucket).min(self.max), *count))
    }
}

/// The bucket of a value: the position of its highest bit and the bits of [`STEPS_BITS`] behind it.
const fn index(value: Nanos) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - STEPS_BITS;
    ((shift as usize) << STEPS_BITS) + (value >> shift) as usize
}

/// The largest value of a bucket.
const fn longest(bucket: usize) -> Nanos {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = (bucket >> STEPS_BITS) - 1;
    (((bucket & (STEPS - 1)) + STEPS + 1) as u64) * (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for bucket in 0..BUCKETS {
            assert_eq!(index(longest(bucket)), bucket);
            assert_eq!(index(longest(bucket) + 1), bucket + 1);
            let shortest = if bucket == 0 { 0 } else { longest(bucket - 1) + 1 };
            assert!((longest(bucket) - shortest) as f64 <= shortest as f64 * 0.008, "{bucket}");
        }
        assert_eq!(longest(BUCKETS - 1), VALUE_MAX);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile(0.5), histogram.min(), histogram.max(), histogram.mean()), (0, 0, 0, 0.0));
        for value in 1..=1_000 {
            histogram.record(value * 1_000);
        }
        for (share, want) in [(0.0, 1e3), (0.5, 500e3), (0.9, 900e3), (0.99, 990e3), (0.999, 999e3), (1.0, 1e6)] {
            let found = histogram.percentile(share) as f64;
            assert!(found >= want && found <= want * 1.008, "{share}: {found}");
        }
        assert_eq!((histogram.min(), histogram.max(), histogram.mean()), (1_000, 1_000_000, 500_500.0));
    }

    #[test]
    fn one_added_to_another_is_both() {
        let [mut one, mut other, mut both] = [(); 3].map(|()| Histogram::default());
        one.record(7);
        for value in [90_000, u64::MAX] {
            other.record(value);
        }
        for value in [7, 90_000, u64::MAX] {
            both.record(value);
        }
        one.add(&other);
        assert_eq!(one.buckets().collect::<Vec<_>>(), both.buckets().collect::<Vec<_>>());
        assert_eq!((one.count(), one.min(), one.max()), (3, 7, u64::MAX));
        one.clear();
        assert_eq!((one.count(), one.buckets().count()), (0, 0));
    }
}
