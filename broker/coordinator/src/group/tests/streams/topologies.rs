//! How a topology meets the topics there are.

use super::*;

#[test]
fn tasks_run_once_every_topic_is_there() {
    let mut h = harness(&[]);
    let mut one = Worker::new("a", "p");
    let reply = one.join(&mut h);
    assert_eq!((reply.error, codes(&reply)), (ErrorCode::None, vec![StatusCode::MissingSourceTopics]));
    assert_eq!(&*reply.status[0].detail, "Source topics lines are missing.");
    assert_eq!((reply.missing.len(), h.streams().state.name()), (0, "NotReady"));

    set_topics(&mut h, &[("lines", 3)]);
    let reply = one.beat(&mut h);
    assert_eq!(codes(&reply), [StatusCode::MissingInternalTopics]);
    let missing: Vec<(&str, i32, i16)> = reply
        .missing
        .iter()
        .map(|topic| (&*topic.name, topic.partitions, topic.replication_factor))
        .collect();
    assert_eq!(missing, [("g-counts-changelog", 3, 2), ("g-counts-repartition", 3, -1)]);
    assert_eq!(reply.missing[0].configs[&text("cleanup.policy")], text("compact"));
    assert_eq!(one.beat(&mut h).missing.len(), 2, "until they are there");

    set_topics(&mut h, &all_topics(3));
    settle(&mut h, &mut [&mut one]);
    assert_eq!(one.given.active, tasks(&[("0", &[0, 1, 2]), ("1", &[0, 1, 2])]));
    let reply = one.beat(&mut h);
    assert_eq!((reply.missing.len(), codes(&reply)), (0, vec![]));
    let described = h.streams().topology.unwrap();
    assert_eq!(
        described.subtopologies[&text("1")].state_changelog_topics[&text("g-counts-changelog")].partitions,
        3
    );

    // A topic that goes takes the tasks along.
    set_topics(&mut h, &[("lines", 3), ("g-counts-repartition", 3)]);
    let reply = one.beat(&mut h);
    assert_eq!(codes(&reply), [StatusCode::MissingInternalTopics]);
    assert_eq!(one.given, TaskSet::default());
    assert_eq!(h.streams().state.name(), "NotReady");
    h.assert_replayed();
}

#[test]
fn a_topic_of_another_width_is_told() {
    let mut h = harness(&[("lines", 3), ("g-counts-repartition", 2), ("g-counts-changelog", 2)]);
    let reply = Worker::new("a", "p").join(&mut h);
    assert_eq!(codes(&reply), [StatusCode::IncorrectlyPartitionedTopics]);
    assert!(reply.status[0].detail.contains("expected 3, found 2"), "{}", reply.status[0].detail);
}

#[test]
fn a_declared_number_of_partitions_counts_and_makes_the_tasks() {
    let mut h = harness(&[("lines", 3)]);
    let mut one = Worker::new("a", "p");
    one.topology.subtopologies[1].repartition_source_topics[0].partitions = 7;
    let reply = one.join(&mut h);
    let missing: Vec<i32> = reply.missing.iter().map(|topic| topic.partitions).collect();
    assert_eq!(missing, [7, 7]);
    set_topics(&mut h, &[("lines", 3), ("g-counts-repartition", 7), ("g-counts-changelog", 7)]);
    settle(&mut h, &mut [&mut one]);
    assert_eq!(one.active_count(), 10);
}

#[test]
fn copartitioned_repartition_topics_follow_the_others() {
    let join = |sources: &[&str]| {
        let mut worker = Worker::new("a", "p");
        let counter = &mut worker.topology.subtopologies[1];
        counter.source_topics = sources.iter().copied().map(text).collect();
        counter.copartition_groups = vec![request::CopartitionGroup {
            source_topics: (0..).take(sources.len()).collect(),
            repartition_source_topics: vec![0],
            ..Default::default()
        }];
        worker
    };
    let mut h = harness(&[("lines", 3), ("users", 8)]);
    let reply = join(&["users"]).join(&mut h);
    let missing: Vec<i32> = reply.missing.iter().map(|topic| topic.partitions).collect();
    assert_eq!(missing, [8, 8]);
    let mut h = harness(&[("lines", 3), ("users", 8), ("orders", 9)]);
    let reply = join(&["users", "orders"]).join(&mut h);
    assert_eq!(codes(&reply), [StatusCode::IncorrectlyPartitionedTopics]);
    assert!(reply.status[0].detail.contains("{orders=9, users=8}"), "{}", reply.status[0].detail);
    let mut fixed = join(&["users"]);
    fixed.topology.subtopologies[1].repartition_source_topics[0].partitions = 5;
    let mut h = harness(&[("lines", 3), ("users", 8)]);
    assert_eq!(codes(&fixed.join(&mut h)), [StatusCode::IncorrectlyPartitionedTopics]);
}

