//! When a controller that leads is replaced before the election timeout, and when it is not.
#![allow(clippy::unwrap_used, reason = "a test stops where its ground is gone")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Cluster, eventually};

/// The harness has a lease of 1.2 s and then 0.8 s at least: sooner than this nobody is elected by time-out.
const TIMEOUT_MIN: Duration = Duration::from_millis(1_800);

async fn next_leader(cluster: &Cluster, dead: i32) -> i32 {
    eventually("another leader", async || {
        let mut known = cluster.nodes.values().map(|node| node.controller.watch_leader().borrow().clone());
        let first = known.next()??.node_id;
        let agreed = known.all(|leader| leader.is_some_and(|leader| leader.node_id == first));
        (first != dead && agreed).then_some(first)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_process_has_ended_is_replaced_before_the_election_timeout() {
    let mut cluster = Cluster::started(3).await;
    cluster.register(7).await;
    for round in 0..3 {
        let dead = cluster.leader().await;
        let began = Instant::now();
        cluster.kill(dead).await;
        let next = next_leader(&cluster, dead).await;
        println!("round {round}: {next} after {dead} within {:?}", began.elapsed());
        assert!(began.elapsed() < TIMEOUT_MIN, "{:?}", began.elapsed());
        cluster.start(dead).await;
        // It has the log again: the next leader may be any.
        let registered = cluster.register(10 + round).await;
        cluster
            .all_have("the newest entry", |controller| *controller.watch_applied().borrow() >= registered)
            .await;
    }
}

/// Nobody can connect to it any more, but its heartbeats come: a firewall, or a listener that failed. It lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_refuses_connections_and_is_heard_of_stays() {
    let mut cluster = Cluster::started(3).await;
    cluster.register(7).await;
    let leader = cluster.leader().await;
    let term = |cluster: &Cluster| {
        let known =
            |node: &harness::Node| node.controller.watch_leader().borrow().clone().map(|leader| leader.term);
        cluster.nodes.values().map(known).collect::<Vec<_>>()
    };
    let before = term(&cluster);
    cluster.mute(leader).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(term(&cluster), before, "nobody has stood for election");
    cluster.unmute(leader);
    assert_eq!(cluster.leader().await, leader);
}

/// Without a majority nobody is elected, however dead the leader is.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_of_three_does_not_lead() {
    let mut cluster = Cluster::started(3).await;
    cluster.register(7).await;
    let leader = cluster.leader().await;
    let other = cluster.nodes.keys().copied().find(|id| *id != leader).unwrap();
    cluster.kill(other).await;
    cluster.kill(leader).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let last = cluster.nodes.values().next().unwrap();
    let led_by = last.controller.leader().map(|(id, _)| id);
    assert!(led_by.is_none_or(|id| !cluster.nodes.contains_key(&id)), "{led_by:?} leads alone");
}
