//! A Metadata answer that would name a dead leader waits for the next one.
//!
//! A client whose leader was killed asks for metadata the moment its connection breaks, which is before the controllers have
//! elected another leader. What it is told then it goes by for long: with the dead leader named, librdkafka waits for its next
//! tick, up to a second. Election takes some hundredths of that, so the answer waits for it. See `replica/unreachable.rs` for
//! how a dead leader is known.

use std::time::Duration;

use ottla_metadata::election::may_lead;
use ottla_metadata::image::{BrokerId, MetadataImage, TopicImage};
use tokio::time::Instant;

use crate::context::BrokerContext;

/// An answer does not wait longer, for the answers behind it on its connection wait with it. An election takes some ten
/// milliseconds. Where the controller that leads died with the leader it takes longer: then the answer names no leader, and the
/// client asks again after its short back-off.
const ELECTION_MAX: Duration = Duration::from_millis(200);

/// How often a leader in doubt is dialled again, while the image does not change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A request whose partitions have more leaders than this has none of them dialled.
const DIALLED_MAX: usize = 8;

/// Brokers to dial before clients are sent to them, with their addresses: the leaders of these topics, this broker apart.
pub(super) fn to_dial<'a>(
    image: &MetadataImage,
    own: BrokerId,
    topics: impl Iterator<Item = &'a TopicImage>,
) -> Vec<(i32, String)> {
    let mut leaders: Vec<BrokerId> = Vec::new();
    for leader in topics.flat_map(|topic| &topic.partitions).filter_map(|partition| partition.leader) {
        if leader != own && !leaders.contains(&leader) {
            leaders.push(leader);
            if leaders.len() > DIALLED_MAX {
                return Vec::new();
            }
        }
    }
    let addressed = leaders.into_iter().filter_map(|leader| image.broker(leader));
    addressed
        .filter(|broker| !broker.grpc_endpoint.is_empty())
        .map(|broker| (broker.id.0, broker.grpc_endpoint.clone()))
        .collect()
}

/// Whether one of these topics has a partition whose leader is in doubt while another broker may lead it.
pub(super) fn await_election<'a>(
    image: &MetadataImage,
    unreachable: &[i32],
    mut topics: impl Iterator<Item = &'a TopicImage>,
) -> bool {
    let is_in_doubt = |broker: BrokerId| unreachable.contains(&broker.0);
    !unreachable.is_empty()
        && topics.any(|topic| {
            topic.partitions.iter().any(|partition| {
                partition.leader.is_some_and(is_in_doubt)
                    && partition.isr.iter().any(|other| !is_in_doubt(*other) && may_lead(image, *other))
            })
        })
}

/// Dials who is to be dialled, then waits until no leader of the topics is in doubt, or for as long as an election may take.
/// `is_open` looks at an image: whether one of the topics asked for waits for an election.
pub(super) async fn settle(
    context: &BrokerContext,
    to_dial: Vec<(i32, String)>,
    is_open: impl Fn(&MetadataImage, &[i32]) -> bool,
) {
    let unreachable = &context.replicas.shared().unreachable;
    let deadline = Instant::now() + ELECTION_MAX;
    let mut changes = context.image.watch();
    loop {
        // Again each time: a leader that only seemed to be dead is found to live.
        let dials = to_dial.iter().map(|(broker, address)| unreachable.dial(*broker, address));
        futures_util::future::join_all(dials).await;
        changes.borrow_and_update();
        if !is_open(&context.image.current(), &unreachable.now()) || Instant::now() >= deadline {
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::test_images;

    #[test]
    fn an_answer_waits_while_a_leader_in_doubt_may_be_replaced() {
        let led_by_1 = test_images::image(9092, 2, 1, (3, 3), &[1, 2]);
        let waits =
            |image: &MetadataImage, unreachable: &[i32]| await_election(image, unreachable, image.topics());
        assert!(!waits(&led_by_1, &[]));
        assert!(waits(&led_by_1, &[1]));
        assert!(!waits(&led_by_1, &[2]), "who only follows may be away");
        assert!(!waits(&led_by_1, &[1, 2]), "nobody is left to lead");
        let alone = test_images::image(9092, 2, 1, (3, 3), &[1]);
        assert!(!waits(&alone, &[1]), "nobody else is in sync: there will be no election");
        let elected = test_images::image(9092, 2, 2, (4, 4), &[2]);
        assert!(!waits(&elected, &[1]));
    }

    #[test]
    fn leaders_are_dialled_once_each_and_never_oneself() {
        let image = test_images::image(9092, 3, 1, (3, 3), &[1, 2]);
        assert_eq!(to_dial(&image, BrokerId(2), image.topics()), [(1, "127.0.0.1:9092".to_owned())]);
        assert!(to_dial(&image, BrokerId(1), image.topics()).is_empty());
    }
}
