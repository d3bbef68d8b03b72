//! Where the replicas of new partitions go: striped over brokers and racks, so that leaders and replicas spread.
//!
//! Brokers of each rack stand in a row that begins at a place drawn from the seed; racks take turns. The first replicas of
//! successive partitions walk over all brokers; the further replicas of a partition go to the racks that follow, one to
//! each as long as there are racks.

use std::collections::BTreeMap;

use crate::image::{BrokerId, BrokerRegistration, MetadataImage};

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// More replicas than brokers.
    #[error("a replication factor of {asked} with {registered} brokers that are registered and not cordoned")]
    TooFewBrokers {
        /// Replicas asked for.
        asked: usize,
        /// Brokers that could have one.
        registered: usize,
    },
    /// Not one broker that is alive: nobody could lead.
    #[error("no broker is alive, so nobody could lead the partition")]
    NoneAlive,
}

/// Replicas for `count` partitions, from `first` on. Brokers that are fenced or shutting down get replicas only where
/// there are not enough others, and never come first. Brokers whose directories are all cordoned get none (KIP-1066).
pub fn place(
    image: &MetadataImage,
    seed: u64,
    first: usize,
    count: usize,
    replication_factor: usize,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    let alive = rows(image, |broker| broker.is_eligible() && broker.takes_replicas(), seed);
    let rest = rows(image, |broker| !broker.is_eligible() && broker.takes_replicas(), seed);
    let alive_count: usize = alive.iter().map(Vec::len).sum();
    let all_count = alive_count + rest.iter().map(Vec::len).sum::<usize>();
    if replication_factor > all_count {
        return Err(PlacementError::TooFewBrokers { asked: replication_factor, registered: all_count });
    }
    if alive_count == 0 {
        return Err(PlacementError::NoneAlive);
    }
    let start = usize::try_from(seed % alive_count as u64).unwrap_or(0);
    Ok((0..count)
        .map(|partition| {
            let turn = start + first + partition;
            let mut replicas = one(&alive, turn, replication_factor);
            if replicas.len() < replication_factor {
                replicas.extend(one(&rest, turn, replication_factor - replicas.len()));
            }
            replicas
        })
        .collect())
}

/// Brokers by rack, each row and the racks rotated by the seed.
fn rows(
    image: &MetadataImage,
    wanted: impl Fn(&BrokerRegistration) -> bool,
    seed: u64,
) -> Vec<Vec<BrokerId>> {
    let mut racks: BTreeMap<&str, Vec<BrokerId>> = BTreeMap::new();
    for broker in image.brokers().filter(|broker| wanted(broker)) {
        racks.entry(broker.rack.as_deref().unwrap_or_default()).or_default().push(broker.id);
    }
    let mut rows: Vec<Vec<BrokerId>> = racks.into_values().collect();
    let racks = rows.len();
    if racks > 0 {
        rows.rotate_left(usize::try_from((seed >> 16) % racks as u64).unwrap_or(0));
    }
    for row in &mut rows {
        let turn = usize::try_from((seed >> 32) % row.len() as u64).unwrap_or(0);
        row.rotate_left(turn);
    }
    rows
}

/// The replicas of the partition whose turn it is: the first by the turn over all brokers, the others from the racks
/// that follow, each rack's brokers in order.
fn one(rows: &[Vec<BrokerId>], turn: usize, count: usize) -> Vec<BrokerId> {
    // Racks side by side: broker 0 of each rack, then broker 1 of each, and so on.
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let stripe: Vec<(usize, BrokerId)> = (0..longest)
        .flat_map(|at| {
            rows.iter().enumerate().filter_map(move |(rack, row)| row.get(at).map(|id| (rack, *id)))
        })
        .collect();
    if stripe.is_empty() {
        return Vec::new();
    }
    // After a whole walk the followers shift by one, so that one broker's partitions do not all share their followers.
    let (lap, at) = (turn / stripe.len(), turn % stripe.len());
    let mut order: Vec<(usize, BrokerId)> = stripe[at..].iter().chain(&stripe[..at]).copied().collect();
    if order.len() > 2 {
        let shift = lap % (order.len() - 1);
        order[1..].rotate_left(shift);
    }
    let mut chosen: Vec<(usize, BrokerId)> = Vec::with_capacity(count);
    // A rack is used again only when every rack has as many replicas.
    for round in 0.. {
        for candidate in &order {
            if chosen.len() == count.min(order.len()) {
                return chosen.into_iter().map(|(_, id)| id).collect();
            }
            let in_rack = chosen.iter().filter(|(rack, _)| *rack == candidate.0).count();
            if in_rack <= round && !chosen.contains(candidate) {
                chosen.push(*candidate);
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::testing::cluster;

    fn counts(placed: &[Vec<BrokerId>], at: impl Fn(&[BrokerId]) -> Vec<BrokerId>) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        for replicas in placed {
            for id in at(replicas) {
                *counts.entry(id.0).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn leaders_and_replicas_spread_evenly() {
        let image = cluster(&[(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")]);
        let placed = place(&image, 7, 0, 600, 3).unwrap();
        assert!(counts(&placed, |replicas| vec![replicas[0]]).values().all(|count| *count == 100));
        assert!(counts(&placed, <[BrokerId]>::to_vec).values().all(|count| (250..=350).contains(count)));
    }

    #[test]
    fn too_few_brokers_are_refused() {
        let image = cluster(&[(1, ""), (2, "")]);
        assert_eq!(place(&image, 0, 0, 1, 3), Err(PlacementError::TooFewBrokers { asked: 3, registered: 2 }));
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_and_every_rack_is_used_before_one_is_used_twice(
            racks in proptest::collection::vec(0u8..4, 1..9),
            seed in any::<u64>(),
            partitions in 1usize..40,
            factor in 1usize..6,
        ) {
            let brokers: Vec<(i32, String)> = (1..).zip(racks.iter().map(|rack| format!("r{rack}"))).collect();
            let brokers: Vec<(i32, &str)> = brokers.iter().map(|(id, rack)| (*id, rack.as_str())).collect();
            let image = cluster(&brokers);
            let factor = factor.min(brokers.len());
            let rack_count = brokers.iter().map(|(_, rack)| rack).collect::<std::collections::BTreeSet<_>>().len();
            for replicas in place(&image, seed, 0, partitions, factor).unwrap() {
                let distinct: std::collections::BTreeSet<_> = replicas.iter().collect();
                prop_assert_eq!(distinct.len(), factor);
                let used: std::collections::BTreeSet<_> =
                    replicas.iter().map(|id| image.broker(*id).unwrap().rack.clone()).collect();
                prop_assert_eq!(used.len(), factor.min(rack_count));
            }
        }
    }
}
