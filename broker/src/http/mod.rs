//! The HTTP port: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever restarts or routes to the node, and the console
//! for people. Plain, or within TLS ([`HttpSecurity`]).

mod incoming;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::incoming::HttpCaller;
use self::incoming::Incoming;
use crate::console::Console;
use crate::security::HttpSecurity;

/// The content type of the text format that `/metrics` answers in.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the probes and the metrics page need of a node, whatever roles it has.
#[derive(Default)]
pub struct NodeStatus {
    /// Why the node is not ready; empty when it is.
    not_ready: RwLock<Vec<(&'static str, String)>>,
    /// Writes metrics; one function a role.
    pages: RwLock<Vec<Box<dyn Fn() -> String + Send + Sync>>>,
}

impl NodeStatus {
    /// A node of which nothing is ready: every role adds itself by [`Self::set`].
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Says that `part` is not ready and why, or with `None` that it is.
    pub fn set(&self, part: &'static str, why_not: Option<String>) {
        let mut parts = self.not_ready.write();
        parts.retain(|(name, _)| *name != part);
        if let Some(why) = why_not {
            parts.push((part, why));
        }
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.not_ready.read().is_empty()
    }

    /// Adds a source of metrics.
    pub fn add_metrics(&self, page: impl Fn() -> String + Send + Sync + 'static) {
        self.pages.write().push(Box::new(page));
    }

    fn explain(&self) -> String {
        let parts = self.not_ready.read();
        parts.iter().fold(String::new(), |text, (part, why)| text + part + ": " + why + "\n")
    }

    fn metrics(&self) -> String {
        // Each page ends with the end marker of the format; only the last may stay.
        let mut text = String::new();
        for page in self.pages.read().iter() {
            text.push_str(page().trim_end_matches("# EOF\n"));
        }
        text.push_str("# EOF\n");
        text
    }
}

/// Serves the HTTP port, with `security` within TLS, until told to stop.
pub async fn serve(
    listener: TcpListener,
    status: Arc<NodeStatus>,
    console: Arc<Console>,
    security: Option<Arc<HttpSecurity>>,
    stopping: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(status)
        .merge(console.router())
        .into_make_service_with_connect_info::<HttpCaller>();
    let stopped = stopping.clone().cancelled_owned();
    match security {
        None => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
        Some(security) => {
            tokio::spawn(Arc::clone(&security).keep_fresh(stopping.clone()));
            let incoming = Incoming::new(listener, security, stopping)?;
            axum::serve(incoming, router).with_graceful_shutdown(stopped).await
        }
    }
}

async fn metrics(State(status): State<Arc<NodeStatus>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], status.metrics())
}

async fn readyz(State(status): State<Arc<NodeStatus>>) -> impl IntoResponse {
    if status.is_ready() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, status.explain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_every_part_is() {
        let status = NodeStatus::new();
        status.set("broker", Some("fenced".into()));
        status.set("controller", Some("no leader".into()));
        assert!(!status.is_ready());
        assert_eq!(status.explain(), "broker: fenced\ncontroller: no leader\n");
        status.set("broker", None);
        status.set("controller", None);
        assert!(status.is_ready());
    }

    #[test]
    fn pages_of_metrics_are_joined_under_one_end_marker() {
        let status = NodeStatus::new();
        status.add_metrics(|| "a 1\n# EOF\n".into());
        status.add_metrics(|| "b 2\n# EOF\n".into());
        assert_eq!(status.metrics(), "a 1\nb 2\n# EOF\n");
    }
}
