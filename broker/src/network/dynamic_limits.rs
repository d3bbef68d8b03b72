//! Limits of connections as they hold now: what is set while the broker runs (KIP-612, KIP-402) before what it began with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ottla_metadata::config::broker_value;
use ottla_metadata::image::MetadataImage;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::{ConnectionLimits, ConnectionMaxima, ConnectionRates};
use crate::controller_link::ImageHandle;
use crate::options::BrokerOptions;

/// `address:count,…`; what cannot be read is left out, as Kafka leaves out hosts that it cannot resolve.
fn overrides(text: &str) -> HashMap<IpAddr, usize> {
    let one = |item: &str| {
        let (address, count) = item.trim().rsplit_once(':')?;
        Some((address.trim_matches(['[', ']']).parse().ok()?, count.trim().parse().ok()?))
    };
    text.split(',').filter_map(one).collect()
}

/// Reads the limits out of an image.
struct Reader<'a> {
    image: &'a MetadataImage,
    options: &'a BrokerOptions,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        broker_value(self.image, &self.options.properties, Some(self.options.node_id), name)
    }

    fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        self.text(name)?.trim().parse().ok()
    }

    fn of_listeners<N: FromStr>(&self, property: &str) -> HashMap<String, N> {
        let of = |name: &str| {
            let property = format!("listener.name.{}.{property}", name.to_ascii_lowercase());
            // Without one of its own the listener has only the node's limit.
            let is_set = |kind: &str| {
                let set = self.image.config(ottla_proto::metadata::ResourceType::Broker, kind);
                set.is_some_and(|set| set.contains_key(&property))
            };
            let own = self.options.node_id.to_string();
            (is_set(&own) || is_set("") || self.options.properties.contains_key(&property))
                .then(|| self.number(&property))
                .flatten()
        };
        let listeners = self.options.listeners.iter();
        listeners.filter_map(|listener| Some((listener.name.clone(), of(&listener.name)?))).collect()
    }

    fn maxima(&self) -> ConnectionMaxima {
        let began_with = &self.options.connections_max;
        ConnectionMaxima {
            node: self.number("max.connections").unwrap_or(began_with.node),
            listeners: self.of_listeners("max.connections"),
            protected_listener: began_with.protected_listener.clone(),
            address: self.number("max.connections.per.ip").unwrap_or(began_with.address),
            address_overrides: overrides(self.text("max.connections.per.ip.overrides").unwrap_or_default()),
        }
    }

    fn rates(&self) -> ConnectionRates {
        const NAME: &str = "max.connection.creation.rate";
        // The greatest number stands for no limit.
        let node = self.number::<i32>(NAME).filter(|rate| *rate != i32::MAX).map(f64::from);
        ConnectionRates { node, listeners: self.of_listeners(NAME) }
    }
}

/// Keeps limits as the metadata says, until `stop`.
pub(crate) fn follow(
    limits: &Arc<ConnectionLimits>,
    options: &BrokerOptions,
    image: &ImageHandle,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (limits, options, image, stop) = (Arc::clone(limits), options.clone(), image.clone(), stop.clone());
    tasks.spawn(async move {
        let mut index = image.watch();
        loop {
            let current = image.current();
            let reader = Reader { image: &current, options: &options };
            limits.change(reader.maxima(), reader.rates());
            tokio::select! {
                () = stop.cancelled() => return,
                changed = index.changed() => if changed.is_err() { return },
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_addresses_and_counts() {
        let found = overrides("127.0.0.1:5,[::1]:6, nonsense,x:1,127.0.0.2:y");
        assert_eq!(found.len(), 2);
        assert_eq!(found[&IpAddr::from([127, 0, 0, 1])], 5);
    }
}
