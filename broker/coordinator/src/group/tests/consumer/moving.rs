//! Partitions that move, topics that change, patterns.

use super::*;

fn assignment_of<'a>(described: &'a ConsumerGroupDescription, id: &str) -> (&'a [i32], &'a [i32]) {
    let member = described.members.iter().find(|member| &*member.member_id == id).unwrap();
    let numbers =
        |partitions: &'a [DescribedPartitions]| partitions.first().map_or(&[][..], |one| &one.partitions);
    (numbers(&member.assignment), numbers(&member.target))
}

#[test]
fn a_partition_is_given_only_after_its_owner_let_go_of_it() {
    let mut h = harness(4);
    let (mut a, mut b) = (Peer::new("a", &["t"]), Peer::new("b", &["t"]));
    a.join(&mut h);
    a.step(&mut h);
    let epoch = a.epoch;
    b.join(&mut h);
    a.beat(&mut h);
    let kept = a.given.clone();
    assert_eq!((kept.clone(), a.owned.clone()), (of_t([0, 1]), of_t(0..4)));
    for _ in 0..3 {
        a.beat(&mut h);
        b.beat(&mut h);
        assert_eq!(
            (a.epoch, b.given.clone()),
            (epoch, Partitions::new()),
            "the old owner has not let go yet"
        );
    }
    let described = h.described();
    assert_eq!(described.state.name(), "Reconciling");
    assert_eq!(assignment_of(&described, "a"), (&[0, 1, 2, 3][..], &[0, 1][..]));
    assert_eq!(assignment_of(&described, "b"), (&[][..], &[2, 3][..]));
    let partly = ConsumerHeartbeat { owned: Some(of_t(0..3)), ..a.command() };
    assert_eq!(h.heartbeat(partly).error, ErrorCode::None);
    b.beat(&mut h);
    assert_eq!(b.given, Partitions::new(), "it has let go of one of two only");
    a.acknowledge(&mut h);
    assert!(a.epoch > epoch);
    settle(&mut h, &mut [&mut a, &mut b]);
    assert_eq!((a.owned, b.owned, a.epoch), (kept, of_t([2, 3]), b.epoch));
    h.assert_replayed();
}

#[test]
fn a_member_that_does_not_let_go_in_its_rebalance_timeout_is_removed() {
    let mut h = harness(2);
    let (mut a, mut b) = (Peer::new("a", &["t"]), Peer::new("b", &["t"]));
    a.join(&mut h);
    a.step(&mut h);
    b.join(&mut h);
    a.beat(&mut h);
    for _ in 0..4 {
        h.pass(REBALANCE_TIMEOUT_MS / 4);
        b.step(&mut h);
    }
    assert_eq!(a.beat(&mut h).error, ErrorCode::UnknownMemberId);
    settle(&mut h, &mut [&mut b]);
    assert_eq!(b.owned, of_t(0..2));
}

#[test]
fn topics_that_come_grow_and_go_are_followed() {
    let mut h = harness(1);
    let mut a = Peer::new("a", &["t", "later"]);
    a.join(&mut h);
    settle(&mut h, &mut [&mut a]);
    let epoch = h.described().group_epoch;
    h.machine.set_topics(topics(&[("t", 1), ("another", 9)]));
    settle(&mut h, &mut [&mut a]);
    assert_eq!(h.described().group_epoch, epoch, "not its topic");
    h.machine.set_topics(topics(&[("t", 3)]));
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..3));
    h.machine.set_topics(topics(&[("t", 3), ("later", 2)]));
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned[&Uuid::from_u128(2)], [0, 1].into());
    h.machine.set_topics(topics(&[("t", 3)]));
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..3));
    assert_eq!(h.described().group_epoch, epoch + 3);
    h.assert_replayed();
}

#[test]
fn subscriptions_change_while_it_runs() {
    let mut h = harness(2);
    h.machine.set_topics(topics(&[("t", 2), ("u", 2)]));
    let (mut a, mut b) = (Peer::new("a", &["t"]), Peer::new("b", &["u"]));
    a.join(&mut h);
    b.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b]);
    assert_eq!((a.owned.keys().count(), b.owned.keys().next()), (1, Some(&Uuid::from_u128(2))));
    for peer in [&mut a, &mut b] {
        let both = Some(vec![text("u"), text("t")]);
        let reply = h.heartbeat(ConsumerHeartbeat { topics: both, ..peer.command() });
        peer.learn(&reply);
    }
    settle(&mut h, &mut [&mut a, &mut b]);
    let all: BTreeSet<(Uuid, i32)> = [&a, &b]
        .into_iter()
        .flat_map(|peer| &peer.owned)
        .flat_map(|(topic, numbers)| numbers.iter().map(|number| (*topic, *number)))
        .collect();
    assert_eq!(all.len(), 4);
}

#[test]
fn a_pattern_is_resolved_and_follows_new_topics_after_a_pause() {
    let mut h = harness(0);
    h.machine.set_topics(topics(&[("re-1", 1), ("re-x", 1), ("xre-1", 1)]));
    let mut a = Peer { regex: Some(r"re-\d".to_owned()), ..Peer::new("a", &[]) };
    assert_eq!(a.join(&mut h), ErrorCode::None);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t([0]));
    h.machine.set_topics(topics(&[("re-1", 1), ("re-2", 1)]));
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t([0]), "patterns are not resolved for every change");
    h.pass(10_000);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned.keys().copied().collect::<Vec<_>>(), [1, 2].map(Uuid::from_u128));
    assert!(h.machine.groups["g"].is_subscribed(&text("re-2")));
    h.assert_replayed();
    let mut change = |pattern: &str, h: &mut Harness| {
        let reply = h.heartbeat(ConsumerHeartbeat { regex: Some(text(pattern)), ..a.command() });
        a.learn(&reply);
        if reply.error == ErrorCode::None {
            settle(h, &mut [&mut a]);
        }
        (reply.error, a.owned.keys().copied().collect::<Vec<_>>())
    };
    assert_eq!(change("*", &mut h).0, ErrorCode::InvalidRegularExpression);
    assert_eq!(change("re-2", &mut h), (ErrorCode::None, vec![Uuid::from_u128(2)]));
    assert_eq!(change("", &mut h), (ErrorCode::None, vec![]));
    let logged = h.machine.durable().group("g").unwrap().consumer.as_ref().unwrap();
    assert!(logged.regexes().is_empty(), "nobody has the pattern any more");
    h.assert_replayed();
}

#[test]
fn targets_are_not_made_more_often_than_the_interval_lets() {
    let mut h = Harness::new(config());
    h.machine.set_topics(topics(&[("t", 4)]));
    let (mut a, mut b, mut c) = (Peer::new("a", &["t"]), Peer::new("b", &["t"]), Peer::new("c", &["t"]));
    a.join(&mut h);
    b.join(&mut h);
    assert_eq!(h.listing(), Some(("consumer", "Assigning")));
    assert_eq!((b.epoch, b.given.clone()), (1, Partitions::new()), "the epoch that has a target");
    c.join(&mut h);
    h.pass(1_000);
    settle(&mut h, &mut [&mut a, &mut b, &mut c]);
    assert_eq!((h.described().group_epoch, h.described().assignment_epoch), (3, 3));
    h.assert_replayed();
}
