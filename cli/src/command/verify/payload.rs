//! The records of a run: a key, and a value that tells who wrote it and proves that nobody changed it.

use bytes::Bytes;
use ottla_wire::records::{BatchBuilder, BatchOptions, BuildError};

use crate::client::producer::now_ms;

/// Keys of a writer in a partition; record `n` has key `n` modulo this.
const KEYS: u64 = 8;
/// What every value begins with.
const MAGIC: &str = "ottla-verify/1";

/// Names a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) writer: u32,
    /// Number through all topics.
    pub(super) partition: u32,
    pub(super) number: u64,
}

impl Name {
    pub(super) fn key(self) -> String {
        format!("w{}-p{}-k{}", self.writer, self.partition, self.number % KEYS)
    }

    /// The value, of at least `size` bytes.
    pub(super) fn value(self, run: u64, size: usize) -> String {
        let Self { writer, partition, number } = self;
        let head = format!("{MAGIC} {run:016x} {writer} {partition} {number}");
        // Padding differs from record to record, so that a mixed-up one shows.
        let mut value = format!("{head} {:016x} ", checksum(head.as_bytes()));
        let filler = u8::try_from(number % 26).unwrap_or(0) + b'a';
        while value.len() < size {
            value.push(char::from(filler));
        }
        value
    }

    /// Reads a record; an error says what is wrong with it.
    pub(super) fn parse(
        run: u64,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Self, String> {
        let text =
            value.and_then(|value| std::str::from_utf8(value).ok()).ok_or("a value that is no text")?;
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap_or_default();
        if next() != MAGIC {
            return Err("a record of no verify run".to_owned());
        }
        if next() != format!("{run:016x}") {
            return Err("a record of another run".to_owned());
        }
        let broken = || "a record whose value was changed".to_owned();
        let name = Self {
            writer: next().parse().map_err(|_| broken())?,
            partition: next().parse().map_err(|_| broken())?,
            number: next().parse().map_err(|_| broken())?,
        };
        if text != name.value(run, text.len()) {
            return Err(broken());
        }
        if key != Some(name.key().as_bytes()) {
            return Err("a record whose key was changed".to_owned());
        }
        if name.partition != partition {
            return Err(format!(
                "record {} of writer {} of partition {}",
                name.number, name.writer, name.partition
            ));
        }
        Ok(name)
    }
}

/// FNV-1a: enough to notice changes that no adversary made.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How a batch is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    pub(super) run: u64,
    pub(super) record_bytes: usize,
}

impl Maker {
    /// A batch of `count` records from `first` on.
    pub(super) fn batch(
        self,
        first: Name,
        count: u32,
        (producer_id, producer_epoch): (i64, i16),
        base_sequence: i32,
        transactional: bool,
    ) -> Result<Bytes, BuildError> {
        let options = BatchOptions {
            producer_id,
            producer_epoch,
            base_sequence,
            transactional,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        let now = now_ms();
        for at in 0..u64::from(count) {
            let name = Name { number: first.number + at, ..first };
            let (key, value) = (name.key(), name.value(self.run, self.record_bytes));
            builder.add(now, Some(key.as_bytes()), Some(value.as_bytes()), &[])?;
        }
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { writer: 3, partition: 5, number: 41 };

    fn parse(key: &str, value: &str) -> Result<Name, String> {
        Name::parse(7, 5, Some(key.as_bytes()), Some(value.as_bytes()))
    }

    #[test]
    fn a_record_is_known_again_whatever_its_size() {
        for size in [0, 100, 1_000] {
            let value = NAME.value(7, size);
            assert!(value.len() >= size);
            assert_eq!(parse(&NAME.key(), &value), Ok(NAME));
        }
        assert_eq!(NAME.key(), "w3-p5-k1");
    }

    #[test]
    fn a_record_that_was_changed_or_is_not_ours_is_told() {
        let value = NAME.value(7, 100);
        for (wrong, what) in [
            (value.replace(" 41 ", " 42 "), "changed"),
            (value.replace('p', "q"), "changed"),
            (value[..value.len() - 20].to_owned() + "-------------------", "changed"),
            (NAME.value(8, 100), "another run"),
            ("hello".to_owned(), "no verify run"),
        ] {
            let said = parse(&NAME.key(), &wrong).unwrap_err();
            assert!(said.contains(what) || wrong == value, "{wrong}: {said}");
        }
        assert!(parse("w3-p5-k2", &value).unwrap_err().contains("key"));
        let elsewhere = Name::parse(7, 6, Some(NAME.key().as_bytes()), Some(value.as_bytes()));
        assert!(elsewhere.unwrap_err().contains("partition 5"));
        assert!(Name::parse(7, 5, None, None).is_err());
    }
}
