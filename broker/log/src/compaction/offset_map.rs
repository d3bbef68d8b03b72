//! The latest offset of each key, in bounded memory.
//!
//! A slot is 24 bytes: 16 of a hash of the key and the offset. The key itself is not kept, so two keys of one hash would
//! be taken for one, and the older one's last value lost: the hash has 128 bits and a random seed that no producer knows.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 24;
/// How full the map gets, in tenths (`log.cleaner.io.buffer.load.factor`, 0.9).
const LOAD_TENTHS_MAX: usize = 9;
/// The fewest slots of a map, whatever the budget.
const SLOTS_MIN: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: [u64; 2],
    /// The offset plus 1; 0: nobody is here.
    offset_plus_one: u64,
}

/// See the module. One thread's; it is used for one log after the other.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    slots_max: usize,
    used: usize,
    seeds: [RandomState; 2],
}

impl OffsetMap {
    /// A map of at most so many bytes (a thread's share of `log.cleaner.dedupe.buffer.size`). Memory is taken when a pass
    /// begins, no more than that pass needs, and given back at its end.
    pub fn with_budget(bytes: usize) -> Self {
        Self {
            slots: Vec::new(),
            slots_max: (bytes / SLOT_BYTES).max(SLOTS_MIN),
            used: 0,
            seeds: [RandomState::new(), RandomState::new()],
        }
    }

    /// Empties the map and makes room for a number of keys, as far as the budget goes.
    pub(crate) fn reset(&mut self, keys: u64) {
        let wanted = keys.saturating_mul(10) / LOAD_TENTHS_MAX as u64 + 1;
        let slots = usize::try_from(wanted).unwrap_or(usize::MAX).clamp(SLOTS_MIN, self.slots_max);
        self.slots = vec![Slot::default(); slots];
        self.used = 0;
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self) {
        self.slots = Vec::new();
        self.used = 0;
    }

    /// Keys in the map.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether no key is in the map.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn is_full(&self) -> bool {
        self.used.saturating_mul(10) >= self.slots.len().saturating_mul(LOAD_TENTHS_MAX)
    }

    /// Notes a key's offset; later ones replace earlier ones. `false`: it is a new key and there is no room.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let Some(at) = self.place(hash) else { return false };
        let Ok(offset) = u64::try_from(offset) else { return true };
        if self.slots[at].offset_plus_one == 0 {
            if self.is_full() {
                return false;
            }
            self.used += 1;
        }
        self.slots[at] = Slot { hash, offset_plus_one: offset + 1 };
        true
    }

    /// The latest offset of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = self.slots[self.place(self.hash(key))?];
        i64::try_from(slot.offset_plus_one.checked_sub(1)?).ok()
    }

    /// Where a hash is, or would be. The load factor leaves empty slots, so the search ends.
    fn place(&self, hash: [u64; 2]) -> Option<usize> {
        let count = self.slots.len();
        if count == 0 {
            return None;
        }
        let start = (u128::from(hash[0]) * count as u128) >> 64;
        let mut at = usize::try_from(start).unwrap_or(0);
        loop {
            let slot = &self.slots[at];
            if slot.offset_plus_one == 0 || slot.hash == hash {
                return Some(at);
            }
            at = if at + 1 == count { 0 } else { at + 1 };
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let one = |seed: &RandomState| {
            let mut hasher = seed.build_hasher();
            hasher.write(key);
            hasher.finish()
        };
        [one(&self.seeds[0]), one(&self.seeds[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_offset_of_each_key_is_there_up_to_the_load_factor() {
        let mut map = OffsetMap::with_budget(100 * SLOT_BYTES);
        assert_eq!(map.get(b"x"), None);
        map.reset(1_000_000);
        let taken = (0..100u32).take_while(|n| map.put(&n.to_be_bytes(), i64::from(*n))).count();
        assert_eq!((taken, map.len()), (90, 90));
        assert!(map.put(&5u32.to_be_bytes(), 1_000), "a key that is there needs no room");
        assert!(!map.put(b"new", 1_001));
        assert_eq!(map.get(&5u32.to_be_bytes()), Some(1_000));
        assert_eq!(map.get(&89u32.to_be_bytes()), Some(89));
        assert_eq!(map.get(b"new"), None);
        map.reset(3);
        assert_eq!(map.slots.len(), SLOTS_MIN);
        assert_eq!(map.get(&5u32.to_be_bytes()), None);
    }
}
