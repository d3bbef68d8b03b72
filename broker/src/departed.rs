//! Brokers that left a moment ago, and that clients which knew them are still told of.
//!
//! librdkafka (2.10 and later) forgets a broker that an answer does not name any more, and does so while it moves that broker's
//! partitions to their next leaders by the same answer: the partition ends up with no broker, and is looked after only by a
//! timer of a second. When the broker is named for some seconds more, the partitions move at once. So a broker that ended is
//! named on, to clients that may know it: those that were connected before it left, and, when its process ended without a
//! word, for two seconds those that come later too, since they may come because their connection to it broke. Whoever comes
//! after a broker has stopped in order is told the truth: scripts count brokers to see that one is back. It leads nothing, so
//! that nobody is sent to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ottla_metadata::image::{BrokerId, MetadataImage};
use parking_lot::Mutex;

/// How long a broker that left is named. Clients ask anew within a second or two of a broker's end.
const NAMED_FOR: Duration = Duration::from_secs(10);
/// How long one whose process ended without a word is named to clients that were not connected when it left.
const NAMED_TO_NEWCOMERS_FOR: Duration = Duration::from_secs(2);

/// When a broker left, and how.
#[derive(Debug, Clone, Copy)]
struct Departure {
    at: Instant,
    /// It had asked to stop, and clients could move before it left.
    in_order: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Departed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Brokers that are not fenced.
    present: Vec<BrokerId>,
    left: BTreeMap<BrokerId, Departure>,
}

impl Departed {
    /// Takes note of a new image, before anybody is answered by it.
    pub(crate) fn apply_image(&self, image: &MetadataImage, now: Instant) {
        let mut state = self.0.lock();
        let present: Vec<BrokerId> =
            image.brokers().filter(|broker| !broker.fenced).map(|broker| broker.id).collect();
        if present == state.present {
            return;
        }
        let before = std::mem::replace(&mut state.present, present);
        for id in before {
            if !state.present.contains(&id) {
                let in_order = image.broker(id).is_some_and(|broker| broker.in_controlled_shutdown);
                state.left.insert(id, Departure { at: now, in_order });
            }
        }
        let State { present, left } = &mut *state;
        left.retain(|id, departure| {
            !present.contains(id) && now.saturating_duration_since(departure.at) < NAMED_FOR
        });
    }

    /// Brokers to name to a client that has been connected since a time, beside those that are there. `has_ended` says of one
    /// whether its process is known to have ended. Mostly empty.
    pub(crate) fn named(
        &self,
        now: Instant,
        connected_at: Instant,
        has_ended: impl Fn(BrokerId) -> bool,
    ) -> Vec<BrokerId> {
        let state = self.0.lock();
        let is_named = |(id, departure): &(&BrokerId, &Departure)| {
            let gone_for = now.saturating_duration_since(departure.at);
            (gone_for < NAMED_FOR && connected_at < departure.at)
                || (gone_for < NAMED_TO_NEWCOMERS_FOR && !departure.in_order && has_ended(**id))
        };
        state.left.iter().filter(is_named).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use ottla_metadata::image::LogIndex;
    use ottla_proto::metadata::metadata_record::Record;
    use ottla_proto::metadata::{BrokerChangeRecord, MetadataRecord};

    use super::*;
    use crate::replica::test_images;

    fn changed(image: &MetadataImage, fenced: bool, stopping: bool) -> MetadataImage {
        let change = BrokerChangeRecord {
            broker_id: 1,
            broker_epoch: 10,
            fenced: Some(fenced),
            in_controlled_shutdown: Some(stopping),
            ..Default::default()
        };
        let record = MetadataRecord { record: Some(Record::BrokerChange(change)) };
        image.apply(LogIndex(image.index().0 + 1), &[record]).unwrap().0
    }

    #[test]
    fn a_broker_that_left_is_named_to_who_knew_it_for_a_while() {
        let whole = test_images::image(9092, 1, 2, (3, 3), &[2]);
        let departed = Departed::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        departed.apply_image(&whole, start);
        let nobody = |_| false;
        assert!(departed.named(start, start, nobody).is_empty());
        let without = changed(&whole, true, false);
        departed.apply_image(&without, after(100));
        assert_eq!(departed.named(after(200), after(50), nobody), [BrokerId(1)]);
        assert!(departed.named(after(200), after(150), nobody).is_empty(), "a client that came later");
        assert_eq!(departed.named(after(200), after(150), |id| id == BrokerId(1)), [BrokerId(1)]);
        assert!(departed.named(after(3_000), after(150), |_| true).is_empty(), "one that came much later");
        assert!(departed.named(after(20_000), after(50), nobody).is_empty(), "long ago");
        departed.apply_image(&changed(&without, false, false), after(300));
        assert!(departed.named(after(400), after(50), nobody).is_empty(), "it is back");
    }

    #[test]
    fn one_that_stopped_in_order_is_named_only_to_who_knew_it() {
        let whole = test_images::image(9092, 1, 2, (3, 3), &[2]);
        let departed = Departed::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let stopping = changed(&whole, false, true);
        departed.apply_image(&stopping, start);
        departed.apply_image(&changed(&stopping, true, true), after(100));
        assert_eq!(departed.named(after(200), start, |_| true), [BrokerId(1)]);
        assert!(departed.named(after(200), after(150), |_| true).is_empty(), "scripts count who is there");
    }
}
