//! The security of all listeners of a broker, and the task that keeps it up to date.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::credentials::Credentials;
use super::listener::ListenerSecurity;
use super::peer::PeerSecurity;
use super::properties::{ListenerProperties, Properties, merged};
use super::protocol::SecurityProtocol;
use super::{SecurityError, authority, tls};
use crate::controller_link::ImageHandle;

/// How often files of keys and certificates are looked at.
const FILES_CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Properties that security is made of.
const PREFIXES: [&str; 3] = ["ssl.", "sasl.", "connections.max.reauth.ms"];

/// The security of a broker.
pub(crate) struct NodeSecurity {
    listeners: Vec<Arc<ListenerSecurity>>,
    /// Name and protocol of the listener that brokers use among themselves.
    between_brokers: Option<(String, SecurityProtocol)>,
    peers: PeerSecurity,
    pub(crate) credentials: Credentials,
    file: Arc<Properties>,
    node_id: i32,
    /// What the listeners were last read from.
    seen: Mutex<Sources>,
}

/// What a reload depends on.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    properties: Properties,
    files: BTreeMap<PathBuf, Option<SystemTime>>,
}

impl NodeSecurity {
    /// Reads everything that the listeners need. The error names the property.
    pub(crate) fn open(
        listeners: &[(String, SecurityProtocol)],
        inter_broker_listener: &str,
        peers: PeerSecurity,
        file: Arc<Properties>,
        node_id: i32,
    ) -> Result<Arc<Self>, SecurityError> {
        let credentials = Credentials::default();
        let opened = listeners
            .iter()
            .map(|(name, protocol)| {
                ListenerSecurity::open(name, *protocol, &file, credentials.clone())
                    .map(Arc::new)
                    .map_err(|error| error.of_listener(name))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let between_brokers = listeners.iter().find(|(name, _)| name == inter_broker_listener).cloned();
        if let Some((name, protocol)) = &between_brokers {
            peers.configure(name, *protocol, &file).map_err(|error| error.of_listener(name))?;
        }
        let seen = Mutex::new(sources(opened.iter().map(|listener| listener.name()), &file));
        Ok(Arc::new(Self { listeners: opened, between_brokers, peers, credentials, file, node_id, seen }))
    }

    /// The security of a listener.
    pub(crate) fn listener(&self, name: &str) -> Option<Arc<ListenerSecurity>> {
        self.listeners.iter().find(|listener| listener.name() == name).cloned()
    }

    /// The security of all listeners.
    pub(crate) fn listeners(&self) -> &[Arc<ListenerSecurity>] {
        &self.listeners
    }

    /// Whether a property is one that security is made of.
    pub(crate) fn depends_on(name: &str) -> bool {
        PREFIXES.iter().any(|prefix| name.contains(prefix))
    }

    /// Whether the listeners could be protected with these properties. Reads files: not for a worker of the runtime.
    pub(crate) fn check(&self, properties: &Arc<Properties>) -> Result<(), SecurityError> {
        let check = |listener: &Arc<ListenerSecurity>| {
            listener.check(properties).map_err(|error| error.of_listener(listener.name()))
        };
        self.listeners.iter().try_for_each(check)
    }

    /// Starts what keeps it up to date: properties that change, files that change, keys of authorities.
    pub(crate) fn start(self: &Arc<Self>, image: ImageHandle, tasks: &TaskTracker, stop: &CancellationToken) {
        let (security, token) = (Arc::clone(self), stop.child_token());
        tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = security.keep_fresh(image) => {}
            }
        });
        for listener in &self.listeners {
            if let Some((url, keys)) = listener.authority() {
                let view = ListenerProperties::new(Arc::clone(&self.file), listener.name());
                let fetching = authority::keep_fresh(url.to_owned(), view, Arc::clone(keys));
                let token = stop.child_token();
                tasks.spawn(async move {
                    tokio::select! {
                        () = token.cancelled() => {}
                        () = fetching => {}
                    }
                });
            }
        }
    }

    async fn keep_fresh(self: Arc<Self>, image: ImageHandle) {
        let is_plain =
            |listener: &Arc<ListenerSecurity>| listener.tls().is_none() && listener.sasl().is_none();
        if self.listeners.iter().all(is_plain) {
            return;
        }
        let mut index = image.watch();
        let mut pause = tokio::time::interval(FILES_CHECK_PERIOD);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut configs = None;
        loop {
            let is_tick = tokio::select! {
                changed = index.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = pause.tick() => true,
            };
            // Most entries of the metadata have nothing to do with this.
            let current = Arc::new(merged(&self.file, &image.current(), self.node_id));
            if !is_tick && configs.as_ref() == Some(&current) {
                continue;
            }
            configs = Some(Arc::clone(&current));
            let this = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.refresh(&current)).await {
                tracing::error!(%error, "security could not be looked at");
                return;
            }
        }
    }

    /// Reads everything anew if something changed since the last time. A fault is told once, not at every look.
    fn refresh(&self, properties: &Arc<Properties>) {
        let sources = sources(self.listeners.iter().map(|listener| listener.name()), properties);
        if std::mem::replace(&mut *self.seen.lock(), sources.clone()) != sources {
            for listener in &self.listeners {
                match listener.reload(properties) {
                    Ok(()) => tracing::info!(listener = listener.name(), "security was read anew"),
                    Err(error) => {
                        tracing::error!(listener = listener.name(), %error, "security stays as it was");
                    }
                }
            }
            if let Some((name, protocol)) = &self.between_brokers
                && let Err(error) = self.peers.configure(name, *protocol, properties)
            {
                tracing::error!(%error, "the way to other brokers stays as it was");
            }
        }
    }
}

