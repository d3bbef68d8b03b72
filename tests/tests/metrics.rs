//! What `/metrics` tells of real processes.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ottla_tests::{Cluster, eventually};

/// Every sample of a node's page: name with labels, value. No family stands there twice, each is explained, and names have Prometheus's
/// base units.
fn scrape(port: u16) -> BTreeMap<String, String> {
    let page = page_of(port);
    let mut families = BTreeSet::new();
    for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(families.insert(name), "{name} is there twice");
        assert!(page.contains(&format!("# HELP {name} ")), "{name} is not explained");
        assert!(!name.contains("_ms") && !name.ends_with("_total"), "{name}");
    }
    assert_eq!(page.matches("# EOF").count(), 1);
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn page_of(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    page
}

/// Names in alerts and dashboards that a page does not offer, by its samples and families.
fn missing(page: &str, wanted: &str) -> BTreeSet<String> {
    let mut offered: BTreeSet<String> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect();
    for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        offered.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    let named = wanted
        .split(|one: char| !one.is_ascii_lowercase() && !one.is_ascii_digit() && one != '_')
        .filter(|word| word.starts_with("ottla_") || word.starts_with("process_"));
    named.filter(|name| !offered.contains(*name)).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboards_name_metrics_that_there_are() {
    let page = "# TYPE ottla_a counter\n# TYPE ottla_b gauge\nottla_b{x=\"y\"} 1\n# TYPE ottla_c histogram\n";
    let wanted = "rate(ottla_a_total[5m]) / ottla_b{} + ottla_c_bucket + ottla_a + process_x";
    assert_eq!(missing(page, wanted).into_iter().collect::<Vec<_>>(), ["ottla_a", "process_x"]);
    let cluster = Cluster::start(1, &[]).unwrap();
    let page = page_of(cluster.nodes[0].http_port);
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let dashboards = std::fs::read_dir(deploy.join("grafana/dashboards")).unwrap();
    let mut files: Vec<_> = dashboards.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4);
    files.push(deploy.join("prometheus/alerts.yaml"));
    for file in files {
        let wanted = std::fs::read_to_string(&file).unwrap();
        assert_eq!(missing(&page, &wanted), BTreeSet::new(), "{}", file.display());
    }
    // Prose abbreviates names, and calls a histogram by its family's.
    let prose = std::fs::read_to_string(deploy.join("../docs/observability.md")).unwrap();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let families: BTreeSet<&str> = families.collect();
    let left = missing(&page, &prose).into_iter().filter(|name| {
        let is_start = name.ends_with('_') && families.iter().any(|family| family.starts_with(name));
        !is_start && !families.contains(name.as_str()) && name != "ottla_broker"
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn traffic_and_replicas_are_counted_where_they_are() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic("t", 1, 3, &[]).unwrap();
    cluster.ottla_with_input(&["produce", "t", "-"], b"a\nb\nc\n").unwrap().ok().unwrap();
    let read = ["consume", "t", "--from", "beginning", "--exit-at-end"];
    cluster.ottla(&read).unwrap().ok().unwrap();
    let leader = cluster.leader("t", 0).unwrap();
    let pages = |cluster: &Cluster| -> BTreeMap<i32, BTreeMap<String, String>> {
        cluster.nodes.iter().map(|node| (node.id, scrape(node.http_port))).collect()
    };
    let found = pages(&cluster);
    for (id, page) in &found {
        let produced = if *id == leader { "3" } else { "0" };
        assert_eq!(page["ottla_topic_produced_records_total{topic=\"t\"}"], produced, "node {id}");
        assert_eq!(page["ottla_partition_log_end_offset{topic=\"t\",partition=\"0\"}"], "3", "node {id}");
        assert!(page["process_resident_memory_bytes"].len() >= 7);
        assert_eq!(page["ottla_controller_active_brokers"], "3", "node {id}");
        assert_eq!(page["ottla_controller_offline_partitions"], "0", "node {id}");
    }
    assert_ne!(found[&leader]["ottla_topic_fetched_bytes_total{topic=\"t\"}"], "0");
    assert_eq!(found.values().filter(|page| page["ottla_controller_active"] == "1").count(), 1);
    for kind in ["request_queue", "request_handling", "request_remote", "response_send", "request"] {
        let count = &found[&leader][&format!("ottla_{kind}_seconds_count{{api=\"Produce\"}}")];
        assert_ne!(count, "0", "{kind}");
        let all = format!("ottla_{kind}_seconds_bucket{{le=\"+Inf\",api=\"Produce\"}}");
        assert_eq!(&found[&leader][&all], count, "quantiles need the last bucket");
    }
    let page = &found[&leader];
    for (name, least) in [
        ("process_start_time_seconds", 1.7e9),
        ("process_max_fds", 100.0),
        ("process_virtual_memory_bytes", 1e7),
        ("ottla_start_seconds", 0.001),
        ("ottla_disk_written_bytes_total", 1.0),
        ("ottla_controller_raft_committed_index", 1.0),
        ("ottla_partition_last_stable_offset{topic=\"t\",partition=\"0\"}", 3.0),
    ] {
        assert!(page[name].parse::<f64>().unwrap() >= least, "{name} is {}", page[name]);
    }
    assert!(page["ottla_start_seconds"].parse::<f64>().unwrap() < 120.0);
    assert_eq!(page[&format!("ottla_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], "1");
    // All are in sync and one is wanted: nothing is at its minimum.
    for name in ["ottla_at_min_isr_partitions", "ottla_controller_unclean_leader_elections_total"] {
        assert_eq!(page[name], "0", "{name}");
    }
    let lags = |page: &BTreeMap<String, String>| {
        page.keys().filter(|name| name.starts_with("ottla_controller_raft_follower_lag{")).count()
    };
    assert_eq!(found.values().map(lags).sum::<usize>(), 2, "of the two that follow, where the third leads");
    // Nothing of a produce is left waiting; followers' fetches nearly always wait.
    assert_eq!(page["ottla_requests_waiting{api=\"Produce\"}"], "0");
    for name in ["ottla_connections", "ottla_listener_connections{listener=\"PLAINTEXT\"}"] {
        assert!(page[name].parse::<u32>().unwrap() >= 2, "{name}: two followers fetch");
    }
    let disk =
        page.iter().find(|(name, _)| name.starts_with("ottla_log_directory_disk_free_bytes{")).unwrap();
    assert!(disk.1.parse::<u64>().unwrap() > 0);
    let other = (1..=3).find(|id| *id != leader).unwrap();
    cluster.node(other).unwrap().kill().unwrap();
    cluster.nodes.retain(|node| node.id != other);
    eventually(Duration::from_secs(20), "the leader counts an under-replicated partition", || {
        let page = scrape(cluster.node(leader)?.http_port);
        let is_counted = page["ottla_under_replicated_partitions"] == "1"
            && page["ottla_partition_in_sync_replicas{topic=\"t\",partition=\"0\"}"] == "2";
        Ok(is_counted.then_some(()))
    })
    .unwrap();
}