#[test]
fn a_topology_that_cannot_be_is_refused_and_makes_no_group() {
    let mut broken: Vec<request::Topology> = Vec::new();
    // Nobody writes it.
    let mut topology = word_count();
    topology.subtopologies[0].repartition_sink_topics.clear();
    broken.push(topology);
    // It depends on itself.
    let mut topology = word_count();
    topology.subtopologies.remove(0);
    topology.subtopologies[0].repartition_sink_topics = vec![text("g-counts-repartition")];
    broken.push(topology);
    // Nothing is read.
    let mut topology = word_count();
    topology.subtopologies[0].source_topics.clear();
    broken.push(topology);
    // A changelog has what its subtopology has.
    let mut topology = word_count();
    topology.subtopologies[1].state_changelog_topics[0].partitions = 4;
    broken.push(topology);
    // Without end.
    let mut topology = word_count();
    topology.subtopologies[1].repartition_source_topics[0].partitions = i32::MAX;
    broken.push(topology);
    let mut topology = word_count();
    topology.subtopologies[1].repartition_source_topics[0].partitions = -3;
    broken.push(topology);
    for topology in broken {
        let mut h = harness(&[("lines", 3)]);
        let reply = Worker { topology, ..Worker::new("a", "p") }.join(&mut h);
        assert_eq!(reply.error, ErrorCode::StreamsInvalidTopology);
        assert!(h.machine.groups.is_empty() && h.log.is_empty());
    }
    let mut h = harness(&[("lines", 3)]);
    let reply = Worker { topology: request::Topology { epoch: -1, ..word_count() }, ..Worker::new("a", "p") }
        .join(&mut h);
    assert_eq!(reply.error, ErrorCode::StreamsInvalidTopologyEpoch);
}

#[test]
fn a_topology_without_end_is_refused_before_anything_is_worked_out() {
    let mut subtopologies = Vec::new();
    // Each makes what the one before it reads: only from the last on can the numbers be told.
    let count = i16::try_from(crate::streams_group::SUBTOPOLOGIES_MAX).unwrap();
    for number in 0..=count {
        subtopologies.push(request::Subtopology {
            subtopology_id: text(&format!("{number:05}")),
            source_topics: if number == count { vec![text("lines")] } else { Vec::new() },
            repartition_sink_topics: if number == 0 { Vec::new() } else { vec![text(&format!("r{number}"))] },
            repartition_source_topics: (number < count)
                .then(|| request::RepartitionSourceTopic {
                    name: text(&format!("r{}", number + 1)),
                    ..Default::default()
                })
                .into_iter()
                .collect(),
            ..Default::default()
        });
    }
    let mut h = harness(&[("lines", 3)]);
    let long = request::Topology { epoch: 0, subtopologies };
    let reply = Worker { topology: long.clone(), ..Worker::new("a", "p") }.join(&mut h);
    assert_eq!(reply.error, ErrorCode::StreamsInvalidTopology);
    let mut fits = long;
    fits.subtopologies.remove(0);
    let reply = Worker { topology: fits, ..Worker::new("a", "p") }.join(&mut h);
    assert_eq!((reply.error, reply.missing.len()), (ErrorCode::None, usize::try_from(count).unwrap() - 1));
}

#[test]
fn the_first_topology_stays_and_who_has_an_older_one_is_told() {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    one.topology.epoch = 3;
    one.join(&mut h);
    let mut other = Worker::new("b", "q");
    other.topology.epoch = 4;
    other.topology.subtopologies.pop();
    assert_eq!(other.join(&mut h).error, ErrorCode::InvalidRequest);
    other.topology.epoch = 2;
    let reply = other.join(&mut h);
    assert_eq!((reply.error, codes(&reply)), (ErrorCode::None, vec![StatusCode::StaleTopology]));
    let reply = other.beat(&mut h);
    assert!(codes(&reply).contains(&StatusCode::StaleTopology));
    assert!(reply.status[0].detail.contains("epoch 2 is behind the group's topology epoch 3"));
    assert_eq!(h.streams().topology.unwrap().epoch, 3);
}