/// What the security of listeners, by their names, is made of.
pub(super) fn sources<'a>(
    listeners: impl IntoIterator<Item = &'a str>,
    properties: &Arc<Properties>,
) -> Sources {
    let mut sources = Sources::default();
    for listener in listeners {
        let view = ListenerProperties::new(Arc::clone(properties), listener);
        sources.properties.extend(view.fingerprint(&PREFIXES));
        for file in tls::files(&view) {
            let modified = std::fs::metadata(&file).and_then(|metadata| metadata.modified()).ok();
            sources.files.insert(file, modified);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::generate_simple_self_signed;

    use super::*;

    fn pem() -> String {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        made.cert.pem() + &made.signing_key.serialize_pem()
    }

    fn node(location: &str) -> Arc<NodeSecurity> {
        let pairs = [("ssl.keystore.type", "PEM"), ("listener.name.tls.ssl.keystore.location", location)];
        let file = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let listeners =
            [("TLS".to_owned(), SecurityProtocol::Ssl), ("P".to_owned(), SecurityProtocol::Plaintext)];
        NodeSecurity::open(&listeners, "P", PeerSecurity::default(), Arc::new(file), 1).unwrap()
    }

    #[test]
    fn a_file_that_changed_is_read_and_a_broken_one_leaves_the_last_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.pem");
        fs::write(&path, pem()).unwrap();
        let node = node(path.to_str().unwrap());
        let listener = node.listener("TLS").unwrap();
        let first = listener.tls().unwrap();
        node.refresh(&node.file);
        assert!(Arc::ptr_eq(&first, &listener.tls().unwrap()));

        let touch = |seconds| {
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
        };
        fs::write(&path, pem()).unwrap();
        touch(10);
        node.refresh(&node.file);
        let second = listener.tls().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));

        fs::write(&path, "nonsense").unwrap();
        touch(20);
        node.refresh(&node.file);
        assert!(Arc::ptr_eq(&second, &listener.tls().unwrap()));
    }

    #[test]
    fn a_change_that_breaks_a_listener_is_found_before_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.pem");
        fs::write(&path, pem()).unwrap();
        let node = node(path.to_str().unwrap());
        let name = "listener.name.tls.ssl.keystore.location".to_owned();
        let check = |value: Option<&str>| {
            let mut changed = (*node.file).clone();
            match value {
                Some(value) => changed.insert(name.clone(), value.to_owned()),
                None => changed.remove(&name),
            };
            node.check(&Arc::new(changed))
        };
        assert!(check(path.to_str()).is_ok());
        let error = check(Some("/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("ssl.keystore.location of the listener TLS: /nowhere"), "{error}");
        assert!(check(None).is_err());
        assert!(NodeSecurity::depends_on(&name) && !NodeSecurity::depends_on("log.retention.ms"));
    }
}
