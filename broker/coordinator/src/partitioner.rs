//! Which partition of a coordinator's topic holds a key. The rule is Java's `String.hashCode` over UTF-16 code units,
//! made non-negative by Kafka's `Utils.abs` (the least integer becomes zero), modulo the number of partitions: every
//! client and tool that computes it itself must come to the same answer.

/// The partition of `key` (a group id or a transactional id) among `partitions`. Zero partitions give partition zero.
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    let hash = java_hash_code(key);
    let non_negative = if hash == i32::MIN { 0 } else { hash.abs() };
    non_negative.checked_rem(partitions.max(1)).unwrap_or(0)
}

/// Java's `String.hashCode`: `s[0]*31^(n-1) + ... + s[n-1]` over UTF-16 code units, wrapping at 32 bits.
fn java_hash_code(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        for (text, hash) in [("", 0), ("a", 97), ("hello", 99_162_322), ("é", 233), ("😀", 1_772_899)] {
            assert_eq!(java_hash_code(text), hash, "{text}");
        }
    }

    #[test]
    fn the_least_integer_becomes_partition_zero() {
        // Well known: this string's hash is i32::MIN.
        assert_eq!(java_hash_code("polygenelubricants"), i32::MIN);
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }

    #[test]
    fn every_partition_is_in_range_whatever_the_count() {
        for partitions in [-1, 0, 1, 3, 50, i32::MAX] {
            let partition = partition_for("some-group", partitions);
            assert!((0..partitions.max(1)).contains(&partition));
        }
    }
}
