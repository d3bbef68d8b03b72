//! What is set on resources, spread over shards behind reference counts: a change copies its shard and its resource, for a
//! cluster may have a config of its own on each of very many topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::image::{ConfigResource, SHARDS, name_shard};

/// Values by name.
type Values = Arc<BTreeMap<String, String>>;

/// The configs of all resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configs(Vec<Arc<BTreeMap<Arc<ConfigResource>, Values>>>);

impl Default for Configs {
    fn default() -> Self {
        Self(vec![Arc::default(); SHARDS])
    }
}

impl Configs {
    /// What is set on a resource.
    pub(crate) fn get(&self, resource: &ConfigResource) -> Option<&BTreeMap<String, String>> {
        self.0[name_shard(&resource.name)].get(resource).map(|values| &**values)
    }

    /// All resources, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ConfigResource, &BTreeMap<String, String>)> {
        self.0.iter().flat_map(|shard| shard.iter()).map(|(resource, values)| (&**resource, &**values))
    }

    /// Names of the resources of a kind, in order.
    pub(crate) fn names(&self, kind: i32) -> Vec<&str> {
        let from = ConfigResource { kind, name: String::new() };
        let of_kind = self.0.iter().flat_map(|shard| {
            shard
                .range::<ConfigResource, _>(&from..)
                .map(|(resource, _)| resource)
                .take_while(|resource| resource.kind == kind)
        });
        let mut names: Vec<&str> = of_kind.map(|resource| resource.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Sets one value, or removes it. A resource without values is not there.
    pub(crate) fn set(&mut self, resource: &ConfigResource, name: &str, value: Option<&str>) {
        let shard = Arc::make_mut(&mut self.0[name_shard(&resource.name)]);
        let Some(value) = value else {
            let Some(values) = shard.get_mut(resource) else { return };
            Arc::make_mut(values).remove(name);
            if values.is_empty() {
                shard.remove(resource);
            }
            return;
        };
        // A key that is there already is shared, not copied.
        match shard.get_mut(resource) {
            Some(values) => drop(Arc::make_mut(values).insert(name.to_owned(), value.to_owned())),
            None => {
                let values = BTreeMap::from([(name.to_owned(), value.to_owned())]);
                shard.insert(Arc::new(resource.clone()), Arc::new(values));
            }
        }
    }

    /// Removes all that is set on a resource.
    pub(crate) fn remove(&mut self, resource: &ConfigResource) {
        if self.get(resource).is_some() {
            Arc::make_mut(&mut self.0[name_shard(&resource.name)]).remove(resource);
        }
    }
}
