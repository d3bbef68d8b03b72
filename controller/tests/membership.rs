//! Changes of who votes, with controllers in one process over real gRPC.
#![allow(clippy::unwrap_used, reason = "a test stops where its ground is gone")]

mod harness;

use std::time::Duration;

use harness::{Cluster, create, eventually, serving};
use ottla_proto::controller as proto;
use ottla_proto::controller::change_quorum_request::Change;

const INVALID_REQUEST: i32 = 42;
const NOT_CONTROLLER: i32 = 41;
const REQUEST_TIMED_OUT: i32 = 7;
const DUPLICATE_VOTER: i32 = 126;
const VOTER_NOT_FOUND: i32 = 127;

fn add(node_id: i32) -> Change {
    Change::Add(proto::AddVoter { node_id, ..Default::default() })
}

fn remove(node_id: i32) -> Change {
    Change::Remove(proto::RemoveVoter { node_id, ..Default::default() })
}

fn transfer(node_id: i32) -> Change {
    Change::Transfer(proto::TransferLeadership { node_id })
}

/// The first `founders` of `count` nodes form the cluster; the others know only where they are.
async fn grown(founders: i32, count: i32) -> Cluster {
    let mut cluster = Cluster::new(count);
    cluster.newcomers = (founders + 1..=count).collect();
    for id in 1..=founders {
        cluster.start(id).await;
    }
    cluster.all_have("formed", |controller| !controller.image().cluster_id().is_empty()).await;
    cluster
}

/// Asks the leader once; an error code or who votes then.
async fn once(cluster: &Cluster, change: &Change, timeout_ms: i64) -> Result<Vec<i32>, (i32, String)> {
    let request =
        proto::ChangeQuorumRequest { timeout_ms, change: Some(change.clone()), ..Default::default() };
    loop {
        let mut client = cluster.client(cluster.leader().await).await;
        let Ok(reply) = client.change_quorum(request.clone()).await else { continue };
        let mut reply = reply.into_inner();
        match reply.failure {
            Some(failure) if failure.error_code == NOT_CONTROLLER => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Some(failure) => return Err((failure.error_code, failure.message)),
            None => {
                reply.voters.sort_unstable();
                return Ok(reply.voters);
            }
        }
    }
}

async fn quorum(cluster: &Cluster) -> Option<proto::DescribeQuorumReply> {
    let mut client = cluster.client(cluster.leader().await).await;
    client.describe_quorum(proto::DescribeQuorumRequest {}).await.ok().map(tonic::Response::into_inner)
}

/// Waits until these vote and those follow.
async fn members(cluster: &Cluster, voters: &[i32], observers: &[i32]) {
    let ids = |members: &[proto::QuorumMember]| {
        let mut ids: Vec<i32> = members.iter().map(|member| member.node_id).collect();
        ids.sort_unstable();
        ids
    };
    eventually(&format!("voters {voters:?} and observers {observers:?}"), async || {
        let quorum = quorum(cluster).await?;
        (ids(&quorum.voters) == voters && ids(&quorum.observers) == observers).then_some(())
    })
    .await;
}

