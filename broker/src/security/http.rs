//! TLS of the HTTP port, by the same properties as Kafka listeners: `listener.name.http.ssl.*`, or those for all.
//!
//! A caller's certificate is asked for only where `listener.name.http.ssl.client.auth` says so, as on listeners with SASL: probes
//! and browsers have none. Whoever shows one is known by it, by the rules of `ssl.principal.mapping.rules`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::node::{Sources, sources};
use super::principal::Principal;
use super::principal_mapping::PrincipalMapping;
use super::properties::{ListenerProperties, Properties, merged};
use super::{SecurityError, tls};
use crate::controller_link::ImageHandle;

/// The listener that the port's properties are named by.
pub const HTTP_LISTENER: &str = "HTTP";
/// What is spoken within TLS.
const HTTP1: &[u8] = b"http/1.1";
/// How often files and properties are looked at.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// The protection of the HTTP port.
pub struct HttpSecurity {
    config: ArcSwap<ServerConfig>,
    mapping: PrincipalMapping,
    file: Arc<Properties>,
    /// Where properties are that were set while the node runs.
    image: ImageHandle,
    node_id: i32,
    /// What the configuration was last read from.
    seen: Mutex<Sources>,
}

impl HttpSecurity {
    /// Reads key and certificates. The error names the property.
    pub fn open(
        file: &Arc<Properties>,
        image: ImageHandle,
        node_id: i32,
    ) -> Result<Arc<Self>, SecurityError> {
        const RULES: &str = "ssl.principal.mapping.rules";
        let error = |error: SecurityError| error.of_listener(HTTP_LISTENER);
        let view = ListenerProperties::new(Arc::clone(file), HTTP_LISTENER);
        let mapping = PrincipalMapping::parse(view.get(RULES))
            .map_err(|message| error(SecurityError::new(RULES, message)))?;
        Ok(Arc::new(Self {
            config: ArcSwap::new(read(file).map_err(error)?),
            mapping,
            file: Arc::clone(file),
            image,
            node_id,
            seen: Mutex::new(sources([HTTP_LISTENER], file)),
        }))
    }

    /// What a new connection is answered with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Who shows these certificates; `None`: nobody is shown, or no rule names it.
    pub(crate) fn principal(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<Principal> {
        self.mapping.name(&tls::subject(certificates)?).map(Principal::user)
    }

    /// Reads everything anew when a file or a property changes, for connections that come after it, until `stop`.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK_PERIOD) => {}
                () = stop.cancelled() => return,
            }
            let this = Arc::clone(&self);
            // Files are read: not for a worker of the runtime.
            if let Err(error) = tokio::task::spawn_blocking(move || this.refresh()).await {
                tracing::error!(%error, "the security of the HTTP port could not be looked at");
            }
        }
    }

    /// A fault is told once, not at every look; the last good configuration stays.
    fn refresh(&self) {
        let properties = Arc::new(merged(&self.file, &self.image.current(), self.node_id));
        let sources = sources([HTTP_LISTENER], &properties);
        if std::mem::replace(&mut *self.seen.lock(), sources.clone()) == sources {
            return;
        }
        match read(&properties) {
            Ok(config) => {
                self.config.store(config);
                tracing::info!(listener = HTTP_LISTENER, "security was read anew");
            }
            Err(error) => {
                tracing::error!(listener = HTTP_LISTENER, %error, "security stays as it was");
            }
        }
    }
}

fn read(properties: &Arc<Properties>) -> Result<Arc<ServerConfig>, SecurityError> {
    let view = ListenerProperties::new(Arc::clone(properties), HTTP_LISTENER);
    let mut config = ServerConfig::clone(&*tls::server_config(&view, tls::ClientAuth::OfListenerAlone)?);
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn pem() -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        made.cert.pem() + &made.signing_key.serialize_pem()
    }

    fn open(pairs: &[(&str, &str)]) -> Result<Arc<HttpSecurity>, SecurityError> {
        let file = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HttpSecurity::open(&Arc::new(file), ImageHandle::default(), 1)
    }

    #[test]
    fn its_own_properties_count_before_those_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.pem");
        std::fs::write(&path, pem()).unwrap();
        let path = path.to_str().unwrap();
        let all = ("ssl.keystore.location", "/nowhere");
        let kind = ("ssl.keystore.type", "PEM");
        assert!(open(&[kind, all, ("listener.name.http.ssl.keystore.location", path)]).is_ok());
        let error = open(&[kind, all]).err().unwrap().to_string();
        assert!(error.starts_with("ssl.keystore.location of the listener HTTP: /nowhere"), "{error}");
        let error = open(&[]).err().unwrap().to_string();
        assert!(error.contains("is missing"), "{error}");
        // Certificates that Kafka clients must show are not asked of probes.
        let required = ("ssl.client.auth", "required");
        let location = ("ssl.keystore.location", path);
        assert!(open(&[kind, location, required, ("ssl.truststore.location", "/nowhere")]).is_ok());
        let own = ("listener.name.http.ssl.client.auth", "required");
        assert!(open(&[kind, location, own, ("ssl.truststore.location", "/nowhere")]).is_err());
    }

    #[test]
    fn a_file_that_changed_is_read_and_a_broken_one_leaves_the_last_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.pem");
        let write = |text: &str, seconds| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
        };
        write(&pem(), 0);
        let security =
            open(&[("ssl.keystore.type", "PEM"), ("ssl.keystore.location", path.to_str().unwrap())]).unwrap();
        let first = security.config();
        security.refresh();
        assert!(Arc::ptr_eq(&first, &security.config()));
        write(&pem(), 10);
        security.refresh();
        let second = security.config();
        assert!(!Arc::ptr_eq(&first, &second));
        write("nonsense", 20);
        security.refresh();
        assert!(Arc::ptr_eq(&second, &security.config()));
    }
}
