//! Maps and sets of numbers that come in runs: what counts on together takes one entry.

use std::collections::BTreeMap;

/// A piece of a [`Runs`]: keys from `key` to before `key + length`, values from `value` on, all of one `tag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) key: i64,
    pub(crate) length: i64,
    pub(crate) tag: u32,
    pub(crate) value: i64,
}

impl Piece {
    fn end(&self) -> i64 {
        self.key.saturating_add(self.length)
    }

    /// The part of it that lies within these keys.
    fn cut(&self, from: i64, to: i64) -> Option<Self> {
        let (start, end) = (self.key.max(from), self.end().min(to));
        let value = self.value.saturating_add(start - self.key);
        (start < end).then_some(Self { key: start, length: end - start, tag: self.tag, value })
    }

    fn goes_on_with(&self, next: &Self) -> bool {
        self.tag == next.tag && self.end() == next.key && self.value.saturating_add(self.length) == next.value
    }
}

/// What [`Runs::put`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Put {
    /// What was not there before.
    pub(crate) fresh: Vec<Piece>,
    /// What was there with another tag or value: the old and the new.
    pub(crate) conflicts: Vec<(Piece, Piece)>,
}

/// A map from numbers to a tag and a number.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pieces: BTreeMap<i64, Piece>,
}

impl Runs {
    /// Pieces that overlap these keys, cut to them, in order.
    pub(crate) fn within(&self, from: i64, to: i64) -> Vec<Piece> {
        let first = self.pieces.range(..=from).next_back().map_or(from, |(key, _)| *key);
        if first >= to {
            return Vec::new();
        }
        self.pieces.range(first..to).filter_map(|(_, piece)| piece.cut(from, to)).collect()
    }

    /// Puts a piece in. What is there already stays.
    pub(crate) fn put(&mut self, piece: Piece) -> Put {
        let mut put = Put::default();
        let mut at = piece.key;
        for old in self.within(piece.key, piece.end()) {
            put.fresh.extend(piece.cut(at, old.key));
            at = old.end();
            if let Some(new) = piece.cut(old.key, old.end())
                && new != old
            {
                put.conflicts.push((old, new));
            }
        }
        put.fresh.extend(piece.cut(at, piece.end()));
        for fresh in &put.fresh {
            match self.pieces.range_mut(..fresh.key).next_back() {
                Some((_, before)) if before.goes_on_with(fresh) => before.length += fresh.length,
                _ => {
                    self.pieces.insert(fresh.key, *fresh);
                }
            }
        }
        put
    }

    /// How many numbers have a value.
    pub(crate) fn count(&self) -> u64 {
        self.pieces.values().map(|piece| u64::try_from(piece.length).unwrap_or(0)).sum()
    }
}

/// A set of numbers.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// Ends by starts; they neither overlap nor touch.
    ends: BTreeMap<i64, i64>,
}

impl Ranges {
    /// The parts of it within `from` to before `to`, in order.
    pub(crate) fn within(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let first = self.ends.range(..=from).next_back().map_or(from, |(start, _)| *start);
        if first >= to {
            return Vec::new();
        }
        let cut = |(start, end): (&i64, &i64)| ((*start).max(from), (*end).min(to));
        self.ends.range(first..to).map(cut).filter(|(start, end)| start < end).collect()
    }

    /// The parts of `from` to before `to` that are not in it.
    pub(crate) fn gaps(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        for (start, end) in self.within(from, to) {
            if start > at {
                gaps.push((at, start));
            }
            at = end;
        }
        if at < to {
            gaps.push((at, to));
        }
        gaps
    }

    /// Adds numbers.
    pub(crate) fn add(&mut self, from: i64, to: i64) {
        if from >= to {
            return;
        }
        let (mut start, mut end) = (from, to);
        if let Some((before, until)) = self.ends.range(..=from).next_back()
            && *until >= from
        {
            start = *before;
            end = end.max(*until);
        }
        while let Some((next, until)) = self.ends.range(start..=end).next().map(|(s, e)| (*s, *e)) {
            end = end.max(until);
            self.ends.remove(&next);
        }
        self.ends.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(key: i64, length: i64, value: i64) -> Piece {
        Piece { key, length, tag: 0, value }
    }

    #[test]
    fn runs_that_go_on_are_one() {
        let mut runs = Runs::default();
        for at in 0..10 {
            assert_eq!(runs.put(piece(at * 2, 2, 100 + at * 2)).conflicts, []);
        }
        assert_eq!(runs.within(0, 100), [piece(0, 20, 100)]);
        assert_eq!(runs.within(5, 7), [piece(5, 2, 105)]);
        assert_eq!((runs.count(), runs.pieces.len()), (20, 1));
    }

    #[test]
    fn a_different_value_is_a_conflict_and_the_rest_is_fresh() {
        let mut runs = Runs::default();
        runs.put(piece(5, 5, 50));
        let put = runs.put(piece(0, 20, 45));
        assert_eq!(put.conflicts, []);
        assert_eq!(put.fresh, [piece(0, 5, 45), piece(10, 10, 55)]);
        let put = runs.put(piece(3, 2, 0));
        assert_eq!(put.conflicts, [(piece(3, 2, 48), piece(3, 2, 0))]);
        assert_eq!(put.fresh, []);
    }

    proptest! {
        #[test]
        fn ranges_are_sets(adds in prop::collection::vec((0i64..60, 0i64..15), 0..30), from in 0i64..80, length in 0i64..80) {
            let mut ranges = Ranges::default();
            let mut model = std::collections::BTreeSet::new();
            for (start, length) in adds {
                ranges.add(start, start + length);
                model.extend(start..start + length);
            }
            let to = from + length;
            let inside: Vec<i64> = ranges.within(from, to).into_iter().flat_map(|(s, e)| s..e).collect();
            let outside: Vec<i64> = ranges.gaps(from, to).into_iter().flat_map(|(s, e)| s..e).collect();
            prop_assert_eq!(inside, (from..to).filter(|n| model.contains(n)).collect::<Vec<_>>());
            prop_assert_eq!(outside, (from..to).filter(|n| !model.contains(n)).collect::<Vec<_>>());
            let touching = ranges.ends.iter().zip(ranges.ends.iter().skip(1)).any(|((_, end), (start, _))| end >= start);
            prop_assert!(!touching);
        }
    }
}