/// Everybody who runs has this topic once it is created, on broker 7 of this epoch.
async fn topic(cluster: &Cluster, name: &str, epoch: i64) {
    let _beats = serving(cluster, 7, epoch).await;
    eventually(name, async || {
        // Each time another command: the one before may have been refused because the broker was fenced for a moment.
        let mut command = create(name);
        command.command_id = uuid::Uuid::new_v4().as_bytes().to_vec().into();
        cluster.submit(&command).await;
        let image = cluster.nodes[&cluster.leader().await].controller.image();
        image.topic_by_name(name).is_some().then_some(())
    })
    .await;
    cluster.all_have(name, |controller| controller.image().topic_by_name(name).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_grows_from_three_to_five_and_shrinks_to_those_that_came_last() {
    let mut cluster = grown(3, 5).await;
    let epoch = cluster.register(7).await;
    cluster.start(4).await;
    members(&cluster, &[1, 2, 3], &[4]).await;
    topic(&cluster, "three", epoch).await;
    assert_eq!(once(&cluster, &add(4), 10_000).await.unwrap(), [1, 2, 3, 4]);
    cluster.start(5).await;
    members(&cluster, &[1, 2, 3, 4], &[5]).await;
    assert_eq!(once(&cluster, &add(5), 10_000).await.unwrap(), [1, 2, 3, 4, 5]);
    topic(&cluster, "five", epoch).await;
    assert_eq!(once(&cluster, &remove(1), 10_000).await.unwrap(), [2, 3, 4, 5]);
    assert_eq!(once(&cluster, &remove(2), 10_000).await.unwrap(), [3, 4, 5]);
    members(&cluster, &[3, 4, 5], &[1, 2]).await;
    topic(&cluster, "other-three", epoch).await;
    // Two of the three that are left suffice, without any founder but one.
    cluster.kill(1).await;
    cluster.kill(2).await;
    cluster.kill(3).await;
    topic(&cluster, "two", epoch).await;
    assert!([4, 5].contains(&cluster.leader().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_hands_over_and_disturbs_nobody_when_it_comes_back() {
    let mut cluster = grown(3, 3).await;
    cluster.observer_silence_max = Duration::from_secs(1);
    let leader = cluster.leader().await;
    let others: Vec<i32> = (1..=3).filter(|id| *id != leader).collect();
    assert_eq!(once(&cluster, &remove(leader), 10_000).await.unwrap(), others);
    eventually("another leads", async || (cluster.leader().await != leader).then_some(())).await;
    members(&cluster, &others, &[leader]).await;
    cluster.kill(leader).await;
    let term = quorum(&cluster).await.unwrap().leader_epoch;
    cluster.start(leader).await;
    members(&cluster, &others, &[leader]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(quorum(&cluster).await.unwrap().leader_epoch, term, "no election because of it");
    members(&cluster, &others, &[leader]).await;
    assert_eq!(once(&cluster, &add(leader), 10_000).await.unwrap(), [1, 2, 3]);
}

/// The node is away while it loses its vote and until it is forgotten: its own log says that it votes.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_removed_while_it_was_away_becomes_an_observer() {
    let mut cluster = Cluster::new(3);
    cluster.observer_silence_max = Duration::from_secs(1);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    cluster.all_have("formed", |controller| !controller.image().cluster_id().is_empty()).await;
    let away = if cluster.leader().await == 3 { 2 } else { 3 };
    let others: Vec<i32> = (1..=3).filter(|id| *id != away).collect();
    cluster.kill(away).await;
    assert_eq!(once(&cluster, &remove(away), 10_000).await.unwrap(), others);
    members(&cluster, &others, &[]).await;
    let term = quorum(&cluster).await.unwrap().leader_epoch;
    cluster.start(away).await;
    members(&cluster, &others, &[away]).await;
    assert_eq!(quorum(&cluster).await.unwrap().leader_epoch, term, "no election because of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_what_to_do() {
    let mut cluster = grown(3, 4).await;
    let refused = async |change: Change, code: i32, text: &str| {
        let (error, message) = once(&cluster, &change, 1_000).await.unwrap_err();
        assert!(error == code && message.contains(text), "{change:?}: {error} {message}");
    };
    refused(add(2), DUPLICATE_VOTER, "votes already").await;
    refused(add(4), VOTER_NOT_FOUND, "controller.quorum.bootstrap.servers").await;
    refused(remove(9), VOTER_NOT_FOUND, "the voters are 1, 2, 3").await;
    refused(transfer(9), VOTER_NOT_FOUND, "the voters are 1, 2, 3").await;
    let nowhere = proto::AddVoter {
        node_id: 4,
        incarnation: vec![4; 16].into(),
        endpoint: cluster.address(4).to_owned(),
    };
    refused(Change::Add(nowhere), REQUEST_TIMED_OUT, "no controller answers").await;
    let voting = cluster.nodes[&2].controller.incarnation();
    let stranger = proto::RemoveVoter { node_id: 2, incarnation: vec![9; 16].into() };
    refused(Change::Remove(stranger), VOTER_NOT_FOUND, &uuid::Uuid::from_bytes(voting).to_string()).await;

    let leader = cluster.leader().await;
    let (down, other) = if leader == 3 { (2, 1) } else { (3, if leader == 1 { 2 } else { 1 }) };
    cluster.kill(down).await;
    let text = format!("start controller {down} first");
    eventually("the loss is noticed", async || {
        let (error, message) = once(&cluster, &remove(other), 1_000).await.err()?;
        (error == INVALID_REQUEST && message.contains(&text)).then_some(())
    })
    .await;
    let (error, message) = once(&cluster, &transfer(down), 1_000).await.unwrap_err();
    assert!(error == INVALID_REQUEST && message.contains("start it first"), "{error} {message}");
    // The one that is gone may go; then the leader alone may remain, and no less.
    once(&cluster, &remove(down), 10_000).await.unwrap();
    once(&cluster, &remove(other), 10_000).await.unwrap();
    cluster.kill(other).await;
    let (error, message) = once(&cluster, &remove(leader), 1_000).await.unwrap_err();
    assert!(error == INVALID_REQUEST && message.contains("last voter"), "{error} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_the_node_that_is_named() {
    let cluster = grown(3, 3).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        for to in (1..=3).filter(|id| *id != leader) {
            once(&cluster, &transfer(to), 10_000).await.unwrap();
            eventually("the one that was named leads", async || (cluster.leader().await == to).then_some(()))
                .await;
        }
    }
    let leader = cluster.leader().await;
    once(&cluster, &transfer(-1), 10_000).await.unwrap();
    assert_ne!(cluster.leader().await, leader);
}

/// A disk that was wiped is another member: the former one is not given its vote back, and goes when the new one is added.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_with_a_wiped_disk_is_another_member() {
    let mut cluster = grown(3, 4).await;
    cluster.start(4).await;
    members(&cluster, &[1, 2, 3], &[4]).await;
    once(&cluster, &add(4), 10_000).await.unwrap();
    let old = cluster.nodes[&4].controller.incarnation();
    cluster.kill(4).await;
    std::fs::remove_dir_all(cluster.path(4)).unwrap();
    cluster.start(4).await;
    let new = cluster.nodes[&4].controller.incarnation();
    assert_ne!(new, old);
    members(&cluster, &[1, 2, 3, 4], &[4]).await;
    let of_voter = async |cluster: &Cluster| {
        let quorum = quorum(cluster).await.unwrap();
        quorum.voters.iter().find(|voter| voter.node_id == 4).map(|voter| voter.incarnation.to_vec())
    };
    assert_eq!(of_voter(&cluster).await.unwrap(), old, "nobody added the new disk");
    once(&cluster, &add(4), 10_000).await.unwrap();
    members(&cluster, &[1, 2, 3, 4], &[]).await;
    assert_eq!(of_voter(&cluster).await.unwrap(), new);
}

/// With `controller.quorum.auto.join.enable` nobody has to add a controller, nor to replace one whose disk was wiped (KIP-1186).
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_may_joins_by_itself() {
    let mut cluster = grown(3, 4).await;
    cluster.join_by_themselves = true;
    cluster.start(4).await;
    members(&cluster, &[1, 2, 3, 4], &[]).await;
    cluster.kill(4).await;
    std::fs::remove_dir_all(cluster.path(4)).unwrap();
    cluster.start(4).await;
    let new = cluster.nodes[&4].controller.incarnation();
    eventually("the new disk votes", async || {
        let quorum = quorum(&cluster).await?;
        let of_node: Vec<_> = quorum.voters.iter().filter(|voter| voter.node_id == 4).collect();
        (of_node.len() == 1 && of_node[0].incarnation[..] == new && quorum.observers.is_empty()).then_some(())
    })
    .await;
}

/// What UpdateRaftVoter is for in Kafka: a voter tells the leader where it is now.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_has_moved_is_found_at_its_new_address() {
    let mut cluster = grown(3, 4).await;
    cluster.start(4).await;
    members(&cluster, &[1, 2, 3], &[4]).await;
    once(&cluster, &add(4), 10_000).await.unwrap();
    cluster.kill(4).await;
    let old = cluster.address(4).to_owned();
    cluster.relocate(4);
    cluster.start(4).await;
    let new = cluster.address(4).to_owned();
    assert_ne!(new, old);
    eventually("the new address is known", async || {
        let quorum = quorum(&cluster).await?;
        quorum.voters.iter().any(|voter| voter.endpoint == new && voter.last_caught_up_ms > 0).then_some(())
    })
    .await;
    once(&cluster, &transfer(4), 10_000).await.unwrap();
    eventually("it leads from there", async || (cluster.leader().await == 4).then_some(())).await;
}

/// An observer that nobody reached is forgotten while it runs, and follows again as soon as it is reached.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_that_was_forgotten_comes_again() {
    let mut cluster = Cluster::new(4);
    cluster.newcomers = vec![4];
    cluster.observer_silence_max = Duration::from_secs(2);
    for id in 1..=4 {
        cluster.start(id).await;
    }
    members(&cluster, &[1, 2, 3], &[4]).await;
    cluster.mute(4).await;
    let muted = cluster.nodes.remove(&4).unwrap();
    members(&cluster, &[1, 2, 3], &[]).await;
    cluster.nodes.insert(4, muted);
    cluster.unmute(4);
    eventually("it follows again", async || {
        let mut client = cluster.client(cluster.nodes[&1].controller.leader()?.0).await;
        let quorum = client.describe_quorum(proto::DescribeQuorumRequest {}).await.ok()?.into_inner();
        quorum
            .observers
            .iter()
            .any(|observer| observer.node_id == 4 && observer.last_caught_up_ms > 0)
            .then_some(())
    })
    .await;
    once(&cluster, &add(4), 10_000).await.unwrap();
}
