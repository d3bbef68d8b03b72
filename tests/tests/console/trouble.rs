//! What is told of brokers that are down.

use std::time::Duration;

use ottla_tests::{Cluster, eventually};
use serde_json::{Value, json};

use crate::http::{change, get};

#[test]
fn of_a_broker_that_is_down_nothing_is_guessed() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    let port = cluster.nodes[0].http_port;
    let create = |name: &str, partitions: i32, replicas: i32| {
        let topic = json!({ "name": name, "partitions": partitions, "replication_factor": replicas });
        change(port, "POST", "/topics", Some(&topic)).ok();
    };
    create("safe", 3, 3);
    create("alone", 6, 1);
    let set = json!({ "set": { "background.threads": "11" } });
    change(port, "PUT", "/configs/broker/3", Some(&set)).ok();
    let state = |broker: usize| get(port, "/cluster").ok()["brokers"][broker - 1]["state"].clone();
    let cordon = json!({ "set": { "cordoned.log.dirs": "*" } });
    change(port, "PUT", "/configs/broker/2", Some(&cordon)).ok();
    eventually(Duration::from_secs(30), "broker 2 is known to take no further replicas", || {
        Ok((state(2) == "cordoned").then_some(()))
    })
    .unwrap();
    cluster.node(3).unwrap().kill().unwrap();
    eventually(Duration::from_secs(30), "broker 3 is known to be down", || {
        Ok((state(3) == "fenced").then_some(()))
    })
    .unwrap();

    let configs = get(port, "/configs/broker/3").ok();
    assert_eq!(configs["answered"], false);
    let known: Vec<(&str, &str)> = configs["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap()))
        .collect();
    assert_eq!(known, [("background.threads", "11")], "its property file is not known");
    assert_eq!(get(port, "/configs/broker/2").ok()["answered"], true);
    let broker = get(port, "/brokers/3").ok();
    assert_eq!((&broker["state"], &broker["log_directories"]), (&json!("fenced"), &Value::Null));
    assert_ne!(broker["log_directories_error"], Value::Null);

    for partition in get(port, "/topics/safe?filter=trouble").ok()["items"].as_array().unwrap() {
        let of_third =
            partition["replicas"].as_array().unwrap().iter().find(|one| one["broker"] == 3).unwrap();
        assert_eq!((&of_third["in_sync"], &of_third["alive"]), (&json!(false), &json!(false)));
        assert_eq!(partition["end_offset"], 0, "{partition}");
    }
    // Without a leader the last replica in sync stays that; its broker is down all the same.
    let alone = get(port, "/topics/alone?filter=trouble").ok();
    let lost = alone["items"].as_array().unwrap();
    assert_eq!((lost.len(), &alone["offline"]), (2, &json!(2)));
    for partition in lost {
        assert_eq!((&partition["leader"], &partition["end_offset"]), (&Value::Null, &Value::Null));
        assert_eq!(partition["replicas"][0]["alive"], false);
        let number = partition["partition"].as_i64().unwrap();
        let refused = get(port, &format!("/topics/alone/messages?partition={number}"));
        assert_eq!((refused.status, &*refused.code()), (503, "LEADER_NOT_AVAILABLE"));
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("has no leader"));
    }
    let all = get(port, "/topics/alone/messages").ok();
    assert_eq!(all["failures"].as_array().unwrap().len(), 2, "those that can be read are: {all}");
}
