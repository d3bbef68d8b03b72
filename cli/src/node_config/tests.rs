//! Every kind of problem of a node file, and the files that must work.

use super::*;

const GOOD: &str = "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
log.dirs=/tmp/a,/tmp/b
";

fn load(text: &str, flags: &[(&str, &str)]) -> (Option<NodeConfig>, Findings) {
    let flags: Vec<_> = flags.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    NodeConfig::load(text, [], &flags)
}

/// The problems of the good file with some settings changed.
fn problems(flags: &[(&str, &str)]) -> Vec<String> {
    let (config, findings) = load(GOOD, flags);
    assert_eq!(config.is_none(), !findings.problems.is_empty());
    findings.problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_problem(flags: &[(&str, &str)], expected: &str) {
    let problems = problems(flags);
    assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
}

#[test]
fn a_good_file_is_read() {
    let (config, findings) = load(GOOD, &[]);
    assert_eq!(findings, Findings::default());
    let config = config.unwrap();
    assert_eq!((config.node_id, config.roles), (1, Roles { broker: true, controller: true }));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.advertised, config.listeners);
    assert_eq!(config.inter_broker_listener, "PLAINTEXT");
    assert_eq!(config.grpc.unwrap().endpoint.to_string(), "127.0.0.1:9093");
    assert_eq!(config.voters, [(1, Address::parse("127.0.0.1:9093").unwrap())]);
    assert_eq!(config.log_dirs, [PathBuf::from("/tmp/a"), PathBuf::from("/tmp/b")]);
    assert_eq!(config.metadata_dir, PathBuf::from("/tmp/a/__cluster_metadata"));
    assert_eq!(config.http.unwrap().to_string(), "0.0.0.0:9644");
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn the_file_that_kafka_comes_with_is_taken() {
    let text = "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
socket.send.buffer.bytes=102400
log.dirs=/tmp/kraft-combined-logs
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
";
    let (config, findings) = load(text, &[]);
    assert_eq!(findings, Findings::default());
    let config = config.unwrap();
    assert_eq!(config.voters, [(1, Address::parse("localhost:9093").unwrap())]);
    assert_eq!(config.advertised[0].address.to_string(), "localhost:9092");
    assert_eq!(config.grpc.unwrap().endpoint.to_string(), "localhost:9093");
}

#[test]
fn later_sources_win() {
    let environment =
        [("OTTLA_LOG_SEGMENT_BYTES".to_owned(), "2000000".to_owned()), ("HOME".into(), "/x".into())];
    let set = [("num.partitions".to_owned(), "7".to_owned())];
    let text = format!("{GOOD}log.segment.bytes=3000000\nnum.partitions=3\n");
    let (config, findings) = NodeConfig::load(&text, environment, &set);
    assert_eq!(findings, Findings::default());
    let properties = config.unwrap().properties;
    assert_eq!((&*properties["log.segment.bytes"], &*properties["num.partitions"]), ("2000000", "7"));
}

#[test]
fn a_broker_only_needs_to_know_where_controllers_are() {
    let text = "process.roles=broker\nnode.id=5\nlisteners=PLAINTEXT://h:9092\ncontroller.listener.names=CONTROLLER\n\
                controller.quorum.bootstrap.servers=a:9093,b:9093\nlog.dirs=/tmp/a\n";
    let (config, findings) = load(text, &[]);
    assert_eq!(findings, Findings::default());
    let config = config.unwrap();
    assert_eq!((config.controllers.len(), config.voters.len(), config.grpc), (2, 0, None));
    let (config, _) = load(text, &[("listeners", "PLAINTEXT://h:9092,CONTROLLER://h:9093")]);
    assert!(config.unwrap().grpc.is_some());
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text =
        "process.roles=brocker\nlog.segment.bytes=10\nlistners=PLAINTEXT://:9092\nnode.id=-3\nlog.dirs=\n";
    let (config, findings) = load(text, &[]);
    assert!(config.is_none());
    let shown: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
    for (at, expected) in [
        "line 1: process.roles: Invalid value brocker",
        "line 2: log.segment.bytes",
        "line 3: listners: no such property; did you mean listeners?",
        "line 4: node.id: Invalid value -3",
        "line 5: log.dirs: names no directory",
    ]
    .iter()
    .enumerate()
    {
        assert!(shown[at].starts_with(expected), "{at}: {shown:#?}");
    }
}

#[test]
fn an_empty_file_lacks_what_a_node_needs() {
    let (config, findings) = load("", &[]);
    assert!(config.is_none());
    let names: Vec<&str> = findings.problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["process.roles", "node.id", "controller.listener.names", "controller.quorum.voters"]);
}

