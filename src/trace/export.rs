//! Spans for an OpenTelemetry collector: one an operation of the cache, made when it has ended.
//!
//! What the standard's variables say is done by the SDK: `OTEL_EXPORTER_OTLP_ENDPOINT` (without which nothing is
//! exported), `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_...`
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). A thread of the SDK's own
//! exports, behind its bounded queue.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::{Caller, Ended};
use crate::model::Answer;

/// Without one of these there is nobody to export to.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// How long the end of the process waits for the last spans to go.
const LAST_EXPORT: Duration = Duration::from_secs(2);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The export while it runs; what is queued goes out when this is dropped.
pub struct Export(SdkTracerProvider);

impl Export {
    /// Starts exporting, if the environment says where to. Called once.
    ///
    /// # Errors
    /// What the environment says is not understood.
    pub fn start() -> Result<Option<Self>, opentelemetry_otlp::ExporterBuildError> {
        if ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
            return Ok(None);
        }
        let exporter =
            opentelemetry_otlp::SpanExporter::builder().with_http().with_protocol(Protocol::HttpJson).build()?;
        let resource = Resource::builder();
        let is_named = ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"].iter().any(|name| {
            std::env::var(name).is_ok_and(|value| *name == "OTEL_SERVICE_NAME" || value.contains("service.name"))
        });
        let resource = if is_named { resource } else { resource.with_service_name("sidecache") };
        let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
        let _ = TRACER.set(provider.tracer("sidecache"));
        Ok(Some(Self(provider)))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans may not have been exported");
        }
    }
}

/// Exports a span of this operation, as a child of the caller's.
pub(super) fn note(ended: &Ended<'_>, caller: Option<&Caller>) {
    let Some(tracer) = TRACER.get() else { return };
    let parent = caller.and_then(|caller| caller.trace).map_or_else(Context::new, |trace| {
        let remote = SpanContext::new(
            TraceId::from(trace.trace_id),
            SpanId::from(trace.parent_id),
            TraceFlags::new(trace.flags),
            true,
            TraceState::default(),
        );
        Context::new().with_remote_span_context(remote)
    });
    let end = SystemTime::now();
    let mut attributes = vec![
        KeyValue::new("sidecache.namespace", ended.namespace.to_owned()),
        KeyValue::new("sidecache.result", ended.answer.as_str()),
    ];
    if let Some(caller) = caller {
        let id = String::from_utf8_lossy(caller.request_id()).into_owned();
        attributes.push(KeyValue::new("sidecache.request_id", id));
    }
    let mut span = tracer
        .span_builder(format!("cache {}", ended.operation.as_str()))
        .with_kind(SpanKind::Server)
        .with_start_time(end.checked_sub(ended.latency).unwrap_or(end))
        .with_attributes(attributes)
        .start_with_context(tracer, &parent);
    if ended.answer == Answer::Failed {
        span.set_status(Status::error("the store failed"));
    }
    span.end_with_timestamp(end);
}
