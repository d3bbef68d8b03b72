//! `ottla cluster await --local`: whether the node on this machine is ready, by `/readyz` of its HTTP port.
//!
//! It needs neither the cluster's other nodes nor a right on the admin plane, so that a container's health check says something
//! of this container and nothing of its neighbours. A port with TLS is not asked who it is, as by Kubernetes' probes: its
//! certificate need not name this machine's own address.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::Failure;
use crate::http_client;
use crate::node_config::HttpAddress;
use crate::output::Output;
use crate::parse::show_duration;

/// Where a node's HTTP port is when nobody says.
pub(super) const HTTP_DEFAULT: &str = "127.0.0.1:9644";
/// How often the node is asked.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize)]
struct Document {
    ready: bool,
}

/// Waits until the node says that it is ready. Blocks: nothing else runs in this process.
pub(super) fn wait(http: &str, limit: Duration, output: Output) -> anyhow::Result<()> {
    let address = HttpAddress::parse(http).map_err(|message| Failure::usage(format!("--http: {message}")))?;
    let address = http_client::reached(&address);
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        let why_not = match http_client::get(&address, "/readyz", left) {
            Ok(answer) if answer.status == 200 => {
                return output.done(&Document { ready: true }, |_| "ready".to_owned());
            }
            Ok(answer) => answer.body,
            Err(error) => format!("{address}: {error}"),
        };
        if Instant::now() + PAUSE >= deadline {
            let message = format!("not ready within {}: {why_not}", show_duration(limit));
            return Err(Failure::new(message).into());
        }
        std::thread::sleep(PAUSE);
    }
}
