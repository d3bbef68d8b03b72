//! The console's JSON API at real processes: what it answers, what it refuses, whom it lets in.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod groups;
mod http;
mod trouble;

use std::time::Duration;

use ottla_tests::{Cluster, eventually};
use serde_json::{Value, json};

use crate::http::{Answer, CONSOLE, call, change, get, raw};

/// Everything that the pages show, of three brokers, asked of each of them.
#[test]
fn every_broker_tells_of_topics_messages_groups_and_configs_of_all() {
    let cluster = Cluster::start(3, &[]).unwrap();
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http_port).collect();
    let topic = json!({ "name": "orders", "partitions": 3, "replication_factor": 3, "configs": { "retention.ms": "86400000" } });
    let created = change(ports[0], "POST", "/topics", Some(&topic)).ok();
    assert_eq!((created["name"].as_str(), created["partitions"].as_i64()), (Some("orders"), Some(3)));
    let lines = (0..30).fold(String::new(), |lines, number| {
        lines
            + &format!(
                "{{\"key\": \"k{number}\", \"value\": {{\"n\": {number}}}, \"partition\": {}}}\n",
                number % 3
            )
    });
    cluster.ottla_with_input(&["produce", "orders", "--json", "-"], lines.as_bytes()).unwrap().ok().unwrap();
    let read = ["consume", "orders", "--group", "readers", "--from", "beginning", "--exit-at-end"];
    cluster.ottla(&read).unwrap().ok().unwrap();
    let again = lines.replace("\"partition\"", "\"headers\": [[\"source\", \"second\"]], \"partition\"");
    cluster.ottla_with_input(&["produce", "orders", "--json", "-"], again.as_bytes()).unwrap().ok().unwrap();

    for port in ports {
        let cluster = get(port, "/cluster").ok();
        assert_eq!(cluster["brokers"].as_array().unwrap().len(), 3);
        assert_eq!(cluster["trouble"]["offline"]["count"], 0);
        assert_eq!(get(port, "/quorum").ok()["voters"].as_array().unwrap().len(), 3);

        let topics = get(port, "/topics?search=ORD").ok();
        assert_eq!(topics["topics"][0]["name"], "orders");
        assert_eq!(topics["page"]["total"], 1);
        let described = get(port, "/topics/orders?size=2&page=2").ok();
        assert_eq!(described["items"].as_array().unwrap().len(), 1);
        let partition = &described["items"][0];
        assert_eq!(
            (partition["start_offset"].as_i64(), partition["end_offset"].as_i64()),
            (Some(0), Some(20))
        );
        assert!(partition["bytes"].as_i64().unwrap() > 100, "{partition}");
        assert!(partition["replicas"][2]["bytes"].as_i64().is_some(), "{partition}");
        assert_eq!(described["overridden"]["retention.ms"], "86400000");

        let offsets = |path: &str| -> Vec<i64> {
            let found = get(port, path).ok();
            found["messages"].as_array().unwrap().iter().map(|one| one["offset"].as_i64().unwrap()).collect()
        };
        assert_eq!(offsets("/topics/orders/messages?partition=1&limit=2"), [19, 18]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&limit=2&from=before&offset=18"), [17, 16]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&from=offset&offset=18"), [18, 19]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&from=oldest&limit=1"), [0]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&from=time&time=0&limit=1"), [0]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&from=time&time=99999999999999"), [0; 0]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&key=k13"), [14, 4]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&value=n%3D13&as=json"), [14, 4]);
        assert_eq!(offsets("/topics/orders/messages?partition=1&key=6b+31+33&as=hex"), [14, 4]);
        assert_eq!(offsets("/topics/orders/messages?limit=500").len(), 60);
        assert_eq!(offsets("/topics/orders/messages?partition=1&header=source=se").len(), 10);
        assert_eq!(offsets("/topics/orders/messages?partition=1&header=source=third"), [0; 0]);
        // Wherever reading began: a log lies where it lies.
        let position = &get(port, "/topics/orders/messages?partition=1&from=before&offset=7&limit=2").ok()["positions"]
            [0];
        assert_eq!(
            (position["start"].as_i64(), position["end"].as_i64(), position["next"].as_i64()),
            (Some(0), Some(20), Some(5))
        );
        let one = &get(port, "/topics/orders/messages?partition=1&from=offset&offset=4&limit=1").ok()["messages"]
            [0];
        assert_eq!(one["key"], json!({ "text": "k13", "bytes": 3, "cut": false }));

        let group = get(port, "/groups/readers").ok();
        assert_eq!((group["lag"].as_i64(), group["state"].as_str()), (Some(30), Some("Empty")), "{group}");
        assert_eq!(group["offsets"].as_array().unwrap().len(), 3);
        let listed = get(port, "/groups?sort=lag&order=descending").ok();
        assert_eq!(
            (listed["groups"][0]["id"].as_str(), listed["groups"][0]["lag"].as_i64()),
            (Some("readers"), Some(30))
        );

        let configs = get(port, "/configs/topic/orders").ok();
        assert_eq!(configs["configs"][0]["name"], "retention.ms", "what was changed comes first");
        assert_eq!(configs["configs"][0]["default"], "604800000");
        // Another broker's property file is asked of that broker.
        for id in 1..=3 {
            let configs = get(port, &format!("/configs/broker/{id}")).ok();
            let rack = configs["configs"]
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["name"] == "broker.rack")
                .unwrap();
            assert_eq!(
                (rack["value"].as_str(), rack["source"].as_str()),
                (Some(&*format!("rack{id}")), Some("static"))
            );
            let broker = get(port, &format!("/brokers/{id}")).ok();
            assert!(broker["log_directories"][0]["total_bytes"].as_i64().unwrap() > 0, "{broker}");
        }
        eventually(Duration::from_secs(20), "disks of three brokers", || {
            let cluster = get(port, "/cluster").ok();
            let known = |broker: &Value| broker["disks"]["total_bytes"].as_i64() > Some(0);
            Ok(cluster["brokers"].as_array().unwrap().iter().all(known).then_some(()))
        })
        .unwrap();
        eventually(Duration::from_secs(20), "rates of three brokers", || {
            let traffic = get(port, "/traffic").ok();
            let nodes = traffic["nodes"].as_array().unwrap();
            Ok((nodes.len() == 3 && nodes.iter().all(|node| !node["at_ms"].as_array().unwrap().is_empty()))
                .then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn topics_are_changed_and_what_is_wrong_is_refused_in_words() {
    let cluster = Cluster::start(1, &[]).unwrap();
    let port = cluster.nodes[0].http_port;
    let create = |topic: &Value| change(port, "POST", "/topics", Some(topic));
    create(&json!({ "name": "t", "partitions": 2, "validate_only": true })).ok();
    assert_eq!(get(port, "/topics/t").status, 404);
    create(&json!({ "name": "t", "partitions": 2 })).ok();
    for (body, status, code) in [
        (json!({ "name": "t" }), 409, "TOPIC_ALREADY_EXISTS"),
        (json!({ "name": "a/b" }), 400, "INVALID_TOPIC_EXCEPTION"),
        (json!({ "name": "<img src=x onerror=alert(1)>" }), 400, "INVALID_TOPIC_EXCEPTION"),
        (json!({ "name": "x".repeat(250) }), 400, "INVALID_TOPIC_EXCEPTION"),
        (json!({ "name": "u", "partitions": 0 }), 400, "INVALID_PARTITIONS"),
        (json!({ "name": "u", "replication_factor": 9 }), 400, "INVALID_REPLICATION_FACTOR"),
        (json!({ "name": "u", "configs": { "no.such": "1" } }), 400, "INVALID_CONFIG"),
        (json!({ "name": "u", "partitions": "3" }), 400, "INVALID_REQUEST"),
        (json!({ "name": "u", "partitions": 1e99 }), 400, "INVALID_REQUEST"),
        (json!({ "nam": "u" }), 400, "INVALID_REQUEST"),
        (json!([]), 400, "INVALID_REQUEST"),
    ] {
        let answer = create(&body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body} {}", answer.json());
        assert_ne!(answer.json()["error"]["message"], "", "{body}");
    }
    assert_eq!(
        change(port, "POST", "/topics/t/partitions", Some(&json!({ "count": 4 }))).ok()["partitions"],
        4
    );
    assert_eq!(
        change(port, "POST", "/topics/t/partitions", Some(&json!({ "count": 3 }))).code(),
        "INVALID_PARTITIONS"
    );
    change(port, "PUT", "/configs/topic/t", Some(&json!({ "set": { "retention.ms": "1000" } }))).ok();
    let refused =
        change(port, "PUT", "/configs/topic/t", Some(&json!({ "set": { "retention.ms": "soon" } })));
    assert_eq!((refused.status, refused.code().as_str()), (400, "INVALID_CONFIG"));
    assert_eq!(get(port, "/topics/t").ok()["overridden"]["retention.ms"], "1000");
    change(port, "PUT", "/configs/topic/t", Some(&json!({ "unset": ["retention.ms"] }))).ok();
    change(port, "DELETE", "/topics/t", None).ok();
    assert_eq!(change(port, "DELETE", "/topics/t", None).code(), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(change(port, "DELETE", "/groups/none", None).status, 404);
}

/// A browser keeps what the first page names, and asks for that page each time.
#[test]
fn files_are_kept_by_what_is_in_them() {
    let cluster = Cluster::start(1, &[]).unwrap();
    let port = cluster.nodes[0].http_port;
    let fetch = |path: &str| call(port, "GET", path, &[], None);
    let first = fetch("/console/");
    assert!(first.head.contains("cache-control: no-cache"), "{}", first.head);
    let text = String::from_utf8(first.body).unwrap();
    let named: Vec<&str> = text.split('"').filter_map(|word| word.strip_prefix("./")).collect();
    assert!(named.len() > 10, "{text}");
    for name in named {
        let file = fetch(&format!("/console/{name}"));
        assert!(file.status == 200 && file.head.contains("immutable"), "{name}: {}", file.head);
        assert!(file.head.contains("content-security-policy: default-src 'none'"), "{name}: {}", file.head);
        // A node of another version has its own, which are not to be kept.
        let (_, name) = name.split_once('/').unwrap();
        let other = fetch(&format!("/console/0123/{name}"));
        assert!(
            other.status == 200 && other.head.contains("cache-control: no-cache"),
            "{name}: {}",
            other.head
        );
    }
    assert_eq!(fetch("/console/0123/no-such.js").status, 404);
}

/// Nothing from outside ends a node, gets a file, or becomes a page.
#[test]
fn hostile_requests_are_refused() {
    let mut cluster = Cluster::start(1, &[]).unwrap();
    let port = cluster.nodes[0].http_port;
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    let record = r#"{"key": "<img src=x onerror=alert(1)>", "value": "</script><script>alert(1)</script>", "headers": [["\u0000<b>", "\"'"]]}"#;
    cluster.ottla_with_input(&["produce", "t", "--json", "-"], record.as_bytes()).unwrap().ok().unwrap();
    let found = get(port, "/topics/t/messages");
    assert!(
        found.head.contains("content-type: application/json") && found.head.contains("nosniff"),
        "{}",
        found.head
    );
    assert_eq!(found.ok()["messages"][0]["key"]["text"], "<img src=x onerror=alert(1)>");

    let long = format!("/topics?search={}", "x".repeat(5_000));
    assert_eq!(get(port, &long).status, 414);
    for path in [
        "/topics?page=0",
        "/topics?page=-1",
        "/topics?size=99999999999999999999",
        "/topics?size=1e3",
        "/topics?sort=constructor",
        "/topics?search=%",
        "/topics?search=%zz",
        "/topics?search=%ff%fe",
        "/topics?page=1&page=2",
        "/topics/t/messages?limit=100000",
        "/topics/t/messages?partition=0&from=offset&offset=-5",
        "/topics/t/messages?bytes=999999999",
        "/topics/t/messages?partition=x",
        "/topics/t/messages?value=zz&as=hex",
        "/topics/t?page=NaN",
        "/groups?order=sideways",
        "/topics?internal=yes",
    ] {
        assert_eq!(
            (get(port, path).status, get(port, path).code().as_str()),
            (400, "INVALID_REQUEST"),
            "{path}"
        );
    }
    for path in [
        "/nothing",
        "/topics/none",
        "/topics/t/messages?partition=7",
        "/groups/none",
        "/brokers/99",
        "/brokers/x",
        "/configs/else/t",
        "/configs/topic/none",
        "/configs/broker/99",
        "/topics/..%2f..%2fetc%2fpasswd",
        "/topics/%00",
    ] {
        assert_eq!(get(port, path).status, 404, "{path}");
    }
    for path in [
        "/console/../../etc/passwd",
        "/console/..%2f..%2fetc%2fpasswd",
        "/console/%2e%2e/Cargo.toml",
        "/console//etc/passwd",
        "/console/none.js",
    ] {
        let answer = call(port, "GET", path, &[], None);
        assert!(answer.status == 404 && !answer.body.starts_with(b"root:"), "{path}");
    }
    assert_eq!(get(port, "/topics/%ff").status, 400);
    let body = vec![b'['; 70_000];
    let head = format!(
        "POST /api/v1/topics HTTP/1.1\r\nHost: x\r\nX-Ottla-Console: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(raw(port, &[head.as_bytes(), &body].concat()).status, 413);
    assert_eq!(raw(port, b"GET /api/v1/cluster HTTP/1.1\r\nHost: x\r\n\xff\xfe: 1\r\n\r\n").status, 400);
    assert_eq!(call(port, "PATCH", "/api/v1/topics", &[CONSOLE], None).status, 405);

    let page = call(port, "GET", "/console/", &[], None);
    assert!(
        page.head.contains("content-security-policy: default-src 'none'; script-src 'self'")
            && page.head.contains("x-frame-options: deny"),
        "{}",
        page.head
    );
    let tag = page.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    assert_eq!(call(port, "GET", "/console/", &[("If-None-Match", &tag)], None).status, 304);
    assert_eq!(call(port, "GET", "/", &[], None).status, 307);
    assert!(cluster.nodes[0].is_running());
}

/// Another site's page may change nothing, whatever it makes a browser send.
#[test]
fn changes_come_from_the_console_only() {
    let cluster = Cluster::start(1, &[]).unwrap();
    let port = cluster.nodes[0].http_port;
    let body = json!({ "name": "t" });
    let origin = format!("http://127.0.0.1:{port}");
    let create = |headers: &[(&str, &str)]| call(port, "POST", "/api/v1/topics", headers, Some(&body)).status;
    assert_eq!(create(&[]), 403);
    assert_eq!(create(&[("Content-Type", "text/plain"), ("Origin", &origin)]), 403);
    assert_eq!(create(&[CONSOLE, ("Origin", "http://evil.example")]), 403);
    assert_eq!(create(&[CONSOLE, ("Origin", "null")]), 403);
    assert_eq!(create(&[CONSOLE, ("Sec-Fetch-Site", "cross-site")]), 403);
    let asked = call(
        port,
        "OPTIONS",
        "/api/v1/topics",
        &[
            ("Origin", "http://evil.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "x-ottla-console"),
        ],
        None,
    );
    assert!(!asked.head.contains("access-control-allow"), "{}", asked.head);
    assert_eq!(create(&[CONSOLE, ("Origin", &origin), ("Sec-Fetch-Site", "same-origin")]), 200);
}

/// A node whose only Kafka listener asks for SASL.
fn with_sasl(extra: &str) -> Cluster {
    let cluster = Cluster::prepare(1, &[]).unwrap();
    rewrite(&cluster, |text| {
        let node = &cluster.nodes[0];
        let kept: String = text
            .lines()
            .filter(|line| !line.starts_with("listeners=") && !line.starts_with("listener.security"))
            .fold(String::new(), |kept, line| kept + line + "\n");
        kept + &format!(
            "listeners=SASL://{},CONTROLLER://{}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT\n\
             inter.broker.listener.name=SASL\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             sasl.mechanism.inter.broker.protocol=PLAIN\n\
             listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
             username=\"node\" password=\"node-secret\" user_node=\"node-secret\" user_bob=\"bob-secret\";\n{extra}",
            node.kafka(),
            node.grpc(),
        )
    });
    cluster
}

fn rewrite(cluster: &Cluster, change: impl FnOnce(String) -> String) {
    let path = cluster.nodes[0].directory().join("server.properties");
    std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
}

fn basic(login: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
}

/// As somebody: a question, or with a body a change.
fn as_user(port: u16, login: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    call(port, method, &format!("/api/v1{path}"), &[CONSOLE, ("Authorization", &basic(login))], body)
}

/// Rules hold in the console as at a listener: for users of PLAIN, of SCRAM, and for nobody.
#[test]
fn users_of_the_listeners_do_what_rules_allow() {
    let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n";
    let mut cluster = with_sasl(&format!("{authorizer}super.users=User:node;User:ANONYMOUS\n"));
    let port = cluster.nodes[0].http_port;
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    // The command reaches the admin plane as nobody, which is a super user until the next start.
    cluster.create_topic("open", 1, 1, &[]).unwrap();
    cluster.create_topic("hidden", 1, 1, &[]).unwrap();
    cluster.ottla_with_input(&["user", "add", "alice"], b"alice-secret\n").unwrap().ok().unwrap();
    for line in [
        "--principal User:alice --topic open --operation read",
        "--principal User:alice --group team --operation describe",
        "--principal User:bob --topic open --operation describe",
    ] {
        let rule = format!("acl add {line}");
        cluster.ottla(&rule.split(' ').collect::<Vec<_>>()).unwrap().ok().unwrap();
    }
    cluster.nodes[0].stop().unwrap();
    rewrite(&cluster, |text| text.replace(";User:ANONYMOUS", ""));
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    let names = |login: &str| -> Vec<String> {
        let found = as_user(port, login, "GET", "/topics", None).ok();
        found["topics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    eventually(Duration::from_secs(20), "the broker takes logins", || {
        Ok((as_user(port, "node:node-secret", "GET", "/session", None).status == 200).then_some(()))
    })
    .unwrap();
    assert_eq!(names("node:node-secret"), ["hidden", "open"]);
    assert_eq!(names("alice:alice-secret"), ["open"]);
    assert_eq!(names("bob:bob-secret"), ["open"]);
    let alice = |method: &str, path: &str, body: Option<&Value>| {
        as_user(port, "alice:alice-secret", method, path, body)
    };
    alice("GET", "/topics/open/messages", None).ok();
    for (method, path, body) in [
        ("GET", "/topics/hidden", None),
        ("GET", "/topics/hidden/messages", None),
        ("GET", "/configs/topic/open", None),
        ("GET", "/configs/broker/1", None),
        ("GET", "/groups/other", None),
        ("GET", "/quorum", None),
        ("GET", "/traffic", None),
        ("DELETE", "/topics/open", None),
        ("DELETE", "/groups/team", None),
        ("POST", "/topics", Some(json!({ "name": "new" }))),
        ("POST", "/topics/open/partitions", Some(json!({ "count": 2 }))),
        ("PUT", "/configs/topic/open", Some(json!({ "set": { "retention.ms": "1" } }))),
    ] {
        let answer = alice(method, path, body.as_ref());
        assert!(
            answer.status == 403 && answer.code().ends_with("_AUTHORIZATION_FAILED"),
            "{method} {path}: {}",
            answer.json()
        );
        assert!(
            !answer.json()["error"]["message"].as_str().unwrap().contains("_FAILED"),
            "a name is no message"
        );
    }
    assert_eq!(alice("GET", "/cluster", None).ok()["trouble"], Value::Null);
    assert_eq!(
        as_user(port, "bob:bob-secret", "GET", "/topics/open/messages", None).code(),
        "TOPIC_AUTHORIZATION_FAILED"
    );
    as_user(port, "node:node-secret", "POST", "/topics", Some(&json!({ "name": "new" }))).ok();
    // Nobody sees what rules allow to everybody, which is nothing.
    assert_eq!(get(port, "/topics").ok()["page"]["total"], 0);
    assert_eq!(get(port, "/topics/open/messages").status, 403);
    let session = get(port, "/session").ok();
    assert_eq!(
        (session["principal"].as_str(), session["login_offered"].as_bool()),
        (Some("User:ANONYMOUS"), Some(true))
    );
    for login in [
        "alice:wrong",
        "alice:",
        ":",
        "nobody:alice-secret",
        "alice:alice-secret ",
        "bob:alice-secret",
        "node",
    ] {
        let refused = as_user(port, login, "GET", "/session", None);
        assert_eq!(refused.status, 401, "{login}");
        assert!(!refused.head.contains("www-authenticate"), "the console asks by itself: {}", refused.head);
    }
    let refused = call(port, "GET", "/api/v1/session", &[("Authorization", &basic("alice:wrong"))], None);
    assert!(refused.head.contains("www-authenticate: basic"), "{}", refused.head);
    let long = format!("Basic {}", "A".repeat(4_000));
    assert_eq!(call(port, "GET", "/api/v1/session", &[("Authorization", &long)], None).status, 401);
}

/// Where the listeners ask who one is, the console does too, although nothing is judged afterwards.
#[test]
fn without_an_authorizer_the_console_is_no_way_around_a_login() {
    let mut cluster = with_sasl("");
    let port = cluster.nodes[0].http_port;
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    for path in ["/session", "/topics", "/topics/t/messages", "/cluster"] {
        assert_eq!(get(port, path).status, 401, "{path}");
    }
    assert_eq!(change(port, "DELETE", "/topics/t", None).status, 401);
    as_user(port, "bob:bob-secret", "GET", "/topics/t/messages", None).ok();
    as_user(port, "bob:bob-secret", "DELETE", "/topics/t", None).ok();
    // Probes and metrics stay open: whoever scrapes has no login.
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(call(port, "GET", path, &[], None).status, 200, "{path}");
    }
}
