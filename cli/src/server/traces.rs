//! Spans of requests to an OpenTelemetry collector, by OTLP over gRPC (`ottla.otlp.endpoint`).
//!
//! Spans leave in batches from a thread of their own; when the collector is slow or away, they are dropped, and nobody waits. The
//! environment says which are kept and what the node is called there, as every OpenTelemetry SDK reads it: `OTEL_TRACES_SAMPLER`
//! (such as `traceidratio`), `OTEL_TRACES_SAMPLER_ARG`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// What spans carry as their target.
const TARGET: &str = "ottla::span";
/// The service's name where the environment gives none.
const SERVICE: &str = "ottla";

/// The layer that sends spans; to be made within a runtime. An endpoint that makes no sense is told, and nothing sent.
pub(super) fn layer<S>(endpoint: &str) -> Option<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let exporter = match SpanExporter::builder().with_tonic().with_endpoint(endpoint).build() {
        Ok(exporter) => exporter,
        Err(error) => {
            // Logging has not begun.
            eprintln!("no spans are sent: ottla.otlp.endpoint={endpoint}: {error}");
            return None;
        }
    };
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(SERVICE);
    }
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer(SERVICE);
    // Its threads live as long as it does.
    opentelemetry::global::set_tracer_provider(provider);
    let filter = Targets::new().with_target(TARGET, LevelFilter::TRACE);
    Some(Box::new(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Bytes;
    use axum::routing::post;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tonic::service::Routes;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_reach_a_collector_and_other_spans_do_not() {
        let (sender, mut bodies) = mpsc::unbounded_channel();
        let export = move |body: Bytes| {
            let sent = sender.send(body);
            async move {
                assert!(sent.is_ok());
                ([("content-type", "application/grpc"), ("grpc-status", "0")], "")
            }
        };
        let router = axum::Router::new().route(EXPORT, post(export));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_routes(Routes::from(router));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

        let subscriber = tracing_subscriber::registry().with(layer(&format!("http://{address}")).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            drop(tracing::trace_span!(target: "ottla::span", "request", otel.name = "CreateTopics"));
            drop(tracing::trace_span!(target: "hyper", "not ours"));
        });
        let body = tokio::time::timeout(Duration::from_secs(30), bodies.recv()).await.unwrap().unwrap();
        let has = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("CreateTopics") && has("service.name") && has("ottla"));
        assert!(!has("not ours"));
    }
}
