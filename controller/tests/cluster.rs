//! Three controllers in one process, over real gRPC on loopback ports.
#![allow(clippy::unwrap_used, reason = "a test stops where its ground is gone")]

mod harness;

use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Cluster, create, eventually, registration, serving};
use ottla_controller::{Controller, ControllerOptions, StartError};
use ottla_metadata::image::BrokerId;
use ottla_proto::controller as proto;
use ottla_proto::controller::metadata_update::Update;

#[tokio::test(flavor = "multi_thread")]
async fn a_single_voter_forms_its_cluster_and_is_back_fast() {
    let mut cluster = Cluster::new(1);
    cluster.start(1).await;
    let epoch = cluster.register(5).await;
    let identity = cluster.nodes[&1].identity();
    assert_eq!(identity.0.len(), 22);
    cluster.kill(1).await;
    let started = Instant::now();
    cluster.start(1).await;
    cluster.leader().await;
    println!("restart to leader: {:?}", started.elapsed());
    assert_eq!(cluster.nodes[&1].identity(), identity);
    cluster
        .all_have("the broker is remembered", |controller| {
            controller.image().broker(BrokerId(5)).is_some_and(|broker| broker.epoch.0 == epoch)
        })
        .await;
    assert_eq!(cluster.nodes[&1].controller.image().cluster_id(), identity.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_voters_agree_on_one_cluster_and_survive_the_loss_of_the_leader() {
    let mut cluster = Cluster::started(3).await;
    let epoch = cluster.register(7).await;
    cluster
        .all_have("one cluster id", |controller| {
            !controller.cluster_id().is_empty() && controller.image().cluster_id() == controller.cluster_id()
        })
        .await;
    // On a busy machine another may lead by now, or nobody for a moment: what is told must fit who leads then.
    eventually("a follower names the leader", async || {
        let leader = cluster.leader().await;
        let follower = if leader == 1 { 2 } else { 1 };
        let mut client = cluster.client(follower).await;
        let failure = client.register_broker(registration(8)).await.ok()?.into_inner().failure?;
        assert_eq!(failure.error_code, 41);
        (failure.leader_id == leader && failure.leader_endpoint == cluster.address(leader)).then_some(())
    })
    .await;

    let _beats = serving(&cluster, 7, epoch).await;
    let first = cluster.submit(&create("kept")).await;
    let leader = cluster.leader().await;
    let started = Instant::now();
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    let again = cluster.submit(&create("kept")).await;
    assert_eq!(
        (&again.reply, again.index),
        (&first.reply, first.index),
        "the next leader knows what was done"
    );
    cluster.all_have("the topic", |controller| controller.image().topic_by_name("kept").is_some()).await;
    println!("failover: {:?}", started.elapsed());
    assert_ne!(next, leader);
    assert!(cluster.register(9).await > epoch);
    cluster.start(leader).await;
    cluster
        .all_have("both brokers everywhere", |controller| {
            let image = controller.image();
            image.broker(BrokerId(7)).is_some() && image.broker(BrokerId(9)).is_some()
        })
        .await;
    let leader = cluster.leader().await;
    let node = cluster.nodes.remove(&leader).unwrap();
    let started = Instant::now();
    node.controller.shut_down().await;
    let next = cluster.leader().await;
    println!("handed over: {:?}", started.elapsed());
    assert_ne!(next, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_gets_a_snapshot_and_a_wiped_disk_joins_as_a_new_member() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let away = if leader == 3 { 2 } else { 3 };
    cluster.all_have("formed", |controller| !controller.image().cluster_id().is_empty()).await;
    cluster.kill(away).await;
    for id in 10..110 {
        cluster.register(id).await;
    }
    cluster.start(away).await;
    let has_all = |controller: &Controller| controller.image().brokers().count() == 100;
    cluster.all_have("the follower catches up", has_all).await;
    let old = cluster.nodes[&away].identity();

    cluster.kill(away).await;
    std::fs::remove_dir_all(cluster.path(away)).unwrap();
    cluster.start(away).await;
    cluster.all_have("the new member catches up", has_all).await;
    let new = cluster.nodes[&away].identity();
    assert_ne!(old.1, new.1);
    assert_eq!(old.0, new.0);
    eventually("the old incarnation is out", async || {
        let mut client = cluster.client(cluster.leader().await).await;
        let quorum = client.describe_quorum(proto::DescribeQuorumRequest {}).await.ok()?.into_inner();
        let of_node: Vec<_> = quorum.voters.iter().filter(|voter| voter.node_id == away).collect();
        (quorum.voters.len() == 3 && of_node.len() == 1 && of_node[0].incarnation[..] == new.1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_the_metadata_sees_every_entry_once_and_in_order() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    // Otherwise a controller that is slow to connect gets a snapshot, and so does who follows it.
    cluster.all_have("formed", |controller| !controller.image().cluster_id().is_empty()).await;
    let follower = if leader == 1 { 2 } else { 1 };
    let request = proto::FollowMetadataRequest { node_id: 5, from_index: 0, cluster_id: String::new() };
    let mut updates = cluster.client(follower).await.follow_metadata(request).await.unwrap().into_inner();
    for id in 1..=20 {
        cluster.register(id).await;
    }
    let (mut expected, mut brokers) = (0, Vec::new());
    while brokers.len() < 20 {
        match updates.message().await.unwrap().unwrap().update {
            // Who leads.
            None => {}
            Some(Update::Delta(delta)) => {
                assert_eq!(delta.index, expected);
                expected += 1;
                brokers.extend(delta.records.into_iter().filter_map(|record| match record.record {
                    Some(ottla_proto::metadata::metadata_record::Record::RegisterBroker(broker)) => {
                        Some(broker.broker_id)
                    }
                    _ => None,
                }));
            }
            Some(Update::Snapshot(chunk)) => panic!("no snapshot was needed: {chunk:?}"),
        }
    }
    assert_eq!(brokers, (1..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_decided_quickly_answered_twice_and_brokers_are_fenced_when_their_session_breaks() {
    let cluster = Cluster::started(1).await;
    let epoch = cluster.register(1).await;
    let client = cluster.client(1).await;
    let beats = serving(&cluster, 1, epoch).await;
    let started = Instant::now();
    let creations = (0..1_000).map(|number| {
        let mut client = client.clone();
        async move { client.submit(create(&format!("topic-{number}"))).await.unwrap().into_inner() }
    });
    let replies = futures_util::future::join_all(creations).await;
    println!("1000 topics: {:?}", started.elapsed());
    assert!(replies.iter().all(|reply| reply.failure.is_none() && reply.index > 0), "{:?}", replies[0]);
    let again = client.clone().submit(create("topic-0")).await.unwrap().into_inner();
    assert_eq!(again, replies[0], "a command that is sent again gets its first answer");
    assert_eq!(cluster.nodes[&1].controller.image().topic_count(), 1_000);
    let started = Instant::now();
    drop(beats);
    cluster
        .all_have("the broker is fenced", |controller| controller.image().broker(BrokerId(1)).unwrap().fenced)
        .await;
    println!("fenced after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_others_are_refused_by_name() {
    let mut cluster = Cluster::new(1);
    cluster.start(1).await;
    let cluster_id = cluster.nodes[&1].controller.cluster_id();
    cluster.kill(1).await;
    let options = ControllerOptions { cluster_id: Some("another".to_owned()), ..cluster.options(1) };
    let error = refusal(options).await;
    assert!(error.contains("another") && error.contains(&cluster_id), "{error}");
    let options =
        ControllerOptions { node_id: 2, voters: vec![(2, "127.0.0.1:1".into())], ..cluster.options(1) };
    let error = refusal(options).await;
    assert!(error.contains("belongs to node 1, this is node 2"), "{error}");
    assert!(Path::new(&cluster.path(1)).exists());
}

async fn refusal(options: ControllerOptions) -> String {
    let error: Option<StartError> = Controller::start(options).await.err();
    error.unwrap().to_string()
}

/// A registration with log directories.
fn with_directories(id: i32, directories: &[u8]) -> proto::RegisterBrokerRequest {
    let mut request = registration(id);
    if let Some(registration) = &mut request.registration {
        registration.log_directories = directories.iter().map(|byte| vec![*byte; 16].into()).collect();
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn features_directories_and_unclean_elections_reach_the_image() {
    let cluster = Cluster::started(1).await;
    cluster
        .all_have("the default features", |controller| {
            controller.image().feature_level("metadata.version") > 0
                && controller.image().feature_level("group.version") == 1
        })
        .await;
    let mut client = cluster.client(1).await;
    let mut sessions = Vec::new();
    for id in 1..=2 {
        let request = with_directories(id, &[10, 11]);
        let epoch = client.register_broker(request).await.unwrap().into_inner().broker_epoch;
        sessions.push((serving(&cluster, id, epoch).await, epoch));
    }
    let assignments = vec![proto::ReplicaAssignment { partition: 0, replicas: vec![1, 2] }];
    let topic = proto::NewTopic {
        name: "t".into(),
        partitions: -1,
        replication_factor: -1,
        assignments,
        ..Default::default()
    };
    let command = |kind| proto::Command { command_id: bytes::Bytes::new(), command: Some(kind) };
    let create = proto::CreateTopics { validate_only: false, topics: vec![topic] };
    cluster.submit(&command(proto::command::Command::CreateTopics(create))).await;
    let (beats, epoch) = &sessions[0];
    let topic_id = cluster.nodes[&1].controller.image().topic_by_name("t").unwrap().id;
    let assigned = proto::AssignReplicasToDirectories {
        broker_id: 1,
        broker_epoch: *epoch,
        assignments: vec![proto::DirectoryAssignment {
            directory: vec![10; 16].into(),
            topic_id: topic_id.0.as_bytes().to_vec().into(),
            partition: 0,
        }],
    };
    cluster.submit(&command(proto::command::Command::AssignReplicasToDirectories(assigned))).await;
    let beat = proto::BrokerHeartbeat {
        broker_id: 1,
        broker_epoch: *epoch,
        metadata_index: *epoch,
        offline_directories: vec![vec![10; 16].into()],
        ..Default::default()
    };
    beats.send(beat).await.unwrap();
    let leader = |controller: &Controller| controller.image().partition(topic_id, 0).unwrap().leader;
    cluster.all_have("broker 2 leads", |controller| leader(controller) == Some(BrokerId(2))).await;
    // Now 2 goes as well. What lies on 1 cannot lead; on a broker without a directory that works nothing can.
    drop(sessions.pop());
    cluster.all_have("nobody leads", |controller| leader(controller).is_none()).await;
    let set = |name: &str, value: &str| {
        let change = proto::ConfigChange { name: name.into(), operation: 0, value: Some(value.into()) };
        let resource =
            proto::ConfigAlteration { resource_type: 2, resource_name: "u".into(), changes: vec![change] };
        let alter = proto::AlterConfigs { resources: vec![resource], ..Default::default() };
        command(proto::command::Command::AlterConfigs(alter))
    };
    // A topic whose ISR is broker 2 alone, and broker 1 alive with a directory that works.
    let (beats, epoch) = (sessions[0].0.clone(), sessions[0].1);
    let request = with_directories(2, &[10, 11]);
    let again = eventually("broker 2 registers anew", async || {
        let mut request = request.clone();
        if let Some(registration) = &mut request.registration {
            registration.incarnation_id = vec![99; 16].into();
        }
        let reply = client.clone().register_broker(request).await.ok()?.into_inner();
        reply.failure.is_none().then_some(reply.broker_epoch)
    })
    .await;
    let second = serving(&cluster, 2, again).await;
    let assignments = vec![proto::ReplicaAssignment { partition: 0, replicas: vec![2, 1] }];
    let topic = proto::NewTopic {
        name: "u".into(),
        partitions: -1,
        replication_factor: -1,
        assignments,
        ..Default::default()
    };
    let create = proto::CreateTopics { validate_only: false, topics: vec![topic] };
    cluster.submit(&command(proto::command::Command::CreateTopics(create))).await;
    let image = cluster.nodes[&1].controller.image();
    let topic = image.topic_by_name("u").unwrap();
    let alone = proto::PartitionAlteration {
        topic_id: topic.id.0.as_bytes().to_vec().into(),
        partition: 0,
        leader_epoch: topic.partitions[0].leader_epoch.0,
        partition_epoch: topic.partitions[0].partition_epoch.0,
        isr: vec![proto::IsrMember { broker_id: 2, broker_epoch: again }],
        recovering: false,
    };
    let alter = proto::AlterPartitions { broker_id: 2, broker_epoch: again, partitions: vec![alone] };
    cluster.submit(&command(proto::command::Command::AlterPartitions(alter))).await;
    drop(second);
    let leader = |controller: &Controller| {
        let image = controller.image();
        image.topic_by_name("u").unwrap().partitions[0].leader
    };
    cluster.all_have("nobody leads u", |controller| leader(controller).is_none()).await;
    cluster.submit(&set("unclean.leader.election.enable", "true")).await;
    cluster.all_have("broker 1 leads u", |controller| leader(controller) == Some(BrokerId(1))).await;
    assert!(!beats.is_closed() && epoch > 0);
}
