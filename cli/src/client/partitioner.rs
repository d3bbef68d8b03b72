//! Which partition a record goes to: by its key as Java's producer does it, so that keys written by any client meet; records
//! without a key stay with one partition for a batch, then move to the next.

use super::records::NewRecord;

/// Chooses partitions of one topic.
#[derive(Debug)]
pub(crate) struct Partitioner {
    partitions: Vec<i32>,
    sticky: usize,
    stuck_bytes: usize,
    sticky_bytes_max: usize,
}

impl Partitioner {
    /// `partitions` are all of the topic, rising from 0. `seed` spreads where keyless records begin.
    pub(crate) fn new(partitions: Vec<i32>, seed: usize, sticky_bytes_max: usize) -> Self {
        let sticky = if partitions.is_empty() { 0 } else { seed % partitions.len() };
        Self { partitions, sticky, stuck_bytes: 0, sticky_bytes_max }
    }

    /// The partition for a record.
    pub(crate) fn choose(&mut self, record: &NewRecord) -> i32 {
        let count = self.partitions.len();
        if count == 0 {
            return 0;
        }
        if let Some(key) = &record.key {
            // Kafka's "to positive": the sign bit is cut, not the absolute value taken.
            let hash = usize::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
            return self.partitions[hash % count];
        }
        if self.stuck_bytes >= self.sticky_bytes_max {
            self.sticky = (self.sticky + 1) % count;
            self.stuck_bytes = 0;
        }
        self.stuck_bytes += record.bytes();
        self.partitions[self.sticky]
    }
}

/// Murmur 2 with the seed of Kafka's Java client.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // Of a key longer than 4 GiB only the length's low bits would count; no key is.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        // The values of the Java client's own test.
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), expected.cast_unsigned(), "{key}");
        }
    }

    #[test]
    fn a_key_always_meets_the_same_partition_and_keyless_records_move_on() {
        let mut partitioner = Partitioner::new(vec![0, 1, 2], 1, 100);
        let keyed = NewRecord { key: Some("k".into()), ..NewRecord::default() };
        assert_eq!(partitioner.choose(&keyed), partitioner.choose(&keyed));
        let plain = NewRecord { value: Some(vec![0; 60].into()), ..NewRecord::default() };
        let chosen: Vec<i32> = (0..6).map(|_| partitioner.choose(&plain)).collect();
        assert_eq!(chosen, [1, 1, 2, 2, 0, 0]);
    }
}
