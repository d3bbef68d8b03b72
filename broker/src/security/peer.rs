//! How this broker opens connections to others: TLS and SASL of the listener that brokers use among themselves.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::properties::{ListenerProperties, Properties};
use super::protocol::SecurityProtocol;
use super::sasl::settings::ClientLogin;
use super::{SecurityError, tls};

/// A connection of either kind.
pub trait PeerStream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> PeerStream for S {}

/// How brokers are reached, and as whom.
#[derive(Default)]
struct Settings {
    tls: Option<Arc<ClientConfig>>,
    login: Option<ClientLogin>,
}

/// The way to other brokers as it is configured now; by itself plain. Clones share it.
#[derive(Clone, Default)]
pub struct PeerSecurity(Arc<ArcSwapOption<Settings>>);

impl fmt::Debug for PeerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.0.load();
        let is_encrypted = current.as_ref().is_some_and(|settings| settings.tls.is_some());
        f.debug_struct("PeerSecurity").field("encrypted", &is_encrypted).finish_non_exhaustive()
    }
}

impl PeerSecurity {
    /// Reads the properties of the listener that brokers use; what was read before stays after an error.
    pub fn configure(
        &self,
        listener: &str,
        protocol: SecurityProtocol,
        properties: &Arc<Properties>,
    ) -> Result<(), SecurityError> {
        let view = ListenerProperties::new(Arc::clone(properties), listener);
        let settings = Settings {
            tls: protocol.uses_tls().then(|| tls::client_config(&view)).transpose()?,
            login: protocol.uses_sasl().then(|| ClientLogin::read(&view)).transpose()?,
        };
        self.0.store(Some(Arc::new(settings)));
        Ok(())
    }

    /// As whom to authenticate on a new connection; `None`: there is no need to.
    pub(crate) fn login(&self) -> Option<ClientLogin> {
        self.0.load().as_ref().and_then(|settings| settings.login.clone())
    }

    /// Encrypts a new connection, where that is configured.
    pub(crate) async fn secure(&self, socket: TcpStream, host: &str) -> io::Result<Box<dyn PeerStream>> {
        let config = self.0.load().as_ref().and_then(|settings| settings.tls.clone());
        let Some(config) = config else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("{host} can stand on no certificate")))?;
        Ok(Box::new(TlsConnector::from(config).connect(name, socket).await?))
    }
}
