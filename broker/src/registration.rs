//! What a broker tells the cluster of itself, and how it gets the epoch that everything else of it carries.

use std::net::SocketAddr;
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_proto::metadata as records;

use crate::context::BrokerContext;
use crate::options::AdvertisedListener;
use crate::start_error::StartError;

/// Kafka's DUPLICATE_BROKER_REGISTRATION.
const DUPLICATE_BROKER_REGISTRATION: i32 = 101;
/// Between two attempts to register.
const REGISTRATION_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The advertised addresses; a port of 0 is the one that was bound.
pub(crate) fn advertised(
    listeners: &[AdvertisedListener],
    addresses: &[(String, SocketAddr)],
) -> Vec<records::Endpoint> {
    listeners
        .iter()
        .map(|listener| {
            let bound =
                addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, address)| address.port());
            let port = if listener.port == 0 { bound.unwrap_or(0) } else { listener.port };
            records::Endpoint {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: port.into(),
                security_protocol: listener.security_protocol.clone(),
            }
        })
        .collect()
}

/// What this broker is, as it registers: who it was before this start, where it listens, which directories it has.
pub(crate) fn registration(
    context: &BrokerContext,
    endpoints: Vec<records::Endpoint>,
) -> proto::RegisterBrokerRequest {
    let directories = context.replicas.directories();
    proto::RegisterBrokerRequest {
        cluster_id: directories.cluster_id().unwrap_or_default(),
        registration: Some(records::RegisterBrokerRecord {
            broker_id: context.options.node_id,
            incarnation_id: bytes::Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            endpoints,
            rack: context.options.rack.clone().unwrap_or_default(),
            log_directories: directories
                .ids()
                .into_iter()
                .map(|id| bytes::Bytes::copy_from_slice(id.as_bytes()))
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            grpc_endpoint: context.options.grpc_endpoint.clone().unwrap_or_default(),
            ..Default::default()
        }),
        previous_broker_epoch: directories.previous_broker_epoch(),
    }
}

/// Registers until the cluster takes or refuses the broker; gives its epoch and the cluster's id.
pub(crate) async fn register(
    context: &BrokerContext,
    request: &proto::RegisterBrokerRequest,
) -> Result<(i64, String), StartError> {
    let id = context.options.node_id;
    let patience = context.options.registration_timeout;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let reply = context
            .controller
            .register(request.clone(), left)
            .await
            .map_err(|error| StartError::Registration(id, error))?;
        match reply.failure.filter(|failure| failure.error_code != 0) {
            None => {
                context.grant.set_broker_epoch(reply.broker_epoch);
                context.replicas.directories().set_cluster_id(&reply.cluster_id)?;
                tracing::info!(
                    broker = id,
                    epoch = reply.broker_epoch,
                    cluster = reply.cluster_id,
                    "registered"
                );
                return Ok((reply.broker_epoch, reply.cluster_id));
            }
            // The lease of the process before this one runs out within the session timeout.
            Some(failure)
                if failure.error_code == DUPLICATE_BROKER_REGISTRATION
                    && tokio::time::Instant::now() < deadline =>
            {
                tracing::info!(reason = failure.message, "not registered yet; trying again");
                tokio::time::sleep(REGISTRATION_RETRY_PAUSE).await;
            }
            Some(failure) => return Err(StartError::Refused(id, failure.message)),
        }
    }
}
