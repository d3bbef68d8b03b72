//! What the system lets this process have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many open files as the administrator allows this process: shells hand out a soft limit of 1,024, which is a few hundred
/// connections and segments. Kafka's Java does the same. A refusal changes nothing.
pub(crate) fn take_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