#[test]
fn roles_and_ids_are_checked() {
    assert_problem(&[("process.roles", "zookeeper")], "among: broker, controller");
    assert_problem(&[("node.id", "-1")], "at least 0");
    assert_problem(&[("node.id", "one")], "node.id");
    assert_eq!(problems(&[("node.id", "one")]).len(), 1);
    assert_problem(&[("broker.id", "2")], "remove broker.id");
}

#[test]
fn voters_are_checked() {
    assert_problem(&[("node.id", "7")], "this controller is not among them: add 7@");
    assert_problem(&[("controller.quorum.voters", "127.0.0.1:9093")], "not ID@HOST:PORT");
    assert_problem(&[("controller.quorum.voters", "1@127.0.0.1")], "not HOST:PORT");
    assert_problem(&[("process.roles", "broker")], "process.roles does not make it a controller");
}

/// KIP-853: a controller that knows where others are, and not who votes, finds that out and follows them.
#[test]
fn a_controller_may_find_the_quorum_by_bootstrap_servers() {
    let without = GOOD.replace("controller.quorum.voters=1@127.0.0.1:9093\n", "");
    let of = |servers: &str| {
        let (config, findings) = load(&without, &[("controller.quorum.bootstrap.servers", servers)]);
        assert_eq!(findings, Findings::default());
        let config = config.unwrap();
        (config.voters.len(), config.bootstrap_servers.len(), config.controllers.len())
    };
    assert_eq!(of("a:1,b:2"), (0, 2, 2));
    assert_eq!(of("localhost:9093"), (1, 0, 1), "a node that names itself alone is a cluster of its own");
    assert_eq!(of("other:9093"), (0, 1, 1), "the same port of another host is another node");
    let both = [("controller.quorum.bootstrap.servers", "127.0.0.1:9093,b:2"), ("node.id", "4")];
    let (config, findings) = load(GOOD, &both);
    assert_eq!(findings, Findings::default());
    assert_eq!(config.unwrap().controllers.len(), 2);
}

#[test]
fn listeners_are_checked() {
    assert_problem(&[("listeners", "PLAINTEXT:9092")], "not NAME://HOST:PORT");
    assert_problem(&[("listeners", "PLAINTEXT://h:99999,CONTROLLER://h:1")], "is no port");
    assert_problem(&[("listeners", "PLAINTEXT://:9092,CONTROLLER://:9092")], "the same port 9092");
    assert_problem(&[("listeners", "PLAINTEXT://h:9092")], "a controller needs the listener CONTROLLER");
    assert_problem(&[("listeners", "CONTROLLER://h:9093")], "a broker needs a Kafka listener");
    assert_problem(&[("process.roles", "controller")], "only a controller has no Kafka listener");
    assert_problem(
        &[("listeners", "EXTERNAL://h:9092,CONTROLLER://h:9093")],
        "says nothing of the listener EXTERNAL",
    );
    assert_problem(&[("listeners", "PLAINTEXT://0.0.0.0:9092,CONTROLLER://h:9093")], "leads nowhere");
    assert_problem(&[("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")], "leads nowhere");
    assert_problem(&[("advertised.listeners", "OTHER://h:9092")], "OTHER is not among the listeners");
    assert_problem(&[("controller.listener.names", "")], "is missing: name the listener");
    // Any port may be free twice.
    let free = ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0");
    assert_eq!(problems(&[free]), Vec::<String>::new());
}

