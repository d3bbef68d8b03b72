//! Names that a Kafka node file may hold and that mean nothing here: they are accepted, with one warning that says what
//! takes their place.

/// How a name is recognised.
enum Pattern {
    Is(&'static str),
    Begins(&'static str),
    Ends(&'static str),
}

use Pattern::{Begins, Ends, Is};

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Is(whole) => name == *whole,
            Begins(start) => name.starts_with(start),
            Ends(end) => name.ends_with(end),
        }
    }
}

const METRICS: &str = "metrics are served for Prometheus at /metrics of ottla.http.listener";
const TLS: &str = "Java's TLS classes cannot be loaded; TLS is built in";
const PLUGINS: &str = "Java classes cannot be loaded; what is built in stays";
const QUORUM: &str = "there is no ZooKeeper: controllers form the quorum that controller.quorum.voters names";
const FORMAT: &str = "records are always kept in format version 2";
const TIMESTAMPS: &str =
    "its successors end in message.timestamp.before.max.ms and message.timestamp.after.max.ms";
const IDS: &str = "node ids are not generated: set node.id";
const SHUTDOWN: &str = "a controlled shutdown needs no retries: it is part of the heartbeat";
const QUOTAS: &str = "default quotas belong to the cluster's metadata, not to a node's file";
const PROVIDERS: &str = "values from elsewhere come in by the environment (OTTLA_…); ${…} is not replaced";
const REMOTE: &str = "tiered storage plug-ins are Java classes and cannot be loaded";
const CLUSTER: &str = "it is a feature of the cluster, whose level is metadata";

/// The first that matches counts.
const REPLACED: &[(Pattern, &str)] = &[
    (Begins("zookeeper."), QUORUM),
    (
        Is("control.plane.listener.name"),
        "controllers are reached over the listener of controller.listener.names",
    ),
    (Is("inter.broker.protocol.version"), CLUSTER),
    (Is("group.coordinator.new.enable"), CLUSTER),
    (Is("group.share.enable"), CLUSTER),
    (Is("eligible.leader.replicas.enable"), CLUSTER),
    (Is("log.message.format.version"), FORMAT),
    (Is("message.format.version"), FORMAT),
    (Is("log.message.downconversion.enable"), FORMAT),
    (Is("message.downconversion.enable"), FORMAT),
    (Is("log.message.timestamp.difference.max.ms"), TIMESTAMPS),
    (Is("message.timestamp.difference.max.ms"), TIMESTAMPS),
    (Is("broker.id.generation.enable"), IDS),
    (Is("reserved.broker.max.id"), IDS),
    (Is("controlled.shutdown.max.retries"), SHUTDOWN),
    (Is("controlled.shutdown.retry.backoff.ms"), SHUTDOWN),
    (
        Is("leader.imbalance.per.broker.percentage"),
        "there is no threshold: every leader that is not the preferred one counts",
    ),
    (Is("offsets.commit.required.acks"), "committed offsets are always written with acks=all"),
    (Is("quota.producer.default"), QUOTAS),
    (Is("quota.consumer.default"), QUOTAS),
    (Is("delegation.token.master.key"), "delegation.token.secret.key takes its place"),
    (Begins("password.encoder."), "secrets are not kept in metadata"),
    (Is("auto.include.jmx.reporter"), METRICS),
    (Is("metric.reporters"), METRICS),
    (Begins("kafka.metrics."), METRICS),
    (Begins("metrics.jmx."), METRICS),
    (Begins("confluent."), "it belongs to another vendor's server"),
    (Begins("config.providers."), PROVIDERS),
    (Is("config.providers"), PROVIDERS),
    (Begins("rsm.config."), REMOTE),
    (Begins("rlmm.config."), REMOTE),
    (Begins("remote.log.storage.manager."), REMOTE),
    (Begins("remote.log.metadata.manager."), REMOTE),
    (Is("security.providers"), TLS),
    (Ends("ssl.engine.factory.class"), TLS),
    (Ends("ssl.keymanager.algorithm"), TLS),
    (Ends("ssl.trustmanager.algorithm"), TLS),
    (Ends("ssl.provider"), TLS),
    (Ends("ssl.secure.random.implementation"), TLS),
    (Begins("sasl.kerberos."), "Kerberos is not offered"),
    (Ends(".class.name"), PLUGINS),
    (Ends("principal.builder.class"), PLUGINS),
    (Ends(".callback.handler.class"), PLUGINS),
    (Ends(".callback.class"), PLUGINS),
    (Ends("sasl.login.class"), PLUGINS),
    (Ends(".jwt.retriever.class"), PLUGINS),
    (Ends(".jwt.validator.class"), PLUGINS),
];

/// Its value says whether there is an authoriser at all, so that it is not a name without meaning.
const AUTHORIZER: &str = "authorizer.class.name";

/// What takes the place of a property that has no effect here: one that only a server on a JVM, or with ZooKeeper, knows, or
/// that tunes what is built otherwise. `None`: the name is not one of those.
pub fn replacement_note(name: &str) -> Option<&'static str> {
    if name == AUTHORIZER {
        return None;
    }
    let replaced = REPLACED.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, note)| *note);
    replaced.or_else(|| super::without_effect::reason(name))
}
