//! gRPC channels to controllers, made so that a dead peer is noticed and a healed one is found again.

use std::time::Duration;

use ottla_proto::transport::Dial;
use tonic::transport::{Channel, Endpoint};

/// A connection that is not there after this long is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pings on an idle connection: without them a partitioned channel never heals.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest gRPC message either way; a snapshot comes in chunks below it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A channel that connects when first used and looks the name up at every dial.
pub(crate) fn connect(dial: &Dial, endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(32 * 1024 * 1024);
    Ok(dial.channel(&endpoint))
}