#[test]
fn every_listener_has_a_protocol() {
    let map = |map| [("listener.security.protocol.map", map)];
    let (config, _) = load(GOOD, &map("PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT,OTHER:SSL"));
    assert_eq!(config.unwrap().protocol("PLAINTEXT"), SecurityProtocol::SaslSsl);
    let (config, _) = load(
        GOOD,
        &[("listeners", "SSL://h:9092,CONTROLLER://h:9093"), ("inter.broker.listener.name", "SSL")],
    );
    assert_eq!(config.unwrap().protocol("SSL"), SecurityProtocol::Ssl);
    let (config, _) = load(GOOD, &map("PLAINTEXT:SSL,CONTROLLER:SSL"));
    let config = config.unwrap();
    assert_eq!(config.protocol(&config.controller_listener), SecurityProtocol::Ssl);
    let (config, _) = load(GOOD, &map("PLAINTEXT:SSL,CONTROLLER:SASL_SSL"));
    let config = config.unwrap();
    assert_eq!(config.protocol(&config.controller_listener), SecurityProtocol::SaslSsl);
    assert_problem(&map("PLAINTEXT:TLS"), "is not NAME:PROTOCOL");
    assert_problem(&map("PLAINTEXT:PLAINTEXT"), "says nothing of the listener CONTROLLER");
}

#[test]
fn the_listener_between_brokers_is_checked() {
    assert_problem(&[("inter.broker.listener.name", "CONTROLLER")], "is the controllers' listener");
    assert_problem(
        &[("inter.broker.listener.name", "INTERNAL")],
        "not among the advertised listeners (PLAINTEXT)",
    );
    let both = [("inter.broker.listener.name", "PLAINTEXT"), ("security.inter.broker.protocol", "PLAINTEXT")];
    assert_problem(&both, "only one of");
    let named = [
        ("listeners", "INTERNAL://h:9092,CONTROLLER://h:9093"),
        ("listener.security.protocol.map", "INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("inter.broker.listener.name", "internal"),
    ];
    assert_eq!(problems(&named), Vec::<String>::new());
}

#[test]
fn a_listener_on_every_address_is_told_by_the_name_of_the_machine() {
    let (config, _) = load(GOOD, &[("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093")]);
    let config = config.unwrap();
    assert!(!config.advertised[0].address.is_wildcard());
    assert_eq!(config.advertised[0].address.port, 9092);
}

#[test]
fn directories_and_the_http_port_are_checked() {
    assert_problem(&[("log.dirs", "/tmp/a,/tmp/a")], "/tmp/a is there twice");
    assert_problem(&[("ottla.http.listener", "nowhere")], "not HOST:PORT");
    assert_problem(&[("ottla.http.listener", "ftp://h:1")], "neither http nor https");
    let (config, _) = load(GOOD, &[("ottla.http.listener", "https://:9644")]);
    assert!(config.unwrap().http.unwrap().is_tls);
    let (config, _) = load(GOOD, &[("ottla.http.listener", ""), ("metadata.log.dir", "/tmp/m")]);
    let config = config.unwrap();
    assert_eq!((config.http, config.metadata_dir), (None, PathBuf::from("/tmp/m/__cluster_metadata")));
}

#[test]
fn what_is_not_there_yet_is_not_taken_for_done() {
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    assert_eq!(problems(&[("authorizer.class.name", authorizer)]), Vec::<String>::new());
    assert_problem(&[("authorizer.class.name", "com.example.Mine")], "StandardAuthorizer");
    assert_problem(&[("remote.log.storage.system.enable", "true")], "tiered storage");
    assert_eq!(problems(&[("remote.log.storage.system.enable", "false")]), Vec::<String>::new());
}
