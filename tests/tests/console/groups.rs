//! Groups of the types that no common client in these tests speaks.

use std::time::Duration;

use ottla_tests::{Cluster, call_once, eventually};
use ottla_wire::messages::{
    FindCoordinatorRequest, StreamsGroupHeartbeatRequest, streams_group_heartbeat_request as streams,
};
use serde_json::json;

use crate::http::get;

const PATIENCE: Duration = Duration::from_secs(20);
/// A version that takes several keys.
const FIND_COORDINATOR_VERSION: i16 = 4;

/// A member of a streams group, as Kafka Streams joins.
fn join(member_id: &str, member_epoch: i32) -> StreamsGroupHeartbeatRequest {
    let part = streams::Subtopology {
        subtopology_id: "0".into(),
        source_topics: vec!["orders".into()],
        ..Default::default()
    };
    StreamsGroupHeartbeatRequest {
        group_id: "flow".into(),
        member_id: member_id.into(),
        member_epoch,
        rebalance_timeout_ms: 60_000,
        topology: (member_epoch == 0).then(|| streams::Topology { epoch: 1, subtopologies: vec![part] }),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        process_id: (member_epoch == 0).then(|| "process".into()),
        client_tags: (member_epoch == 0).then(Vec::new),
        ..Default::default()
    }
}

#[test]
fn a_streams_group_has_members_that_read_the_sources_of_their_tasks() {
    let cluster = Cluster::start(1, &[]).unwrap();
    let port = cluster.nodes[0].http_port;
    cluster.create_topic("orders", 3, 1, &[]).unwrap();
    // Whoever looks for a coordinator has the place for groups made.
    let find = FindCoordinatorRequest { coordinator_keys: vec!["flow".into()], ..Default::default() };
    call_once(&cluster.nodes[0].kafka(), PATIENCE, FIND_COORDINATOR_VERSION, &find).unwrap();
    let mut epoch = 0;
    let member = "AAAAAAAAAAAAAAAAAAAAAQ";
    eventually(PATIENCE, "the group takes a member", || {
        let address = cluster.nodes[0].kafka();
        let answer = call_once(&address, PATIENCE, 0, &join(member, epoch))?;
        match answer.error_code {
            0 => epoch = answer.member_epoch,
            // The coordinator is not there yet.
            14..=16 => return Ok(None),
            other => panic!("{other} {:?}", answer.error_message),
        }
        let group = get(port, "/groups/flow");
        if group.status != 200 || group.json()["offsets"].as_array().is_none_or(|rows| rows.len() < 3) {
            return Ok(None);
        }
        let group = group.json();
        assert_eq!((&group["type"], &group["members"][0]["client_id"]), (&json!("streams"), &json!("test")));
        let assigned = &group["members"][0]["assigned"];
        assert_eq!(assigned, &json!([{ "topic": "orders", "partitions": [0, 1, 2] }]));
        for row in group["offsets"].as_array().unwrap() {
            assert_eq!((&row["committed"], &row["member"]), (&json!(null), &json!("test")), "{row}");
        }
        Ok(Some(()))
    })
    .unwrap();
    let listed = get(port, "/groups?type=streams").ok();
    assert_eq!((&listed["groups"][0]["id"], &listed["groups"][0]["members"]), (&json!("flow"), &json!(1)));
}
