//! Properties of Kafka that are understood and have nothing to do here, because what they tune is built otherwise or absent.
//! Whoever sets one is told once, and the reference says why.

/// Names, and what is so instead. A name that ends in a dot stands for all that begin with it.
const WITHOUT_EFFECT: &[(&[&str], &str)] = &[
    (
        &["background.threads", "num.io.threads", "num.network.threads"],
        "threads are those of the runtime, as many as the machine has processors",
    ),
    (&["num.replica.fetchers"], "one connection to each leader's broker fetches all partitions"),
    (&["log.preallocate", "preallocate"], "segments grow as they are written"),
    (
        &[
            "local.retention.bytes",
            "local.retention.ms",
            "log.local.retention.bytes",
            "log.local.retention.ms",
            "remote.storage.enable",
        ],
        "tiered storage is not offered",
    ),
    (
        &["add.partitions.to.txn.retry.backoff.max.ms", "add.partitions.to.txn.retry.backoff.ms"],
        "coordinators and the metadata's leader wait for a transaction's end themselves: there is no asking anew",
    ),
    (
        &[
            "alter.log.dirs.replication.quota.window.num",
            "alter.log.dirs.replication.quota.window.size.seconds",
        ],
        "moves between log directories are throttled over windows of a fixed length",
    ),
    (
        &["replication.quota.window.num", "replication.quota.window.size.seconds"],
        "replication is throttled over windows of a fixed length",
    ),
    (
        &["controller.performance.always.log.threshold.ms", "controller.performance.sample.period.ms"],
        "the time of decisions is among the metrics",
    ),
    (
        &[
            "controller.quorum.append.linger.ms",
            "controller.quorum.election.backoff.max.ms",
            "controller.quorum.fetch.max.bytes",
            "controller.quorum.fetch.snapshot.max.bytes",
            "controller.quorum.fetch.timeout.ms",
            "controller.quorum.request.timeout.ms",
            "controller.quorum.retry.backoff.ms",
        ],
        "a leader sends entries to the others at once; silence and elections follow controller.quorum.election.timeout.ms",
    ),
    (&["controller.socket.timeout.ms"], "a call of a controller is given up after 10 s"),
    (
        &[
            "delete.records.purgatory.purge.interval.requests",
            "fetch.purgatory.purge.interval.requests",
            "producer.purgatory.purge.interval.requests",
            "share.fetch.purgatory.purge.interval.requests",
        ],
        "requests that wait are counted and leave by themselves: there is no purgatory to purge",
    ),
    (&["early.start.listeners"], "the gRPC listener is open first, all others when the broker can serve"),
    (
        &[
            "group.coordinator.append.linger.ms",
            "group.coordinator.background.threads",
            "group.coordinator.cached.buffer.max.bytes",
            "group.coordinator.threads",
            "share.coordinator.append.linger.ms",
            "share.coordinator.cached.buffer.max.bytes",
            "share.coordinator.threads",
        ],
        "a coordinator runs where its partition leads, without threads of its own; group commit takes the place of a linger",
    ),
    (
        &["group.coordinator.rebalance.protocols"],
        "of its values streams alone counts; the others are offered by the levels of group.version and share.version",
    ),
    (&["group.share.assignors"], "the one assignor of share groups that there is, simple, is always used"),
    (
        &[
            "internal.metadata.delete.delay.millis",
            "internal.metadata.log.segment.bytes",
            "internal.metadata.max.batch.size.in.bytes",
            "internal.segment.bytes",
            "unstable.api.versions.enable",
            "unstable.feature.versions.enable",
        ],
        "a test's setting of Kafka's",
    ),
    (
        &[
            "log.cleaner.io.buffer.load.factor",
            "log.cleaner.io.buffer.size",
            "offsets.load.buffer.size",
            "queued.max.request.bytes",
            "queued.max.requests",
            "replica.socket.receive.buffer.bytes",
            "share.coordinator.load.buffer.size",
            "transaction.state.log.load.buffer.size",
        ],
        "buffers have fixed bounds",
    ),
    (
        &["log.dir.failure.timeout.ms"],
        "a failed directory is told to the controllers at once, and a broker whose every directory failed stops",
    ),
    (&["log.flush.start.offset.checkpoint.interval.ms"], "a log's start is kept with each change of it"),
    (&["log.initial.task.delay.ms"], "retention and flushing begin with the start"),
    (
        &[
            "metadata.log.segment.bytes",
            "metadata.log.segment.ms",
            "metadata.max.idle.interval.ms",
            "metadata.max.retention.bytes",
            "metadata.max.retention.ms",
        ],
        "the metadata log is a Raft log that ends where its last snapshot begins; a leader's word is a heartbeat, not a record",
    ),
    (
        &["metrics.num.samples", "metrics.recording.level", "metrics.sample.window.ms"],
        "metrics are counters and histograms that Prometheus reads at /metrics: there are no samples",
    ),
    (
        &["offsets.topic.compression.codec", "share.coordinator.state.topic.compression.codec"],
        "what coordinators write is small: it is kept as it comes",
    ),
    (
        &["producer.id.expiration.check.interval.ms"],
        "producers that have expired are looked for with retention",
    ),
    (
        &[
            "follower.fetch.last.tiered.offset.enable",
            "remote.fetch.max.wait.ms",
            "remote.list.offsets.request.timeout.ms",
            "remote.log.copy.disable",
            "remote.log.delete.on.disable",
            "remote.log.metadata.custom.metadata.max.bytes",
            "remote.log.reader.max.pending.tasks",
            "remote.log.reader.threads",
            "remote.log.storage.system.enable",
            "remote.log.index.file.cache.",
            "remote.log.manager.",
            "remote.log.metadata.manager.",
            "remote.log.storage.manager.",
        ],
        "tiered storage is not offered",
    ),
    (
        &[
            "sasl.login.connect.timeout.ms",
            "sasl.login.read.timeout.ms",
            "sasl.login.refresh.buffer.seconds",
            "sasl.login.refresh.min.period.seconds",
            "sasl.login.refresh.window.factor",
            "sasl.login.refresh.window.jitter",
            "sasl.login.retry.backoff.max.ms",
            "sasl.login.retry.backoff.ms",
            "sasl.oauthbearer.scope",
            "sasl.oauthbearer.assertion.",
            "sasl.oauthbearer.client.credentials.",
        ],
        "nodes sign in to each other by PLAIN, SCRAM or certificates, not by tokens of an authority",
    ),
    (
        &["server.max.startup.time.ms"],
        "a start waits as long as it takes; whoever supervises the process sets a limit",
    ),
    (
        &["socket.connection.setup.timeout.max.ms", "socket.connection.setup.timeout.ms"],
        "connections between nodes are given up after a fixed time",
    ),
    (
        &["ssl.allow.dn.changes", "ssl.allow.san.changes"],
        "a certificate may change freely: it is read anew when its file changes",
    ),
    (&["ssl.protocol"], "ssl.enabled.protocols says which versions are spoken"),
    (
        &["unclean.leader.election.interval.ms"],
        "an election that needs a replica out of sync happens as soon as nothing better is left",
    ),
    (&["transaction.two.phase.commit.enable"], "transactions of two phases (KIP-939) are refused"),
];

/// Why a property has no effect; `None`: it has one, or its name is not known.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let is_named = |known: &str| known == name || (known.ends_with('.') && name.starts_with(known));
    let found = WITHOUT_EFFECT.iter().find(|(names, _)| names.iter().any(|known| is_named(known)));
    found.map(|(_, reason)| *reason)
}
