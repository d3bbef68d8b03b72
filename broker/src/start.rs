//! What a broker that starts sets going: it follows the metadata, replicates, keeps its session with the controller, and publishes
//! what it measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ottla_metadata::image::BrokerId;
use ottla_proto::controller as proto;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::BrokerContext;
use crate::controller_link::{SessionEnd, SessionOptions, SessionSignals, follow_metadata, run_session};
use crate::readiness::Readiness;
use crate::registration::register;
use crate::replica::background;
use crate::replication::directory_updates::{self, DirectoryStates};
use crate::replication::{fetcher, isr_updates};
use crate::security::publish::Publisher;

/// What the parts of a start share.
pub(crate) struct Start<'a> {
    pub(crate) context: &'a Arc<BrokerContext>,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) stop: &'a CancellationToken,
    /// Told what this process cannot go on after.
    pub(crate) failed: watch::Sender<Option<String>>,
}

impl Start<'_> {
    /// Follows the metadata; replicas and coordinators take each image before it is published. Give it the index of the
    /// registration: nothing is published before that is reached.
    pub(crate) fn follow(&self) -> watch::Sender<i64> {
        let (registered_sender, registered) = watch::channel(-1);
        let context = Arc::clone(self.context);
        let failed = self.failed.clone();
        let stop = self.stop.child_token();
        let image = context.image.clone();
        let client = context.controller.clone();
        let node_id = context.options.node_id;
        self.tasks.spawn(async move {
            let applying = Arc::clone(&context);
            let publisher = Publisher::new(
                context.security.credentials.clone(),
                Arc::clone(&context.quotas),
                context.token_secret.clone(),
            );
            let on_image = move |image: &Arc<_>, delta: Option<&ottla_metadata::image::MetadataDelta>| {
                // Applying creates and deletes files.
                tokio::task::block_in_place(|| {
                    applying.departed.apply_image(image, std::time::Instant::now());
                    applying.replicas.apply_image(image, delta);
                    applying.groups.apply_image(image, delta, applying.options.node_id);
                    applying.transactions.apply_image(image, applying.options.node_id);
                    applying.share.apply_image(image, applying.options.node_id);
                    publisher.apply_image(image, delta);
                });
            };
            if let Err(error) = follow_metadata(client, node_id, image, registered, on_image, stop).await {
                tracing::error!(%error, "this broker cannot go on");
                failed.send_replace(Some(error.to_string()));
            }
        });
        registered_sender
    }

    /// Follows other leaders, proposes ISRs, and does what the clock asks of replicas.
    pub(crate) fn replicate(&self) {
        let manager = &self.context.replicas;
        background::start(manager, self.tasks, self.stop);
        self.tasks.spawn(fetcher::run(Arc::clone(manager), self.stop.child_token()));
        let client = Arc::new(self.context.controller.clone());
        self.tasks.spawn(isr_updates::run(Arc::clone(manager), client, self.stop.child_token()));
    }

    /// Keeps the session with the controller; registers again when the controller has forgotten this broker.
    pub(crate) fn keep_session(
        &self,
        epoch: i64,
        registration: proto::RegisterBrokerRequest,
    ) -> (watch::Sender<bool>, watch::Receiver<bool>, watch::Receiver<bool>) {
        let (want_shut_down, shut_down) = watch::channel(false);
        let (may_stop_sender, may_stop) = watch::channel(false);
        let (fenced_sender, fenced) = watch::channel(true);
        let (ready_sender, ready) = watch::channel(true);
        let (directories_sender, directories) = watch::channel(DirectoryStates::default());
        self.tasks.spawn(directory_updates::run(
            Arc::clone(&self.context.replicas),
            self.context.controller.clone(),
            directories_sender,
            self.failed.clone(),
            self.stop.child_token(),
        ));
        let lease_regained = Arc::new(Notify::new());
        let metadata_index = Arc::new(AtomicI64::new(-1));
        let metadata_moved = Arc::new(Notify::new());
        let signals = SessionSignals {
            grant: Arc::clone(&self.context.grant),
            lease_regained: Arc::clone(&lease_regained),
            metadata_index: Arc::clone(&metadata_index),
            metadata_moved: Arc::clone(&metadata_moved),
            fenced: fenced_sender,
            directories,
            ready,
            shut_down,
            may_stop: may_stop_sender,
        };
        self.watch_signals(fenced.clone(), lease_regained, metadata_index, metadata_moved);
        let holding = hold_session(
            Arc::clone(self.context),
            epoch,
            registration,
            signals,
            self.failed.clone(),
            self.stop.child_token(),
        );
        self.tasks.spawn(async move {
            // Held as long as the session: a broker that has come this far can serve.
            let _held = ready_sender;
            holding.await;
        });
        (want_shut_down, may_stop, fenced)
    }

    /// Readiness follows fencing and the in-sync replicas; the session tells the controller how far the metadata is applied;
    /// acknowledgements that waited for a lease are looked at when it is back.
    fn watch_signals(
        &self,
        mut fenced: watch::Receiver<bool>,
        lease_regained: Arc<Notify>,
        metadata_index: Arc<AtomicI64>,
        metadata_moved: Arc<Notify>,
    ) {
        let context = Arc::clone(self.context);
        let stop = self.stop.child_token();
        let mut index = context.image.watch();
        let mut readiness = Readiness::default();
        let own_id = BrokerId(context.options.node_id);
        self.tasks.spawn(async move {
            loop {
                let applied = *index.borrow_and_update();
                if metadata_index.swap(applied, Ordering::AcqRel) != applied {
                    metadata_moved.notify_one();
                }
                let is_fenced = *fenced.borrow_and_update();
                let why_not = readiness.why_not(is_fenced, &context.image.current(), own_id);
                if why_not.is_none() {
                    context.metrics.ready();
                }
                context.options.status.set("broker", why_not);
                context.metrics.fenced.set(i64::from(is_fenced));
                tokio::select! {
                    changed = fenced.changed() => if changed.is_err() { return },
                    changed = index.changed() => if changed.is_err() { return },
                    () = lease_regained.notified() => context.replicas.tick(),
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    /// What `/metrics` shows.
    pub(crate) fn publish_metrics(&self) {
        let groups = Arc::clone(&self.context.groups);
        self.tasks.spawn(Arc::clone(&groups).watch_lag(self.stop.child_token()));
        self.context.options.status.add_metrics(move || groups.lag_page());
        let share = Arc::clone(&self.context.share);
        self.context.options.status.add_metrics(move || share.page());
        let context = Arc::clone(self.context);
        context.metrics.watch(&context);
        self.context
            .options
            .status
            .add_metrics(move || context.telemetry.page(context.grant.clock().monotonic_ms()));
        let context = Arc::clone(self.context);
        self.context.options.status.add_metrics(move || {
            let metrics = &context.metrics;
            let open = context.connections.get().map_or(0, |limits| limits.open());
            metrics.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
            metrics.metadata_index.set(context.image.index());
            let (open, oldest_ms) = context.transactions.open();
            metrics.transactions_open.set(i64::try_from(open).unwrap_or(i64::MAX));
            let age_ms = oldest_ms.map_or(0, |begun_ms| BrokerContext::now_ms() - begun_ms);
            metrics.transaction_age_seconds_max.set(age_ms.max(0) as f64 / 1_000.0);
            metrics.encode()
        });
    }
}

/// Holds the session, in one registration after the other, until the broker stops or is not taken any more.
async fn hold_session(
    context: Arc<BrokerContext>,
    epoch: i64,
    registration: proto::RegisterBrokerRequest,
    mut signals: SessionSignals,
    failed: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut options = SessionOptions {
        broker_id: context.options.node_id,
        broker_epoch: epoch,
        heartbeat_interval: context.options.heartbeat_interval,
    };
    loop {
        let end;
        (end, signals) = run_session(&context.controller, &options, signals, stop.clone()).await;
        let SessionEnd::RegisterAgain(why) = end else { return };
        tracing::warn!(why, "the controller does not know this broker any more; registering again");
        context.grant.lose_lease();
        signals.fenced.send_replace(true);
        let mut request = registration.clone();
        context.image.current().cluster_id().clone_into(&mut request.cluster_id);
        let registered = tokio::select! {
            registered = register(&context, &request) => registered,
            () = stop.cancelled() => return,
        };
        match registered {
            Ok((epoch, _)) => options.broker_epoch = epoch,
            Err(error) => {
                failed.send_replace(Some(error.to_string()));
                return;
            }
        }
    }
}
