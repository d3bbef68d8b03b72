//! Why a broker could not start: what whoever started it is told.

use crate::controller_link::LinkError;
use crate::replica::directories::OpenError;
use crate::security::SecurityError;

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken or an address is not this machine's; the text names the property.
    #[error("{0}")]
    Listen(#[source] std::io::Error),
    /// The log directories cannot be used.
    #[error(transparent)]
    Directories(#[from] OpenError),
    /// A listener cannot be protected as it is configured.
    #[error("listener security cannot be set up: {0}")]
    Security(#[from] SecurityError),
    /// The cluster does not take this broker, and says why.
    #[error("the cluster refused broker {0}: {1}")]
    Refused(i32, String),
    /// Nobody registered the broker in time.
    #[error("broker {0} could not register within initial.broker.registration.timeout.ms: {1}")]
    Registration(i32, LinkError),
    /// A background task of the start ended.
    #[error("the start was interrupted: {0}")]
    Interrupted(String),
}
