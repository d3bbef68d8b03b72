//! What an operator reads of real processes: logs whose levels change, reasons for not starting, the doctor's findings.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::process::Command;
use std::time::Duration;

use ottla_tests::{Cluster, binary, eventually};
use serde_json::Value;

/// Every line of a log, which is to be one JSON object each.
fn events(log: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(parse).collect()
}

fn has(log: &str, level: &str, text: &str) -> bool {
    let says = |event: &Value| event["message"].as_str().unwrap_or_default().contains(text);
    events(log).iter().any(|event| event["level"] == level && says(event))
}

#[test]
fn levels_change_while_a_node_runs_and_go_back() {
    let cluster = Cluster::start(1, &[("ottla.log.format", "json")]).unwrap();
    let loggers = |arguments: &str| {
        let words: Vec<&str> = ["config", "-o", "json"].into_iter().chain(arguments.split(' ')).collect();
        cluster.ottla(&words).unwrap()
    };
    let level = |name: &str| {
        let document = loggers(&format!("get --loggers 1 {name}")).ok().unwrap().json().unwrap();
        document["loggers"][0]["level"].as_str().unwrap_or_default().to_owned()
    };
    let debug_events = || {
        let of_the_controller =
            |event: &&Value| event["target"].as_str().unwrap().starts_with("ottla_controller");
        let log = cluster.nodes[0].log();
        events(&log).iter().filter(of_the_controller).filter(|event| event["level"] == "DEBUG").count()
    };
    assert_eq!(level("ottla_controller"), "INFO");
    loggers("set --loggers 1 ottla_controller=trace --dry-run").ok().unwrap();
    assert_eq!((level("ottla_controller").as_str(), debug_events()), ("INFO", 0));
    loggers("set --loggers 1 ottla_controller=debug").ok().unwrap();
    assert_eq!(level("ottla_controller"), "DEBUG");
    loggers("unset --loggers 1 ottla_controller").ok().unwrap();
    assert_eq!(level("ottla_controller"), "INFO");
    for wrong in ["set --loggers 1 nobody=INFO", "set --loggers 1 root=LOUD", "get --loggers 7"] {
        assert_eq!(loggers(wrong).code, Some(1), "{wrong}");
    }
}

/// A log of JSON objects has nothing else in it, whatever ends the node.
#[test]
fn the_last_words_of_a_node_are_json_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners =
        format!("PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:0", taken.local_addr().unwrap().port());
    let directory = tempfile::tempdir().unwrap();
    let run = |more: &[(&str, &str)]| {
        let mut command = Command::new(binary());
        command.env_clear().arg("server").envs([
            ("OTTLA_LOG_FORMAT", "json"),
            ("OTTLA_LOG", "info,ottla=a=b"),
            ("OTTLA_NODE_ID", "1"),
            ("OTTLA_PROCESS_ROLES", "broker,controller"),
            ("OTTLA_CONTROLLER_QUORUM_VOTERS", "1@127.0.0.1:1"),
            ("OTTLA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
            ("OTTLA_LISTENERS", &listeners),
            ("OTTLA_HTTP_LISTENER", ""),
            ("OTTLA_LOG_DIRS", directory.path().to_str().unwrap()),
        ]);
        let output = command.envs(more.iter().copied()).output().unwrap();
        assert_eq!(output.stdout, b"");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, log) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(has(&log, "ERROR", "another process listens there"), "{log}");
    assert!(has(&log, "WARN", "'info,ottla=a=b' cannot be read"), "{log}");
    assert_eq!(log.matches("change PLAINTEXT in the property").count(), 1, "said once: {log}");
    let (code, log) = run(&[("OTTLA_NUM_PARTITIONS", "none"), ("OTTLA_NO_SUCH", "1")]);
    assert_eq!(code, Some(2));
    assert!(has(&log, "ERROR", "environment OTTLA_NUM_PARTITIONS: num.partitions"), "{log}");
}

#[test]
fn the_doctor_knows_the_node_that_runs() {
    let mut cluster = Cluster::start(1, &[("ottla.http.listener", "")]).unwrap();
    let file = cluster.nodes[0].directory().join("server.properties");
    let ports = |cluster: &Cluster| -> Vec<String> {
        let output = cluster.ottla(&["doctor", "-o", "json", "--config", file.to_str().unwrap()]).unwrap();
        let findings = output.json().unwrap()["findings"].as_array().unwrap().clone();
        let ports = findings.iter().filter(|finding| finding["check"].as_str().unwrap().starts_with("port "));
        ports.map(|finding| finding["finding"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ports(&cluster), vec!["taken by the node that runs here"; 2]);
    cluster.nodes[0].stop().unwrap();
    eventually(Duration::from_secs(10), "its ports are free", || {
        Ok(ports(&cluster).iter().all(|port| port == "free").then_some(()))
    })
    .unwrap();
}
